//! Network files with every kind of damage: none brings a run down, and what is refused is refused in
//! one line that says where.

use std::path::Path;

use kvmnet_fuzz::{Damage, damaged};

use super::file::parse;
use crate::model::{Network, NetworkName};
use crate::output::printable;
use crate::plan::table_of;

const FILES: [&str; 6] = [
    "mode = \"nat\"\naddress = \"192.168.100.1/24\"\ntaps = [\"vnet*\", \"tap?\"]\n",
    "mode = \"routed\"\nbridge = \"br-lab\"\naddress = \"10.9.0.1/16\"\nforwarding = \"interfaces\"\n",
    "mode = \"isolated\" # among themselves\r\nfirewall = \"none\"\r\nmtu = 9000\r\n",
    "mode = 'bridged'\nbridge = 'br0'\ntaps = ['lan*']\nzone = \"libvirt\"\n",
    "\u{feff}address = \"192.168.150.1/30\"\nfirewall = 'iptables'\n",
    "",
];

const PIECES: [&str; 30] = [
    "mode",
    "bridge",
    "address",
    "taps",
    "mtu",
    "firewall",
    "forwarding",
    "zone",
    " = ",
    "\"",
    "\"\"\"",
    "'''",
    "[",
    "]",
    "[[",
    "{",
    "}",
    "\n",
    "#",
    "nat",
    "/0",
    "/33",
    "1e999",
    "-1",
    "0x7fffffffffffffff",
    "\\u202e",
    "\0",
    "\u{2028}",
    "..",
    "%d",
];

#[test]
fn no_network_file_is_too_strange() {
    bolero::check!().with_type::<(u8, Vec<Damage>)>().for_each(|(which, damages)| {
        let bytes = damaged(&FILES, *which, damages, &PIECES);
        let text = String::from_utf8_lossy(&bytes);
        let path = Path::new("/etc/kvmnet/lab.toml");
        let name = NetworkName::parse("lab").expect("a name");
        match parse(path, &text, &name) {
            Ok(file) => {
                if let Network::Managed(network) = &file.network {
                    let _ = table_of(network);
                }
                let _ = file.taps.iter().any(|tap| wildmatch::WildMatch::new(tap).matches("vnet0"));
            }
            Err(error) => {
                let line = printable(&error.to_string());
                assert!(line.starts_with("/etc/kvmnet/lab.toml:"), "{line}");
                let number = line.split(':').nth(1).and_then(|number| number.parse().ok());
                let lines = text.split('\n').count();
                assert!(
                    number.is_some_and(|number: usize| (1..=lines).contains(&number)),
                    "{line}"
                );
            }
        }
    });
}
