//! The scene `ports`: choosing ports the old way and the new one, owning one, and being probed.

mod choosing;
mod owning;
mod probing;
mod program;
mod sharing;

use anyhow::{Context as _, Result};
use serde_json::Value;

pub(super) use self::probing::nmap;
use super::{actors::Server, network::PICTURE, stage::Stage};

pub(super) fn play(stage: &mut Stage<'_>) -> Result<()> {
    let _servers = set_up(stage)?;
    choosing::sequential(stage)?;
    choosing::side_by_side(stage)?;
    sharing::exhausted(stage)?;
    program::unchanged(stage)?;
    owning::conflicts(stage)?;
    owning::one_port(stage)?;
    probing::before(stage)?;
    probing::drop(stage)?;
    probing::reject(stage)?;
    if stage.is_kept() {
        return Ok(());
    }
    probing::unload(stage)
}

fn set_up(stage: &mut Stage<'_>) -> Result<[Server; 2]> {
    stage.step(
        "A host and two others",
        "The server has two listeners, and will also open connections to alice and to bob: for that it \
         needs source ports. demux is loaded on the cable to alice, and passes everything.",
    )?;
    stage.show(PICTURE);
    let servers = [Server::start("ssh", 22)?, Server::start("web", 80)?];
    stage.demux(&["load", "alice0"])?;
    Ok(servers)
}

/// The port of an endpoint as demux prints it.
fn port_of(endpoint: &str) -> Result<u16> {
    let port = endpoint
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    port.with_context(|| format!("{endpoint:?} is no endpoint"))
}

/// Whether the document of `demux ports PORT` has one row, of this owner.
fn is_owned_by(items: &[Value], owner: &str) -> bool {
    items.len() == 1 && items[0]["owner"] == owner
}
