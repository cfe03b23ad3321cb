//! `demux unbind`: end a binding.

use demux_common::protocol::Protocol;

use super::{Outcome, bind::print_names, context::Context};
use crate::{
    Error, Result,
    bindings::{self, Pattern, Selector},
};

/// End a binding
///
/// Its packets find the next less specific binding, or none, from the next one on.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "demux unbind [OPTIONS] <NAME>\n       demux unbind [OPTIONS] <PROTO> <LOCAL>"
)]
pub(super) struct Args {
    /// The name of the binding, or its protocol
    #[arg(value_name = "NAME|PROTO")]
    name: String,
    /// Its local endpoints, as they were bound
    #[arg(value_name = "LOCAL", allow_hyphen_values = true)]
    local: Option<String>,
    /// With [::]: the binding that was made with --v6-only
    #[arg(long, requires = "local")]
    v6_only: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux unbind web
  demux unbind tcp 10.0.0.2:80
  demux unbind tcp [::]:80 --v6-only";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let selector = self.selector()?;
        let name = bindings::unbind(&context.bpffs()?, &selector)?;
        if context.is_json() {
            print_names(context, "unbind", vec![name])?;
        } else if matches!(selector, Selector::Pattern(_)) {
            context.note(format!("{name}: unbound"));
        }
        Ok(Outcome::Done)
    }

    fn selector(&self) -> Result<Selector> {
        let protocol = protocol(&self.name);
        match (&self.local, protocol) {
            (None, None) => Ok(Selector::Name(self.name.clone())),
            (None, Some(_)) => Err(Error::invalid(
                "binding",
                &self.name,
                "behind the protocol comes the local endpoint, such as tcp :80",
            )),
            (Some(local), Some(protocol)) => {
                Pattern::parse(protocol, local, self.v6_only).map(Selector::Pattern)
            }
            (Some(_), None) => Err(Error::invalid(
                "protocol",
                &self.name,
                "a protocol is tcp or udp",
            )),
        }
    }
}

/// The protocol with this name.
pub(super) fn protocol(name: &str) -> Option<Protocol> {
    Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.name() == name)
}
