//! `cargo xtask demo`: show demux at work in network namespaces of its own.
//!
//! A scene is a script: actors talk over real sockets, `demux` commands are shown as a user types
//! them, and every claim of the commentary is held against the JSON that demux prints. The network
//! is removed at the end whatever happened, and what a killed run left behind at the next start.

mod actors;
mod connections;
mod demux;
mod flood;
mod interrupt;
mod kept;
mod narration;
mod network;
mod ports;
mod stacks;
mod stage;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use self::{demux::Demux, narration::Narrator, network::Network, stage::Stage};
use crate::{build, elevate, process};

/// Show demux at work in network namespaces of its own
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scene to play
    #[arg(value_enum, default_value_t)]
    scene: Scene,
    /// Leave the namespaces up, with servers and clients that go on talking
    #[arg(long)]
    keep: bool,
    /// Play with this finished demux and build none
    #[arg(long, value_name = "PATH", hide = true)]
    demux: Option<PathBuf>,
    /// The first line has been printed already, by the process that asked for root
    #[arg(long, hide = true)]
    announced: bool,
    /// How many real connections the scene flood has
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u16).range(2..=18_000))]
    connections: u16,
    /// How many spoofed SYNs have to pass in the scene flood
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    syns: u64,
    /// Be the servers and clients that `--keep` leaves behind
    #[arg(long, hide = true)]
    kept_actors: bool,
    /// Be the server of the scene flood
    #[arg(long, hide = true)]
    flood_server: bool,
}

/// The scenes there are.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Scene {
    /// Three clients, one port: a row for each connection, and what happens to everything else
    #[default]
    Connections,
    /// Thousands of connections live on while millions of spoofed SYNs pass
    Flood,
    /// Choosing ports the old way and the new one, owning one, and being probed for them
    Ports,
    /// A TCP stack in user space beside the kernel's, and what happens when it dies
    Stacks,
}

impl Scene {
    fn play(self, stage: &mut Stage<'_>, size: flood::Size) -> Result<()> {
        match self {
            Self::Connections => connections::play(stage),
            Self::Flood => flood::play(stage, size),
            Self::Ports => ports::play(stage),
            Self::Stacks => stacks::play(stage),
        }
    }

    fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.kept_actors {
        return kept::play();
    }
    if args.flood_server {
        return flood::serve();
    }
    let narrator = Narrator::new();
    if !args.announced {
        narrator.announce();
    }
    let demux = if let Some(demux) = &args.demux {
        demux.clone()
    } else {
        elevate::require()?;
        // Fetches what is missing while this is still the user.
        network::ip()?;
        if matches!(args.scene, Scene::Ports) {
            ports::nmap()?;
        }
        if matches!(args.scene, Scene::Stacks) {
            stacks::curl()?;
            stacks::build()?;
        }
        build::demux()?
    };
    if !process::is_root() {
        return become_root(args, &demux);
    }
    play(args, &Demux::new(demux), narrator)
}

/// Starts this binary again as root, with what has been built.
fn become_root(args: &Args, demux: &Path) -> Result<()> {
    let xtask = env::current_exe().context("cannot find the xtask binary")?;
    let mut words: Vec<OsString> = vec!["demo".into(), args.scene.name().into()];
    words.extend(["--announced".into(), "--demux".into(), demux.into()]);
    words.extend(["--connections".into(), args.connections.to_string().into()]);
    words.extend(["--syns".into(), args.syns.to_string().into()]);
    words.extend(args.keep.then(|| "--keep".into()));
    elevate::exec(&xtask, words)
}

fn play(args: &Args, demux: &Demux, narrator: Narrator) -> Result<()> {
    interrupt::watch()?;
    let network = Network::create(demux)?;
    let mut stage = Stage::new(demux, narrator, args.keep);
    let size = flood::Size {
        connections: args.connections,
        syns: args.syns,
    };
    let played = args.scene.play(&mut stage, size);
    if args.keep && played.is_ok() {
        return kept::leave(network, demux, narrator);
    }
    let removed = network.remove();
    if played.is_ok() && removed.is_ok() {
        stage.end();
        if matches!(args.scene, Scene::Connections) {
            narrator.say("Other scenes: cargo xtask demo flood, ports or stacks");
        }
    } else if removed.is_ok() {
        narrator.say("");
        narrator.say("The namespaces are removed, and demux with them.");
    }
    played.and(removed)
}
