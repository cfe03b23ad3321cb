//! Packets that are to be rejected: what is answered, what is not, and why.

use demux_common::{
    config::Reply,
    connection::State,
    protocol::Protocol,
    reason::{
        Reason::{
            self, BadChecksum, Bound as ByBinding, KernelSocket, NoReplyPath, NoSocket, NotLocal,
            Probation as OnProbation, Unanswerable, Unbound,
        },
        Stage, Verdict,
    },
    udp::REMOTE_SENT,
};

use super::{FAMILIES, REMOTE, local};
use crate::table::{
    check::{Case, RowAfter},
    frames::{
        ACK, DESTINATION_OPTIONS, FIN, FRAGMENT, Frame, HOP_BY_HOP, HOST_MAC, PSH, RST, SEQUENCE,
        SYN, URG, datagram, extension, fragment, packet, segment,
    },
    row::{Row, Said},
    world::{Bound, EPOCH, GONE, Probation, World, key, passing, rejecting},
};

/// What there is to decide, and what is counted.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in 0..FAMILIES.len() {
        for protocol in Protocol::ALL {
            cases.extend(policies(protocol, family));
            cases.extend(reply_paths(protocol, family));
            cases.extend(rows(protocol, family));
        }
    }
    cases
}

/// Packets that a binding rejects, all in the same world: their answers, or why there are none.
pub fn answers() -> Vec<Case> {
    let mut cases = Vec::new();
    for family in 0..FAMILIES.len() {
        for protocol in Protocol::ALL {
            cases.extend(shapes(protocol, family));
            cases.extend(checksums(protocol, family));
            cases.extend(sources(protocol, family));
        }
        cases.extend(flags(family));
        cases.extend(lengths(family));
    }
    cases
}

fn named(protocol: Protocol, family: usize, text: &str) -> String {
    let protocol = protocol.name();
    format!("reject {protocol} over {}: {text}", FAMILIES[family])
}

/// A world that rejects what the first binding says, which is everything.
pub fn refusing() -> World {
    passing().with([Bound::tcp("*:*").reject(), Bound::udp("*:*").reject()])
}

fn of_refusing(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    }
}

/// What a binding rejects, and is answered.
fn answered(text: &str, family: usize, frame: Frame) -> Case {
    let protocol = frame.protocol.expect("TCP or UDP");
    let name = named(protocol, family, text);
    Case::reject(name, refusing(), frame, Stage::Binding, ByBinding)
        .of_binding(of_refusing(protocol))
}

/// What is dropped instead.
fn dropped(text: &str, family: usize, frame: Frame, reason: Reason) -> Case {
    answered(text, family, frame).unanswered(Verdict::Drop, reason)
}

/// A port with a listener.
const fn taken(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => 22,
        Protocol::Udp => 53,
    }
}

fn policies(protocol: Protocol, family: usize) -> Vec<Case> {
    let named = |text: &str| named(protocol, family, text);
    let to = |local: &str| packet(protocol, REMOTE[family], local);
    let own = &local(family, 80);
    let open = &local(family, taken(protocol));
    let at = |address: &str| match family {
        0 => format!("{address}:80"),
        _ => format!("[{address}]:80"),
    };
    let strange = &at(["10.0.0.99", "2001:db8::99"][family]);
    let gone = &at(GONE[family]);
    let bound = || Bound::new(protocol, "*:*").reject();
    let reject = |text: &str, world: World, frame: Frame, stage, reason| {
        Case::reject(named(text), world, frame, stage, reason)
    };
    let pass = |text: &str, world: World, frame: Frame, stage, reason| {
        Case::pass(named(text), world, frame, stage, reason)
    };
    let is_default = Stage::Default;
    vec![
        reject("by default", rejecting(), to(own), is_default, NoSocket),
        reject(
            "by default, and nobody asks the kernel",
            rejecting().without_kernel_sockets(),
            to(open),
            is_default,
            Unbound,
        ),
        pass(
            "not what a socket takes",
            rejecting().tracking_bound(),
            to(open),
            Stage::KernelSocket,
            KernelSocket,
        ),
        pass(
            "not what a binding takes to the stack",
            rejecting().with([Bound::new(protocol, "*:80").untracked()]),
            to(own),
            Stage::Binding,
            ByBinding,
        )
        .of_binding(1),
        pass(
            "not by a default whose probation is over",
            rejecting().on_probation(Probation::Over),
            to(own),
            is_default,
            OnProbation,
        ),
        reject(
            "by a default on probation",
            rejecting().on_probation(Probation::Running),
            to(own),
            is_default,
            NoSocket,
        ),
        pass(
            "not to a strange address",
            rejecting(),
            to(strange),
            is_default,
            NotLocal,
        ),
        pass(
            "not to a strange address, though it is bound",
            passing().with([bound()]),
            to(strange),
            Stage::Binding,
            NotLocal,
        ),
        pass(
            "not what may be forwarded",
            rejecting().forwarding(),
            to(gone),
            is_default,
            NotLocal,
        ),
        reject(
            "whatever listens, by a binding",
            passing().with([bound()]),
            to(open),
            Stage::Binding,
            ByBinding,
        )
        .of_binding(1),
        Case::leave(
            named("no row for what a rejected port sends"),
            passing().with([bound()]).seeing_both(),
            packet(protocol, own, REMOTE[family]),
        ),
    ]
}

fn shapes(protocol: Protocol, family: usize) -> Vec<Case> {
    let frame = || packet(protocol, REMOTE[family], &local(family, 80));
    let mut cases = vec![
        answered("plain", family, frame()),
        answered("a tag", family, frame().tag(0x8100, 7)),
        answered(
            "two tags",
            family,
            frame().tag(0x8100, 7).tag(0x88a8, 0x6005),
        ),
    ];
    for padding in [1, 2, 6, 40] {
        cases.push(answered(
            &format!("{padding} bytes of padding"),
            family,
            frame().padded(padding),
        ));
        cases.push(answered(
            &format!("a tag and {padding} bytes of padding"),
            family,
            frame().tag(0x8100, 7).padded(padding),
        ));
    }
    if family == 0 {
        for words in [1, 5, 10] {
            cases.push(answered(
                &format!("{words} words of options"),
                family,
                frame().options(&vec![1; 4 * words]),
            ));
        }
        cases.push(dropped(
            "a wrong header checksum",
            family,
            frame().ip(8, &[63]),
            BadChecksum,
        ));
        cases.push(dropped(
            "a wrong header checksum behind a tag and options",
            family,
            frame().options(&[1; 8]).tag(0x8100, 7).ip(1, &[4]),
            BadChecksum,
        ));
    } else {
        cases.push(answered(
            "extension headers",
            family,
            frame().extensions(&[
                (HOP_BY_HOP, extension(0, 8)),
                (DESTINATION_OPTIONS, extension(2, 8)),
            ]),
        ));
        cases.push(answered(
            "an atomic fragment",
            family,
            frame().extensions(&[(FRAGMENT, fragment(0, false))]),
        ));
        cases.push(answered(
            "2,000 bytes of extension headers",
            family,
            frame().extensions(&[(HOP_BY_HOP, extension(249, 8))]),
        ));
    }
    cases
}

fn checksums(protocol: Protocol, family: usize) -> Vec<Case> {
    let frame = || packet(protocol, REMOTE[family], &local(family, 80));
    let field = match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
    };
    let mut cases = vec![
        answered("summed in full", family, frame().summed()),
        answered("summed in part", family, frame().partially_summed()),
        answered(
            "summed in part, with a tag and padding",
            family,
            frame().tag(0x8100, 7).padded(3).partially_summed(),
        ),
        dropped(
            "summed wrongly",
            family,
            frame().wrongly_summed(),
            BadChecksum,
        ),
        dropped(
            "damaged at its end",
            family,
            {
                let frame = frame();
                let last = frame.bytes.len() - 1;
                let byte = frame.bytes[last] ^ 1;
                frame.at(last, &[byte])
            },
            BadChecksum,
        ),
    ];
    let zero = frame().transport(field, &[0, 0]);
    cases.push(match (protocol, family) {
        (Protocol::Udp, 0) => answered("not summed at all", family, zero),
        _ => dropped("not summed at all", family, zero, BadChecksum),
    });
    if protocol == Protocol::Udp {
        // What is behind the datagram is not summed.
        let shorter = frame().transport(4, &[0, 11]).summed();
        cases.push(answered(
            "a datagram that ends before its packet",
            family,
            shorter,
        ));
        // The sum of this datagram is 0, which is sent as its complement.
        let zero = {
            let empty = datagram(REMOTE[family], &local(family, 80), &[0, 0]).summed();
            let sum = [
                empty.bytes[empty.transport + 6],
                empty.bytes[empty.transport + 7],
            ];
            let data = empty.transport(8, &sum);
            data.summed()
        };
        assert_eq!(zero.bytes[zero.transport + 6..][..2], [0xff, 0xff]);
        cases.push(answered("a sum of zero", family, zero));
    }
    cases
}

fn sources(protocol: Protocol, family: usize) -> Vec<Case> {
    let own = local(family, 80);
    let strange: &[(&str, &str)] = match family {
        0 => &[
            ("nobody", "0.0.0.0:9"),
            ("this network", "0.1.2.3:9"),
            ("itself", "127.0.0.1:9"),
            ("a group", "224.0.0.1:9"),
            ("a group far away", "239.255.255.255:9"),
            ("everybody", "255.255.255.255:9"),
            ("its destination", "10.0.0.2:80"),
            ("another port of its destination", "10.0.0.2:81"),
            ("another address of the host", "10.1.2.3:81"),
        ],
        _ => &[
            ("nobody", "[::]:9"),
            ("itself", "[::1]:9"),
            ("a group", "[ff02::1]:9"),
            ("its destination", "[2001:db8::2]:80"),
            ("another port of its destination", "[2001:db8::2]:81"),
            ("another address of the host", "[2001:db8:1:2::3]:81"),
        ],
    };
    let mut cases: Vec<Case> = strange
        .iter()
        .map(|(whom, remote)| {
            dropped(
                &format!("from {whom}"),
                family,
                packet(protocol, remote, &own),
                Unanswerable,
            )
        })
        .collect();
    let frame = || packet(protocol, REMOTE[family], &own);
    cases.push(dropped(
        "from a group of stations",
        family,
        frame().at(6, &[0x03, 0, 0, 0, 0, 1]),
        Unanswerable,
    ));
    cases.push(dropped(
        "from everybody's station",
        family,
        frame().at(6, &[0xff; 6]),
        Unanswerable,
    ));
    // What was sent to a station must not be taken for what it sends.
    cases.push(answered(
        "from the station itself",
        family,
        frame().at(6, &HOST_MAC),
    ));
    if family == 0 {
        cases.push(dropped(
            "to an inner address",
            family,
            packet(protocol, REMOTE[0], "127.0.0.1:80"),
            Unanswerable,
        ));
        cases.push(answered(
            "from port 0",
            family,
            packet(protocol, "10.0.0.1:0", &own),
        ));
    }
    cases
}

fn reply_paths(protocol: Protocol, family: usize) -> Vec<Case> {
    let frame = |port| packet(protocol, REMOTE[family], &local(family, port));
    let redirected = |case: Case, reply| Case {
        world: case.world.clone().replying(reply),
        name: format!("{} ({})", case.name, reply.name()),
        ..case
    };
    // More than there is in one buffer of a test run.
    let long = |port| {
        let data = vec![7; 4200];
        match protocol {
            Protocol::Tcp => segment(REMOTE[family], &local(family, port), ACK, SEQUENCE, &data),
            Protocol::Udp => datagram(REMOTE[family], &local(family, port), &data),
        }
    };
    vec![
        redirected(
            answered("left by redirect", family, frame(80)),
            Reply::Redirect,
        ),
        redirected(
            answered("no path", family, frame(80)).unanswered(Verdict::Pass, NoReplyPath),
            Reply::None,
        ),
        redirected(
            dropped(
                "no path, and somebody listens",
                family,
                frame(taken(protocol)),
                NoReplyPath,
            ),
            Reply::None,
        ),
        redirected(
            dropped(
                "no path for what is unanswerable",
                family,
                frame(80).at(6, &[0xff; 6]),
                Unanswerable,
            ),
            Reply::None,
        ),
        answered("several buffers", family, long(80)).unanswered(Verdict::Pass, NoReplyPath),
        dropped(
            "several buffers, and somebody listens",
            family,
            long(taken(protocol)),
            NoReplyPath,
        ),
    ]
}

fn rows(protocol: Protocol, family: usize) -> Vec<Case> {
    let own = &local(family, 80);
    let remote = REMOTE[family];
    let row = |epoch| match protocol {
        Protocol::Tcp => Row {
            key: key(protocol, remote, own),
            said: Said::both(State::Established, SEQUENCE),
            epoch,
            ..Row::udp(remote, own, State::Assured)
        },
        Protocol::Udp => Row {
            said: Said::udp(State::Assured, REMOTE_SENT),
            epoch,
            ..Row::udp(remote, own, State::Assured)
        },
    };
    let frame = || match protocol {
        Protocol::Tcp => segment(remote, own, ACK, SEQUENCE, b"data"),
        Protocol::Udp => packet(protocol, remote, own),
    };
    let bound = || passing().with([Bound::new(protocol, "*:80").reject()]);
    vec![
        Case::reject(
            named(protocol, family, "a binding ends a row from before"),
            bound().with_row(row(EPOCH - 1)),
            frame(),
            Stage::Binding,
            ByBinding,
        )
        .of_binding(1)
        .row(RowAfter::Gone),
        Case::reject(
            named(protocol, family, "a default ends a row from before"),
            rejecting().with_row(row(EPOCH - 1)),
            frame(),
            Stage::Default,
            NoSocket,
        )
        .row(RowAfter::Gone),
    ]
}

/// Every combination of control bits: all but resets are answered.
fn flags(family: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for flags in 0..64 {
        let frame = segment(REMOTE[family], &local(family, 80), flags, SEQUENCE, b"xyz");
        let text = format!("control bits {flags:#04x}");
        cases.push(if flags & RST != 0 {
            dropped(&text, family, frame, Unanswerable)
        } else {
            answered(&text, family, frame)
        });
    }
    // Numbers that wrap.
    for (flags, sequence, data) in [
        (SYN, u32::MAX, &b""[..]),
        (SYN | FIN, u32::MAX, b"x"),
        (FIN, u32::MAX - 1, b"xyz"),
        (PSH | URG, 0xffff_fff0, b"0123456789abcdef"),
    ] {
        let frame = segment(REMOTE[family], &local(family, 80), flags, sequence, data);
        let text = format!("control bits {flags:#04x} at {sequence}");
        cases.push(answered(&text, family, frame));
    }
    let acknowledging = |number| {
        segment(REMOTE[family], &local(family, 80), ACK, SEQUENCE, &[])
            .acknowledging(number)
            .summed()
    };
    cases.push(answered("acknowledging 0", family, acknowledging(0)));
    cases.push(answered(
        "acknowledging the last",
        family,
        acknowledging(u32::MAX),
    ));
    cases
}

/// Data of every length that is a limit to something.
fn lengths(family: usize) -> Vec<Case> {
    let limits = [
        0, 1, 2, 3, 4, 5, 7, 8, 511, 512, 513, 519, 520, 521, 1024, 1183, 1184, 1185, 1471, 1472,
        1500, 3000, 3400,
    ];
    let mut cases = Vec::new();
    for length in limits {
        let data: Vec<u8> = (0..length).map(|at: u32| (at * 7 + 1) as u8).collect();
        let (remote, own) = (REMOTE[family], &local(family, 80));
        let text = format!("{length} bytes");
        let datagram = datagram(remote, own, &data);
        let damaged = {
            let last = datagram.bytes.len() - 1;
            let byte = !datagram.bytes[last];
            datagram.clone().at(last, &[byte])
        };
        cases.push(answered(&text, family, datagram));
        let segment = segment(remote, own, ACK, SEQUENCE, &data);
        cases.push(answered(&text, family, segment));
        if length > 0 {
            let text = format!("{length} bytes, damaged");
            cases.push(dropped(&text, family, damaged, BadChecksum));
        }
    }
    cases
}
