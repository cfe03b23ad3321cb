//! What nmap finds of a host: as it is, with a default of drop, and with one of reject.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::demo::{
    actors::{Knock, PATIENCE, SILENCE, enter, knock},
    interrupt,
    network::{self, BOB},
    stage::Stage,
};

/// The ports that are probed: two with a server, and the others.
const PORTS: &str = "1-100";
/// How many of them have no server.
const CLOSED: usize = 98;
/// One of these.
const CLOSED_PORT: u16 = 81;
/// How long to wait between two looks at something that has not happened yet.
const PAUSE: Duration = Duration::from_millis(20);

/// The `nmap` command.
///
/// # Errors
/// When there is none and none can be fetched.
pub(in crate::demo) fn nmap() -> Result<PathBuf> {
    network::program("nmap")
}

pub(super) fn before(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "bob probes the host",
        "demux is not on bob's cable yet. bob asks nmap for the first hundred ports.",
    )?;
    let (found, resets) = probe(stage)?;
    found_as(
        stage,
        "the two servers, and 98 closed ports",
        &found,
        "closed",
    )?;
    stage.claim(
        "the kernel has refused each of them itself, with a reset of its own (OutRsts)",
        resets >= CLOSED as u64,
        &format!("{resets} resets"),
    )
}

pub(super) fn drop(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "With a default of drop",
        "Now it is, and there is not one rule: the kernel's own sockets say what is wanted. Generic \
         mode is taken for what comes next: out of a veth in native mode, a driver's answers arrive \
         only if the other end runs XDP or GRO.",
    )?;
    stage.demux(&["load", "bob0", "--mode", "generic", "--default", "drop"])?;
    stage.expect("no binding is there", &["bindings"], <[_]>::is_empty)?;
    let before = unwanted(&stage.items(&["counters"])?, "drop");
    let (found, resets) = probe(stage)?;
    found_as(
        stage,
        "exactly the two servers; of the others nothing is heard",
        &found,
        "filtered",
    )?;
    stage.demux(&["counters"])?;
    stage.expect(
        "demux has dropped what no socket wants",
        &["counters"],
        |items| unwanted(items, "drop") >= before + CLOSED as u64,
    )?;
    silent(stage, resets)
}

pub(super) fn reject(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "With a default of reject",
        "Silence makes honest clients wait. reject refuses in the kernel's stead. (The warning of status \
         is about alice's cable, which is in native mode, and passes everything anyway.)",
    )?;
    stage.demux(&["set", "default@bob0=reject"])?;
    stage.demux(&["status"])?;
    stage.expect(
        "refusals leave by the way that the packet came (REPLY)",
        &["status"],
        |items| {
            let interfaces = items.first().and_then(|item| item["interfaces"].as_array());
            interfaces.is_some_and(|list| {
                list.iter().any(|row| {
                    row["name"] == "bob0"
                        && row["default"] == "reject"
                        && row["reply"] == "transmit"
                })
            })
        },
    )?;
    let before = unwanted(&stage.items(&["counters"])?, "reject");
    let (found, resets) = probe(stage)?;
    found_as(
        stage,
        "the two servers, and 98 closed ports, as before demux",
        &found,
        "closed",
    )?;
    stage.demux(&["counters"])?;
    stage.expect("this time demux has refused them", &["counters"], |items| {
        unwanted(items, "reject") >= before + CLOSED as u64
    })?;
    silent(stage, resets)?;
    let answer = knock(BOB, CLOSED_PORT, PATIENCE)?;
    stage.act(
        "bob",
        &format!("connects to port {CLOSED_PORT}: {answer:?}"),
    );
    stage.claim(
        "an ordinary client gets ECONNREFUSED at once",
        answer == Knock::Refused,
        &format!("{answer:?}"),
    )
}

pub(super) fn unload(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Away",
        "unload removes everything. The kernel answers for itself again.",
    )?;
    stage.demux(&["unload", "--all"])?;
    let before = network::resets_sent()?;
    let deadline = Instant::now() + PATIENCE;
    let mut answer = knock(BOB, CLOSED_PORT, SILENCE)?;
    // The kernel takes programs off in the background, once the last reference to them is gone.
    while network::resets_sent()? == before && Instant::now() < deadline {
        thread::sleep(PAUSE);
        answer = knock(BOB, CLOSED_PORT, SILENCE)?;
    }
    stage.act(
        "bob",
        &format!("connects to port {CLOSED_PORT}: {answer:?}"),
    );
    let resets = network::resets_sent()? - before;
    stage.claim(
        "the reset is the kernel's",
        answer == Knock::Refused && resets > 0,
        &format!("{answer:?}, {resets} resets"),
    )
}

/// What nmap says: the open ports, and how many others are in which state.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    open: Vec<u16>,
    others: BTreeMap<String, usize>,
}

/// Lets bob scan the host in view of the audience; also how many resets the kernel sent meanwhile.
fn probe(stage: &Stage<'_>) -> Result<(Found, u64)> {
    interrupt::check()?;
    let host = network::server(0).ip().to_string();
    // A SYN scan, as for any root; no names are asked for, and what is silent is asked once more.
    let args = [
        "-n",
        "-Pn",
        "-sS",
        "-T4",
        "--max-retries",
        "1",
        "-p",
        PORTS,
        &host,
    ];
    stage.command(&format!("ip netns exec {BOB} nmap {}", args.join(" ")));
    let mut command = Command::new(nmap()?);
    command.args(args).stdin(Stdio::null());
    let before = network::resets_sent()?;
    let output = enter(BOB, || command.output().context("cannot start nmap"))?;
    interrupt::check()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "nmap failed ({}): {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    for line in text.lines().filter(|line| !line.is_empty()) {
        stage.tell(line);
    }
    let resets = network::resets_sent()? - before;
    Ok((Found::parse(&text), resets))
}

impl Found {
    /// Reads lines such as `22/tcp open ssh` and `Not shown: 98 closed tcp ports (reset)`.
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines() {
            if let Some(others) = line.strip_prefix("Not shown: ") {
                for group in others.split(", ") {
                    let mut words = group.split_whitespace();
                    if let (Some(Ok(count)), Some(state)) =
                        (words.next().map(str::parse), words.next())
                    {
                        found.put(state, count);
                    }
                }
            } else if let Some((port, rest)) = line.split_once("/tcp")
                && let Ok(port) = port.parse()
            {
                match rest.split_whitespace().next() {
                    Some("open") => found.open.push(port),
                    Some(state) => found.put(state, 1),
                    None => {}
                }
            }
        }
        found
    }

    fn put(&mut self, state: &str, count: usize) {
        *self.others.entry(state.to_owned()).or_default() += count;
    }
}

/// Claims that the servers were found, and all other ports in this state.
fn found_as(stage: &mut Stage<'_>, what: &str, found: &Found, state: &str) -> Result<()> {
    let expected = Found {
        open: vec![22, 80],
        others: BTreeMap::from([(state.to_owned(), CLOSED)]),
    };
    stage.claim(
        &format!("nmap finds {what}"),
        *found == expected,
        &format!("{found:?}"),
    )
}

/// Claims that the kernel's own stack has refused nobody.
fn silent(stage: &mut Stage<'_>, resets: u64) -> Result<()> {
    stage.claim(
        "the kernel's own stack has refused nothing: it has sent no reset (OutRsts)",
        resets == 0,
        &format!("{resets} resets"),
    )
}

/// How many packets on bob's cable got this verdict because no socket wants them.
fn unwanted(counters: &[Value], verdict: &str) -> u64 {
    let is_it = |row: &&Value| {
        row["iface"] == "bob0" && row["verdict"] == verdict && row["reason"] == "no-socket"
    };
    let packets = counters
        .iter()
        .filter(is_it)
        .filter_map(|row| row["packets"].as_u64());
    packets.sum()
}

#[cfg(test)]
mod tests {
    use super::Found;

    #[test]
    fn a_report_of_nmap_is_read() {
        let found = Found::parse(
            "Nmap scan report for 10.0.0.1\n\
             Not shown: 90 filtered tcp ports (no-response), 7 closed tcp ports (reset)\n\
             PORT   STATE SERVICE\n22/tcp open ssh\n80/tcp open  http\n81/tcp closed hosts2-ns\n",
        );
        assert_eq!(found.open, [22, 80]);
        assert_eq!(found.others["filtered"], 90);
        assert_eq!(found.others["closed"], 8);
    }
}
