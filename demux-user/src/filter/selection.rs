//! From a filter to what the programs look at before they tell of a packet: a superset.

use std::net::IpAddr;

use demux_common::{address::Address, trace::Selection};
use ipnet::IpNet;

use super::{Condition, Expression, Filter, Operator, Side, endpoint::Endpoint};
use crate::{Error, Result, bindings::Ports};

impl Filter {
    /// Narrows a selection of packets down as far as it can say what the filter says. Whatever the
    /// filter wants stays selected; [`Filter::matches_packet`] has the last word.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] where the filter asks for what a packet does not have: the state of its
    /// connection, and who opened it.
    pub fn narrow(&self, selection: &mut Selection) -> Result<()> {
        if let Some(word) = asks_for_row(&self.0) {
            return Err(Error::invalid(
                "filter",
                word,
                "packets have no such thing; trace takes addresses, ports, proto and binding",
            ));
        }
        if !self.is_empty() {
            selection.unparsed = 0;
        }
        narrow(&self.0, selection);
        Ok(())
    }
}

fn asks_for_row(expression: &Expression) -> Option<&'static str> {
    match expression {
        Expression::Everything => None,
        Expression::And(left, right) | Expression::Or(left, right) => {
            asks_for_row(left).or_else(|| asks_for_row(right))
        }
        Expression::Not(inner) => asks_for_row(inner),
        Expression::Is(Condition::State(_)) => Some("state"),
        Expression::Is(Condition::Direction(_)) => Some("dir"),
        Expression::Is(_) => None,
    }
}

/// Only what must be true in any case narrows.
fn narrow(expression: &Expression, selection: &mut Selection) {
    match expression {
        Expression::And(left, right) => {
            narrow(left, selection);
            narrow(right, selection);
        }
        Expression::Is(Condition::Protocol(protocol)) => {
            selection.protocols &= 1 << *protocol as u32;
        }
        Expression::Is(Condition::Endpoint(side, endpoint)) => {
            narrow_endpoint(*side, endpoint, selection);
        }
        Expression::Is(Condition::Port(side, operator, ports)) => {
            let (first, last) = match operator {
                Operator::Equal => (ports.first, ports.last),
                // Ports beyond the end want nothing, which an empty range says too.
                Operator::Less => (0, ports.first.saturating_sub(1)),
                Operator::LessOrEqual => (0, ports.first),
                Operator::Greater => (ports.first.saturating_add(1), u16::MAX),
                Operator::GreaterOrEqual => (ports.first, u16::MAX),
            };
            narrow_ports(*side, Ports { first, last }, selection);
        }
        _ => {}
    }
}

fn narrow_endpoint(side: Side, endpoint: &Endpoint, selection: &mut Selection) {
    narrow_ports(side, endpoint.ports, selection);
    let Some(network) = endpoint.network else {
        return;
    };
    let (address, mask) = match side {
        Side::Local => (&mut selection.local_address, &mut selection.local_mask),
        Side::Remote => (&mut selection.remote_address, &mut selection.remote_mask),
    };
    // Of two that must both be true the narrower one is enough.
    let bits = |mask: &Address| {
        mask.words()
            .iter()
            .map(|word| word.count_ones())
            .sum::<u32>()
    };
    let (new_address, new_mask) = masked(network);
    if bits(&new_mask) > bits(mask) {
        (*address, *mask) = (new_address, new_mask);
    }
}

/// A network as an address and the bits of it that count.
fn masked(network: IpNet) -> (Address, Address) {
    let (address, length) = match network.network() {
        IpAddr::V4(v4) => (Address::from_v4(v4.octets()), 96 + network.prefix_len()),
        IpAddr::V6(v6) => (Address::from_v6(v6.octets()), network.prefix_len()),
    };
    let mask = u128::MAX
        .checked_shl(128 - u32::from(length))
        .unwrap_or_default();
    (address, Address::from_v6(mask.to_be_bytes()))
}

fn narrow_ports(side: Side, ports: Ports, selection: &mut Selection) {
    let (first, last) = match side {
        Side::Local => (&mut selection.local_first, &mut selection.local_last),
        Side::Remote => (&mut selection.remote_first, &mut selection.remote_last),
    };
    *first = ports.first.max(*first);
    *last = ports.last.min(*last);
}

#[cfg(test)]
mod tests {
    use demux_common::{
        connection::Direction, decide::PackedDecision, parse::Parsed, protocol::Protocol,
        trace::Seen,
    };

    use super::*;

    fn selection(words: &str) -> Selection {
        let mut selection = Selection::ALL;
        Filter::parse(&[words])
            .unwrap()
            .narrow(&mut selection)
            .unwrap();
        selection
    }

    fn wants(selection: &Selection, local: &str, remote: &str) -> bool {
        let mut parsed = Parsed::EMPTY;
        let parts = |text: &str| {
            let endpoint: std::net::SocketAddr = text.parse().unwrap();
            let address = match endpoint.ip() {
                IpAddr::V4(v4) => Address::from_v4(v4.octets()),
                IpAddr::V6(v6) => Address::from_v6(v6.octets()),
            };
            (address, endpoint.port())
        };
        (parsed.key.local_address, parsed.key.local_port) = parts(local);
        (parsed.key.remote_address, parsed.key.remote_port) = parts(remote);
        parsed.key.protocol = Protocol::Tcp;
        selection.wants(&Seen {
            parsed: &parsed,
            is_parsed: true,
            decision: PackedDecision(0),
            direction: Direction::In,
            ifindex: 1,
        })
    }

    #[test]
    fn what_must_be_true_narrows() {
        let narrow = selection("local 10.0.0.0/8:80 and rport >= 1024 and proto tcp");
        assert!(wants(&narrow, "10.1.2.3:80", "192.0.2.1:1024"));
        assert!(!wants(&narrow, "11.1.2.3:80", "192.0.2.1:1024"));
        assert!(!wants(&narrow, "10.1.2.3:81", "192.0.2.1:1024"));
        assert!(!wants(&narrow, "10.1.2.3:80", "192.0.2.1:1023"));
        assert!(!wants(&narrow, "[::a01:203]:80", "[2001:db8::1]:1024"));
        let v6 = selection("remote 2001:db8::/32");
        assert!(wants(&v6, "[::1]:80", "[2001:db8:7::1]:9"));
        assert!(!wants(&v6, "[::1]:80", "[2001:db9::1]:9"));
    }

    #[test]
    fn what_may_be_true_does_not() {
        for words in [
            "lport 80 or lport 81",
            "not lport 80",
            "binding web",
            "lport != 80",
        ] {
            let wide = selection(words);
            assert!(wants(&wide, "10.0.0.1:5", "10.0.0.2:6"), "{words}");
            assert_eq!(wide.unparsed, 0);
        }
        assert_eq!(selection(""), Selection::ALL);
    }

    #[test]
    fn what_packets_do_not_have_is_refused() {
        for words in [
            "state established",
            "not dir in",
            "lport 80 or state syn-sent",
        ] {
            let filter = Filter::parse(&[words]).unwrap();
            assert!(
                filter.narrow(&mut Selection::ALL.clone()).is_err(),
                "{words}"
            );
        }
    }
}
