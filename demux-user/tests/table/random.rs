//! Chance that can be repeated, and what it makes: bindings, packets, damage.

use std::{env, net::IpAddr, time::SystemTime};

use demux_common::{
    address::Family,
    binding::{Binding, NAME_LEN, Target},
    protocol::Protocol,
};
use demux_user::bindings::{Compiled, compile, pattern::from_ip};

use super::{
    frames::{Frame, packet},
    oracle::Arrival,
    world::{CPU, NO_CPU, World, dropping, rejecting, steering},
};

/// The environment variable that repeats a run.
const SEED: &str = "DEMUX_TEST_SEED";

/// The environment variable that asks for fewer cases.
const CASES: &str = "DEMUX_TEST_CASES";

/// `most` cases, or as many as the environment allows.
pub fn cases(most: usize) -> usize {
    env::var(CASES).map_or(most, |text| {
        let fewer: usize = text.parse().expect("a number of cases");
        most.min(fewer)
    })
}

/// SplitMix64: small, and good enough for this.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Seeded by the environment, or by the clock; says which.
    pub fn new() -> Self {
        let seed = env::var(SEED).map_or_else(
            |_| {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                now.expect("a time after 1970").as_nanos() as u64
            },
            |text| text.parse().expect("a number as seed"),
        );
        println!("to repeat this: {SEED}={seed}");
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Addresses near each other, so that patterns overlap. Some of each family are the host's own.
const ADDRESSES: [&str; 14] = [
    "10.0.0.2",
    "10.0.0.3",
    "10.1.2.3",
    "10.1.2.4",
    "10.0.0.99",
    "172.16.0.1",
    "127.0.0.1",
    "2001:db8::2",
    "2001:db8::3",
    "2001:db8:1:2::3",
    "2001:db8:1:2::4",
    "2001:db8::99",
    "fd00::1",
    "::1",
];

const PORTS: [u16; 9] = [0, 1, 79, 80, 81, 443, 8080, 65_534, 65_535];

/// Epochs around the wrap; none is 0.
const EPOCHS: [u32; 8] = [u32::MAX - 2, u32::MAX - 1, u32::MAX, 1, 2, 3, 4, 5];

/// Bindings that can be compiled, and what becomes of them.
pub fn bindings(random: &mut Random, ifindex: u32) -> (Vec<(u16, Binding)>, Compiled) {
    let mut bindings: Vec<(u16, Binding)> = Vec::new();
    for index in 1..=4 + random.below(24) as u16 {
        let mut binding = binding(random, index, ifindex);
        if !bindings.is_empty() && random.one_in(4) {
            // The same once more, or nearly.
            let (_, other) = bindings[random.below(bindings.len())];
            binding = Binding {
                name: binding.name,
                created: binding.created,
                target: binding.target,
                set: binding.set,
                flags: if random.one_in(2) {
                    binding.flags
                } else {
                    other.flags
                },
                ..other
            };
            if binding.family == Family::Ipv4 || binding.prefix_len != 0 {
                binding.flags &= !Binding::V6_ONLY;
            }
        }
        bindings.push((index, binding));
    }
    // Too many ports and ranges that overlap are refused.
    loop {
        match compile(&bindings) {
            Ok(compiled) => return (bindings, compiled),
            Err(_) => bindings.pop(),
        };
    }
}

/// The CPUs of the binding at an index, if it is to such: every other one names one that takes packets.
pub fn cpus(index: u16) -> [u16; 1] {
    [if index.is_multiple_of(2) { CPU } else { NO_CPU }]
}

/// A world in which the bindings decide, and a default that does not pass where there is none.
pub fn world(random: &mut Random) -> World {
    let world = World {
        targets: steering().targets,
        ..random.pick(&[dropping, rejecting])()
    };
    world
        .without_kernel_sockets()
        .tracking_bound()
        .by_queue(random.below(4) as u32)
}

fn binding(random: &mut Random, index: u16, ifindex: u32) -> Binding {
    let address: IpAddr = random.pick(&ADDRESSES).parse().expect("an address");
    let all = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = match random.below(4) {
        0 => 0,
        1 => all,
        2 => random.pick(&[1, all / 4, all / 2, 3 * (all / 4), all - 1]),
        _ => 1 + random.below(usize::from(all) - 1) as u8,
    };
    let (one, other) = (random.pick(&PORTS), random.pick(&PORTS));
    let (first_port, last_port) = match random.below(4) {
        0 => (0, u16::MAX),
        1 => (one.min(other), one.max(other)),
        _ => (one, one),
    };
    let net = ipnet::IpNet::new(address, prefix_len)
        .expect("a prefix")
        .trunc();
    // Bindings that share a pattern are allowed to; groups are not made.
    let mut flags = Binding::UNTRACKED | Binding::REUSE_ADDR;
    if random.one_in(2) {
        flags |= Binding::FALLBACK_STACK;
    }
    if address.is_ipv6() && prefix_len == 0 && random.one_in(2) {
        flags |= Binding::V6_ONLY;
    }
    let mut name = [0; NAME_LEN];
    let text = format!("b{index}");
    name[..text.len()].copy_from_slice(text.as_bytes());
    Binding {
        address: from_ip(net.addr()),
        name,
        created: random.pick(&EPOCHS),
        ifindex: random.pick(&[0, 0, 0, ifindex, ifindex, ifindex + 1]),
        first_port,
        last_port,
        family: if address.is_ipv4() {
            Family::Ipv4
        } else {
            Family::Ipv6
        },
        protocol: random.pick(&Protocol::ALL),
        prefix_len,
        target: random.pick(&[
            Target::Stack,
            Target::Drop,
            Target::Reject,
            Target::Cpu,
            Target::Xsk,
        ]),
        flags,
        reserved: 0,
        next_member: 0,
        set: random.pick(&[1, 1, 2, 3, 60]),
        steered_until: 0,
    }
}

/// A packet to one of the addresses, or next to it.
pub fn arrival(random: &mut Random, ifindex: u32) -> (Arrival, Frame) {
    let local: IpAddr = random.pick(&ADDRESSES).parse().expect("an address");
    let port = if random.one_in(8) {
        random.next() as u16
    } else {
        random
            .pick(&PORTS)
            .wrapping_add(random.pick(&[0, 0, 0, 0, 1, u16::MAX]))
    };
    let protocol = random.pick(&Protocol::ALL);
    let (remote, text) = if local.is_ipv4() {
        ("10.0.0.1:40000", format!("{local}:{port}"))
    } else {
        ("[2001:db8::1]:40000", format!("[{local}]:{port}"))
    };
    let mut frame = packet(protocol, remote, &text);
    if random.one_in(8) {
        frame = frame.tag(0x8100, 7);
    }
    if random.one_in(4) {
        // About as long as sockets take.
        let length = 1998 + random.below(4) - frame.bytes.len();
        frame = frame.padded(length);
    }
    let arrival = Arrival {
        protocol,
        local,
        port,
        ifindex,
        length: frame.bytes.len(),
    };
    (arrival, frame)
}

/// Damages a frame in one to four places, which may be its end.
pub fn damage(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        // Most of what matters stands at the start.
        let reach = if random.one_in(4) {
            frame.len()
        } else {
            frame.len().min(80)
        };
        let place = random.below(reach);
        match random.below(8) {
            0 => {
                frame[place] = random.pick(&[
                    0, 1, 4, 6, 17, 43, 44, 50, 51, 59, 60, 135, 0x81, 0x88, 0xff,
                ]);
            }
            1 => frame[place] = random.next() as u8,
            2 => frame[place] ^= 1 << random.below(8),
            3 => frame[place] = frame[place].wrapping_add(random.pick(&[1, u8::MAX, 4, 8])),
            4 => {
                let other = random.below(reach);
                frame.swap(place, other);
            }
            5 => frame.truncate(place.max(14)),
            6 if frame.len() < 3000 => {
                frame.resize(frame.len() + random.below(64), random.next() as u8);
            }
            _ if frame.len() < 3000 => {
                // A header once more, or bytes of one.
                let bytes: Vec<u8> = frame[place..(place + 8).min(frame.len())].to_vec();
                frame.splice(place..place, bytes);
            }
            _ => {}
        }
    }
}
