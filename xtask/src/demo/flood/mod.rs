//! The scene `flood`: thousands of connections live on while millions of spoofed SYNs pass.

mod checks;
mod crowd;
mod server;
mod spoof;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

pub(super) use self::server::serve;
use self::{
    crowd::{Crowd, Newcomers},
    server::Server,
    spoof::Flood,
};
use super::{
    network::{self, ALICE, BOB},
    stage::Stage,
};

/// How often numbers are shown.
const TICK: Duration = Duration::from_secs(1);
/// How long the flood may take: a machine with time to spare needs a tenth of it.
const LIMIT: Duration = Duration::from_secs(150);
/// How long a connection may take to open during the flood: lost segments are sent again after
/// 1 and 3 seconds.
const OPENING: Duration = Duration::from_secs(10);

const PICTURE: &str = "     demux-demo-alice                     demux-demo-server
    +----------------+                   +----------------------------+
    |  the clients   +-------------------+ alice0          10.0.0.1   |
    |       10.0.0.2 |                   |                            |
    +----------------+                   |   web server on port 80    |
     demux-demo-bob                      |                            |
    +----------------+                   |                            |
    |  the flood     +-------------------+ bob0      the way to all   |
    |  198.18.0.0/15 |                   |           other addresses  |
    +----------------+                   +----------------------------+";

/// How large the scene is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Real connections, which are there throughout.
    pub(super) connections: u16,
    /// Spoofed SYNs that demux has to pass.
    pub(super) syns: u64,
}

pub(super) fn play(stage: &mut Stage<'_>, size: Size) -> Result<()> {
    let _server = set_up(stage)?;
    let crowd = connect(stage, size)?;
    let outcome = flood(stage, size)?;
    checks::after(stage, size, &crowd, outcome)?;
    checks::compared(stage)?;
    if stage.is_kept() {
        return Ok(());
    }
    stage.step("Away", "unload removes the tables. The connections go on.")?;
    stage.demux(&["unload", "--all"])?;
    checks::answers(stage, &crowd)
}

fn set_up(stage: &mut Stage<'_>) -> Result<Server> {
    stage.step(
        "A server, its clients, and somebody else",
        "The clients are on alice. bob will send SYNs from addresses that are not his. The server's \
         answers to them go back by his cable, as they would to the Internet.",
    )?;
    stage.show(PICTURE);
    network::route_everything_else_to_bob()?;
    network::give_up_handshakes_early()?;
    Server::start()
}

fn connect(stage: &mut Stage<'_>, size: Size) -> Result<Crowd> {
    let all = usize::from(size.connections);
    let before = all / 2;
    stage.step(
        &format!("{} connections", grouped(all as u64)),
        "Real ones, of real sockets. Half of them are opened before demux is loaded: what the kernel \
         has already is entered by load.",
    )?;
    let mut crowd = Crowd::new(all)?;
    open(stage, &mut crowd, before)?;
    stage.demux(&["load", "alice0", "bob0"])?;
    stage.expect(
        &format!(
            "the {} are in the table straight after load, confirmed",
            grouped(before as u64)
        ),
        &["status"],
        |items| count(items, "connections") == before as u64 && confirmed(items) == before as u64,
    )?;
    stage.say("The other half is entered by its packets:");
    stage.demux(&["bind", "tcp", ":80", "--name", "web"])?;
    open(stage, &mut crowd, all - before)?;
    stage.expect(
        &format!("all {} are confirmed", grouped(all as u64)),
        &["status"],
        |items| count(items, "connections") == all as u64 && confirmed(items) == all as u64,
    )?;
    checks::agrees(
        stage,
        "and each is in the state that the kernel says it is in",
    )?;
    Ok(crowd)
}

fn open(stage: &Stage<'_>, crowd: &mut Crowd, number: usize) -> Result<()> {
    let started = Instant::now();
    crowd.open(number)?;
    stage.act(
        "alice",
        &format!(
            "opens {} connections in {:.1} s",
            grouped(number as u64),
            started.elapsed().as_secs_f64()
        ),
    );
    Ok(())
}

/// What happened in the flood.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    sent: u64,
    passed: u64,
    displaced: u64,
    max_connections: u64,
    tried: u64,
    opened: u64,
    took: Duration,
}

fn flood(stage: &mut Stage<'_>, size: Size) -> Result<(Outcome, Newcomers)> {
    stage.step(
        "The flood",
        "bob sends SYNs to port 80 as fast as this machine can, each from another address and port. \
         Each makes a row that nobody at this host has consented to; soon the table is full of them. \
         Meanwhile alice opens a new connection every 50 ms. The numbers are those of status and \
         counters, as they are at the moment.",
    )?;
    let passed_before = passed(&stage.items(&["counters"])?);
    let max_connections = count(&stage.items(&["status"])?, "max_connections");
    let flood = Flood::start(BOB, network::server(80))?;
    let newcomers = Newcomers::start(ALICE, OPENING)?;
    let started = Instant::now();
    stage
        .show("  TIME  CONFIRMED     ROWS  SYNS PASSED   PER SECOND    DISPLACED  NEW CONNECTIONS");
    let (mut last_time, mut last_passed) = (started, 0);
    loop {
        thread::sleep(TICK.saturating_sub(last_time.elapsed()));
        let counters = stage.items(&["counters"])?;
        let now = Instant::now();
        let status = stage.items(&["status"])?;
        let passed = passed(&counters) - passed_before;
        let (tried, opened) = newcomers.numbers();
        let rate = (passed - last_passed) as f64 / (now - last_time).as_secs_f64();
        stage.tell(&format!(
            "{:>4.0} s {:>10} {:>8} {:>12} {:>12} {:>12}  {opened} of {tried}",
            (now - started).as_secs_f64(),
            grouped(confirmed(&status)),
            grouped(count(&status, "connections")),
            grouped(passed),
            grouped(rate as u64),
            grouped(count(&status, "displaced")),
        ));
        (last_time, last_passed) = (now, passed);
        if passed >= size.syns || started.elapsed() > LIMIT {
            break;
        }
    }
    let sent = flood.end()?;
    let took = started.elapsed();
    let newcomers = newcomers.end()?;
    let (tried, opened) = newcomers.numbers();
    let displaced = count(&stage.items(&["status"])?, "displaced");
    let outcome = Outcome {
        sent,
        passed: passed(&stage.items(&["counters"])?) - passed_before,
        displaced,
        max_connections,
        tried,
        opened,
        took,
    };
    Ok((outcome, newcomers))
}

/// How many packets passed on the flooded interface because of the binding.
fn passed(counters: &[Value]) -> u64 {
    let is_it = |row: &&Value| {
        row["iface"] == "bob0" && row["reason"] == "bound" && row["verdict"] == "pass"
    };
    let packets = counters
        .iter()
        .filter(is_it)
        .filter_map(|row| row["packets"].as_u64());
    packets.sum()
}

/// A number of the status.
fn count(status: &[Value], name: &str) -> u64 {
    let value = status.first().and_then(|item| item[name].as_u64());
    value.unwrap_or_default()
}

fn confirmed(status: &[Value]) -> u64 {
    count(status, "confirmed")
}

/// A number with commas, for people.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(10_000), "10,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
