//! `demux exec`: run a program whose source ports demux chooses.

use std::ffi::OsString;

use demux_common::ports::Algorithm;

use super::{Outcome, context::Context};
use crate::{
    Error, Result,
    exec::{self, Ended, ExecRequest},
    ports::parse_algorithm,
};

/// Run a program whose outgoing connections take their source ports from demux
///
/// The program is not changed and need not know. Of each connection that it makes, or that a process
/// makes which it has started, demux chooses the source port, by the algorithm given or by that of
/// the settings, and no four-tuple is used twice; a port that the program has bound itself stays.
/// The program's sockets share ports towards different remotes, and have SO_REUSEADDR set for that.
///
/// UDP sockets are covered when they are connected. Under sudo the program runs as the user who called
/// sudo.
///
/// Exit status: that of the program; 128 and the number of the signal that killed it; 127 where it is
/// not found, 126 where it cannot be executed, and 125 where demux has failed.
///
/// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; and CAP_DAC_OVERRIDE to make a control group, and where
/// another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Choose ports by this algorithm, and not by that of the settings
    #[arg(long, value_name = "NAME", value_parser = parse_algorithm)]
    algorithm: Option<Algorithm>,
    /// Run it as this user: a name or a number
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The program and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux exec -- curl http://192.0.2.7/
  demux exec --algorithm sequential -- ssh 192.0.2.7
  sudo demux exec --algorithm random -- ./crawler --threads 8";

/// The status that stands for demux's own failure.
pub(super) const FAILED: u8 = 125;

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let request = ExecRequest {
            command: self.command.clone(),
            algorithm: self.algorithm,
            user: self.user.clone(),
        };
        let bpffs = context.bpffs()?;
        context.flush()?;
        let execution = exec::run(&bpffs, &request)?;
        if let Some(reason) = execution.reason {
            let program = self.command[0].to_string_lossy();
            let error = match execution.ended {
                Ended::NotFound => format!("demux: cannot find {program}"),
                _ => {
                    let error = Error::io(format!("execute {program}"), reason);
                    format!("demux: {error}")
                }
            };
            context.note(error);
        }
        Ok(Outcome::Ended(execution.ended.status()))
    }
}
