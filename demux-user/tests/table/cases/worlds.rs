//! Interfaces, defaults, probation, tracking, and what is this host's own.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
    reason::{Reason, Stage},
    udp::REMOTE_SENT,
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, Made, RowAfter},
    frames::{self, Frame, SEQUENCE, ethernet, packet},
    world::{Bound, Entry, GONE, Probation, Said, World, dropping, hostile, key, passing},
};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in Protocol::ALL {
        for family in 0..FAMILIES.len() {
            cases.extend(of(protocol, family));
        }
    }
    let arp = || ethernet([0xff; 6], 0x0806, &[0; 28]);
    cases.extend([
        Case::pass(
            "a frame that is not IP, on an interface without an entry",
            hostile().entered(Entry::Missing),
            arp(),
            Stage::Default,
            Reason::Unconfigured,
        ),
        Case::pass(
            "a frame that is not IP, under a default of pass",
            passing(),
            arp(),
            Stage::Parse,
            Reason::NotIp,
        ),
        Case::pass(
            "a frame to another station, under a default of pass",
            passing(),
            frames::tcp(REMOTE[0], &local(0, 80)).station(frames::OTHER_MAC),
            Stage::Parse,
            Reason::OtherHost,
        ),
    ]);
    cases
}

struct Table {
    protocol: Protocol,
    family: usize,
}

impl Table {
    fn named(&self, text: &str) -> String {
        format!(
            "{} over {}: {text}",
            self.protocol.name(),
            FAMILIES[self.family]
        )
    }

    fn to(&self, local: &str) -> Frame {
        packet(self.protocol, REMOTE[self.family], local)
    }

    fn pass(&self, text: &str, world: World, local: &str, stage: Stage, reason: Reason) -> Case {
        Case::pass(self.named(text), world, self.to(local), stage, reason)
    }

    fn drop(&self, text: &str, world: World, local: &str, stage: Stage, reason: Reason) -> Case {
        Case::drop(self.named(text), world, self.to(local), stage, reason)
    }

    fn bound(&self, local: &str) -> Bound {
        Bound::new(self.protocol, local)
    }

    fn made(&self, local: &str) -> RowAfter {
        let said = match self.protocol {
            Protocol::Tcp => Said::syn(SEQUENCE + 1),
            Protocol::Udp => Said::udp(State::Unreplied, REMOTE_SENT),
        };
        let key = key(self.protocol, REMOTE[self.family], local);
        RowAfter::Made(Made::new(key, said, Direction::In))
    }
}

fn of(protocol: Protocol, family: usize) -> Vec<Case> {
    use Reason::{Bound, NoSocket, NotLocal, Unbound, Unconfigured};
    let table = Table { protocol, family };
    let own = &local(family, 80);
    // A port with a listener.
    let taken = &local(family, if protocol == Protocol::Tcp { 22 } else { 53 });
    let at = |address: &str, port: u16| match family {
        0 => format!("{address}:{port}"),
        _ => format!("[{address}]:{port}"),
    };
    let strange = &at(["10.0.0.99", "2001:db8::99"][family], 80);
    let gone = &at(GONE[family], 80);
    let far = &at(["172.16.5.5", "2001:db8:ffff::5"][family], 80);
    let any_ip = ["172.16.0.0/12", "2001:db8:ffff::/48"][family];
    let dropped = || hostile();
    let to_stack = || table.bound("*:80");
    vec![
        // Defaults.
        table
            .pass(
                "a default of pass makes a row",
                passing(),
                own,
                Stage::Default,
                Unbound,
            )
            .row(table.made(own)),
        table.pass(
            "a default of pass makes no row where only bound endpoints are tracked",
            passing().tracking_bound(),
            own,
            Stage::Default,
            Unbound,
        ),
        table.pass(
            "a default of pass makes no row for a strange address",
            passing(),
            strange,
            Stage::Default,
            Unbound,
        ),
        table
            .pass(
                "a default of pass does not ask for sockets",
                passing(),
                taken,
                Stage::Default,
                Unbound,
            )
            .row(table.made(taken)),
        table.drop(
            "a default of drop",
            dropping(),
            own,
            Stage::Default,
            NoSocket,
        ),
        table.drop(
            "a default of drop without kernel sockets",
            dropping().without_kernel_sockets(),
            own,
            Stage::Default,
            Unbound,
        ),
        table.drop(
            "a default of drop without kernel sockets drops for listeners too",
            dropping().without_kernel_sockets(),
            taken,
            Stage::Default,
            Unbound,
        ),
        // Probation.
        table.drop(
            "a default of drop on probation",
            dropping().on_probation(Probation::Running),
            own,
            Stage::Default,
            NoSocket,
        ),
        table.pass(
            "a default of drop whose probation is over",
            dropping().on_probation(Probation::Over),
            own,
            Stage::Default,
            Reason::Probation,
        ),
        table.pass(
            "a default of drop whose probation is over, without kernel sockets",
            dropping()
                .without_kernel_sockets()
                .on_probation(Probation::Over),
            own,
            Stage::Default,
            Reason::Probation,
        ),
        table
            .drop(
                "a binding outlives the probation of the default",
                dropped().on_probation(Probation::Over),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1 + protocol as u16),
        // Entries of interfaces.
        table.pass(
            "an interface without an entry",
            dropped().entered(Entry::Missing),
            own,
            Stage::Default,
            Unconfigured,
        ),
        table
            .drop(
                "an interface whose entry stands next to its home",
                dropped().entered(Entry::Displaced),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1 + protocol as u16),
        // What is not this host's.
        table.pass(
            "a strange address under a default of drop",
            dropping(),
            strange,
            Stage::Default,
            NotLocal,
        ),
        table.pass(
            "a strange address under a drop binding",
            dropped(),
            strange,
            Stage::Binding,
            NotLocal,
        ),
        table.pass(
            "a strange address under a default of drop, forwarded",
            dropping().forwarding(),
            strange,
            Stage::Default,
            NotLocal,
        ),
        table.pass(
            "a strange address under a drop binding of its own, forwarded",
            dropping().with([table.bound(strange).drop()]).forwarding(),
            strange,
            Stage::Binding,
            NotLocal,
        ),
        table.pass(
            "an address with no route, where packets are forwarded",
            dropped().forwarding(),
            far,
            Stage::Binding,
            NotLocal,
        ),
        table.drop(
            "a default of drop where packets are forwarded",
            dropping().forwarding(),
            own,
            Stage::Default,
            NoSocket,
        ),
        table
            .drop(
                "a drop binding where packets are forwarded",
                dropped().forwarding(),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1 + protocol as u16),
        table.drop(
            "an address that is gone, under a default of drop",
            dropping(),
            gone,
            Stage::Default,
            NoSocket,
        ),
        table.pass(
            "an address that is gone and forwarded, under a default of drop",
            dropping().forwarding(),
            gone,
            Stage::Default,
            NotLocal,
        ),
        table.pass(
            "an address that is gone and forwarded, under a drop binding",
            dropped().forwarding(),
            gone,
            Stage::Binding,
            NotLocal,
        ),
        table.drop(
            "an address in a local prefix",
            dropping().with_local_prefix(any_ip),
            far,
            Stage::Default,
            NoSocket,
        ),
        table.pass(
            "an address beside the local prefix",
            dropping().with_local_prefix(any_ip),
            strange,
            Stage::Default,
            NotLocal,
        ),
        // Bindings to the stack.
        table
            .pass(
                "a binding passes what the default would drop, and makes a row",
                dropping().with([to_stack()]),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1)
            .row(table.made(own)),
        table
            .pass(
                "a binding makes a row where only bound endpoints are tracked",
                passing().tracking_bound().with([to_stack()]),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1)
            .row(table.made(own)),
        table
            .pass(
                "an untracked binding makes no row",
                dropping().with([to_stack().untracked()]),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(1),
        table
            .pass(
                "a binding makes no row for a strange address",
                dropping().with([to_stack()]),
                strange,
                Stage::Binding,
                Bound,
            )
            .of_binding(1),
        table
            .pass(
                "a binding makes a row for an address in a local prefix",
                dropping().with([to_stack()]).with_local_prefix(any_ip),
                far,
                Stage::Binding,
                Bound,
            )
            .of_binding(1)
            .row(table.made(far)),
        table
            .drop(
                "a drop binding before a listener",
                passing().with([table.bound("*:*").drop()]),
                taken,
                Stage::Binding,
                Bound,
            )
            .of_binding(1),
        table
            .pass(
                "one port excepted from a range that is dropped",
                passing().with([table.bound("*:1-1023").drop(), to_stack().untracked()]),
                own,
                Stage::Binding,
                Bound,
            )
            .of_binding(2),
    ]
}
