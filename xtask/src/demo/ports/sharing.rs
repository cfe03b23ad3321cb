//! One port serves many remotes, so running out of them is a matter of one remote.

use anyhow::Result;

use super::port_of;
use crate::demo::stage::Stage;

/// A range that is soon used up.
const RANGE: &str = "40000-40003";

pub(super) fn exhausted(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "One port, many remotes",
        "A connection is named by its four-tuple, so one port of this host can serve any number of \
         remotes. With a range of four ports, four connections to alice are all there can be:",
    )?;
    stage.demux(&["set", &format!("ephemeral.range={RANGE}")])?;
    let to_alice = four(stage, "10.0.0.2:443")?;
    stage.claim(
        "all four are taken, each once",
        to_alice == [40_000, 40_001, 40_002, 40_003],
        &format!("{to_alice:?}"),
    )?;
    stage.refused(
        "there is no fifth one to alice, and demux says so at once",
        &["allocate", "tcp", "10.0.0.2:443"],
        1,
        &format!("no port of {RANGE} is free for tcp 10.0.0.2:443"),
    )?;
    let to_bob = four(stage, "10.0.0.3:443")?;
    stage.claim(
        "the same four are free for bob",
        to_bob == to_alice,
        &format!("{to_bob:?}"),
    )?;
    stage.say("ports says who owns what:");
    stage.demux(&["ports", "40000"])?;
    stage.expect(
        "port 40000 is reserved twice: for alice, and for bob",
        &["ports", "40000"],
        |items| super::is_owned_by(items, "reservation") && items[0]["count"] == 2,
    )?;
    stage.demux(&["set", "ephemeral.range=kernel"])
}

/// Reserves four ports at once, and returns them in order.
fn four(stage: &Stage<'_>, remote: &str) -> Result<Vec<u16>> {
    let lines = stage.lines(&["allocate", "tcp", remote, "--count", "4"])?;
    let mut ports: Vec<u16> = lines
        .iter()
        .map(|line| port_of(line))
        .collect::<Result<_>>()?;
    ports.sort_unstable();
    Ok(ports)
}
