//! The object with the programs that demux is compared with, and with the sender.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{SchedClassifier, Xdp},
};
use demux_user::bpf;

use crate::{
    case::Target,
    common::bpf::{GENERIC, NATIVE, attach_tcx_ingress, attach_xdp},
    stage::{self, Stage},
    threads::Thread,
};

/// How many frames wait for a CPU at most: as many as with demux.
const CPU_QUEUE: u32 = 2048;

/// The object, with its programs attached.
pub(crate) struct Plain {
    ebpf: Ebpf,
    cpu: usize,
    _links: Vec<OwnedFd>,
}

impl Plain {
    /// Loads it, with the programs for all targets on interfaces of their own, and what counts the stack's packets on all.
    pub(crate) fn load(path: &Path, stage: &Stage, cpu: usize) -> Self {
        let mut loader = EbpfLoader::new();
        // What the benchmark of the datapath looks up in.
        for map in ["HASH", "LINES"] {
            loader.map_max_entries(map, 1);
        }
        let cpus = bpf::possible_cpus().expect("the CPUs") as u32;
        loader.map_max_entries("PLAIN_CPUS", cpus);
        let number = cpu as u32;
        loader.override_global("PLAIN_CPU", &number, true);
        let mut ebpf = loader
            .load_file(path)
            .unwrap_or_else(|error| panic!("cannot load {}: {error:?}", path.display()));
        for name in ["noop", "plain_cpu", "plain_xsk", "feed"] {
            let program: &mut Xdp = ebpf
                .program_mut(name)
                .unwrap_or_else(|| panic!("the object has no program {name}"))
                .try_into()
                .expect("an XDP program");
            program
                .load()
                .unwrap_or_else(|error| panic!("cannot load {name}: {error:?}"));
        }
        let stack: &mut SchedClassifier = ebpf
            .program_mut("stack")
            .expect("the object has a counter")
            .try_into()
            .expect("a classifier");
        stack.load().expect("the counter loads");
        let mut plain = Self {
            ebpf,
            cpu,
            _links: Vec::new(),
        };
        plain.set_cpu();
        let mut links = Vec::new();
        for target in Target::ALL {
            let name = match target {
                Target::Pass => "noop",
                Target::Cpu => "plain_cpu",
                Target::Xsk => "plain_xsk",
            };
            let index = stage.host.index(&stage::plain(target));
            let program = plain.program(name);
            links.push(stage.host.enter(|| attach_xdp(program, index, NATIVE)));
        }
        for interface in stage.interfaces() {
            let index = stage.host.index(&interface);
            let counter = plain.program("stack");
            links.push(stage.host.enter(|| attach_tcx_ingress(counter, index)));
        }
        // Test runs of what is attached nowhere wait for the kernel, before and after.
        let loopback = stage.peer.index("lo");
        let feed = plain.program("feed");
        links.push(stage.peer.enter(|| attach_xdp(feed, loopback, GENERIC)));
        plain._links = links;
        plain
    }

    fn set_cpu(&self) {
        let map = self.map("PLAIN_CPUS");
        let size = bpf::map_info(map).expect("the map").value_size as usize;
        let value: Vec<u8> = [CPU_QUEUE, 0]
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        let key = (self.cpu as u32).to_ne_bytes();
        bpf::map_update(map, &key, &value[..size], 0).expect("a CPU that is there");
    }

    /// Lets what arrives on the first queue of the interface for sockets go to this one.
    pub(crate) fn set_socket(&self, socket: BorrowedFd<'_>) {
        let value = socket.as_raw_fd().to_ne_bytes();
        bpf::map_update(self.map("PLAIN_SOCKETS"), &[0; 4], &value, 0).expect("a place for it");
    }

    /// The threads of its CPU map.
    pub(crate) fn threads(&self) -> Vec<Thread> {
        threads_of(self.map("PLAIN_CPUS"), self.cpu)
    }

    /// How many packets the stack has had.
    pub(crate) fn to_stack(&self) -> u64 {
        let mut values = vec![0; bpf::possible_cpus().expect("the CPUs") * 8];
        bpf::map_lookup(self.map("TO_STACK"), &[0; 4], &mut values).expect("the counts");
        let words = values.chunks_exact(8);
        words
            .map(|word| u64::from_ne_bytes(word.try_into().expect("eight bytes")))
            .sum()
    }

    pub(crate) fn program(&self, name: &str) -> BorrowedFd<'_> {
        let program = self.ebpf.program(name).expect("a program of the object");
        program.fd().expect("a loaded program").as_fd()
    }

    pub(crate) fn map(&self, name: &str) -> BorrowedFd<'_> {
        match self.ebpf.map(name) {
            Some(Map::Array(map) | Map::PerCpuArray(map) | Map::CpuMap(map) | Map::XskMap(map)) => {
                map.fd().as_fd()
            }
            other => panic!("{name} is {other:?}"),
        }
    }
}

/// The threads that receive the frames of a CPU map on a CPU.
pub(crate) fn threads_of(map: BorrowedFd<'_>, cpu: usize) -> Vec<Thread> {
    let id = bpf::map_info(map).expect("the map").id;
    let threads = Thread::of_kernel(&format!("cpumap/{cpu}/map:{id}"));
    assert!(!threads.is_empty(), "no thread for CPU {cpu} of map {id}");
    threads
}
