//! What is built, as the documents show it.

use kvmnet_core::model::{InterfaceName, ManagedNetwork, Mode, NetworkName};
use kvmnet_core::{config, plan};

use crate::read;

#[test]
fn the_rules_are_those_that_are_installed() {
    let table = plan::table_of(&config::default_nat()).expect("it has rules").to_string();
    assert!(read("docs/nat.md").contains(&table), "docs/nat.md lacks:\n{table}");
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rules = table.lines().map(str::trim).filter(|line| !line.starts_with("table"));
    let manual = squeeze(&read("docs/man/kvmnet-natup.8").replace("\\e\n", " "));
    let mut count = 0;
    for rule in rules.filter(|line| line.contains(' ')) {
        assert!(manual.contains(&squeeze(rule)), "kvmnet-natup.8 lacks: {rule}");
        count += 1;
    }
    assert!(count > 10, "the table is not read as it should be:\n{table}");
}

/// The examples of the other modes, as their pages have them.
#[test]
fn the_rules_of_each_mode_are_those_that_are_installed() {
    let address = "10.77.0.1/24".parse().expect("it is one");
    for (document, name, mode) in [
        ("docs/routed.md", "dmz", Mode::Routed(address)),
        ("docs/isolated.md", "cell", Mode::Isolated),
    ] {
        let network = NetworkName::parse(name).expect("it is valid");
        let bridge = InterfaceName::parse(name.as_ref()).expect("it is valid");
        let network = ManagedNetwork::new(network, bridge, mode);
        let table = plan::table_of(&network).expect("it has rules").to_string();
        assert!(read(document).contains(&table), "{document} lacks:\n{table}");
    }
}

#[test]
fn the_defaults_are_those_of_the_code() {
    let network = config::default_nat();
    let address = network.mode.address().expect("NAT has one");
    let table = network.table().to_string();
    for document in ["docs/from-scripts.md", "docs/nat.md", "docs/man/kvmnet-natup.8"] {
        let text = read(document);
        let wanted = [
            address.to_string(),
            address.trunc().to_string(),
            network.bridge.to_string(),
            kvmnet_core::model::Mac::of_bridge(&network.name).to_string(),
            kvmnet_core::model::Mark::of(&network.name).to_string(),
            table.clone(),
        ];
        for fact in wanted {
            assert!(text.contains(&fact), "{document} lacks {fact}");
        }
    }
}
