//! Every question that kvmnet asks the kernel, and a host on which all have something to tell.

use std::fmt::Debug;

use neli::consts::rtnl::RtTable;
use neli::consts::socket::NlFamily;

use super::super::link::Which;
use super::super::socket::Socket;
use super::super::{KernelError, address, conntrack, link, neighbour, netconf, nftables, route};
use crate::config::default_nat;
use crate::model::{Link, LinkKind};
use crate::plan::table_of;

/// A question, and what is understood of the answer.
pub struct Question {
    pub name: &'static str,
    pub family: NlFamily,
    pub ask: fn(&mut Socket) -> Result<String, KernelError>,
}

const fn route(
    name: &'static str,
    ask: fn(&mut Socket) -> Result<String, KernelError>,
) -> Question {
    Question { name, family: NlFamily::Route, ask }
}

const fn netfilter(
    name: &'static str,
    ask: fn(&mut Socket) -> Result<String, KernelError>,
) -> Question {
    Question { name, family: NlFamily::Netfilter, ask }
}

pub const QUESTIONS: [Question; 18] = [
    route("lookup", |socket| {
        let which = [Which::Name("tap9"), Which::Name("none9"), Which::Index(BRIDGE)];
        told(link::lookup(socket, which))
    }),
    route("links", |socket| told(link::all(socket))),
    route("bridges", |socket| told(link::all_of_kind(socket, "bridge"))),
    route("tap-and-bridges", |socket| {
        told(link::one_and_all_of_kind(socket, Some(Which::Name("tap9")), "bridge"))
    }),
    route("some-ports", |socket| {
        told(link::some_ports_of(socket, &[&link(BRIDGE, "br9")], |port| port.master.is_none()))
    }),
    route("ports", |socket| told(link::ports_of(socket, &link(BRIDGE, "br9")))),
    route("addresses", |socket| told(address::all(socket))),
    route("addresses-of-link", |socket| told(address::of_link(socket, &link(BRIDGE, "br9")))),
    route("routes", |socket| told(route::list(socket, RtTable::Unspec, |_| true))),
    route("uplinks", |socket| told(route::default_interfaces(socket))),
    route("neighbours", |socket| {
        told(neighbour::addresses_behind(socket, BRIDGE, &link(TAP, "tap9")))
    }),
    route("forwarding", |socket| told(netconf::forwards_ipv4(socket))),
    netfilter("connections", |socket| {
        told(conntrack::list(socket, "192.168.100.0/24".parse().expect("a prefix"), None, "list"))
    }),
    netfilter("tables", |socket| told(nftables::tables(socket))),
    netfilter("chains", |socket| told(nftables::chain_names(socket, libc::NFPROTO_IPV4 as u8))),
    netfilter("dropping-chains", |socket| told(nftables::dropping_chains(socket))),
    netfilter("filter", |socket| told(nftables::filter_view(socket, libc::NFPROTO_IPV4 as u8))),
    netfilter("table", |socket| {
        let wanted = table_of(&default_nat()).expect("the network has rules");
        let tables = nftables::tables(socket)?;
        told(nftables::table_state(socket, &wanted, &tables))
    }),
];

fn told<T: Debug>(answer: Result<T, KernelError>) -> Result<String, KernelError> {
    answer.map(|answer| format!("{answer:?}"))
}

const BRIDGE: u32 = 1000;
const TAP: u32 = 1001;

fn link(index: u32, name: &str) -> Link {
    Link::test(name, index, LinkKind::Other(String::new()))
}

/// Makes such a host of an empty network namespace.
pub const HOST: &str = r#"
    set -eu
    ip link set lo up
    ip link add br9 index 1000 address 02:00:00:00:00:09 type bridge forward_delay 0
    ip link set br9 alias kvmnet:default up
    ip address add 192.168.100.1/24 broadcast + dev br9
    ip link add tap9 index 1001 type veth peer name far9 index 1002
    ip link set tap9 master br9 alias 'a port' up
    ip link set far9 up
    ip address add 10.0.0.2 peer 10.0.0.3/32 dev far9
    ip route add default via 192.168.100.254 metric 7
    ip route add 10.7.0.0/16 nexthop via 192.168.100.7 dev br9 nexthop via 192.168.100.8 dev br9 weight 3
    bridge fdb add 02:00:00:00:00:10 dev tap9 master dynamic
    ip neigh add 192.168.100.10 lladdr 02:00:00:00:00:10 dev br9 nud stale
    conntrack -I -p udp -s 192.168.100.10 -d 10.0.0.1 --sport 5 --dport 6 -t 60 >/dev/null 2>&1
    iptables-nft -P FORWARD DROP
    iptables-nft -N DOCKER-USER
    iptables-nft -A FORWARD -j DOCKER-USER
    iptables-nft -A FORWARD -i br9 -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment kvmnet-default -j ACCEPT
    iptables-nft -A FORWARD -m comment --comment 'of somebody' -j REJECT
    nft add table inet own '{ chain c { type filter hook forward priority 5; policy drop; tcp dport 22 accept; }; set s { type ipv4_addr; }; }'
"#;
