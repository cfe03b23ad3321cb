//! Facts about network interfaces, from rtnetlink: /sys shows those of the namespace it was mounted in.

use std::{fmt, io, os::fd::AsFd as _};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
        LinkXdp, Prop, XdpAttached,
    },
};

use crate::{Error, Result, bpf, netlink::Netlink};

/// A network interface of the present namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its index, which no other interface of this namespace has while it exists.
    pub index: u32,
    /// Its name, which may change.
    pub name: String,
    /// Further names it answers to.
    pub alternative_names: Vec<String>,
    /// Its Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// What a virtual interface is, in the kernel's words (`veth`, `bridge`, `vlan`, …); `None` for real ones.
    pub kind: Option<String>,
    /// The kernel's `ARPHRD_` number: 1 is Ethernet, 772 loopback.
    pub link_type: u16,
    /// Whether it has been set up.
    pub is_up: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
    /// The index of the bridge, bond, VRF or other master it is enslaved to.
    pub master: Option<u32>,
    /// The index of the interface below it, or of its peer, in that one's namespace.
    pub link: Option<u32>,
    /// Whether what `link` names is in another namespace.
    pub link_is_elsewhere: bool,
    /// How many receive queues it was made with. [`channels`](crate::ethtool::channels) tells how many are in use.
    pub rx_queues: u32,
    /// How many transmit queues it was made with.
    pub tx_queues: u32,
    /// The XDP program on it.
    pub xdp: Option<AttachedXdp>,
}

/// An XDP program on an interface, whoever attached it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    /// How it runs.
    pub mode: XdpMode,
    /// Its kernel id.
    pub program_id: u32,
}

/// Where in the way of a packet an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver, before the kernel makes a socket buffer.
    Native,
    /// In the stack, on the socket buffer.
    Generic,
    /// On the network card.
    Offload,
}

impl XdpMode {
    /// The word for it in commands and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offload => "offload",
        }
    }
}

impl fmt::Display for XdpMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl AttachedXdp {
    /// The name of the program, where the caller has CAP_SYS_ADMIN to ask.
    pub fn program_name(&self) -> Option<String> {
        program_name(self.program_id)
    }

    /// The kernel id of the link that holds the program on the interface with this index, where there is
    /// one (netlink attaches without) and the caller has CAP_SYS_ADMIN to ask.
    pub fn link_id(&self, ifindex: u32) -> Option<u32> {
        bpf::link_ids().ok()?.into_iter().find(|&id| {
            bpf::link_open_by_id(id)
                .and_then(|link| bpf::link_info(link.as_fd()))
                .is_ok_and(|info| {
                    info.ifindex == Some(ifindex) && info.program_id == self.program_id
                })
        })
    }
}

/// The name of the program with this kernel id, where the caller has CAP_SYS_ADMIN to ask.
pub(crate) fn program_name(id: u32) -> Option<String> {
    let program = bpf::program_open_by_id(id).ok()?;
    Some(bpf::program_info(program.as_fd()).ok()?.name)
}

/// The interfaces of the present namespace, in ascending order of their indexes.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn all() -> Result<Vec<Interface>> {
    dump().map_err(|source| Error::io("list the network interfaces", source))
}

/// The interface with this name, or, if there is none, with this alternative name.
///
/// # Errors
///
/// [`Error::UnknownInterface`] where the present namespace has none.
pub fn by_name(name: &str) -> Result<Interface> {
    let mut interfaces = all()?;
    let position = interfaces
        .iter()
        .position(|interface| interface.name == name)
        .or_else(|| {
            interfaces.iter().position(|interface| {
                interface
                    .alternative_names
                    .iter()
                    .any(|other| other == name)
            })
        });
    match position {
        Some(position) => Ok(interfaces.swap_remove(position)),
        None => Err(Error::UnknownInterface(name.into())),
    }
}

/// The interface with this index; `None` where it is gone.
///
/// # Errors
///
/// Where rtnetlink cannot be asked.
pub fn by_index(index: u32) -> Result<Option<Interface>> {
    Ok(all()?
        .into_iter()
        .find(|interface| interface.index == index))
}

impl Interface {
    /// Whether its packets begin with an Ethernet header.
    pub fn has_ethernet_header(&self) -> bool {
        self.link_type == libc::ARPHRD_ETHER || self.link_type == libc::ARPHRD_LOOPBACK
    }

    /// Those of `interfaces` that take packets from this one before the stack looks at them for its own
    /// sockets: VLANs, macvlans and the like. Such that were moved to another namespace are not seen.
    pub fn uppers<'all>(&self, interfaces: &'all [Interface]) -> Vec<&'all Interface> {
        /// What else points to an interface only sends through it, or is its equal, like a veth's peer.
        const KINDS: [&str; 9] = [
            "vlan", "macvlan", "macvtap", "ipvlan", "ipvtap", "macsec", "hsr", "rmnet", "dsa",
        ];
        let is_upper = |other: &&Interface| {
            other.link == Some(self.index)
                && !other.link_is_elsewhere
                && other.index != self.index
                && other
                    .kind
                    .as_deref()
                    .is_some_and(|kind| KINDS.contains(&kind))
        };
        interfaces.iter().filter(is_upper).collect()
    }

    /// The other end of a veth pair, where it is among `interfaces` and hence in this namespace.
    pub fn peer<'all>(&self, interfaces: &'all [Interface]) -> Option<&'all Interface> {
        if self.kind.as_deref() != Some("veth") || self.link_is_elsewhere {
            return None;
        }
        interfaces
            .iter()
            .find(|other| Some(other.index) == self.link)
    }

    fn parse(message: &LinkMessage) -> Self {
        let header = &message.header;
        let mut interface = Self {
            index: header.index,
            name: String::new(),
            alternative_names: Vec::new(),
            mac: None,
            mtu: 0,
            kind: None,
            link_type: header.link_layer_type.into(),
            is_up: header.flags.contains(LinkFlags::Up),
            is_loopback: header.link_layer_type == LinkLayerType::Loopback,
            master: None,
            link: None,
            link_is_elsewhere: false,
            rx_queues: 0,
            tx_queues: 0,
            xdp: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name.clone_from(name),
                LinkAttribute::PropList(properties) => {
                    interface.alternative_names = alternative_names(properties);
                }
                LinkAttribute::Address(address) => interface.mac = address[..].try_into().ok(),
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => interface.kind = kind(infos),
                LinkAttribute::Controller(master) => interface.master = Some(*master),
                LinkAttribute::Link(link) => interface.link = Some(*link),
                LinkAttribute::LinkNetNsId(_) => interface.link_is_elsewhere = true,
                LinkAttribute::NumRxQueues(count) => interface.rx_queues = *count,
                LinkAttribute::NumTxQueues(count) => interface.tx_queues = *count,
                LinkAttribute::Xdp(attributes) => interface.xdp = xdp(attributes),
                _ => {}
            }
        }
        interface
    }
}

fn dump() -> io::Result<Vec<Interface>> {
    let mut request = LinkMessage::default();
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answer = Netlink::route()?.dump(&RouteNetlinkMessage::GetLink(request))?;
    let mut interfaces: Vec<_> = answer
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(Interface::parse(link)),
            _ => None,
        })
        .collect();
    interfaces.sort_unstable_by_key(|interface| interface.index);
    Ok(interfaces)
}

fn alternative_names(properties: &[Prop]) -> Vec<String> {
    properties
        .iter()
        .filter_map(|property| match property {
            Prop::AltIfName(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(InfoKind::to_string(kind)),
        _ => None,
    })
}

fn xdp(attributes: &[LinkXdp]) -> Option<AttachedXdp> {
    let mut by_mode = [None; 3];
    let mut attached = None;
    let mut program_id = None;
    for attribute in attributes {
        match *attribute {
            LinkXdp::Attached(mode) => attached = Some(mode),
            LinkXdp::ProgId(id) => program_id = Some(id),
            LinkXdp::DrvProgId(id) => by_mode[0] = Some((XdpMode::Native, id)),
            LinkXdp::SkbProgId(id) => by_mode[1] = Some((XdpMode::Generic, id)),
            LinkXdp::HwProgId(id) => by_mode[2] = Some((XdpMode::Offload, id)),
            _ => {}
        }
    }
    let only = match attached? {
        XdpAttached::Driver => Some(XdpMode::Native),
        XdpAttached::SocketBuffer => Some(XdpMode::Generic),
        XdpAttached::Hardware => Some(XdpMode::Offload),
        _ => None,
    };
    // With one on the card and one in the host, that in the host is the one in our way.
    let (mode, program_id) = by_mode
        .into_iter()
        .flatten()
        .next()
        .or_else(|| only.zip(program_id))?;
    Some(AttachedXdp { mode, program_id })
}
