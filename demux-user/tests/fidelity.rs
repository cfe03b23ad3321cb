//! What the connection table says of real TCP connections, beside what the kernel says of them.

mod common;

#[path = "fidelity/exceptions.rs"]
mod exceptions;
#[path = "fidelity/random.rs"]
mod random;
#[path = "fidelity/world.rs"]
mod world;

use std::io::{Read as _, Write as _};

use common::{
    pair::FAMILIES,
    sockets::{connect, listen},
};
use world::{Opener, World};

common::in_both_modes! {
    random_connections_are_in_the_state_that_the_kernel_has_them_in
    packets_and_bytes_are_those_of_the_kernel
}

fn random_connections_are_in_the_state_that_the_kernel_has_them_in(mode: &str) {
    random::run(&World::load(&format!("--mode {mode}")));
}

/// A megabyte each way, in segments that are cut behind demux and put together before it.
fn packets_and_bytes_are_those_of_the_kernel(mode: &str) {
    const DATA: usize = 1 << 20;
    let world = World::load(&format!("--mode {mode}"));
    for family in FAMILIES {
        for opener in Opener::ALL {
            let (from, to, at) = world.route(opener, family, 8080);
            let listener = listen(to, at);
            let mut ends = connect(from, &listener, at);
            for turn in 0..2 {
                let (sender, receiver) = if turn == 0 {
                    (&mut ends.0, &mut ends.1)
                } else {
                    (&mut ends.1, &mut ends.0)
                };
                std::thread::scope(|scope| {
                    scope.spawn(|| sender.write_all(&vec![7; DATA]).unwrap());
                    receiver.read_exact(&mut vec![0; DATA]).unwrap();
                });
            }
            let (host, peer) = match opener {
                Opener::Host => (&ends.0, &ends.1),
                Opener::Peer => (&ends.1, &ends.0),
            };
            // On its way into a native program, what is too large for the cable is cut.
            world.counts(host, peer, family, mode == "native");
        }
    }
}
