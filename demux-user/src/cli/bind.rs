//! `demux bind`: make a binding.

use demux_common::{
    binding::{Binding, Target},
    protocol::Protocol,
};

use super::{
    Outcome,
    context::{Context, cannot_write},
    words::Words,
};
use crate::{
    Result,
    bindings::{self, BindRequest, Pattern},
    interface,
    render::{List, NameRow, Row as _, printable},
};

pub(super) const PROTOCOLS: Words<Protocol> = Words {
    what: "protocol",
    words: &[("tcp", Protocol::Tcp, ""), ("udp", Protocol::Udp, "")],
    later: &[],
};

const TARGETS: Words<Target> = Words {
    what: "target",
    words: &[
        ("stack", Target::Stack, "up the kernel's stack"),
        ("drop", Target::Drop, "nowhere"),
        (
            "reject",
            Target::Reject,
            "nowhere, and the sender is told at once",
        ),
    ],
    later: &["cpu:", "xsk:"],
};

/// Bind local endpoints
///
/// Packets to the endpoints go to the target from the next one on. The most specific binding wins:
/// an exact address before a longer prefix before any address; at the same address a port before a
/// range before any port; one with a device before one without.
///
/// LOCAL is ADDRESS:PORT. The address may be left out or be * (every address of both families),
/// 0.0.0.0 (every IPv4 address), an address or a prefix; IPv6 stands in brackets. The port may be a
/// range, or * for all of them. Names are not resolved.
///
/// Without --name, the name is generated and printed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// tcp or udp
    #[arg(value_name = "PROTO", value_parser = PROTOCOLS)]
    protocol: Protocol,
    /// The local endpoints
    #[arg(value_name = "LOCAL", allow_hyphen_values = true)]
    local: String,
    /// Where their packets go [default: stack]
    #[arg(long = "to", value_name = "TARGET", value_parser = TARGETS)]
    target: Option<Target>,
    /// What to call the binding
    #[arg(long)]
    name: Option<String>,
    /// Only for packets that arrive on this interface
    #[arg(long = "dev", value_name = "IFACE")]
    device: Option<String>,
    /// Share the endpoints as SO_REUSEADDR does
    #[arg(long)]
    reuse_addr: bool,
    /// Share the endpoints as SO_REUSEPORT does
    #[arg(long)]
    reuse_port: bool,
    /// With [::]: only IPv6, as IPV6_V6ONLY does
    #[arg(long)]
    v6_only: bool,
    /// Make no rows in the connection table
    #[arg(long)]
    untracked: bool,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux bind tcp :80 --name web            port 80 of every address
  demux bind tcp 10.0.0.2:8000-8999        a range of ports of one address
  demux bind udp [2001:db8::/32]:53        a prefix
  demux bind tcp :23 --to drop             nobody speaks telnet
  demux bind udp :* --to reject            no datagrams, and no waiting for answers
  demux bind udp :* --dev eth1 --untracked";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let pattern = Pattern::parse(self.protocol, &self.local, self.v6_only)?;
        let ifindex = match &self.device {
            Some(name) => interface::by_name(name)?.index,
            None => 0,
        };
        let flags = [
            (self.reuse_addr, Binding::REUSE_ADDR),
            (self.reuse_port, Binding::REUSE_PORT),
            (self.untracked, Binding::UNTRACKED),
        ];
        let request = BindRequest {
            pattern,
            target: self.target.unwrap_or(Target::Stack),
            name: self.name.clone(),
            ifindex,
            flags: flags
                .into_iter()
                .filter(|(is_set, _)| *is_set)
                .fold(0, |flags, (_, flag)| flags | flag),
        };
        let name = bindings::bind(&context.bpffs()?, &request)?;
        if context.is_json() || self.name.is_none() {
            print_name(context, "bind", name)?;
        }
        Ok(Outcome::Done)
    }
}

/// Prints the name of a binding, alone on its line where people read it.
pub(super) fn print_name(context: &mut Context<'_>, noun: &str, name: String) -> Result<()> {
    if !context.is_json() {
        return writeln!(context.out(), "{}", printable(&name)).map_err(cannot_write);
    }
    let format = context.format();
    let mut list = List::new(context.out(), format, noun, NameRow::COLUMNS);
    list.push(&NameRow { name }).map_err(cannot_write)?;
    list.finish().map_err(cannot_write)
}
