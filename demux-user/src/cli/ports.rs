//! `demux ports`: who owns which local port.

use demux_common::protocol::Protocol;

use super::{
    Outcome,
    bind::PROTOCOLS,
    context::{Context, cannot_write},
    names::Names,
};
use crate::{
    Error, Result,
    bindings::{Pattern, Ports},
    ports_in_use::{PortOwner, PortUse, Wanted, ports_in_use},
    render::PortRow,
};

/// List the local ports in use, and who owns them
///
/// One row for each port and owner: a process with its sockets of the kernel, a binding, a port that was
/// allocated, or one that is reserved (net.ipv4.ip_local_reserved_ports). A range is one row. Sockets
/// that no process holds, such as those in TIME-WAIT, have no PID; nor have those of processes that the
/// caller may not look into.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only this port, or this range of ports
    #[arg(value_name = "PORT", allow_hyphen_values = true)]
    ports: Option<String>,
    /// Only this protocol
    #[arg(long = "proto", value_name = "PROTO", value_parser = PROTOCOLS)]
    protocol: Option<Protocol>,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux ports
  demux ports 443                                  who owns port 443
  demux ports 8000-8999 --proto tcp --jsonl";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let ports = match &self.ports {
            Some(text) => text
                .strip_prefix(':')
                .unwrap_or(text)
                .parse()
                .map_err(|reason: String| Error::invalid("port", text, reason))?,
            None => Ports::ANY,
        };
        let wanted = Wanted {
            ports,
            protocol: self.protocol,
        };
        let found = ports_in_use(&context.bpffs()?, &wanted)?;
        let names = Names::read()?;
        let mut list = context.list::<PortRow>();
        for port_use in &found.uses {
            list.push(&row(port_use, &names)).map_err(cannot_write)?;
        }
        list.finish().map_err(cannot_write)?;
        if found.uses.is_empty() {
            let protocol = self.protocol.map_or("", |protocol| protocol.name());
            let gap = if protocol.is_empty() { "" } else { " " };
            context.note(match &self.ports {
                Some(_) => format!("nothing owns {protocol}{gap}port {ports}"),
                None => format!("nothing owns a {protocol}{gap}port"),
            });
        }
        if found.hidden > 0 {
            let sockets = match found.hidden {
                1 => "1 socket".to_owned(),
                count => format!("{count} sockets"),
            };
            context.note(format!(
                "{sockets} without a PID: held by processes of other users, which only root can look \
                 into, or of another PID namespace"
            ));
        }
        Ok(Outcome::Done)
    }
}

fn row(port_use: &PortUse, names: &Names) -> PortRow {
    let written = |locals: &[Pattern]| locals.iter().map(ToString::to_string).collect();
    let row = PortRow {
        protocol: port_use.protocol.name(),
        port: port_use.ports.first,
        last_port: port_use.ports.last,
        ..PortRow::default()
    };
    match &port_use.owner {
        PortOwner::Kernel {
            process,
            locals,
            states,
            sockets,
        } => PortRow {
            owner: "kernel",
            pid: process.as_ref().map(|process| process.pid),
            process: process.as_ref().map(|process| process.process.clone()),
            local: written(locals),
            states: states.iter().map(|state| state.name()).collect(),
            count: Some(*sockets),
            ..row
        },
        PortOwner::Binding {
            name,
            local,
            ifindex,
            target,
        } => PortRow {
            owner: "binding",
            binding: Some(name.clone()),
            target: Some(target.clone()),
            dev: (*ifindex != 0).then(|| names.show(*ifindex)),
            local: vec![local.to_string()],
            ..row
        },
        PortOwner::Reservation {
            locals,
            reservations,
        } => PortRow {
            owner: "reservation",
            local: written(locals),
            count: Some(*reservations),
            ..row
        },
        PortOwner::Reserved => PortRow {
            owner: "reserved",
            ..row
        },
    }
}
