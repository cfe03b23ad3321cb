//! What is on the hooks for packets that leave: looking, and adding what is not demux's.

use std::{fs, mem, os::fd::AsFd as _, path::Path};

use aya::programs::{
    SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact},
};
use demux_user::{
    attach::{clsact, egress},
    bpf,
};

use super::{bpf::egress_program, netns::Netns};

/// The names of what is on the hooks of an interface, in the order in which it runs, each with its hook.
pub fn on_egress(netns: &Netns, interface: &str) -> Vec<String> {
    let ifindex = netns.index(interface);
    let programs = netns.enter(|| egress::programs(ifindex).unwrap());
    programs
        .iter()
        .map(|program| format!("{} {}", program.hook.name(), program.name))
        .collect()
}

/// The kind of the qdisc in the place of `clsact`.
pub fn qdisc(netns: &Netns, interface: &str) -> Option<String> {
    let ifindex = netns.index(interface);
    netns.enter(|| clsact::qdisc(ifindex).unwrap())
}

pub fn add_clsact(netns: &Netns, interface: &str) {
    netns.enter(|| add_clsact_here(interface));
}

/// As [`add_clsact`], in the namespace of the caller.
pub fn add_clsact_here(interface: &str) {
    qdisc_add_clsact(interface).unwrap();
}

/// Adds a filter that runs a program of this name on what leaves; `bpffs` is where it may be pinned for
/// a moment.
pub fn add_filter(netns: &Netns, bpffs: &Path, interface: &str, name: &str, priority: u16) {
    netns.enter(|| add_filter_here(bpffs, interface, name, priority));
}

/// As [`add_filter`], in the namespace of the caller.
pub fn add_filter_here(bpffs: &Path, interface: &str, name: &str, priority: u16) {
    let pin = bpffs.join(name);
    let program = egress_program(name);
    bpf::object_pin(program.as_fd(), &pin).unwrap();
    let options = NlOptions {
        priority,
        handle: TcHandle::new(0, 1),
        classid: None,
    };
    let mut classifier = SchedClassifier::from_pin(&pin).unwrap();
    let id = classifier
        .attach_with_options(
            interface,
            TcAttachType::Egress,
            TcAttachOptions::Netlink(options),
        )
        .unwrap();
    // It is to stay.
    mem::forget(classifier.take_link(id).unwrap());
    fs::remove_file(pin).unwrap();
}
