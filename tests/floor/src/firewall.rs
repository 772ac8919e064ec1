//! nf_tables' messages for the table of kvmnet's default network.

use crate::message::Request;

const TABLE: &[u8] = b"kvmnet-default\0";
const FORWARD: &[u8] = b"forward\0";
const POSTROUTING: &[u8] = b"postrouting\0";
/// 192.168.100.0/24, as far as its prefix goes.
const SUBNET: [u8; 3] = [192, 168, 100];
/// The kernel compares whole names.
const BRIDGE: &[u8; 16] = b"br0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// How many rules the table has.
pub const RULES: usize = 9;

const fn kind(message: u16) -> u16 {
    ((libc::NFNL_SUBSYS_NFTABLES as u16) << 8) | message
}

pub const NEWTABLE: u16 = kind(libc::NFT_MSG_NEWTABLE as u16);
pub const NEWRULE: u16 = kind(libc::NFT_MSG_NEWRULE as u16);
const GETTABLE: u16 = kind(libc::NFT_MSG_GETTABLE as u16);
const DELTABLE: u16 = kind(libc::NFT_MSG_DELTABLE as u16);
const NEWCHAIN: u16 = kind(libc::NFT_MSG_NEWCHAIN as u16);
const GETRULE: u16 = kind(libc::NFT_MSG_GETRULE as u16);
const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;

/// `struct nfgenmsg` of the family of IPv4.
const IPV4: [u8; 4] = [libc::NFPROTO_IPV4 as u8, 0, 0, 0];
/// The same around a transaction: no family, but the subsystem in network byte order.
const ENVELOPE: [u8; 4] = [0, 0, 0, libc::NFNL_SUBSYS_NFTABLES as u8];

// The first attribute of a message about a table, a chain or a rule names the table.
const TABLE_NAME: u16 = 1;
// Those of chains.
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
// Those of rules.
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

// enum nft_registers
const VERDICT_REGISTER: u32 = 0;
const REGISTER_1: u32 = 1;
const REGISTER_2: u32 = 2;
// enum nft_cmp_ops
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
// enum nft_meta_keys
const INPUT_NAME: u32 = 6;
const OUTPUT_NAME: u32 = 7;
const PROTOCOL: u32 = 16;
// enum nft_ct_keys, and the bits of each
const STATE: u32 = 0;
const ESTABLISHED_OR_RELATED: u32 = 0b110;
const STATUS: u32 = 2;
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `NFT_PAYLOAD_NETWORK_HEADER`.
const NETWORK_HEADER: u32 = 1;
// Offsets in the IPv4 header (RFC 791).
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const RETURN: i32 = -5;
/// `NF_NAT_RANGE_PROTO_SPECIFIED`.
const PORTS_SPECIFIED: u32 = 1 << 1;

/// Makes the table, in one transaction.
pub fn install() -> Request {
    let mut request = Request::new();
    request.message(BATCH_BEGIN, 0, &ENVELOPE);
    request.message(NEWTABLE, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    chain(&mut request, FORWARD, b"filter\0", libc::NF_INET_FORWARD, libc::NF_IP_PRI_FILTER);
    let hook = libc::NF_INET_POST_ROUTING;
    chain(&mut request, POSTROUTING, b"nat\0", hook, libc::NF_IP_PRI_NAT_SRC);
    let accept = libc::NF_ACCEPT;
    rule(&mut request, FORWARD, 0, |rule| {
        interface(rule, INPUT_NAME);
        interface(rule, OUTPUT_NAME);
        verdict(rule, accept);
    });
    for (key, bits) in [(STATE, ESTABLISHED_OR_RELATED), (STATUS, DESTINATION_TRANSLATED)] {
        rule(&mut request, FORWARD, 0, |rule| {
            interface(rule, OUTPUT_NAME);
            connection(rule, key, bits);
            verdict(rule, accept);
        });
    }
    rule(&mut request, FORWARD, 0, |rule| {
        interface(rule, OUTPUT_NAME);
        verdict(rule, libc::NF_DROP);
    });
    for destination in [&[224, 0, 0][..], &[255, 255, 255, 255]] {
        rule(&mut request, POSTROUTING, 0, |rule| {
            address(rule, SOURCE, EQUAL, &SUBNET);
            address(rule, DESTINATION, EQUAL, destination);
            verdict(rule, RETURN);
        });
    }
    for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
        rule(&mut request, POSTROUTING, 0, |rule| {
            meta(rule, PROTOCOL);
            compare(rule, EQUAL, &[protocol as u8]);
            outward(rule);
            load(rule, REGISTER_1, 1024);
            load(rule, REGISTER_2, u16::MAX);
            expression(rule, b"masq\0", |data| {
                data.be32(1, PORTS_SPECIFIED);
                data.be32(2, REGISTER_1);
                data.be32(3, REGISTER_2);
            });
        });
    }
    // Its acknowledgement tells that the whole was carried out.
    rule(&mut request, POSTROUTING, libc::NLM_F_ACK, |rule| {
        outward(rule);
        expression(rule, b"masq\0", |_| {});
    });
    request.message(BATCH_END, 0, &ENVELOPE);
    request
}

/// Asks for the table and for its rules.
pub fn list() -> Request {
    let mut request = Request::new();
    request.message(GETTABLE, 0, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    request.message(GETRULE, libc::NLM_F_DUMP, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    request
}

/// Deletes the table, in one transaction.
pub fn remove() -> Request {
    let mut request = Request::new();
    request.message(BATCH_BEGIN, 0, &ENVELOPE);
    request.message(DELTABLE, libc::NLM_F_ACK, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    request.message(BATCH_END, 0, &ENVELOPE);
    request
}

fn chain(request: &mut Request, name: &[u8], kind: &[u8], hook: i32, priority: i32) {
    request.message(NEWCHAIN, libc::NLM_F_CREATE, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    request.attribute(CHAIN_NAME, name);
    request.nested(CHAIN_HOOK, |data| {
        data.be32(HOOK_NUMBER, hook as u32);
        data.be32(HOOK_PRIORITY, priority as u32);
    });
    request.be32(CHAIN_POLICY, libc::NF_ACCEPT as u32);
    request.attribute(CHAIN_TYPE, kind);
}

fn rule(request: &mut Request, chain: &[u8], flags: i32, expressions: impl FnOnce(&mut Request)) {
    request.message(NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND | flags, &IPV4);
    request.attribute(TABLE_NAME, TABLE);
    request.attribute(RULE_CHAIN, chain);
    request.nested(RULE_EXPRESSIONS, expressions);
}

fn expression(rule: &mut Request, name: &[u8], data: impl FnOnce(&mut Request)) {
    rule.nested(ELEMENT, |element| {
        element.attribute(EXPRESSION_NAME, name);
        element.nested(EXPRESSION_DATA, data);
    });
}

fn meta(rule: &mut Request, key: u32) {
    expression(rule, b"meta\0", |data| {
        data.be32(1, REGISTER_1);
        data.be32(2, key);
    });
}

fn compare(rule: &mut Request, operation: u32, value: &[u8]) {
    expression(rule, b"cmp\0", |data| {
        data.be32(1, REGISTER_1);
        data.be32(2, operation);
        data.nested(3, |data| data.attribute(DATA_VALUE, value));
    });
}

fn interface(rule: &mut Request, key: u32) {
    meta(rule, key);
    compare(rule, EQUAL, BRIDGE);
}

/// Any of these bits, which the kernel has in the machine's own byte order.
fn connection(rule: &mut Request, key: u32, bits: u32) {
    expression(rule, b"ct\0", |data| {
        data.be32(1, REGISTER_1);
        data.be32(2, key);
    });
    expression(rule, b"bitwise\0", |data| {
        data.be32(1, REGISTER_1);
        data.be32(2, REGISTER_1);
        data.be32(3, 4);
        data.nested(4, |mask| mask.attribute(DATA_VALUE, &bits.to_ne_bytes()));
        data.nested(5, |xor| xor.attribute(DATA_VALUE, &[0; 4]));
    });
    compare(rule, NOT_EQUAL, &[0; 4]);
}

/// As many bytes of the address as are given.
fn address(rule: &mut Request, offset: u32, operation: u32, value: &[u8]) {
    expression(rule, b"payload\0", |data| {
        data.be32(1, REGISTER_1);
        data.be32(2, NETWORK_HEADER);
        data.be32(3, offset);
        data.be32(4, value.len() as u32);
    });
    compare(rule, operation, value);
}

fn outward(rule: &mut Request) {
    address(rule, SOURCE, EQUAL, &SUBNET);
    address(rule, DESTINATION, NOT_EQUAL, &SUBNET);
}

fn load(rule: &mut Request, register: u32, port: u16) {
    expression(rule, b"immediate\0", |data| {
        data.be32(1, register);
        data.nested(2, |data| data.attribute(DATA_VALUE, &port.to_be_bytes()));
    });
}

fn verdict(rule: &mut Request, code: i32) {
    expression(rule, b"immediate\0", |data| {
        data.be32(1, VERDICT_REGISTER);
        data.nested(2, |data| {
            data.nested(DATA_VERDICT, |verdict| verdict.be32(VERDICT_CODE, code as u32));
        });
    });
}
