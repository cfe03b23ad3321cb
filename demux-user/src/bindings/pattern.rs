//! Patterns for local endpoints, as users write them.

use std::{
    cmp::Reverse,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use demux_common::{
    address::{Address, Family},
    binding::Binding,
    protocol::Protocol,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{Error, Result};

/// The local addresses that a pattern is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LocalAddress {
    /// Every address of both families: `*`, or `[::]` of a dual-stack socket.
    Any,
    /// Every IPv4 address: `0.0.0.0`.
    AnyV4,
    /// Every IPv6 address, and no IPv4 address: `[::]` with `--v6-only`.
    AnyV6,
    /// One address. An IPv4-mapped address is an IPv4 address.
    Exact(IpAddr),
    /// The addresses of a network, at least one bit and less than all bits long.
    Prefix(IpNet),
}

/// A port, a range of ports, or every port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last; not below the first.
    pub last: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// How many ports there are behind the first.
    #[must_use]
    pub const fn width(self) -> u16 {
        self.last - self.first
    }
}

/// A pattern for local endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The addresses.
    pub address: LocalAddress,
    /// The ports.
    pub ports: Ports,
}

impl Pattern {
    /// Reads a pattern: `ADDRESS:PORTS`, such as `:80`, `*:80`, `0.0.0.0:80`, `10.0.0.2:*`,
    /// `10.0.0.0/8:80`, `[::1]:80`, `[2001:db8::/32]:8000-8999`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] that says which part is wrong. Names are never resolved.
    pub fn parse(protocol: Protocol, text: &str, v6_only: bool) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("local endpoint", text, reason);
        let (address, ports) = split(text).map_err(invalid)?;
        let mut address = parse_address(address).map_err(invalid)?;
        let ports = ports.parse().map_err(invalid)?;
        if v6_only {
            address = match address {
                LocalAddress::Any | LocalAddress::AnyV6 => LocalAddress::AnyV6,
                _ => {
                    return Err(invalid(
                        "--v6-only goes with the wildcard [::] only".to_owned(),
                    ));
                }
            };
        }
        Ok(Self {
            protocol,
            address,
            ports,
        })
    }

    /// The pattern of a stored binding.
    #[must_use]
    pub fn of(binding: &Binding) -> Self {
        let address = match (binding.family, binding.prefix_len) {
            (Family::Ipv4, 0) => LocalAddress::AnyV4,
            (Family::Ipv4, 32) => LocalAddress::Exact(to_ip(&binding.address)),
            (Family::Ipv4, bits) => {
                let network = Ipv4Addr::from(binding.address.v4());
                LocalAddress::Prefix(IpNet::V4(Ipv4Net::new_assert(network, bits)))
            }
            (Family::Ipv6, 0) if binding.has(Binding::V6_ONLY) => LocalAddress::AnyV6,
            (Family::Ipv6, 0) => LocalAddress::Any,
            (Family::Ipv6, 128) => LocalAddress::Exact(to_ip(&binding.address)),
            (Family::Ipv6, bits) => {
                let network = Ipv6Addr::from(binding.address.bytes);
                LocalAddress::Prefix(IpNet::V6(Ipv6Net::new_assert(network, bits)))
            }
        };
        Self {
            protocol: binding.protocol,
            address,
            ports: Ports {
                first: binding.first_port,
                last: binding.last_port,
            },
        }
    }

    /// What is stored of the address: itself, its family, its bits, and whether it is IPv6 only.
    #[must_use]
    pub fn stored_address(&self) -> (Address, Family, u8, bool) {
        match self.address {
            LocalAddress::Any => (demux_common::address::ANY_V6, Family::Ipv6, 0, false),
            LocalAddress::AnyV6 => (demux_common::address::ANY_V6, Family::Ipv6, 0, true),
            LocalAddress::AnyV4 => (demux_common::address::ANY_V4, Family::Ipv4, 0, false),
            LocalAddress::Exact(address) => {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                (from_ip(address), family(address), bits, false)
            }
            LocalAddress::Prefix(net) => (
                from_ip(net.network()),
                family(net.network()),
                net.prefix_len(),
                false,
            ),
        }
    }

    /// How many bits of an address are given, to compare patterns of one family: all of them for an
    /// exact address, of whichever family.
    #[must_use]
    pub fn exactness(&self) -> u8 {
        match self.address {
            LocalAddress::Exact(_) => 128,
            LocalAddress::Prefix(net) => net.prefix_len(),
            LocalAddress::Any | LocalAddress::AnyV4 | LocalAddress::AnyV6 => 0,
        }
    }

    /// Orders patterns as a packet looks for them, the most specific first.
    #[must_use]
    pub fn precedence(&self) -> impl Ord + use<> {
        let (address, family, bits, v6_only) = self.stored_address();
        // The dual-stack wildcard is looked for last, and a /32 is as exact as a /128.
        let rank = match self.address {
            LocalAddress::Exact(_) => 0,
            LocalAddress::Prefix(_) => 1,
            LocalAddress::AnyV4 => 2,
            LocalAddress::AnyV6 => 3,
            LocalAddress::Any => 4,
        };
        (
            self.protocol,
            rank,
            Reverse(bits),
            self.ports.width(),
            self.ports.first,
            family,
            address,
            v6_only,
        )
    }
}

/// The stored form of an address.
#[must_use]
pub fn from_ip(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::from_v4(address.octets()),
        IpAddr::V6(address) => Address::from_v6(address.octets()),
    }
}

/// The address of its stored form.
#[must_use]
pub fn to_ip(address: &Address) -> IpAddr {
    if address.is_mapped() {
        IpAddr::V4(Ipv4Addr::from(address.v4()))
    } else {
        IpAddr::V6(Ipv6Addr::from(address.bytes))
    }
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

/// Splits an endpoint at the colon before its ports; brackets are taken off.
fn split(text: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a ] is missing")?;
        let ports = rest
            .strip_prefix(':')
            .ok_or("after ] comes a colon and a port, as in [::1]:80")?;
        return Ok((address, ports));
    }
    let (address, ports) = text
        .rsplit_once(':')
        .ok_or("a port is missing: write ADDRESS:PORT, or :PORT for every address")?;
    if address.contains(':') {
        return Err("an IPv6 address stands in brackets, as in [::1]:80".to_owned());
    }
    Ok((address, ports))
}

fn parse_address(text: &str) -> Result<LocalAddress, String> {
    if text.is_empty() || text == "*" {
        return Ok(LocalAddress::Any);
    }
    if let Some((_, device)) = text.split_once('%') {
        return Err(format!("a device is given with --dev {device}"));
    }
    if let Some((address, bits)) = text.split_once('/') {
        let address = parse_ip(address)?;
        let all: u8 = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits
            .parse::<u8>()
            .ok()
            .filter(|bits| *bits <= all)
            .ok_or(format!(
                "an IPv{} prefix has 0 to {all} bits, not {bits}",
                if all == 32 { 4 } else { 6 }
            ))?;
        return prefix(address, bits);
    }
    Ok(match parse_ip(text)? {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => LocalAddress::AnyV4,
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => LocalAddress::Any,
        address => match address.to_canonical() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => LocalAddress::AnyV4,
            address => LocalAddress::Exact(address),
        },
    })
}

fn parse_ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address; names are not resolved"))
}

fn prefix(address: IpAddr, bits: u8) -> Result<LocalAddress, String> {
    // A network of IPv4-mapped addresses is a network of IPv4 addresses.
    let (address, bits) = match address.to_canonical() {
        v4 @ IpAddr::V4(_) if address.is_ipv6() && bits >= 96 => (v4, bits - 96),
        _ => (address, bits),
    };
    let net = IpNet::new(address, bits).map_err(|error| error.to_string())?;
    if net.network() != address {
        return Err(format!(
            "bits of the address lie behind its prefix; the network is {}",
            net.trunc()
        ));
    }
    Ok(match net {
        IpNet::V4(net) if net.prefix_len() == 0 => LocalAddress::AnyV4,
        IpNet::V6(net) if net.prefix_len() == 0 => LocalAddress::AnyV6,
        net if net.prefix_len() == net.max_prefix_len() => LocalAddress::Exact(net.addr()),
        net => LocalAddress::Prefix(net),
    })
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::ANY);
        }
        let port = |text: &str| {
            // `u16::from_str` takes a leading plus.
            text.parse::<u16>()
                .ok()
                .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or(format!("{text:?} is not a port from 0 to 65535"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) if !first.is_empty() => (port(first)?, port(last)?),
            _ => (port(text)?, port(text)?),
        };
        if first > last {
            return Err(format!("the range {text} ends before it starts"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ANY => formatter.write_str("*"),
            Self { first, last } if first == last => write!(formatter, "{first}"),
            Self { first, last } => write!(formatter, "{first}-{last}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            LocalAddress::Any => formatter.write_str("*")?,
            LocalAddress::AnyV4 => formatter.write_str("0.0.0.0")?,
            LocalAddress::AnyV6 => formatter.write_str("[::]")?,
            LocalAddress::Exact(IpAddr::V4(address)) => write!(formatter, "{address}")?,
            LocalAddress::Exact(IpAddr::V6(address)) => write!(formatter, "[{address}]")?,
            LocalAddress::Prefix(IpNet::V4(net)) => write!(formatter, "{net}")?,
            LocalAddress::Prefix(IpNet::V6(net)) => write!(formatter, "[{net}]")?,
        }
        write!(formatter, ":{}", self.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Pattern> {
        Pattern::parse(Protocol::Tcp, text, false)
    }

    #[test]
    fn patterns_are_written_back_as_they_are_read() {
        for (text, back) in [
            (":80", "*:80"),
            ("*:80", "*:80"),
            ("[::]:80", "*:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("0.0.0.0/0:80", "0.0.0.0:80"),
            ("[::/0]:80", "[::]:80"),
            ("10.0.0.2:80", "10.0.0.2:80"),
            ("10.0.0.2/32:80", "10.0.0.2:80"),
            ("10.0.0.0/8:80", "10.0.0.0/8:80"),
            ("10.0.0.2:*", "10.0.0.2:*"),
            ("*:*", "*:*"),
            ("*:0-65535", "*:*"),
            ("[::1]:80", "[::1]:80"),
            ("[2001:db8::/32]:8000-8999", "[2001:db8::/32]:8000-8999"),
            ("[::ffff:10.0.0.2]:80", "10.0.0.2:80"),
            ("[::ffff:0.0.0.0]:80", "0.0.0.0:80"),
            ("[::ffff:10.0.0.0/104]:80", "10.0.0.0/8:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("127.0.0.1:80-80", "127.0.0.1:80"),
        ] {
            let pattern = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(pattern.to_string(), back, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, reason) in [
            ("10.0.0.1:65536", "not a port"),
            ("10.0.0.1:-1", "not a port"),
            ("10.0.0.1:+1", "not a port"),
            ("10.0.0.1:80-79", "ends before it starts"),
            ("10.0.0.1:abc", "not a port"),
            ("10.0.0.1:http", "not a port"),
            ("10.0.0.1", "port is missing"),
            ("10.0.0.1:", "not a port"),
            ("10.0.0.0/33:80", "0 to 32 bits"),
            ("10.0.0.0/64:80", "0 to 32 bits"),
            ("[2001:db8::/129]:80", "0 to 128 bits"),
            ("10.0.0.1/8:80", "the network is 10.0.0.0/8"),
            ("localhost:80", "not resolved"),
            ("[localhost]:80", "not resolved"),
            ("::1:80", "in brackets"),
            ("[::1:80", "] is missing"),
            ("[::1]", "after ] comes a colon"),
            ("[fe80::1%eth0]:80", "--dev eth0"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn v6_only_is_for_the_wildcard() {
        let only = |text| Pattern::parse(Protocol::Tcp, text, true);
        assert_eq!(only("[::]:80").expect("valid").to_string(), "[::]:80");
        assert!(only("[::1]:80").is_err());
        assert!(only("0.0.0.0:80").is_err());
    }
}
