//! The old and the new ways of choosing a source port, and what one remote can see of them.

use anyhow::{Result, bail};

use super::{is_owned_by, port_of};
use crate::demo::stage::Stage;

/// The remotes of the table; each algorithm gets a port of theirs for itself.
const REMOTES: [&str; 2] = ["10.0.0.2", "10.0.0.3"];
/// How many ports each remote sees of each algorithm.
const ROUNDS: usize = 5;
/// The largest step of `random-increments` (RFC 6056, section 3.3.5: the trade-off N).
const LARGEST_STEP: u16 = 500;
/// The kernel's range in a new namespace, in which all but `sequential` choose.
const RANGE: std::ops::RangeInclusive<u16> = 32_768..=60_999;

pub(super) fn sequential(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "The old way: one after the other",
        "BSD began at 1025 and took the lowest port that was free. sequential does just that.",
    )?;
    let allocate = [
        "allocate",
        "tcp",
        "10.0.0.2:443",
        "--algorithm",
        "sequential",
    ];
    let mut chosen = Vec::new();
    for _ in 0..3 {
        chosen.extend(stage.lines(&allocate)?);
    }
    let expected = ["10.0.0.1:1025", "10.0.0.1:1026", "10.0.0.1:1027"];
    stage.claim(
        "the first three connections to alice come from 1025, 1026 and 1027",
        chosen == expected,
        &format!("{chosen:?}"),
    )?;
    stage.demux(&["ports", "1024-1030"])?;
    stage.expect(
        "each is reserved until the connection begins",
        &["ports", "1024-1030"],
        |items| {
            let ports: Vec<_> = items.iter().map(|row| &row["port"]).collect();
            ports == [1025, 1026, 1027] && items.iter().all(|row| row["owner"] == "reservation")
        },
    )?;
    stage.demux(&["release", "tcp", "10.0.0.1:1025", "10.0.0.2:443"])?;
    stage.expect(
        "1025 is given back, and nobody owns it",
        &["ports", "1025"],
        <[_]>::is_empty,
    )?;
    let next = stage.lines(&allocate)?;
    stage.claim(
        "so the next one is 1025 again",
        next == ["10.0.0.1:1025"],
        &format!("{next:?}"),
    )?;
    stage.expect("which is reserved once more", &["ports", "1025"], |items| {
        is_owned_by(items, "reservation")
    })
}

/// What both remotes saw of an algorithm: a port of each connection, in turn.
struct Seen {
    name: &'static str,
    ports: [Vec<u16>; 2],
}

pub(super) fn side_by_side(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "The old and the new ways side by side",
        "Whoever can guess the source port of a connection can forge its packets. The server opens \
         connections to alice and bob in turn, five to each, by every algorithm of RFC 6056. Each sees \
         only his own column; what can he tell of the other?",
    )?;
    stage.say("Each line is `demux allocate tcp REMOTE --algorithm NAME`, ten times.");
    stage.show(&format!(
        "{:<19}{:<33}WHAT BOB SEES",
        "ALGORITHM", "WHAT ALICE SEES"
    ));
    let names = [
        "sequential",
        "random",
        "hash",
        "double-hash",
        "random-increments",
    ];
    let mut all = Vec::new();
    for (remote_port, name) in (5001..).zip(names) {
        let seen = observe(stage, name, remote_port)?;
        let [alice, bob] = seen.ports.each_ref().map(|ports| shown(ports));
        stage.tell(&format!("{name:<19}{alice:<33}{bob}"));
        all.push(seen);
    }
    for seen in &all {
        let (claim, holds) = judge(seen)?;
        stage.claim(
            &format!("{}: {claim}", seen.name),
            holds,
            &format!("{:?}", seen.ports),
        )?;
    }
    Ok(())
}

/// Lets `name` choose for both remotes in turn.
fn observe(stage: &Stage<'_>, name: &'static str, remote_port: u16) -> Result<Seen> {
    let mut ports = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (address, seen) in REMOTES.iter().zip(&mut ports) {
            let remote = format!("{address}:{remote_port}");
            let items = stage.items(&["allocate", "tcp", &remote, "--algorithm", name])?;
            let local = items.first().and_then(|item| item["local"].as_str());
            seen.push(port_of(local.unwrap_or_default())?);
        }
    }
    Ok(Seen { name, ports })
}

/// What an observer may conclude, and whether that is so.
fn judge(seen: &Seen) -> Result<(&'static str, bool)> {
    let [alice, bob] = &seen.ports;
    let in_range = alice.iter().chain(bob).all(|port| RANGE.contains(port));
    let verdict = match seen.name {
        "sequential" => (
            "bob's ports are those that alice sees, so either can forge the other's connections",
            alice == bob && is_run(alice, 1) && alice[0] == 1025,
        ),
        "random" => (
            "no port says anything about another one",
            in_range && alice != bob && !is_run(alice, 1) && !is_run(bob, 1),
        ),
        "hash" => (
            "each remote has a place of its own, but they share one counter: bob's ports go up by two, \
             so he sees that there was a connection to somebody else between his",
            in_range && alice[0] != bob[0] && is_run(alice, 2) && is_run(bob, 2),
        ),
        "double-hash" => (
            "each remote has a place of its own, and what counts there is (nearly always) its own \
             connections",
            in_range && alice[0] != bob[0] && counts_alone(alice) && counts_alone(bob),
        ),
        "random-increments" => (
            "on and on by random steps of at most 500, so what comes next is known only roughly",
            in_range
                && in_turn(seen)
                    .windows(2)
                    .all(|pair| (1..=LARGEST_STEP).contains(&step(pair[0], pair[1]))),
        ),
        other => bail!("nobody knows what to expect of {other}"),
    };
    Ok(verdict)
}

/// Whether each port is `by` further than the one before.
fn is_run(ports: &[u16], by: u16) -> bool {
    ports.windows(2).all(|pair| step(pair[0], pair[1]) == by)
}

/// A run of steps of one, or of two where both remotes happen to have the same of the many counters.
fn counts_alone(ports: &[u16]) -> bool {
    is_run(ports, 1) || is_run(ports, 2)
}

/// The ports in the order in which they were chosen.
fn in_turn(seen: &Seen) -> Vec<u16> {
    let [alice, bob] = &seen.ports;
    alice
        .iter()
        .zip(bob)
        .flat_map(|(&one, &other)| [one, other])
        .collect()
}

/// How far it is from one port to another, upwards and over the end of the range.
fn step(from: u16, to: u16) -> u16 {
    if to >= from {
        to - from
    } else {
        RANGE.end() - from + 1 + to.saturating_sub(*RANGE.start())
    }
}

fn shown(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    words.join(" ")
}
