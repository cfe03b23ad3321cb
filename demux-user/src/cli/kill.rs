//! `demux kill`: end connections.

use super::{
    Outcome,
    context::{Context, cannot_write},
};
use crate::{
    Result,
    filter::Filter,
    kill::{Action, Extent, kill},
    render::KilledRow,
};

/// End connections
///
/// The kernel ends the socket of each connection: its process reads ECONNABORTED, and the other side of
/// a TCP connection gets a reset. For a TCP connection without a socket, demux sends the reset itself.
/// Then its row is removed, and a port that was allocated is released. Listeners, and UDP sockets that
/// take datagrams of any remote, are left alone: of their connections only the rows are removed.
///
/// The filter is that of demux connections; an empty one is refused. demux kill state all ends every
/// connection, the one over which you are logged in included.
///
/// It needs CAP_NET_ADMIN; CAP_NET_RAW where a reset is to be sent; and CAP_DAC_OVERRIDE where another
/// user, such as root, has loaded, which is all that --forget needs. --dry-run needs nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Which connections are to end
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Remove the rows only, and leave the sockets and the other side alone
    #[arg(long, conflicts_with = "dry_run")]
    forget: bool,
    /// Do nothing, and show what would be done
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux kill remote 192.0.2.7
  demux kill state established lport 22 and not remote 10.0.0.0/8
  demux kill binding web --dry-run
  demux kill state reserved                        release every allocated port
  demux kill proto udp --forget                    only the rows";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let filter = Filter::parse(&self.filter)?;
        let extent = match (self.forget, self.dry_run) {
            (_, true) => Extent::DryRun,
            (true, false) => Extent::Forget,
            (false, false) => Extent::End,
        };
        let killed = kill(&context.bpffs()?, &filter, extent)?;
        let mut list = context.list::<KilledRow>();
        for one in &killed {
            list.push(&KilledRow::new(one, self.dry_run))
                .map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)?;
        context.flush()?;
        if self.dry_run {
            context.note(format!("{}; nothing was done", connections(killed.len())));
            return Ok(Outcome::Done);
        }
        let failed = killed.iter().filter(|one| one.outcome.is_err()).count();
        let forgotten = killed
            .iter()
            .filter(|one| matches!(one.outcome, Ok(Action::Forgotten(_))))
            .count();
        let ended = killed.len() - failed - forgotten;
        context.note(format!("{ended} ended, {forgotten} only forgotten"));
        if failed == 0 {
            return Ok(Outcome::Done);
        }
        for one in &killed {
            if let Err(error) = &one.outcome {
                context.warn(error.to_string());
            }
        }
        context.warn(format!(
            "{} did not end, and the rows are as they were; --forget removes them",
            connections(failed)
        ));
        Ok(Outcome::Incomplete)
    }
}

fn connections(count: usize) -> String {
    match count {
        1 => "1 connection".into(),
        count => format!("{count} connections"),
    }
}
