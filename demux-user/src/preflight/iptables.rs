//! Rules of the older iptables, read through the socket options of x_tables.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::{Risk, forbidden, is_absent, nftables::translating_target};
use crate::Result;

// Numbers and layouts from the kernel's `ip_tables.h`, `ip6_tables.h` and `x_tables.h`.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME: usize = 32;
/// Where `num_entries` and `size` are in `struct ipt_getinfo` and its IPv6 twin, and its length.
const INFO_SIZE_AT: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4;
const INFO: usize = INFO_SIZE_AT + 4;
/// Where the entries begin in `struct ipt_get_entries`, which are aligned to 8 bytes.
const ENTRIES_AT: usize = NAME + 8;
/// Where the name is in `struct xt_entry_target`.
const TARGET_NAME: std::ops::Range<usize> = 2..2 + 29;

/// One of the two families of tables.
struct Family {
    command: &'static str,
    names: &'static str,
    domain: AddressFamily,
    level: libc::c_int,
    /// Where `target_offset` is in an entry; `next_offset` follows it. Both are 16 bits wide.
    offsets_at: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        command: "iptables",
        names: "/proc/thread-self/net/ip_tables_names",
        domain: AddressFamily::INET,
        level: libc::IPPROTO_IP,
        offsets_at: 88,
    },
    Family {
        command: "ip6tables",
        names: "/proc/thread-self/net/ip6_tables_names",
        domain: AddressFamily::INET6,
        level: libc::IPPROTO_IPV6,
        offsets_at: 140,
    },
];

/// Tables with rules that translate or redirect, and those that could have such but cannot be read.
pub(super) fn risks() -> Result<Vec<Risk>> {
    let mut risks = Vec::new();
    for family in &FAMILIES {
        for table in tables(family)? {
            match entries(family, &table) {
                Ok(entries) => risks.extend(summarise(family, &table, &entries)),
                Err(error) if is_absent(&error) => {}
                Err(_) => risks.push(Risk::IptablesUnreadable {
                    command: family.command,
                    table,
                }),
            }
        }
    }
    Ok(risks)
}

/// The tables in use that can hold such rules: asking for others would create them.
fn tables(family: &Family) -> Result<Vec<String>> {
    match fs::read_to_string(family.names) {
        Ok(names) => Ok(names
            .lines()
            .filter(|name| ["nat", "mangle"].contains(name))
            .map(str::to_owned)
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(forbidden(&format!("read {}", family.names), source)),
    }
}

/// The entries of a table, as the kernel keeps them.
fn entries(family: &Family, table: &str) -> io::Result<Vec<u8>> {
    let socket = socket_with(family.domain, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let mut info = request(table, INFO);
    get_option(&socket, family, GET_INFO, &mut info)?;
    let size = info[INFO_SIZE_AT..].try_into().map(u32::from_ne_bytes);
    let size = size.map_err(io::Error::other)?;

    let mut answer = request(table, ENTRIES_AT + size as usize);
    answer[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    get_option(&socket, family, GET_ENTRIES, &mut answer)?;
    Ok(answer.split_off(ENTRIES_AT))
}

/// A buffer for an answer, which begins with the name of the table asked about.
fn request(table: &str, length: usize) -> Vec<u8> {
    let mut buffer = vec![0; length];
    let name = &table.as_bytes()[..table.len().min(NAME - 1)];
    buffer[..name.len()].copy_from_slice(name);
    buffer
}

fn get_option(
    socket: &OwnedFd,
    family: &Family,
    option: libc::c_int,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the buffer outlives the call and has the length given.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            family.level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn summarise(family: &Family, table: &str, entries: &[u8]) -> Vec<Risk> {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for target in targets(family, entries).filter_map(|name| translating_target(&name)) {
        *counts.entry(target).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(target, rules)| Risk::Iptables {
            command: family.command,
            table: table.to_owned(),
            target,
            rules,
        })
        .collect()
}

/// The name of each entry's target, empty for plain verdicts and jumps.
fn targets<'a>(family: &Family, entries: &'a [u8]) -> impl Iterator<Item = String> + use<'a> {
    let offsets_at = family.offsets_at;
    let mut rest = entries;
    std::iter::from_fn(move || {
        let offset = |at: usize| {
            let bytes = rest.get(at..at + 2)?.try_into().ok()?;
            Some(usize::from(u16::from_ne_bytes(bytes)))
        };
        let (target_offset, next_offset) = (offset(offsets_at)?, offset(offsets_at + 2)?);
        let name = rest.get(target_offset..)?.get(TARGET_NAME)?;
        let end = name
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        // An entry has a length, else the list would never end.
        rest = rest.get(next_offset.max(1)..)?;
        Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry without matches whose target has this name.
    fn entry(family: &Family, target: &str) -> Vec<u8> {
        let target_offset = family.offsets_at + 4 + 4 + 16;
        let next_offset = target_offset + 40;
        let mut entry = vec![0; next_offset];
        let offsets = [target_offset as u16, next_offset as u16];
        for (at, offset) in [family.offsets_at, family.offsets_at + 2]
            .into_iter()
            .zip(offsets)
        {
            entry[at..at + 2].copy_from_slice(&offset.to_ne_bytes());
        }
        entry[target_offset + 2..][..target.len()].copy_from_slice(target.as_bytes());
        entry
    }

    #[test]
    fn translating_targets_are_counted() {
        for family in &FAMILIES {
            let names = ["", "REDIRECT", "MARK", "MASQUERADE", "REDIRECT", "ERROR"];
            let entries: Vec<u8> = names.iter().flat_map(|name| entry(family, name)).collect();
            let found: Vec<_> = targets(family, &entries).collect();
            assert_eq!(found, names);
            let risks = summarise(family, "nat", &entries);
            let lines: Vec<_> = risks.iter().map(ToString::to_string).collect();
            let command = family.command;
            assert_eq!(
                lines,
                [
                    format!("1 MASQUERADE rule in the nat table of {command}"),
                    format!("2 REDIRECT rules in the nat table of {command}"),
                ]
            );
        }
    }

    #[test]
    fn damaged_entries_end_the_list() {
        let family = &FAMILIES[0];
        let whole = entry(family, "DNAT");
        for length in 0..whole.len() {
            targets(family, &whole[..length]).for_each(drop);
        }
        let mut endless = whole.clone();
        endless[family.offsets_at + 2..family.offsets_at + 4].fill(0);
        assert!(targets(family, &endless).count() < endless.len());
    }
}
