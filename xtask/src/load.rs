//! `cargo xtask load`: build demux and attach it to interfaces.

use anyhow::Result;

use crate::{build, elevate};

/// Build demux and attach it to interfaces
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Interfaces, and options of `demux load`
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    elevate::require()?;
    let demux = build::demux()?;
    elevate::exec(
        &demux,
        std::iter::once("load").chain(args.args.iter().map(String::as_str)),
    )
}
