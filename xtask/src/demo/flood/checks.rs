//! What must be so after the flood.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::Value;

use super::{
    Outcome, Size, confirmed, count,
    crowd::{Crowd, Newcomers},
    grouped,
};
use crate::demo::{network, stage::Stage};

/// How long the kernel and demux may take to be done with what nobody answers.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// Everybody is there still, and nobody else has come in.
pub(super) fn after(
    stage: &mut Stage<'_>,
    size: Size,
    crowd: &Crowd,
    (outcome, _newcomers): (Outcome, Newcomers),
) -> Result<()> {
    let all = u64::from(size.connections);
    stage.step(
        "Who is there still?",
        "The flood is over, and its rows are in the table yet.",
    )?;
    stage.demux(&["status"])?;
    stage.demux(&["counters"])?;
    stage.claim(
        &format!(
            "{} spoofed SYNs have passed in {:.1} s, {} in a second, of {} that were sent",
            grouped(outcome.passed),
            outcome.took.as_secs_f64(),
            grouped((outcome.passed as f64 / outcome.took.as_secs_f64()) as u64),
            grouped(outcome.sent),
        ),
        (size.syns..=outcome.sent).contains(&outcome.passed),
        &format!("{outcome:?}"),
    )?;
    // Some of the first rows find a place that is free.
    if outcome.passed > 2 * outcome.max_connections {
        stage.claim(
            &format!(
                "{} unconfirmed rows had to make room for others",
                grouped(outcome.displaced)
            ),
            outcome.displaced > 0,
            &format!("{outcome:?}"),
        )?;
    }
    rows_are_old(stage, crowd, outcome)?;
    stage.expect(
        &format!(
            "with the {} new ones there are {} confirmed connections, and none of a spoofed address",
            grouped(outcome.opened),
            grouped(all + outcome.opened),
        ),
        &["status"],
        |items| confirmed(items) == all + outcome.opened,
    )?;
    stage.claim(
        &format!(
            "each of the {} that tried to open a connection meanwhile was let in and answered",
            grouped(outcome.tried)
        ),
        outcome.opened == outcome.tried && outcome.tried > 0,
        &format!("{outcome:?}"),
    )?;
    answers(stage, crowd)
}

/// The rows of the crowd are those of before the flood: a row that was made anew would be younger.
fn rows_are_old(stage: &mut Stage<'_>, crowd: &Crowd, outcome: Outcome) -> Result<()> {
    let rows = stage.items(&["connections", "state", "established", "lport", "80"])?;
    let rows: HashMap<&str, &Value> = rows
        .iter()
        .filter_map(|row| Some((row["remote"].as_str()?, row)))
        .collect();
    let flood_ms = outcome.took.as_millis();
    let is_old = |row: &&Value| {
        row["confirmed"] == true
            && row["age_ms"]
                .as_u64()
                .is_some_and(|age| u128::from(age) >= flood_ms)
    };
    let addresses = crowd.addresses()?;
    let old = addresses
        .iter()
        .filter_map(|address| rows.get(address.to_string().as_str()).copied())
        .filter(is_old)
        .count();
    stage.claim(
        &format!(
            "all {} connections of before have the rows that they had; none was displaced",
            grouped(addresses.len() as u64)
        ),
        old == addresses.len(),
        &format!("{old} such rows"),
    )
}

/// Each client sends a byte and gets it back.
pub(super) fn answers(stage: &mut Stage<'_>, crowd: &Crowd) -> Result<()> {
    let all = crowd.addresses()?.len();
    let answered = crowd.ask();
    stage.claim(
        &format!("each of the {} is answered", grouped(all as u64)),
        answered == all,
        &format!("{answered} answers"),
    )
}

/// The table says what the kernel says.
pub(super) fn agrees(stage: &mut Stage<'_>, claim: &str) -> Result<()> {
    stage.demux(&["connections", "--verify"])?;
    stage.expect(claim, &["connections", "--verify"], <[_]>::is_empty)
}

/// Once what nobody answers is forgotten, the table is the kernel's again.
pub(super) fn compared(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "The table and the kernel",
        "The kernel keeps few of the flood's handshakes: it answers the others with SYN cookies, so \
         only demux knows them, for a minute. With a timeout of 2 seconds they are gone.",
    )?;
    stage.demux(&["set", "timeout.syn-received=2", "timeout.listen=2"])?;
    let started = Instant::now();
    // It answers the few that it has kept once more, and then forgets them.
    while network::half_open()? > 0 && started.elapsed() < FORGOTTEN {
        thread::sleep(Duration::from_millis(100));
    }
    stage.expect(
        "what is left are confirmed connections",
        &["status"],
        |items| confirmed(items) == count(items, "connections"),
    )?;
    agrees(
        stage,
        "demux and the kernel have the same connections, in the same states",
    )
}
