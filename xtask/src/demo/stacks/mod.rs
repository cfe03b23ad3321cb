//! The scene `stacks`: two TCP stacks on one interface and one address, and the death of one of them.

mod kernel;
mod owner;
mod request;

use anyhow::Result;
use serde_json::Value;

pub(super) use self::request::curl;
use self::{
    kernel::Server,
    owner::{EXAMPLE, Owner},
    request::{Answer, ask},
};
use super::{
    actors::Client,
    network::{self, ALICE},
    stage::Stage,
};
use crate::build;

/// What the network looks like.
const PICTURE: &str = "     demux-demo-alice                     demux-demo-server
    +----------------+                   +----------------------------------+
    |  alice    eth0 +-------------------+ alice0                 10.0.0.1  |
    |       10.0.0.2 |                   |    port 80:   the kernel         |
    +----------------+                   |    port 8080: smoltcp, a stack   |
                                         |               in user space      |
                                         +----------------------------------+";

/// The port of the kernel's server.
const KERNEL: u16 = 80;
/// The port of the other one.
const STACK: u16 = 8080;
/// The binding, and the set of sockets that it names.
const NAME: &str = "web";

/// Builds the server in user space.
///
/// # Errors
/// When it does not compile.
pub(super) fn build() -> Result<()> {
    build::build_example(EXAMPLE)
}

pub(super) fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "One interface, one address, two stacks",
        "A web server of the usual kind has port 80: its connections are the kernel's. Port 8080 is to be \
         served by a process that brings a TCP stack of its own, smoltcp, and takes whole frames from \
         AF_XDP sockets. demux decides by the port whose a packet is.",
    )?;
    stage.show(PICTURE);
    let _server = Server::start(KERNEL)?;
    stage.demux(&["load", "alice0"])?;
    let owner = own(stage)?;
    side_by_side(stage)?;
    killed(stage, owner)?;
    let _owner = resumed(stage)?;
    fallback(stage)?;
    if stage.is_kept() {
        return Ok(());
    }
    stage.step("Away", "unload removes everything.")?;
    stage.demux(&["unload", "--all"])
}

fn own(stage: &mut Stage<'_>) -> Result<Owner> {
    stage.step(
        "A set of sockets",
        "The binding names a set of sockets, web. Whoever owns it has one socket for each receive queue; \
         until somebody does, its packets are dropped: the kernel would reset the connections of clients.",
    )?;
    let target = format!("xsk:{NAME}");
    stage.demux(&[
        "bind",
        "tcp",
        "10.0.0.1:8080",
        "--to",
        &target,
        "--name",
        NAME,
    ])?;
    let owner = Owner::start(stage)?;
    stage.demux(&["xsks"])?;
    let pid = owner.pid();
    stage.expect("the set has its owner", &["xsks"], |items| {
        items.len() == 1 && items[0]["name"] == NAME && items[0]["pid"] == pid
    })?;
    stage.demux(&["bindings"])?;
    Ok(owner)
}

fn side_by_side(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Side by side",
        "alice asks both servers. Neighbours are found and pings answered by the kernel alone: nobody has \
         configured the other stack for that, it asks the kernel where its packets go.",
    )?;
    let answer = ask(stage, KERNEL)?;
    expect_answer(stage, "port 80 is the kernel's", &answer, kernel::TEXT)?;
    let answer = ask(stage, STACK)?;
    expect_answer(stage, "port 8080 is smoltcp's", &answer, owner::TEXT)?;
    stage.say("Two connections that stay open, to see them in the table:");
    let _kernel = connected(stage, KERNEL)?;
    let _stack = connected(stage, STACK)?;
    stage.demux(&["connections", "state", "established"])?;
    stage.expect(
        "the table has the connections of both, and where their packets go",
        &["connections", "state", "established"],
        |items| {
            let has = |port: u16, target: &str| {
                items
                    .iter()
                    .any(|row| row["local_port"] == port && row["target"] == target)
            };
            has(KERNEL, "stack") && has(STACK, "xsk:web")
        },
    )?;
    let sockets = network::kernel_ports()?;
    stage.claim(
        "the kernel itself knows of no socket at port 8080",
        !sockets.contains(&STACK),
        &format!("{sockets:?}"),
    )
}

fn killed(stage: &mut Stage<'_>, owner: Owner) -> Result<()> {
    stage.step(
        "kill -9",
        "The owner dies without a word. The kernel closes its sockets and takes them out of demux's map; \
         from then on the binding's fallback counts, which is to drop.",
    )?;
    owner.kill(stage)?;
    let answer = ask(stage, STACK)?;
    stage.claim(
        "port 8080 is silent: no reset tells a client to give up",
        answer == Answer::Silence,
        &format!("{answer:?}"),
    )?;
    let answer = ask(stage, KERNEL)?;
    expect_answer(stage, "port 80 has noticed nothing", &answer, kernel::TEXT)?;
    stage.demux(&["counters"])?;
    stage.expect(
        "what had no socket was dropped, and counted",
        &["counters"],
        |items| {
            items.iter().any(|row| {
                row["verdict"] == "drop" && row["reason"] == "no-target" && packets(row) > 0
            })
        },
    )
}

fn resumed(stage: &mut Stage<'_>) -> Result<Owner> {
    stage.step(
        "Back again",
        "A new process takes the name, and with it the packets of the binding.",
    )?;
    let owner = Owner::start(stage)?;
    let answer = ask(stage, STACK)?;
    expect_answer(stage, "port 8080 is served again", &answer, owner::TEXT)?;
    Ok(owner)
}

fn fallback(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Another fallback",
        "With --fallback stack the kernel gets what the owner does not take. Here it has no server for \
         it, so it refuses, as it would without demux.",
    )?;
    stage.demux(&["unbind", NAME])?;
    let other = [
        "bind",
        "tcp",
        "10.0.0.1:8080",
        "--to",
        "xsk:nobody",
        "--fallback",
        "stack",
    ];
    stage.demux(&other)?;
    let answer = ask(stage, STACK)?;
    stage.claim(
        "a client is refused at once",
        answer == Answer::Refused,
        &format!("{answer:?}"),
    )
}

fn connected(stage: &Stage<'_>, port: u16) -> Result<Client> {
    let client = Client::connect("alice", ALICE, port)?;
    stage.act(
        client.name,
        &format!("connects from {} to port {port}", client.address),
    );
    Ok(client)
}

fn expect_answer(stage: &mut Stage<'_>, claim: &str, answer: &Answer, text: &str) -> Result<()> {
    stage.claim(
        claim,
        *answer == Answer::Text(text.to_owned()),
        &format!("{answer:?}"),
    )
}

fn packets(row: &Value) -> u64 {
    row["packets"].as_u64().unwrap_or_default()
}
