//! `cargo xtask run`: build demux and run it.

use anyhow::Result;

use crate::{build, elevate};

/// Build demux and run it
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Arguments of `demux`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    elevate::require()?;
    elevate::exec(&build::demux()?, &args.args)
}
