//! Which of several bindings claims a packet.

use demux_common::{
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{FAMILIES, REMOTE};
use crate::table::{
    check::Case,
    frames::packet,
    world::{Bound, dropping},
};

/// The patterns for the addresses of one family, as specific as they are named.
struct Addresses {
    exact: &'static str,
    long: &'static str,
    short: &'static str,
    any: &'static str,
}

/// All of them match the packet's destination, an address that the host has.
const ADDRESSES: [Addresses; 2] = [
    Addresses {
        exact: "10.1.2.3",
        long: "10.1.2.0/24",
        short: "10.0.0.0/8",
        any: "0.0.0.0",
    },
    Addresses {
        exact: "[2001:db8:1:2::3]",
        long: "[2001:db8:1:2::/64]",
        short: "[2001:db8::/32]",
        any: "*",
    },
];

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::ALL {
        for family in 0..FAMILIES.len() {
            let table = Table { protocol, family };
            cases.extend(table.contests());
            cases.extend(table.misses());
        }
    }
    cases
}

struct Table {
    protocol: Protocol,
    family: usize,
}

impl Table {
    fn contests(&self) -> Vec<Case> {
        let Addresses {
            exact,
            long,
            short,
            any,
        } = ADDRESSES[self.family];
        let bound =
            |address: &str, ports: &str| Bound::new(self.protocol, &format!("{address}:{ports}"));
        let of_addresses = [
            (
                "an address before a prefix",
                bound(exact, "80"),
                bound(long, "80"),
            ),
            (
                "an address before a wildcard",
                bound(exact, "80"),
                bound(any, "80"),
            ),
            (
                "a longer prefix before a shorter one",
                bound(long, "80"),
                bound(short, "80"),
            ),
            (
                "a prefix before a wildcard",
                bound(short, "80"),
                bound(any, "80"),
            ),
            (
                "an address and every port before a prefix and the port",
                bound(exact, "*"),
                bound(long, "80"),
            ),
            (
                "an address and a range before a wildcard and the port",
                bound(exact, "1-100"),
                bound(any, "80"),
            ),
            (
                "a longer prefix and every port before a shorter one and the port",
                bound(long, "*"),
                bound(short, "80"),
            ),
            (
                "a prefix and every port before a wildcard and the port",
                bound(short, "*"),
                bound(any, "80"),
            ),
            (
                "an address before a prefix on the device",
                bound(exact, "80"),
                bound(long, "80").here(),
            ),
            (
                "a prefix before a wildcard on the device",
                bound(short, "80"),
                bound(any, "80").here(),
            ),
            (
                "a longer prefix before a shorter one on the device",
                bound(long, "80"),
                bound(short, "80").here(),
            ),
            (
                "an address and every port before a wildcard and the port on the device",
                bound(exact, "*"),
                bound(any, "80").here(),
            ),
        ];
        let mut contests: Vec<(String, Bound, Bound)> = of_addresses
            .into_iter()
            .map(|(name, winner, loser)| (name.to_owned(), winner, loser))
            .collect();
        for (where_, address) in [
            ("an address", exact),
            ("a prefix", long),
            ("a wildcard", any),
        ] {
            for (what, winner, loser) in [
                (
                    "the port before a range",
                    bound(address, "80"),
                    bound(address, "80-81"),
                ),
                (
                    "the port before every port",
                    bound(address, "80"),
                    bound(address, "*"),
                ),
                (
                    "a narrower range before a wider one",
                    bound(address, "79-81"),
                    bound(address, "70-90"),
                ),
                (
                    "of equal ranges the lower",
                    bound(address, "75-85"),
                    bound(address, "80-90"),
                ),
                (
                    "a range before every port",
                    bound(address, "1-65535"),
                    bound(address, "*"),
                ),
                (
                    "the device before none",
                    bound(address, "80").here(),
                    bound(address, "80"),
                ),
                (
                    "the port before a range on the device",
                    bound(address, "80"),
                    bound(address, "80-81").here(),
                ),
                (
                    "the port before every port on the device",
                    bound(address, "80"),
                    bound(address, "*").here(),
                ),
                (
                    "a range on the device before the range",
                    bound(address, "79-81").here(),
                    bound(address, "79-81"),
                ),
                (
                    "every port before every port on another device",
                    bound(address, "*"),
                    bound(address, "*").elsewhere(),
                ),
            ] {
                contests.push((format!("{what} at {where_}"), winner, loser));
            }
        }
        contests
            .into_iter()
            .enumerate()
            .map(|(number, (name, winner, loser))| {
                // Who wins does not depend on who came first.
                if number % 2 == 0 {
                    self.decided(&name, [winner.drop(), loser.untracked()], 1)
                } else {
                    self.decided(&name, [loser.untracked(), winner.drop()], 2)
                }
            })
            .collect()
    }

    /// Bindings that are near the packet and do not match it.
    fn misses(&self) -> Vec<Case> {
        let (exact, other_address, other_prefix, other_family) = match self.family {
            0 => ("10.1.2.3", "10.1.2.2", "10.1.3.0/24", "[::]"),
            _ => (
                "[2001:db8:1:2::3]",
                "[2001:db8:1:2::2]",
                "[2001:db8:1:3::/64]",
                "0.0.0.0",
            ),
        };
        let other = match self.protocol {
            Protocol::Tcp => Protocol::Udp,
            Protocol::Udp => Protocol::Tcp,
        };
        let bound = |local: String| Bound::new(self.protocol, &local).drop();
        let mut misses = vec![
            ("another address", bound(format!("{other_address}:80"))),
            ("another network", bound(format!("{other_prefix}:80"))),
            ("the port above", bound(format!("{exact}:81"))),
            ("the port below", bound("*:79".to_owned())),
            ("a range above", bound("*:81-90".to_owned())),
            ("a range below", bound(format!("{exact}:70-79"))),
            ("the other protocol", Bound::new(other, "*:80").drop()),
            (
                "an address on another device",
                bound(format!("{exact}:80")).elsewhere(),
            ),
            (
                "a wildcard on another device",
                bound("*:80".to_owned()).elsewhere(),
            ),
        ];
        let strange = bound(format!("{other_family}:80"));
        misses.push((
            "the wildcard of the other family",
            if self.family == 0 {
                strange.v6_only()
            } else {
                strange
            },
        ));
        misses
            .into_iter()
            .map(|(name, bound)| {
                Case::drop(
                    self.named(&format!("{name} does not match")),
                    dropping().with([bound]),
                    self.frame(),
                    Stage::Default,
                    Reason::NoSocket,
                )
            })
            .collect()
    }

    fn decided(&self, name: &str, bindings: [Bound; 2], winner: u16) -> Case {
        Case::drop(
            self.named(name),
            dropping().with(bindings),
            self.frame(),
            Stage::Binding,
            Reason::Bound,
        )
        .of_binding(winner)
    }

    fn frame(&self) -> crate::table::frames::Frame {
        let local = format!("{}:80", ADDRESSES[self.family].exact);
        packet(self.protocol, REMOTE[self.family], &local)
    }

    fn named(&self, text: &str) -> String {
        format!(
            "{} over {}: {text}",
            self.protocol.name(),
            FAMILIES[self.family]
        )
    }
}
