//! Looking before leaping: what a default other than `pass` could break, and what attaching will be like.
//!
//! A default of `drop` or `reject` asks for a socket of this host. Packets that reach their socket only
//! after the kernel has rewritten or redirected them, or that belong to another device, have none yet when
//! XDP sees them. Nothing here changes anything.

mod bound;
mod driver;
mod iptables;
mod ipvs;
mod nftables;

use std::{fmt, io, net::SocketAddr, os::fd::AsFd as _};

use aya_obj::generated::bpf_attach_type;

pub use self::driver::{DriverReport, Native, report};
pub(crate) use self::driver::{ONE_BUFFER, takes_sent_frames};
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
    /// A socket is bound to a device above the interface, and is not found from the interface itself.
    BoundSocket {
        /// `tcp` or `udp`.
        protocol: &'static str,
        /// Its own address.
        local: SocketAddr,
        /// Name of the device.
        device: String,
    },
}

impl Risk {
    /// What to do about it, other than to leave the default at `pass` or to take the risk.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Nftables { .. } | Self::Iptables { .. } | Self::IptablesUnreadable { .. } => {
                "bind the ports whose packets are translated or redirected".into()
            }
            Self::Ipvs(_) => "bind the address and port of the IPVS service".into(),
            Self::SkLookup(_) => "bind the addresses and ports that sk_lookup serves".into(),
            Self::Enslaved { master, .. } => format!("load {master} instead"),
            Self::Upper { upper, .. } => format!("load {upper} instead"),
            Self::BoundSocket {
                protocol, local, ..
            } => format!("demux bind {protocol} {local}"),
        }
    }
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
            Self::BoundSocket {
                protocol,
                local,
                device,
            } => write!(
                formatter,
                "the {protocol} socket {local} is bound to {device}"
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
    let all = interface::all()?;
    risks.extend(neighbours(interface, &all));
    risks.extend(bound::risks(interface, &all)?);
    Ok(risks)
}

/// What to do about all of these, each thing once.
#[must_use]
pub fn remedies(risks: &[Risk]) -> Vec<String> {
    let mut remedies = Vec::new();
    for remedy in risks.iter().map(Risk::remedy) {
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    remedies
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

#[cfg(test)]
mod tests {
    use netlink_packet_route::link::InfoKind;

    use super::*;

    fn device(index: u32, kind: &InfoKind, link: Option<u32>, master: Option<u32>) -> Interface {
        Interface {
            index,
            name: format!("x{index}"),
            kind: Some(kind.to_string()),
            link,
            master,
            ..interface::by_name("lo").unwrap()
        }
    }

    /// Of kinds that not every kernel can make.
    #[test]
    fn masters_and_uppers_of_every_kind_are_named() {
        for kind in [
            InfoKind::Bond,
            InfoKind::Bridge,
            InfoKind::Vrf,
            InfoKind::Other("team".to_owned()),
            InfoKind::Other("openvswitch".to_owned()),
        ] {
            let all = [
                device(11, &InfoKind::Veth, None, Some(12)),
                device(12, &kind, None, None),
            ];
            let risks = neighbours(&all[0], &all);
            let lines: Vec<_> = risks.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [format!("x11 belongs to the {kind} x12")]);
            assert_eq!(remedies(&risks), ["load x12 instead"]);
            assert_eq!(neighbours(&all[1], &all), []);
        }
        for kind in [
            InfoKind::Vlan,
            InfoKind::MacVlan,
            InfoKind::MacVtap,
            InfoKind::IpVlan,
            InfoKind::IpVtap,
            InfoKind::MacSec,
        ] {
            let elsewhere = Interface {
                link_is_elsewhere: true,
                ..device(13, &kind, Some(11), None)
            };
            let all = [
                device(11, &InfoKind::Veth, None, None),
                device(12, &kind, Some(11), None),
                elsewhere,
            ];
            let risks = neighbours(&all[0], &all);
            let lines: Vec<_> = risks.iter().map(ToString::to_string).collect();
            assert_eq!(lines, [format!("the {kind} x12 takes packets from x11")]);
            assert_eq!(remedies(&risks), ["load x12 instead"]);
        }
    }
}
