//! `connect()` of a program under `demux exec`, where the same program has most of the range in use.
//!
//! The program is this benchmark once more, told by hidden options to connect as
//! [`crate::connections`] does, and to write what each `connect()` took.

use std::{env, process::Command};

use demux_common::ports::Algorithm;

use crate::{
    common::{demux::Demux, netns::Netns},
    connections::Connections,
    usage::{FIRST, LAST},
};

/// The hidden options of this benchmark: how many connections there are, and how many are measured.
pub(crate) const COUNT: &str = "exec-count";
pub(crate) const TIMES: &str = "exec-times";

/// Stands before each figure: what the connections are made with writes a line of its own.
const MARK: &str = "ns ";

/// What the program does: makes so many connections where it was started, and writes the nanoseconds
/// of so many more.
pub(crate) fn program(count: usize, times: usize) {
    let mut connections = Connections::here();
    connections.raise_use(count);
    for connect in connections.measure(times) {
        println!("{MARK}{}", connect.searching);
    }
}

/// The nanoseconds that `connect()` takes in the program, with an algorithm of demux or without
/// demux.
pub(crate) fn measure(algorithm: Option<Algorithm>, count: usize, times: usize) -> Vec<f64> {
    let netns = Netns::new();
    netns.sysctl("net/ipv4/ip_local_port_range", &format!("{FIRST} {LAST}"));
    let demux = Demux::new(&netns);
    let program = env::current_exe().expect("the path of this benchmark");
    let arguments = [
        format!("--{COUNT}"),
        count.to_string(),
        format!("--{TIMES}"),
        times.to_string(),
    ];
    let mut command = match algorithm {
        Some(algorithm) => {
            demux.ok("load lo");
            // The historical algorithm has a range of its own, unless it is told another.
            demux.ok(&format!("set ephemeral.range={FIRST}-{LAST}"));
            let mut command = demux.command(&format!("exec --algorithm {}", algorithm.name()));
            command.arg("--").arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(arguments);
    let output = netns.enter(|| command.output()).expect("the program runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    told.lines()
        .filter_map(|line| line.strip_prefix(MARK))
        .map(|figure| figure.parse().expect("nanoseconds"))
        .collect()
}
