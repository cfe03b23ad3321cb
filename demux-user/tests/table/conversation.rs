//! A TCP connection of an AF_XDP socket from its first segment to its last, whose side is only reported.

use demux_common::{
    connection::{Connection, State},
    protocol::Protocol,
    reason::Verdict,
};

use super::{
    cases::{FAMILIES, REMOTE, local},
    check::{Leaving, Subject},
    frames::{ACK, FIN, Frame, PSH, SYN, segment},
    world::{Bound, SET, key, steering},
};

/// Lets both sides talk, where what leaves by the interface is seen or not; ends the test at a difference.
pub fn of_a_socket(subject: &mut impl Subject) {
    for (family, own_is_seen) in (0..FAMILIES.len()).flat_map(|it| [(it, false), (it, true)]) {
        let (remote, own) = (REMOTE[family], local(family, 80));
        let mut world = steering().with([Bound::tcp("*:80").to_set(SET)]);
        world.egress = own_is_seen;
        subject.prepare(&world);
        let entered = subject.snapshot().table.entered;
        let arrives = |flags, sequence, acknowledgement, data: &[u8]| {
            let frame = segment(remote, &own, flags, sequence, data).acknowledging(acknowledgement);
            assert_eq!(subject.run(&frame.bytes).verdict, Verdict::Redirect);
            only(subject)
        };
        let leaves = |flags, sequence, acknowledgement, data: &[u8]| {
            let frame = segment(&own, remote, flags, sequence, data).acknowledging(acknowledgement);
            subject.leave(&frame.bytes, &reported(&frame));
            only(subject)
        };
        let is = |row: Option<Connection>, state, confirmed| {
            let row = row.expect("a row");
            assert_eq!((row.state, row.is_confirmed()), (state, confirmed));
            assert_eq!(row.binding, 1);
        };
        is(arrives(SYN, 99, 0, &[]), State::Listen, false);
        is(leaves(SYN | ACK, 499, 100, &[]), State::SynReceived, false);
        // Where the interface is said to show the remote alone, only what this host says proves that it
        // has answered.
        is(arrives(ACK, 100, 500, &[]), State::Established, own_is_seen);
        is(
            arrives(ACK | PSH, 100, 500, b"question"),
            State::Established,
            own_is_seen,
        );
        is(
            leaves(ACK | PSH, 500, 108, b"answer"),
            State::Established,
            true,
        );
        is(arrives(ACK, 108, 506, &[]), State::Established, true);
        let row = only(subject).expect("a row");
        assert_eq!((row.rx_packets, row.tx_packets), (4, 2));
        assert_eq!((row.remote.next, row.local.next), (108, 506));
        arrives(FIN | ACK, 108, 506, &[]);
        leaves(ACK, 506, 109, &[]);
        is(leaves(FIN | ACK, 506, 109, &[]), State::LastAck, true);
        if own_is_seen {
            assert_eq!(arrives(ACK, 109, 507, &[]), None);
        }
        assert_eq!(subject.snapshot().table.entered, entered + 1);
        let protocol = Protocol::Tcp;
        let rows = subject.snapshot().rows;
        assert!(rows.keys().all(|it| *it == key(protocol, remote, &own)));
    }
}

/// The only row there is, if any.
fn only(subject: &impl Subject) -> Option<Connection> {
    let rows = subject.snapshot().rows;
    assert!(rows.len() <= 1);
    rows.into_values().next()
}

fn reported(frame: &Frame) -> Leaving {
    Leaving {
        segments: 0,
        is_forwarded: false,
        is_reported: true,
        packets: 1,
        bytes: frame.bytes.len() as u64,
        binding: 1,
    }
}
