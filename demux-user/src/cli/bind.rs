//! `demux bind`: make a binding.

use demux_common::{
    binding::{Binding, Target},
    config::Mode,
    protocol::Protocol,
};

use super::{
    Outcome,
    context::{Context, cannot_write},
    names::Names,
    unbind::protocol,
    words::Words,
};
use crate::{
    Error, Result,
    bindings::{self, BindRequest, Destination, Fallback, Pattern},
    bpffs::BpfFs,
    interface, owned,
    render::{List, NameRow, Row as _, printable},
};

pub(super) const PROTOCOLS: Words<Protocol> = Words {
    what: "protocol",
    words: &[("tcp", Protocol::Tcp, ""), ("udp", Protocol::Udp, "")],
};

const FALLBACKS: Words<Fallback> = Words {
    what: "fallback",
    words: &[
        ("drop", Fallback::Drop, "it is dropped"),
        ("stack", Fallback::Stack, "it goes up the kernel's stack"),
    ],
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
/// Refused is what bind(2) would refuse: an endpoint that another binding has, unless both share it by
/// --reuse-addr or --reuse-port; and, unless its packets go to the stack, one that a socket has. Ranges
/// and prefixes only conflict with the same ones. Of those that share, the last wins, and all of them
/// together with --reuse-port.
///
/// TARGET is stack (the kernel's, as without demux), drop, reject (drop, and the sender is told),
/// cpu:LIST (the kernel's stack on other CPUs, such as cpu:1-3,7: connections spread over them, and
/// each stays on its own) or xsk:NAME (the AF_XDP sockets of a program that has opened the set NAME;
/// see demux xsks). While nobody has sockets there, --fallback says what happens.
///
/// Several are bound together, or none. Without --name, names are generated and printed.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded; CAP_NET_BIND_SERVICE for
/// privileged ports. Without CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, processes are not kept away from the ports of
/// bindings to drop, reject or xsk, and a warning says so.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// tcp or udp
    #[arg(value_name = "PROTO", value_parser = PROTOCOLS)]
    protocol: Protocol,
    /// The local endpoints
    #[arg(value_name = "LOCAL", allow_hyphen_values = true)]
    local: String,
    /// More of both, bound with the same options
    #[arg(value_name = "PROTO LOCAL")]
    more: Vec<String>,
    /// Where their packets go: stack, drop, reject, cpu:LIST or xsk:NAME [default: stack]
    #[arg(long = "to", value_name = "TARGET")]
    target: Option<String>,
    /// What becomes of packets that the CPU or socket cannot take [default: stack for cpu:, drop for xsk:]
    #[arg(long, value_name = "WHERE", value_parser = FALLBACKS)]
    fallback: Option<Fallback>,
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
    /// Bind an address that is none of this host, as IP_FREEBIND does
    #[arg(long)]
    freebind: bool,
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
  demux bind tcp :53 udp :53               both or neither
  demux bind tcp :8080 --to cpu:2-5        four CPUs share the connections
  demux bind udp :53 --to xsk:dns          datagrams for the sockets of a program
  demux bind udp :* --dev eth1 --untracked";

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let patterns = self.patterns()?;
        if let (Some(name), [_, _, ..]) = (&self.name, patterns.as_slice()) {
            return Err(Error::invalid(
                "binding name",
                name,
                "several bindings cannot have one name",
            ));
        }
        let ifindex = match &self.device {
            Some(name) => interface::by_name(name)?.index,
            None => 0,
        };
        let target = match &self.target {
            Some(text) => text.parse()?,
            None => Destination::Stack,
        };
        if let Some(fallback) = self.fallback
            && !target.target().is_steered()
        {
            return Err(Error::invalid(
                "fallback",
                fallback.name(),
                format!("the target {target} takes every packet; --fallback is for cpu: and xsk:"),
            ));
        }
        let flags = [
            (self.reuse_addr, Binding::REUSE_ADDR),
            (self.reuse_port, Binding::REUSE_PORT),
            (self.untracked, Binding::UNTRACKED),
        ];
        let flags = flags
            .into_iter()
            .filter(|(is_set, _)| *is_set)
            .fold(0, |flags, (_, flag)| flags | flag);
        let requests: Vec<BindRequest> = patterns
            .into_iter()
            .map(|pattern| BindRequest {
                pattern,
                target: target.clone(),
                fallback: self.fallback,
                name: self.name.clone(),
                ifindex,
                flags,
                freebind: self.freebind,
            })
            .collect();
        let bpffs = context.bpffs()?;
        let names = bindings::bind_all(&bpffs, &requests)?;
        if !target.target().is_kernel() {
            say_what_is_not_owned(context, &bpffs, &requests)?;
        }
        if target.target() == Target::Cpu {
            say_where_cpus_are_out_of_reach(context)?;
        }
        if context.is_json() || self.name.is_none() {
            print_names(context, "bind", names)?;
        }
        Ok(Outcome::Done)
    }

    fn patterns(&self) -> Result<Vec<Pattern>> {
        let mut patterns = vec![Pattern::parse(self.protocol, &self.local, self.v6_only)?];
        for pair in self.more.chunks(2) {
            let name = &pair[0];
            let protocol = protocol(name)
                .ok_or_else(|| Error::invalid("protocol", name, "a protocol is tcp or udp"))?;
            let local = pair.get(1).ok_or_else(|| {
                Error::invalid(
                    "binding",
                    name,
                    "behind the protocol comes the local endpoint, such as tcp :80",
                )
            })?;
            patterns.push(Pattern::parse(protocol, local, self.v6_only)?);
        }
        Ok(patterns)
    }
}

/// Names the interfaces whose packets stay on their CPU.
fn say_where_cpus_are_out_of_reach(context: &mut Context<'_>) -> Result<()> {
    let interfaces = context.open()?.tables.interfaces()?;
    let names = Names::read()?;
    for (_, entry) in interfaces {
        if entry.mode == Mode::Generic {
            context.warn(format!(
                "{} is attached in generic mode, in which the kernel cannot hand packets to other \
                 CPUs: they go up the stack on the CPU on which they arrive",
                names.show(entry.ifindex)
            ));
        }
    }
    Ok(())
}

/// Says in which ways processes can still have the ports of bindings that do not go up the stack.
fn say_what_is_not_owned(
    context: &mut Context<'_>,
    bpffs: &BpfFs,
    requests: &[BindRequest],
) -> Result<()> {
    if let Some(reason) = owned::renew_present(bpffs)? {
        context.warn(format!(
            "processes are not kept from binding the same ports: {reason}"
        ));
    }
    let ports: Vec<u16> = requests
        .iter()
        .map(|request| request.pattern.ports)
        .filter(|ports| ports.first == ports.last)
        .map(|ports| ports.first)
        .collect();
    for port in owned::exposed(&ports)? {
        context.note(format!(
            "the kernel may choose port {port} for outgoing connections, whose packets then go to \
             the binding; to prevent it, add the port to the sysctl net.ipv4.ip_local_reserved_ports"
        ));
    }
    Ok(())
}

/// Prints the names of bindings, each alone on its line where people read them.
pub(super) fn print_names(context: &mut Context<'_>, noun: &str, names: Vec<String>) -> Result<()> {
    if !context.is_json() {
        return names.iter().try_for_each(|name| {
            writeln!(context.out(), "{}", printable(name)).map_err(cannot_write)
        });
    }
    let format = context.format();
    let mut list = List::new(context.out(), format, noun, NameRow::COLUMNS);
    for name in names {
        list.push(&NameRow { name }).map_err(cannot_write)?;
    }
    list.finish().map_err(cannot_write)
}
