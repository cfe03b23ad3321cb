//! How connections end, and what demux and the kernel say of them then.

use anyhow::Result;

use crate::demo::{
    actors::{BYE, Client},
    network::{self, ALICE, BOB},
    stage::Stage,
};

pub(super) fn two(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "Two ends",
        "demux sees both directions, and so knows who has closed a connection. That side has to wait \
         for late segments, in TIME-WAIT; the other side is done.",
    )?;
    let mut by_server = Client::connect("alice 3", ALICE, 80)?;
    let mut by_client = Client::connect("bob 2", BOB, 80)?;
    stage.ask(&mut by_client, "hello")?;
    stage.ask(&mut by_server, BYE)?;
    let addresses = [by_server.address, by_client.address];
    let [closed_by_server, closed_by_client] = addresses.map(|address| address.to_string());
    by_server.leave_after_server()?;
    stage.act("alice 3", "closes, after the server did");
    drop(by_client);
    stage.act("bob 2", "closes, before the server does");
    let filter = ["connections", "lport", "80", "remote"];
    stage.expect(
        "the server has closed the connection of alice 3, so it waits: TIME-WAIT",
        &[&filter[..], &[&closed_by_server]].concat(),
        |items| items.len() == 1 && items[0]["state"] == "TIME-WAIT",
    )?;
    stage.expect(
        "bob 2 has closed his own, so nothing is left of it here",
        &[&filter[..], &[&closed_by_client]].concat(),
        <[_]>::is_empty,
    )?;
    stage.demux(&["connections"])?;
    let [waiting, gone] = addresses.map(|remote| network::kernel_state(80, remote));
    let states = (waiting?, gone?);
    stage.claim(
        "the kernel says the same of both",
        states == (Some("TIME-WAIT"), None),
        &format!("/proc/net/tcp: {states:?}"),
    )?;
    stage.say("With --verify, demux compares all its rows with the kernel's sockets itself:");
    stage.demux(&["connections", "--verify"])?;
    stage.expect(
        "nothing differs",
        &["connections", "--verify"],
        <[_]>::is_empty,
    )
}
