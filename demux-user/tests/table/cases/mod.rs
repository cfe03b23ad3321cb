//! The case table: one packet in one world each, with everything that is expected of it.

mod egress;
mod ethernet;
mod expiry;
mod fragments;
mod icmp;
mod ipv4;
mod ipv6;
mod precedence;
pub mod reject;
mod reserved;
mod rows;
mod rows_and_bindings;
mod rows_both;
mod sockets;
mod steering;
mod tcp;
mod udp;
mod wildcards;
mod worlds;

use demux_common::{
    connection::State,
    protocol::Protocol,
    reason::{Reason, Stage},
};

use super::{
    check::{Case, RowAfter, Way},
    frames::Frame,
    steering::Kept,
    world::{World, hostile},
};

/// Every case.
pub fn all() -> Vec<Case> {
    let mut cases: Vec<Case> = [
        ethernet::cases(),
        ipv4::cases(),
        ipv6::cases(),
        tcp::cases(),
        udp::cases(),
        precedence::cases(),
        wildcards::cases(),
        worlds::cases(),
        sockets::cases(),
        rows::cases(),
        rows_and_bindings::cases(),
        rows_both::cases(),
        expiry::cases(),
        egress::cases(),
        reject::cases(),
        reserved::cases(),
        steering::cases(),
        fragments::cases(),
        icmp::cases(),
    ]
    .concat();
    let again: Vec<Case> = cases.iter().filter_map(seeing_both).collect();
    cases.extend(again);
    let mut names: Vec<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    names.sort_unstable();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1], "two cases have the same name");
    }
    cases
}

/// The cases of packets that are handed on, or might be.
pub fn steered() -> Vec<Case> {
    [steering::cases(), fragments::cases(), icmp::cases()].concat()
}

/// The same case where this host's own packets are seen too, of a packet that arrives and makes a row.
fn seeing_both(case: &Case) -> Option<Case> {
    let mut case = case.clone();
    let RowAfter::Made(made) = &mut case.row else {
        return None;
    };
    if case.world.egress || matches!(case.way, Way::Out(_)) {
        return None;
    }
    // A FIN counts once this host acknowledges it.
    if made.said.state == State::CloseWait {
        made.said.state = State::Established;
    }
    case.world.egress = true;
    case.name = format!("both seen: {}", case.name);
    Some(case)
}

/// A local endpoint of either family and the remote that talks to it.
pub const REMOTE: [&str; 2] = ["10.0.0.1:40000", "[2001:db8::1]:40000"];
pub const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// The host's first address of a family with a port.
pub fn local(family: usize, port: u16) -> String {
    match family {
        0 => format!("10.0.0.2:{port}"),
        _ => format!("[2001:db8::2]:{port}"),
    }
}

/// A frame that the parser gives up: it passes, even where everything is dropped.
fn unjudged(name: &str, frame: Frame, reason: Reason) -> Case {
    unjudged_in(hostile(), name, frame, reason)
}

fn unjudged_in(world: World, name: &str, frame: Frame, reason: Reason) -> Case {
    Case::pass(name, world, frame, Stage::Parse, reason)
}

/// The first fragment of a packet to port 80: the binding that drops every port drops it, and all that
/// come after it.
fn dropped_fragment(name: &str, frame: Frame) -> Case {
    let protocol = frame.protocol.expect("TCP or UDP");
    let binding = match protocol {
        Protocol::Tcp => 1,
        Protocol::Udp => 2,
    };
    let family = usize::from(!frame.is_v4());
    let kept = Kept::new(protocol, REMOTE[family], &local(family, 80), binding);
    Case::drop(name, hostile(), frame, Stage::Binding, Reason::Fragment)
        .of_binding(binding)
        .keeps(kept)
}

/// A frame that is read to its end: the binding that drops every port drops it.
fn judged(name: &str, frame: Frame) -> Case {
    let binding = match frame.protocol {
        Some(Protocol::Tcp) => 1,
        Some(Protocol::Udp) => 2,
        None => panic!("{name}: nothing to judge"),
    };
    Case::drop(name, hostile(), frame, Stage::Binding, Reason::Bound).of_binding(binding)
}
