//! Telling the datapath which addresses are this host's own.
//!
//! Without a daemon this is done whenever a command changes something. An address that was added
//! since is unknown to the datapath, whose defaults then leave its packets alone.

use std::collections::HashSet;

use demux_common::{address::Address, layout::LocalPrefix};
use ipnet::IpNet;

use crate::{Result, bindings::pattern::from_ip, local_address, tables::Tables};

/// Brings the tables of local addresses up to date.
///
/// # Errors
///
/// Where the routing table cannot be read or the maps cannot be written.
pub fn refresh(tables: &Tables) -> Result<()> {
    let mut addresses: HashSet<Address> = HashSet::new();
    let mut prefixes: Vec<LocalPrefix> = Vec::new();
    for net in local_address::local_prefixes()? {
        if net.prefix_len() == net.max_prefix_len() {
            addresses.insert(from_ip(net.addr()));
        } else if !is_v4_loopback(&net) {
            prefixes.push(stored(&net));
        }
    }

    // What is new first: until the flag is set below, a prefix is not looked for.
    let known: HashSet<Address> = tables.locals()?.into_iter().collect();
    for address in addresses.difference(&known) {
        tables.add_local(address)?;
    }
    for address in known.difference(&addresses) {
        tables.remove_local(address)?;
    }
    let known = tables.local_prefixes()?;
    for prefix in prefixes.iter().filter(|prefix| !known.contains(prefix)) {
        tables.add_local_prefix(prefix)?;
    }
    for prefix in known.iter().filter(|prefix| !prefixes.contains(prefix)) {
        tables.remove_local_prefix(prefix)?;
    }
    let mut config = tables.config()?;
    let flag = u8::from(!prefixes.is_empty());
    if config.local_prefixes != flag {
        config.local_prefixes = flag;
        tables.set_config(&config)?;
    }
    Ok(())
}

/// The datapath knows 127.0.0.0/8 by itself.
fn is_v4_loopback(net: &IpNet) -> bool {
    matches!(net, IpNet::V4(net) if net.addr().octets()[0] == 127)
}

fn stored(net: &IpNet) -> LocalPrefix {
    let mapping = if net.addr().is_ipv4() { 96 } else { 0 };
    LocalPrefix {
        prefix_len: LocalPrefix::FIXED_BITS + mapping + u32::from(net.prefix_len()),
        reserved: 0,
        address: from_ip(net.network()),
    }
}
