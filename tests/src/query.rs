//! What tests ask a host most often, as values.

use serde_json::Value;

use crate::host::Host;

impl Host {
    /// The links as `ip -details -json link` shows them.
    #[must_use]
    pub fn links(&self) -> Vec<Value> {
        self.json(&["ip", "-details", "-json", "link"])
    }

    /// One link, `None` when there is none of that name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<Value> {
        self.links().into_iter().find(|link| link["ifname"] == name)
    }

    /// The names of a bridge's ports, sorted; empty also when there is no such bridge.
    #[must_use]
    pub fn ports(&self, bridge: &str) -> Vec<String> {
        let mut ports: Vec<_> = self
            .json(&["ip", "-json", "link"])
            .iter()
            .filter(|link| link["master"] == bridge)
            .filter_map(|link| link["ifname"].as_str().map(str::to_owned))
            .collect();
        ports.sort_unstable();
        ports
    }

    /// The IPv4 addresses of a link, as `192.168.100.1/24`.
    #[must_use]
    pub fn addresses(&self, link: &str) -> Vec<String> {
        self.json(&["ip", "-4", "-json", "address"])
            .iter()
            .filter(|entry| entry["ifname"] == link)
            .filter_map(|entry| entry["addr_info"].as_array())
            .flatten()
            .map(|address| {
                let local = address["local"].as_str().unwrap_or_default();
                format!("{local}/{}", address["prefixlen"])
            })
            .collect()
    }

    /// The text of an nf_tables table, `None` when there is none.
    #[must_use]
    pub fn nft(&self, family: &str, table: &str) -> Option<String> {
        let output = self.run(&["nft", "list", "table", family, table]);
        output.success().then_some(output.stdout)
    }

    /// The names of the nf_tables tables, as `ip kvmnet-default`.
    #[must_use]
    pub fn nft_tables(&self) -> Vec<String> {
        let list = self.run(&["nft", "list", "tables"]).expect("nft list tables");
        list.lines().filter_map(|line| line.strip_prefix("table ")).map(str::to_owned).collect()
    }

    /// How many rules hold a word, whichever program made them: `count_rules("masquerade")`.
    #[must_use]
    pub fn count_rules(&self, word: &str) -> usize {
        let mut rules = self.run(&["nft", "list", "ruleset"]).expect("nft list ruleset");
        // The rules of the older kernel interface aren't shown by nft.
        if self.sh("command -v iptables-legacy-save").success() {
            rules += &self.ok("iptables-legacy-save; ip6tables-legacy-save");
        }
        let word = word.to_lowercase();
        rules
            .lines()
            .map(|line| line.trim().to_lowercase())
            // Not the lines of nft that open a table or a chain, whose names may hold the word.
            .filter(|line| !line.ends_with('{') && line.contains(&word))
            .count()
    }

    /// A kernel setting, by its path under `/proc/sys`.
    #[must_use]
    pub fn sysctl(&self, path: &str) -> String {
        self.run(&["cat", &format!("/proc/sys/{path}")]).expect(path).trim().to_owned()
    }

    /// What a program prints as a JSON list.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<Value> {
        let what = arguments.join(" ");
        let text = self.run(arguments).expect(&what);
        // ip prints nothing at all where the list is empty.
        if text.trim().is_empty() {
            return Vec::new();
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"))
    }
}
