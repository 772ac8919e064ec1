//! What `iptables -S` says of a table.

use std::collections::HashMap;

use kvmnet_core::model::{CHAIN_PREFIX, DOCKER_USER, FORWARD, NetworkName};

/// What a network's chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What is forwarded.
    Forward,
    /// What comes to the host itself.
    Input,
    /// Masquerading.
    Postrouting,
}

impl Purpose {
    const ALL: [Self; 3] = [Self::Forward, Self::Input, Self::Postrouting];

    fn ending(self) -> &'static str {
        match self {
            Self::Forward => "-FWD",
            Self::Input => "-IN",
            Self::Postrouting => "-POST",
        }
    }

    /// The name of a network's chain: of the 28 bytes that there may be it takes 27 at the most.
    #[must_use]
    pub fn chain(self, network: &NetworkName) -> String {
        format!("{CHAIN_PREFIX}{network}{}", self.ending())
    }
}

/// The network whose chain that is; none where it is somebody else's.
#[must_use]
pub fn network_of(chain: &str) -> Option<NetworkName> {
    let rest = chain.strip_prefix(CHAIN_PREFIX)?;
    let name = Purpose::ALL.into_iter().find_map(|purpose| rest.strip_suffix(purpose.ending()))?;
    NetworkName::parse(name)
}

/// A table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its chains.
    pub chains: Vec<Chain>,
}

/// A chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Of a built-in chain what becomes of what no rule speaks of.
    pub policy: Option<String>,
    /// Its rules in order, as they are printed behind the chain's name.
    pub rules: Vec<String>,
}

impl Listing {
    /// Reads what `iptables -S` prints. A line of another kind says nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut listing = Self::default();
        // Some hosts have thousands of chains.
        let mut places = HashMap::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, ' ');
            let (Some(command), Some(name)) = (parts.next(), parts.next()) else { continue };
            let rest = parts.next().unwrap_or_default();
            match command {
                "-P" => listing.chain_mut(&mut places, name).policy = Some(rest.to_owned()),
                "-N" => drop(listing.chain_mut(&mut places, name)),
                "-A" => listing.chain_mut(&mut places, name).rules.push(rest.to_owned()),
                _ => {}
            }
        }
        listing
    }

    fn chain_mut<'a>(&mut self, places: &mut HashMap<&'a str, usize>, name: &'a str) -> &mut Chain {
        let at = *places.entry(name).or_insert_with(|| {
            self.chains.push(Chain { name: name.to_owned(), ..Chain::default() });
            self.chains.len() - 1
        });
        &mut self.chains[at]
    }

    /// The chain of that name.
    #[must_use]
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }

    /// The networks that have anything here.
    pub fn networks(&self) -> impl Iterator<Item = NetworkName> {
        self.chains.iter().filter_map(|chain| network_of(&chain.name))
    }

    /// Whether the forward filter lets through only what its rules name: the policy is drop, or the
    /// last rule stops all that is left.
    #[must_use]
    pub fn drops(&self) -> bool {
        let last = self.chain(FORWARD).and_then(|forward| forward.rules.last());
        let target = last.and_then(|rule| unconditional(rule));
        self.drops_by_policy() || target.is_some_and(|to| to == "DROP" || to == "REJECT")
    }

    /// Whether it is the forward filter's policy that drops.
    #[must_use]
    pub fn drops_by_policy(&self) -> bool {
        let forward = self.chain(FORWARD);
        forward.is_some_and(|forward| forward.policy.as_deref() == Some("DROP"))
    }

    /// The chain of the forward filter that rules of others belong in: Docker's `DOCKER-USER`, where
    /// packets come by that, else `FORWARD`.
    #[must_use]
    pub fn forward_chain(&self) -> &'static str {
        let comes_by = |rule: &String| unconditional(rule).is_some_and(|to| to == DOCKER_USER);
        let forward = self.chain(FORWARD);
        let is_docker = self.chain(DOCKER_USER).is_some()
            && forward.is_some_and(|forward| forward.rules.iter().any(comes_by));
        if is_docker { DOCKER_USER } else { FORWARD }
    }
}

/// The words of a rule, without the quotes around any.
#[must_use]
pub fn words(rule: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = None;
    let mut is_quoted = false;
    let mut characters = rule.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                is_quoted = !is_quoted;
                word.get_or_insert_with(String::new);
            }
            '\\' if is_quoted => word.get_or_insert_with(String::new).extend(characters.next()),
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_with(String::new).push(character),
        }
    }
    words.extend(word);
    words
}

/// The chain or target of a rule that holds for every packet.
fn unconditional(rule: &str) -> Option<String> {
    let words = words(rule);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut rest = &words[..];
    while let ["-m", "comment", "--comment", _, behind @ ..] = rest {
        rest = behind;
    }
    match rest {
        ["-j", target, ..] => Some((*target).to_owned()),
        _ => None,
    }
}

/// The chain or target that a rule leads to.
#[must_use]
pub fn target(rule: &str) -> Option<String> {
    let words = words(rule);
    let at = words.iter().rposition(|word| word == "-j" || word == "-g")?;
    words.get(at + 1).cloned()
}

#[cfg(test)]
mod tests {
    use kvmnet_fuzz::{Damage, damaged};

    use super::*;

    #[test]
    fn no_listing_is_too_strange() {
        const PIECES: [&str; 16] = [
            "-P ",
            "-N ",
            "-A ",
            "FORWARD",
            "DOCKER-USER",
            "KVMNET-",
            "-FWD",
            " -j ",
            "DROP",
            "\"",
            "\\",
            "'",
            "\n",
            " ",
            "-m comment --comment ",
            "\u{202e}",
        ];
        bolero::check!().with_type::<Vec<Damage>>().for_each(|damages| {
            let bytes = damaged(&[DOCKER], 0, damages, &PIECES);
            let listing = Listing::parse(&String::from_utf8_lossy(&bytes));
            let _ = (listing.drops(), listing.drops_by_policy(), listing.forward_chain());
            for network in listing.networks() {
                let chains = Purpose::ALL.map(|purpose| purpose.chain(&network));
                assert!(chains.iter().any(|chain| listing.chain(chain).is_some()), "{network}");
            }
            for rule in listing.chains.iter().flat_map(|chain| &chain.rules) {
                let _ = (words(rule), target(rule));
            }
        });
    }

    const DOCKER: &str = r#"-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER-USER
-N KVMNET-lab-FWD
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -m comment --comment "kvmnet:lab" -j KVMNET-lab-FWD
-A DOCKER-USER -j RETURN
-A KVMNET-lab-FWD -o br0 -m comment --comment kvmnet-lab -j DROP
# Warning: iptables-legacy tables present, use iptables-legacy to see them
"#;

    #[test]
    fn a_table_is_read() {
        let listing = Listing::parse(DOCKER);
        let names: Vec<&str> = listing.chains.iter().map(|chain| chain.name.as_str()).collect();
        assert_eq!(names, ["INPUT", "FORWARD", "OUTPUT", "DOCKER-USER", "KVMNET-lab-FWD"]);
        assert_eq!(listing.chain("FORWARD").unwrap().policy.as_deref(), Some("DROP"));
        let jump = &listing.chain("DOCKER-USER").unwrap().rules[0];
        assert_eq!(words(jump)[3], "kvmnet:lab");
        assert_eq!(target(jump).as_deref(), Some("KVMNET-lab-FWD"));
        assert_eq!(listing.networks().map(|name| name.to_string()).collect::<Vec<_>>(), ["lab"]);
        assert!(listing.drops());
        assert_eq!(listing.forward_chain(), "DOCKER-USER");
    }

    #[test]
    fn a_chain_that_no_packet_comes_by_is_no_place_for_rules() {
        let listing = Listing::parse("-P FORWARD ACCEPT\n-N DOCKER-USER\n");
        assert_eq!((listing.forward_chain(), listing.drops()), ("FORWARD", false));
    }

    #[test]
    fn what_stops_all_that_is_left() {
        for (last, drops) in [
            ("-j DROP", true),
            ("-j REJECT --reject-with icmp-host-prohibited", true),
            ("-i eno1 -j DROP", false),
            ("-j ACCEPT", false),
            ("-j ufw-track-forward", false),
            ("-m comment --comment \"a -j DROP\" -j ACCEPT", false),
            ("-m comment --comment \"all else\" -j DROP", true),
            ("-m comment --comment \"all of eno1\" -i eno1 -j DROP", false),
            ("-m comment --comment one -m comment --comment \"of two\" -j DROP", true),
        ] {
            let listing = Listing::parse(&format!("-P FORWARD ACCEPT\n-A FORWARD {last}\n"));
            assert_eq!(listing.drops(), drops, "{last}");
        }
    }

    #[test]
    fn chains_have_their_networks_names_and_fit() {
        for name in ["lab", "a-post", "fifteen-letters", "0_-"] {
            let network = NetworkName::parse(name).unwrap();
            for purpose in Purpose::ALL {
                let chain = purpose.chain(&network);
                assert!(chain.len() <= 28, "{chain}");
                assert_eq!(network_of(&chain), Some(network.clone()));
            }
        }
        for other in ["KVMNET", "KVMNET-lab", "KVMNET--FWD", "KVMNET-LAB-FWD", "X-lab-FWD"] {
            assert_eq!(network_of(other), None, "{other}");
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic() {
        for cut in 0..DOCKER.len() {
            let listing = Listing::parse(&DOCKER[cut..]);
            for rule in listing.chains.iter().flat_map(|chain| &chain.rules) {
                let _ = (words(rule), target(rule));
            }
            let _ = (listing.drops(), words(&DOCKER[..cut]));
        }
    }
}
