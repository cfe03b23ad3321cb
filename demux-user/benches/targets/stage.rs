//! Two hosts, and a cable for each way of a packet.

use std::fs;

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    case::Target,
    common::{
        netns::{Netns, Queues},
        pair::{FAMILIES, Family, quick_netns},
    },
    frames::Stations,
    threads::Thread,
};

/// The interface of the host that demux is loaded on.
pub(crate) const DEMUX: &str = "bench-demux";

/// The interface of the host whose packets all go to this target.
pub(crate) fn plain(target: Target) -> String {
    format!("bench-{}", target.name())
}

/// The receiving and the sending host.
pub(crate) struct Stage {
    pub(crate) host: Netns,
    pub(crate) peer: Netns,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let stage = Self {
            host: quick_netns(),
            peer: quick_netns(),
        };
        for name in stage.interfaces() {
            let (host, peer) = (&stage.host, &stage.peer);
            host.veth_with_queues(&name, Queues::ONE, peer, &opposite(&name), Queues::ONE);
        }
        for family in FAMILIES {
            let bits = match family {
                Family::V4 => 24,
                Family::V6 => 64,
            };
            let address = format!("{}/{bits}", family.host());
            stage.host.add_address(DEMUX, &address);
        }
        stage
    }

    /// The interfaces of the host.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        let plain = Target::ALL.map(plain).into_iter();
        plain.chain([DEMUX.to_owned()]).collect()
    }

    /// The stations at the ends of a cable.
    pub(crate) fn stations(&self, interface: &str) -> Stations {
        Stations {
            to: self.host.mac(interface),
            from: self.peer.mac(&opposite(interface)),
        }
    }

    /// The index of the sender's end of a cable.
    pub(crate) fn sending(&self, interface: &str) -> u32 {
        self.peer.index(&opposite(interface))
    }

    /// Lets what arrives on all interfaces be received by threads, once there are programs on them, and
    /// returns the threads.
    pub(crate) fn receivers(&self) -> Vec<Thread> {
        let interfaces = self.interfaces();
        self.host.enter(|| {
            // A thread sees the files of its own namespace where it mounts them.
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).expect("a private root");
            mount(
                Some("sysfs"),
                "/sys",
                Some("sysfs"),
                MsFlags::empty(),
                None::<&str>,
            )
            .expect("the files of the namespace");
            for interface in &interfaces {
                fs::write(format!("/sys/class/net/{interface}/threaded"), "1")
                    .unwrap_or_else(|error| panic!("threads for {interface}: {error}"));
            }
        });
        let threads = interfaces.iter().flat_map(|interface| {
            let threads = Thread::of_kernel(&format!("napi/{interface}-"));
            assert_eq!(threads.len(), 1, "{interface} has one queue");
            threads
        });
        threads.collect()
    }
}

/// The peer's end of a cable.
fn opposite(interface: &str) -> String {
    format!("to-{interface}")
}
