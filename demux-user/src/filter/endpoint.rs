//! Addresses and ports as a filter asks for them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::bindings::Ports;

/// Addresses, ports, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// `None` for every address.
    pub(super) network: Option<IpNet>,
    pub(super) ports: Ports,
}

impl Endpoint {
    /// Reads `10.0.0.2`, `10.0.0.0/8`, `:80`, `10.0.0.2:8000-8999`, `::1`, `[::1]:80`, `[2001:db8::/32]` or `*`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (address, ports) = split(text)?;
        let network = match address {
            "" | "*" => None,
            address => Some(network(address)?),
        };
        Ok(Self {
            network,
            ports: ports.map_or(Ok(Ports::ANY), str::parse)?,
        })
    }

    pub(super) fn matches(&self, endpoint: SocketAddr) -> bool {
        self.network
            .is_none_or(|network| network.contains(&endpoint.ip()))
            && (self.ports.first..=self.ports.last).contains(&endpoint.port())
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a ] is missing")?;
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((address, Some(ports))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err(format!("{rest:?} behind the ] is not a port")),
        };
    }
    match text.split_once(':') {
        // More than one colon, and no brackets: an IPv6 address without a port.
        Some((_, rest)) if rest.contains(':') => Ok((text, None)),
        Some((address, ports)) => Ok((address, Some(ports))),
        None => Ok((text, None)),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    if text.contains('/') {
        return text
            .parse()
            .map_err(|_| format!("{text:?} is not a prefix"));
    }
    text.parse::<IpAddr>()
        .map(|address| address.to_canonical().into())
        .map_err(|_| format!("{text:?} is not an IP address; names are not resolved"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_matches_by_address_and_port() {
        for (pattern, endpoint, expected) in [
            ("10.0.0.2", "10.0.0.2:1", true),
            ("10.0.0.2", "10.0.0.3:1", false),
            ("10.0.0.0/8", "10.9.9.9:1", true),
            ("10.0.0.0/8:80", "10.9.9.9:81", false),
            (":80", "[::1]:80", true),
            ("*:80", "10.0.0.2:80", true),
            ("*", "10.0.0.2:80", true),
            ("10.0.0.2:80-90", "10.0.0.2:90", true),
            ("::1", "[::1]:80", true),
            ("[::1]", "[::1]:80", true),
            ("[::1]:81", "[::1]:80", false),
            ("[2001:db8::/32]:80", "[2001:db8::7]:80", true),
            ("2001:db8::/32", "[2001:db8::7]:80", true),
            ("0.0.0.0/0", "[::1]:80", false),
            ("::ffff:10.0.0.2", "10.0.0.2:80", true),
        ] {
            let parsed = Endpoint::parse(pattern).unwrap();
            assert_eq!(
                parsed.matches(endpoint.parse().unwrap()),
                expected,
                "{pattern} against {endpoint}"
            );
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for (text, reason) in [
            ("localhost", "names are not resolved"),
            ("10.0.0.0/33", "not a prefix"),
            ("10.0.0.1:http", "not a port"),
            ("[::1", "] is missing"),
            ("[::1]80", "not a port"),
            (":65536", "not a port"),
        ] {
            let error = Endpoint::parse(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
