//! Rules of nftables, read through nfnetlink: no `nft` is needed.
//!
//! iptables-nft keeps its rules here too, where its targets stand in expressions called `target`.

use std::{collections::BTreeMap, io};

use super::{Risk, forbidden, is_absent};
use crate::{
    Result,
    netlink::{Netlink, RawMessage, attribute, attributes, text},
};

// Numbers from the kernel's `nfnetlink.h`, `nf_tables.h` and `nf_tables_compat.h`.
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_TARGET_NAME: u16 = 1;

/// `struct nfgenmsg`: family, version, resource id. Family 0 stands for all.
const ANY_FAMILY: [u8; 4] = [0; 4];

/// Chains of rules that translate or redirect.
pub(super) fn risks() -> Result<Vec<Risk>> {
    match dump() {
        Ok(messages) => Ok(summarise(&messages)),
        Err(error) if is_absent(&error) => Ok(Vec::new()),
        Err(source) => Err(forbidden("read the rules of nftables", source)),
    }
}

fn dump() -> io::Result<Vec<RawMessage>> {
    Netlink::netfilter()?.dump(&RawMessage {
        message_type: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE,
        payload: ANY_FAMILY.to_vec(),
    })
}

fn summarise(messages: &[RawMessage]) -> Vec<Risk> {
    let mut counts = BTreeMap::new();
    for message in messages {
        if message.message_type != NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE {
            continue;
        }
        let Some((header, rule)) = message.payload.split_first_chunk::<4>() else {
            continue;
        };
        let name = |kind| attribute(rule, kind).map(text).unwrap_or_default();
        for action in actions(attribute(rule, NFTA_RULE_EXPRESSIONS).unwrap_or_default()) {
            let chain = (
                family(header[0]),
                name(NFTA_RULE_TABLE),
                name(NFTA_RULE_CHAIN),
                action,
            );
            *counts.entry(chain).or_default() += 1;
        }
    }
    counts
        .into_iter()
        .map(|((family, table, chain, action), rules)| Risk::Nftables {
            family,
            table,
            chain,
            action,
            rules,
        })
        .collect()
}

/// What a rule does to packets that could give them another socket, by its expressions.
fn actions(expressions: &[u8]) -> impl Iterator<Item = &'static str> {
    attributes(expressions).filter_map(|(_, expression)| {
        let name = text(attribute(expression, NFTA_EXPR_NAME)?);
        Some(match name.as_str() {
            "nat" => "nat",
            "masq" => "masquerade",
            "redir" => "redirect",
            "tproxy" => "tproxy",
            "target" => {
                let data = attribute(expression, NFTA_EXPR_DATA)?;
                translating_target(&text(attribute(data, NFTA_TARGET_NAME)?))?
            }
            _ => return None,
        })
    })
}

/// The target if it is one that gives packets another address, port or socket.
pub(super) fn translating_target(name: &str) -> Option<&'static str> {
    [
        "DNAT",
        "SNAT",
        "MASQUERADE",
        "REDIRECT",
        "NETMAP",
        "TPROXY",
        "DNPT",
        "SNPT",
    ]
    .into_iter()
    .find(|target| *target == name)
}

/// The words of nft for address families.
fn family(number: u8) -> &'static str {
    match i32::from(number) {
        libc::NFPROTO_INET => "inet",
        libc::NFPROTO_IPV4 => "ip",
        libc::NFPROTO_IPV6 => "ip6",
        libc::NFPROTO_ARP => "arp",
        libc::NFPROTO_BRIDGE => "bridge",
        libc::NFPROTO_NETDEV => "netdev",
        _ => "unknown",
    }
}
