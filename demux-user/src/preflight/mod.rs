//! Looking before leaping: what a default other than `pass` could break, and what attaching will be like.
//!
//! A default of `drop` or `reject` asks for a socket of this host. Packets that reach their socket only
//! after the kernel has rewritten or redirected them, or that belong to another device, have none yet when
//! XDP sees them. Nothing here changes anything.

mod driver;
mod iptables;
mod ipvs;
mod nftables;

use std::{fmt, io, os::fd::AsFd as _};

use aya_obj::generated::bpf_attach_type;

pub(crate) use self::driver::takes_sent_frames;
pub use self::driver::{DriverReport, Native, report};
use crate::{
    Error, Result, bpf,
    capability::Capability,
    interface::{self, Interface},
    netns::NetworkNamespace,
};

/// A reason why packets for this host may have no socket here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Risk {
    /// Rules of nftables (or of an iptables that writes them) that translate or redirect.
    Nftables {
        /// The address family of the table, such as `ip`.
        family: &'static str,
        /// The table.
        table: String,
        /// The chain.
        chain: String,
        /// What the rules do, in the words of nft, such as `masquerade`.
        action: &'static str,
        /// How many rules of the chain do it.
        rules: usize,
    },
    /// Rules of the older iptables that translate or redirect.
    Iptables {
        /// `iptables` or `ip6tables`.
        command: &'static str,
        /// The table.
        table: String,
        /// The target of the rules, such as `MASQUERADE`.
        target: &'static str,
        /// How many rules have it.
        rules: usize,
    },
    /// A table of the older iptables that could hold such rules but cannot be read.
    IptablesUnreadable {
        /// `iptables` or `ip6tables`.
        command: &'static str,
        /// The table.
        table: String,
    },
    /// A service of the IP virtual server.
    Ipvs(
        /// The service as its protocol and address, such as `TCP 10.0.0.1:80`.
        String,
    ),
    /// Programs that choose sockets for packets.
    SkLookup(
        /// How many there are in this namespace.
        u32,
    ),
    /// The interface belongs to a bridge, bond, VRF or the like, which takes its packets.
    Enslaved {
        /// Name of the interface.
        interface: String,
        /// Name of its master.
        master: String,
        /// What the master is, such as `bridge`.
        kind: String,
    },
    /// A VLAN, macvlan or the like takes packets from the interface.
    Upper {
        /// Name of the interface.
        interface: String,
        /// Name of the interface above it.
        upper: String,
        /// What that one is, such as `vlan`.
        kind: String,
    },
}

impl fmt::Display for Risk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |rules: usize| if rules == 1 { "rule" } else { "rules" };
        match self {
            Self::Nftables {
                family,
                table,
                chain,
                action,
                rules,
            } => write!(
                formatter,
                "{rules} {action} {} in chain {family} {table} {chain}",
                count(*rules)
            ),
            Self::Iptables {
                command,
                table,
                target,
                rules,
            } => write!(
                formatter,
                "{rules} {target} {} in the {table} table of {command}",
                count(*rules)
            ),
            Self::IptablesUnreadable { command, table } => write!(
                formatter,
                "the {table} table of {command}, which cannot be read, may have rules"
            ),
            Self::Ipvs(service) => write!(formatter, "the IPVS service {service}"),
            Self::SkLookup(1) => formatter.write_str("an sk_lookup program"),
            Self::SkLookup(count) => write!(formatter, "{count} sk_lookup programs"),
            Self::Enslaved {
                interface,
                master,
                kind,
            } => write!(formatter, "{interface} belongs to the {kind} {master}"),
            Self::Upper {
                interface,
                upper,
                kind,
            } => write!(
                formatter,
                "the {kind} {upper} takes packets from {interface}"
            ),
        }
    }
}

/// What in the present namespace, and about this interface of it, speaks against a default other than `pass`.
///
/// # Errors
///
/// [`Error::MissingCapability`] without CAP_NET_ADMIN, and where the kernel cannot be asked about something
/// that it has.
pub fn risks(interface: &Interface) -> Result<Vec<Risk>> {
    let mut risks = nftables::risks()?;
    risks.extend(iptables::risks()?);
    risks.extend(ipvs::risks()?);
    risks.extend(sk_lookup()?);
    risks.extend(neighbours(interface, &interface::all()?));
    Ok(risks)
}

fn sk_lookup() -> Result<Option<Risk>> {
    let namespace = NetworkNamespace::current()?;
    match bpf::netns_program_count(namespace.as_fd(), bpf_attach_type::BPF_SK_LOOKUP) {
        Ok(0) => Ok(None),
        Ok(count) => Ok(Some(Risk::SkLookup(count))),
        Err(source) => Err(forbidden("look for sk_lookup programs", source)),
    }
}

/// The interfaces that take packets from this one.
fn neighbours(interface: &Interface, all: &[Interface]) -> Vec<Risk> {
    let kind = |interface: &Interface| interface.kind.clone().unwrap_or_else(|| "device".into());
    let master = all
        .iter()
        .find(|other| Some(other.index) == interface.master)
        .map(|master| Risk::Enslaved {
            interface: interface.name.clone(),
            master: master.name.clone(),
            kind: kind(master),
        });
    let uppers = interface.uppers(all).into_iter().map(|upper| Risk::Upper {
        interface: interface.name.clone(),
        upper: upper.name.clone(),
        kind: kind(upper),
    });
    master.into_iter().chain(uppers).collect()
}

/// The error where the kernel cannot be asked, most often for want of CAP_NET_ADMIN.
fn forbidden(operation: &str, source: io::Error) -> Error {
    Error::privileged(operation, source, Capability::NetAdmin)
}

/// Whether a question failed only because the kernel does not have what it is about.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOENT
                | libc::EPROTONOSUPPORT
                | libc::EOPNOTSUPP
                | libc::ENOPROTOOPT
                | libc::EAFNOSUPPORT
        )
    )
}
