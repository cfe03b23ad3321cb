//! The scene `connections`: three clients, one port, and what happens to everything else.

mod default_drop;
mod ends;
mod look;
mod one_port;

use anyhow::Result;

use super::{
    actors::{Client, Server},
    network::{ALICE, PICTURE},
    stage::Stage,
};

pub(super) fn play(stage: &mut Stage<'_>) -> Result<()> {
    let _servers = set_up(stage)?;
    let mut ssh = Client::connect("alice (ssh)", ALICE, 22)?;
    default_drop::before(stage, &mut ssh)?;
    let _another = default_drop::load(stage, &mut ssh)?;
    one_port::bind(stage)?;
    let mut clients = one_port::three_clients(stage)?;
    ends::two(stage)?;
    default_drop::closed_port(stage)?;
    look::explain(stage, &clients[0])?;
    one_port::steer(stage, &mut clients[0], &mut ssh)?;
    look::inside(stage, &clients)?;
    if stage.is_kept() {
        return Ok(());
    }
    default_drop::unload(stage, &mut clients)
}

fn set_up(stage: &mut Stage<'_>) -> Result<[Server; 2]> {
    stage.step(
        "A server and two clients",
        "Three network namespaces, joined by virtual cables. The servers and clients are threads of \
         this program with ordinary sockets; they know nothing of demux.",
    )?;
    stage.show(PICTURE);
    let servers = [Server::start("ssh", 22)?, Server::start("web", 80)?];
    stage.say(&format!(
        "Lines that begin with $ are commands as you would type them, as root, with {} as demux; what \
         follows is what they print. Lines that begin with \"ok\" were checked against their JSON, or \
         against what the sockets saw.",
        stage.demux_path()
    ));
    Ok(servers)
}
