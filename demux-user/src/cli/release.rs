//! `demux release`: give back a port that was reserved.

use std::net::SocketAddr;

use demux_common::protocol::Protocol;

use super::{
    Outcome,
    allocate::{parse_endpoint, print},
    bind::PROTOCOLS,
    context::Context,
};
use crate::{
    Result,
    ports::{self, Allocation},
};

/// Give back a port that `demux allocate` has reserved
///
/// Only a reservation is given back. A connection that has begun is none any more; `demux kill` ends
/// it.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = "EXAMPLES:\n  demux release tcp 10.0.0.2:40000 192.0.2.7:443")]
pub(super) struct Args {
    /// tcp or udp
    #[arg(value_name = "PROTO", value_parser = PROTOCOLS)]
    protocol: Protocol,
    /// The local endpoint, as it was printed
    #[arg(value_name = "LOCAL", value_parser = parse_endpoint)]
    local: SocketAddr,
    /// The other end
    #[arg(value_name = "REMOTE", value_parser = parse_endpoint)]
    remote: SocketAddr,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let allocation = Allocation {
            protocol: self.protocol,
            local: self.local,
            remote: self.remote,
        };
        ports::release(&context.bpffs()?, &allocation)?;
        if context.is_json() {
            print(context, "release", &[allocation])?;
        }
        Ok(Outcome::Done)
    }
}
