//! What the default of an interface does to packets that nothing claims, and to nobody else.

use std::time::Instant;

use anyhow::Result;
use serde_json::Value;

use crate::demo::{
    actors::{Client, Knock, PATIENCE, SILENCE, knock},
    network::BOB,
    stage::Stage,
};

/// A port that nobody listens on.
pub(super) const CLOSED: u16 = 81;
/// How long the default is on probation, in seconds: longer than the scene takes.
const PROBATION: &str = "30";

pub(super) fn before(stage: &mut Stage<'_>, ssh: &mut Client) -> Result<()> {
    stage.step(
        "Before demux",
        "alice has an ssh session open. bob knocks at a port that nobody listens on, and the kernel \
         tells him so.",
    )?;
    stage.ask(ssh, "hello")?;
    let answer = knock(BOB, CLOSED, PATIENCE)?;
    stage.act("bob", &format!("knocks at port {CLOSED}: {answer:?}"));
    stage.claim(
        "the kernel refuses what no socket wants, and so tells everybody that the host is there",
        answer == Knock::Refused,
        &format!("{answer:?}"),
    )
}

pub(super) fn load(stage: &mut Stage<'_>, ssh: &mut Client) -> Result<Client> {
    stage.step(
        "demux is loaded, with a default of drop",
        "From now on, what no connection, no binding and no socket of this host claims ends at the \
         driver. Nothing has been configured: no port 22, no address, no rule. Should that be a \
         mistake, --try makes the default pass again after 30 seconds.",
    )?;
    stage.demux(&[
        "load",
        "alice0",
        "bob0",
        "--default",
        "drop",
        "--try",
        PROBATION,
    ])?;
    stage.demux(&["status"])?;
    stage.expect(
        "both interfaces are loaded, and their default is drop, on probation",
        &["status"],
        |items| all_drop(items, true),
    )?;
    stage.say(
        "The session that was open before is in the table already: load has asked the kernel.",
    );
    stage.demux(&["connections"])?;
    let remote = ssh.address.to_string();
    stage.expect(
        "it has a row, established and confirmed, before demux has seen a packet of it",
        &["connections"],
        |items| {
            items.len() == 1
                && items[0]["local"] == "10.0.0.1:22"
                && items[0]["remote"] == *remote
                && items[0]["state"] == "ESTABLISHED"
                && items[0]["confirmed"] == true
                && items[0]["seen"] == "nowhere"
        },
    )?;
    stage.say("It goes on, and a new one can be opened:");
    stage.ask(ssh, "still there?")?;
    let mut another = Client::connect("bob (ssh)", BOB, 22)?;
    stage.ask(&mut another, "may I come in?")?;
    stage.say("So the policy can stay:");
    stage.demux(&["confirm"])?;
    stage.expect(
        "the default is still drop, and no longer on probation",
        &["status"],
        |items| all_drop(items, false),
    )?;
    Ok(another)
}

pub(super) fn closed_port(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "A port that nobody listens on",
        "bob knocks at port 81 again. Before, the kernel answered. Now the packet ends at the driver, \
         and the kernel's stack never sees it.",
    )?;
    let before = dropped(&stage.items(&["counters"])?, "bob0", "no-socket");
    let answer = knock(BOB, CLOSED, SILENCE)?;
    stage.act("bob", &format!("knocks at port {CLOSED}: {answer:?}"));
    stage.claim(
        "nothing comes back",
        answer == Knock::Silence,
        &format!("{answer:?}"),
    )?;
    stage.demux(&["counters"])?;
    stage.expect(
        "the packet is counted: dropped, on bob0, because no socket wants it",
        &["counters"],
        |items| dropped(items, "bob0", "no-socket") > before,
    )
}

/// How many packets were dropped on an interface for a reason.
fn dropped(counters: &[Value], interface: &str, reason: &str) -> u64 {
    let is_it = |row: &&Value| {
        row["iface"] == interface && row["reason"] == reason && row["verdict"] == "drop"
    };
    let packets = counters
        .iter()
        .filter(is_it)
        .filter_map(|row| row["packets"].as_u64());
    packets.sum()
}

pub(super) fn unload(stage: &mut Stage<'_>, clients: &mut [Client]) -> Result<()> {
    stage.step(
        "Away",
        "unload detaches the programs and removes the maps. The connections were the kernel's all \
         along, so they go on.",
    )?;
    stage.demux(&["unload", "--all"])?;
    for client in clients {
        stage.ask(client, "good-bye")?;
    }
    let deadline = Instant::now() + PATIENCE;
    let mut answer = knock(BOB, CLOSED, SILENCE)?;
    // The kernel takes programs off in the background, once the last reference to them is gone.
    while answer == Knock::Silence && Instant::now() < deadline {
        answer = knock(BOB, CLOSED, SILENCE)?;
    }
    stage.act("bob", &format!("knocks at port {CLOSED}: {answer:?}"));
    stage.claim(
        "everything is as it was before",
        answer == Knock::Refused,
        &format!("{answer:?}"),
    )
}

/// Whether there are two interfaces with a default of drop, which is or is not on probation.
fn all_drop(status: &[Value], on_probation: bool) -> bool {
    let interfaces = status
        .first()
        .and_then(|item| item["interfaces"].as_array());
    interfaces.is_some_and(|list| {
        list.len() == 2
            && list.iter().all(|interface| {
                interface["default"] == "drop"
                    && interface["probation_left_ms"].is_number() == on_probation
            })
    })
}
