//! Packets handed to CPUs and sockets, over more than one packet.

use demux_common::{fragments::LIFETIME, reason::Verdict};

use crate::{
    IFINDEX,
    table::{
        check::Leaving,
        conversation,
        frames::{self, ACK, FRAGMENT, PSH, fragment, segment},
        model::{Host, Model, STEADY, WRAPPED},
        steering::HandedTo,
        world::{Bound, FIRST_SLOT, SET, World, steering},
    },
};

#[test]
fn a_connection_of_a_socket_is_followed_by_what_is_reported() {
    for clock in [STEADY, WRAPPED] {
        conversation::of_a_socket(&mut Host::new(clock));
    }
}

#[test]
fn connections_spread_over_the_cpus_of_a_binding_and_each_stays_on_its_own() {
    const FLOWS: u16 = 20_000;
    let cpus = [3, 7, 8, 100, 255];
    let mut world = steering().with([Bound::tcp("*:80").to_cpus(&cpus)]);
    world.targets.cpus = cpus.to_vec();
    for [remote, own] in [
        ["10.0.0.1", "10.0.0.2:80"],
        ["[2001:db8::1]", "[2001:db8::2]:80"],
    ] {
        let model = Model::new(&world, IFINDEX).with_connections(32_768);
        let hand = |port: u16, flags| {
            let frame = segment(&format!("{remote}:{port}"), own, flags, 1000, &[]);
            assert_eq!(model.decide(&frame.bytes).verdict, Verdict::Redirect);
            model.steering.handed().expect("a CPU")
        };
        let first: Vec<HandedTo> = (0..FLOWS)
            .map(|flow| hand(1024 + flow, frames::SYN))
            .collect();
        for cpu in cpus {
            let on_it = first
                .iter()
                .filter(|it| **it == HandedTo::Cpu(u32::from(cpu)));
            let count = on_it.count();
            let even = usize::from(FLOWS) / cpus.len();
            assert!((even * 9 / 10..even * 11 / 10).contains(&count), "{count}");
        }
        let again: Vec<HandedTo> = (0..FLOWS)
            .map(|flow| hand(1024 + flow, ACK | PSH))
            .collect();
        assert_eq!(first, again);
    }
}

#[test]
fn fragments_go_where_the_whole_packets_of_their_connection_go() {
    let cpus: Vec<u16> = (0..16).collect();
    let mut world = steering().with([
        Bound::udp("*:80").to_cpus(&cpus),
        Bound::udp("*:81").to_set(SET),
    ]);
    world.targets.cpus.clone_from(&cpus);
    let model = Model::new(&world, IFINDEX);
    let hand = |frame: &frames::Frame| {
        assert_eq!(model.decide(&frame.bytes).verdict, Verdict::Redirect);
        model.steering.handed()
    };
    for port in 1024..2048 {
        for (remote, own) in [
            (format!("10.0.0.1:{port}"), "10.0.0.2"),
            (format!("[2001:db8::1]:{port}"), "[2001:db8::2]"),
        ] {
            let at = |port| frames::udp(&remote, &format!("{own}:{port}"));
            let cut = |frame: frames::Frame, offset: u16, more| {
                if frame.is_v4() {
                    let flags = if more { 0x2000 } else { 0 };
                    frame.ip(6, &u16::to_be_bytes(flags | offset / 8))
                } else {
                    frame.extensions(&[(FRAGMENT, fragment(offset, more))])
                }
            };
            let whole = hand(&at(80));
            assert_eq!(hand(&cut(at(80), 0, true)), whole);
            // Whatever stands where the ports were.
            assert_eq!(hand(&cut(at(99), 80, true)), whole);
            assert_eq!(hand(&cut(at(99), 160, false)), whole);
            // The next packet under the same identification is another one.
            let socket = Some(HandedTo::Socket(u32::from(FIRST_SLOT)));
            assert_eq!(hand(&cut(at(81), 0, true)), socket);
            assert_eq!(hand(&cut(at(99), 80, false)), socket);
        }
    }
    model.advance_ns(LIFETIME - 1);
    let late = |model: &Model| {
        let frame = frames::udp("10.0.0.1:2047", "10.0.0.2:99").ip(6, &[0, 10]);
        model.decide(&frame.bytes).verdict
    };
    assert_eq!(late(&model), Verdict::Redirect);
    model.advance_ns(1);
    assert_eq!(late(&model), Verdict::Pass);
}

#[test]
fn what_the_kernel_sends_from_an_endpoint_of_sockets_makes_no_row() {
    let world: World = steering().with([Bound::udp("*:80").to_set(SET)]);
    let model = Model::new(&world, IFINDEX);
    let answer = frames::udp("10.0.0.2:80", "10.0.0.1:40000");
    for (is_reported, rows) in [(false, 0), (true, 1)] {
        let leaving = Leaving {
            segments: 0,
            is_forwarded: false,
            is_reported,
            packets: 1,
            bytes: answer.bytes.len() as u64,
            binding: 1,
        };
        model.leave(&answer.bytes, &leaving);
        assert_eq!(model.snapshot().rows.len(), rows);
    }
}
