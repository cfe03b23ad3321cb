//! The kernel's own settings for ports: `ip_local_port_range` and `ip_local_reserved_ports` of the
//! current network namespace.

use std::fs;

use super::{PortRange, PortRanges};
use crate::{Error, Result};

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// From which ports the kernel chooses.
///
/// # Errors
///
/// Where the file cannot be read or understood.
pub(super) fn range() -> Result<PortRange> {
    let text = read(RANGE)?;
    let written: Vec<&str> = text.split_whitespace().collect();
    written
        .join("-")
        .parse()
        .map_err(|reason: String| Error::unexpected(format!("read {RANGE}"), reason))
}

/// Which ports it never chooses.
///
/// # Errors
///
/// Where the file cannot be read or understood.
pub(super) fn reserved() -> Result<PortRanges> {
    read(RESERVED)?
        .trim()
        .parse()
        .map_err(|reason: String| Error::unexpected(format!("read {RESERVED}"), reason))
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::io(format!("read {path}"), source))
}
