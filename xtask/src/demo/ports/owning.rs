//! Ports that somebody has: what a binding may take, and what processes may then no longer.

use std::{
    io::{self, ErrorKind},
    net::TcpListener,
    process,
};

use anyhow::Result;

use super::is_owned_by;
use crate::demo::{actors::enter, network::SERVER, stage::Stage};

/// What demux exits with when somebody else has it.
const CONFLICT: i32 = 5;
/// A port that nobody has.
const PORT: u16 = 7000;

pub(super) fn conflicts(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "What somebody has already",
        "bind refuses what bind(2) would refuse, and names who is in the way. The ssh server of this \
         demo is a thread of xtask:",
    )?;
    stage.demux(&["ports", "22"])?;
    let pid = process::id();
    stage.expect(
        "port 22 is held by this process",
        &["ports", "22"],
        |items| is_owned_by(items, "kernel") && items[0]["pid"] == pid,
    )?;
    stage.refused(
        "its packets cannot be taken away from it by a binding of its port",
        &["bind", "tcp", ":22", "--to", "drop"],
        CONFLICT,
        &format!("address in use by process {pid} (xtask)"),
    )
}

pub(super) fn one_port(stage: &mut Stage<'_>) -> Result<()> {
    stage.step(
        "A port of demux's own",
        "A binding to anything but the stack takes the port away from processes too: the kernel itself \
         refuses their bind(2), while no process of demux is running.",
    )?;
    stage.demux(&["bind", "tcp", ":7000", "--to", "drop", "--name", "mine"])?;
    stage.demux(&["ports", "7000"])?;
    stage.expect("the binding owns it", &["ports", "7000"], |items| {
        is_owned_by(items, "binding") && items[0]["binding"] == "mine"
    })?;
    let taken = listen(stage)?;
    stage.claim(
        "a server that wants port 7000 gets EADDRINUSE, as if another one had it",
        taken == Some(ErrorKind::AddrInUse),
        &format!("{taken:?}"),
    )?;
    stage.refused(
        "another binding cannot have it either, and is told whose it is",
        &["bind", "tcp", "10.0.0.1:7000"],
        CONFLICT,
        "address in use by binding \"mine\"",
    )?;
    stage.demux(&["unbind", "mine"])?;
    let taken = listen(stage)?;
    stage.claim(
        "unbound, the port is anybody's again",
        taken.is_none(),
        &format!("{taken:?}"),
    )
}

/// Tries to listen on the port of the server, for a moment; what came in the way, if anything did.
fn listen(stage: &Stage<'_>) -> Result<Option<ErrorKind>> {
    let error = enter(SERVER, || {
        let listener: io::Result<_> = TcpListener::bind(("0.0.0.0", PORT));
        Ok(listener.err())
    })?;
    let what = match &error {
        Some(error) => format!("bind(2) to port {PORT}: {error}"),
        None => format!("bind(2) to port {PORT}: done"),
    };
    stage.act("a process", &what);
    Ok(error.map(|error| error.kind()))
}
