//! Three clients of one port, and a binding that owns them.

use anyhow::Result;
use serde_json::Value;

use crate::demo::{
    actors::{Client, PATIENCE, SILENCE},
    network::{ALICE, BOB},
    stage::Stage,
};

pub(super) fn bind(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Port 80 gets a binding",
        "A binding is a pattern for endpoints of this host, with a name and a target. The target is \
         the kernel's stack here, where the web server listens.",
    )?;
    stage.demux(&["bind", "tcp", ":80", "--name", "web"])?;
    stage.demux(&["bindings"])?;
    stage.expect(
        "there is one binding, web, to the stack",
        &["bindings"],
        |items| items.len() == 1 && items[0]["name"] == "web" && items[0]["target"] == "stack",
    )
}

pub(super) fn three_clients(stage: &mut Stage<'_>) -> Result<[Client; 3]> {
    stage.step(
        "Three clients, one port",
        "All three talk to 10.0.0.1:80. Two are on one host and have the same address, so only their \
         source ports tell them apart: the four-tuple is what names a conversation.",
    )?;
    let mut clients = [
        Client::connect("alice 1", ALICE, 80)?,
        Client::connect("alice 2", ALICE, 80)?,
        Client::connect("bob", BOB, 80)?,
    ];
    for client in &mut clients {
        stage.ask(client, "hello")?;
    }
    stage.demux(&["connections"])?;
    let addresses = clients.each_ref().map(|client| client.address.to_string());
    let has_row = |items: &[Value], remote: &str| {
        let is_it = |row: &&Value| row["local"] == "10.0.0.1:80" && row["remote"] == remote;
        items.iter().filter(is_it).count() == 1
    };
    stage.expect(
        "each of the three has exactly one row, with its own four-tuple, owned by web",
        &["connections", "lport", "80"],
        |items| {
            items.len() == addresses.len()
                && items.iter().all(|row| row["binding"] == "web")
                && addresses.iter().all(|remote| has_row(items, remote))
        },
    )?;
    stage.expect(
        "both directions are counted: what arrives, and what leaves",
        &["connections", "lport", "80"],
        |items| {
            items.len() == addresses.len()
                && items.iter().all(|row| {
                    let is_counted = |name: &str| row[name].as_u64() > Some(0);
                    row["seen"] == "both"
                        && ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"]
                            .into_iter()
                            .all(is_counted)
                })
        },
    )?;
    stage.expect(
        "two of them differ in nothing but the source port",
        &["connections", "lport", "80", "remote", "10.0.0.2"],
        |items| items.len() == 2 && items[0]["remote_port"] != items[1]["remote_port"],
    )?;
    Ok(clients)
}

pub(super) fn steer(stage: &mut Stage<'_>, client: &mut Client, ssh: &mut Client) -> Result<()> {
    stage.step(
        "Steering",
        "The binding gets another target. That takes effect on the next packet, also of connections \
         that are open. (Port 80 alone would be refused, because a socket has it; a range may hold it.)",
    )?;
    stage.demux(&["unbind", "web"])?;
    stage.demux(&["bind", "tcp", ":80-81", "--to", "drop", "--name", "web"])?;
    client.send("can you hear me?")?;
    let answer = client.answer(SILENCE)?;
    stage.act(client.name, "\"can you hear me?\" -> nothing");
    stage.claim(
        "the open connection of alice is cut off at the driver",
        answer.is_none(),
        &format!("{answer:?}"),
    )?;
    stage.ask(ssh, "and you?")?;
    stage.demux(&["bindings"])?;
    stage.expect(
        "the packets were counted by the binding",
        &["bindings"],
        |items| {
            items.len() == 1
                && items[0]["target"] == "drop"
                && items[0]["packets"].as_u64() > Some(0)
        },
    )?;
    stage.say("And back again. TCP has kept what was not heard, and says it once more:");
    stage.demux(&["unbind", "web"])?;
    stage.demux(&["bind", "tcp", ":80", "--name", "web"])?;
    let answer = client.answer(PATIENCE)?.unwrap_or_default();
    stage.act(client.name, &format!("-> \"{answer}\""));
    stage.claim(
        "the answer comes late, but it comes",
        answer.starts_with("can you hear me?"),
        &format!("{answer:?}"),
    )
}
