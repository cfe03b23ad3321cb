//! `cargo xtask demo`: show demux at work in network namespaces of its own.

use anyhow::{Result, bail};

use crate::build;

/// Show demux at work in network namespaces of its own
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The scene to play; all of them if none is given
    scene: Option<String>,
    /// Leave the namespaces behind to look around
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let Args { scene, keep: _ } = args;
    build::demux()?;
    bail!(
        "the demo has no {} yet; `cargo xtask load IFACE` attaches demux to an interface",
        match scene {
            Some(scene) => format!("scene named {scene}"),
            None => "scenes".to_owned(),
        }
    );
}
