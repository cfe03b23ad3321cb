//! The device that a route leaves by, and how its frames look on the interface below it.
//!
//! A route may leave by an interface of the set itself, or by an 802.1Q or 802.1ad device above one: then
//! its frames carry a tag for each such device on the way down.

use std::{collections::HashMap, io};

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        InfoData, InfoVlan, LinkAttribute, LinkExtentMask, LinkInfo, LinkLayerType, LinkMessage,
        VlanProtocol,
    },
};

use crate::netlink::Netlink;

/// How many devices may stand one upon the other: as many as Linux allows (`MAX_NEST_DEV`).
const DEPTH: usize = 8;

/// A VLAN tag: its EtherType and its identifier, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// 0x8100 for 802.1Q, 0x88a8 for 802.1ad.
    pub ether_type: u16,
    /// The VLAN, 0 to 4095.
    pub id: u16,
}

/// What matters of a network device to those who send by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) mac: [u8; 6],
    pub(super) mtu: u32,
    pub(super) layer: Layer,
    /// The device below in the same namespace and the tag towards it, where this is a VLAN.
    below: Option<(u32, Tag)>,
}

/// How a device addresses its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    Ethernet,
    Loopback,
    /// Not by Ethernet frames.
    Other,
}

/// The way from the device of a route down to an interface of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// The index of the interface of the set.
    pub(super) interface: u32,
    /// The tags of its frames, the outermost first.
    pub(super) tags: Vec<Tag>,
}

/// The devices that were asked about, by index.
#[derive(Debug, Default)]
pub(super) struct Devices {
    known: HashMap<u32, Device>,
}

impl Devices {
    /// The device with this index; `None` where it is gone.
    pub(super) fn get(&mut self, netlink: &mut Netlink, index: u32) -> io::Result<Option<&Device>> {
        if !self.known.contains_key(&index)
            && let Some(device) = ask(netlink, index)?
        {
            self.known.insert(index, device);
        }
        Ok(self.known.get(&index))
    }

    /// The way from a device down to one of `interfaces`; `None` where none is below it.
    pub(super) fn path(
        &mut self,
        netlink: &mut Netlink,
        from: u32,
        interfaces: &[u32],
    ) -> io::Result<Option<Path>> {
        let mut tags = Vec::new();
        let mut index = from;
        for _ in 0..DEPTH {
            if interfaces.contains(&index) {
                tags.reverse();
                return Ok(Some(Path {
                    interface: index,
                    tags,
                }));
            }
            let device = self.get(netlink, index)?;
            let Some((below, tag)) = device.and_then(|device| device.below) else {
                break;
            };
            tags.push(tag);
            index = below;
        }
        Ok(None)
    }

    /// Whether something was made of what is known of this device.
    pub(super) fn knows(&self, index: u32) -> bool {
        self.known.contains_key(&index)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.known.clear();
    }
}

fn ask(netlink: &mut Netlink, index: u32) -> io::Result<Option<Device>> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    request
        .attributes
        .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    let answer = match netlink.request(RouteNetlinkMessage::GetLink(request), 0) {
        Ok(answer) => answer,
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(answer.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) if link.header.index == index => {
            Some(Device::read(link))
        }
        _ => None,
    }))
}

impl Device {
    fn read(message: &LinkMessage) -> Self {
        let mut device = Self {
            mac: [0; 6],
            mtu: 0,
            layer: match message.header.link_layer_type {
                LinkLayerType::Ether => Layer::Ethernet,
                LinkLayerType::Loopback => Layer::Loopback,
                _ => Layer::Other,
            },
            below: None,
        };
        let mut link = None;
        let mut tag = None;
        let mut is_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::Address(address) => {
                    device.mac = address[..].try_into().unwrap_or_default();
                }
                LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
                LinkAttribute::Link(index) => link = Some(*index),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => tag = infos.iter().find_map(vlan),
                _ => {}
            }
        }
        if !is_elsewhere {
            device.below = link.zip(tag);
        }
        device
    }
}

/// The tag of a VLAN device.
fn vlan(info: &LinkInfo) -> Option<Tag> {
    let LinkInfo::Data(InfoData::Vlan(attributes)) = info else {
        return None;
    };
    let mut id = None;
    let mut protocol = VlanProtocol::Ieee8021Q;
    for attribute in attributes {
        match attribute {
            InfoVlan::Id(found) => id = Some(*found),
            InfoVlan::Protocol(found) => protocol = *found,
            _ => {}
        }
    }
    Some(Tag {
        ether_type: protocol.into(),
        id: id?,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NetlinkDeserializable as _, NetlinkHeader};

    use super::*;
    use crate::netlink::push_attribute;

    const IFLA_LINK: u16 = 5;
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_MTU: u16 = 4;
    const IFLA_LINKINFO: u16 = 18;
    const IFLA_INFO_KIND: u16 = 1;
    const IFLA_INFO_DATA: u16 = 2;
    const IFLA_LINK_NETNSID: u16 = 37;
    const IFLA_VLAN_ID: u16 = 1;
    const IFLA_VLAN_FLAGS: u16 = 2;
    const IFLA_VLAN_PROTOCOL: u16 = 5;

    /// RTM_NEWLINK as Linux sends it of an 802.1Q device (`vlan_fill_info` in net/8021q/vlan_netlink.c).
    fn recorded(index: u32, below: u32, id: u16, ether_type: u16, is_elsewhere: bool) -> Device {
        let mut data = Vec::new();
        push_attribute(&mut data, IFLA_VLAN_PROTOCOL, &ether_type.to_be_bytes());
        push_attribute(&mut data, IFLA_VLAN_ID, &id.to_ne_bytes());
        // VLAN_FLAG_REORDER_HDR, and all bits of the mask.
        push_attribute(
            &mut data,
            IFLA_VLAN_FLAGS,
            &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        );
        let mut info = Vec::new();
        push_attribute(&mut info, IFLA_INFO_KIND, b"vlan\0");
        push_attribute(&mut info, IFLA_INFO_DATA, &data);

        let mut bytes = vec![0, 0];
        bytes.extend(libc::ARPHRD_ETHER.to_ne_bytes());
        bytes.extend(index.to_ne_bytes());
        bytes.extend((libc::IFF_UP as u32).to_ne_bytes());
        bytes.extend([0; 4]);
        push_attribute(&mut bytes, IFLA_MTU, &1496_u32.to_ne_bytes());
        push_attribute(&mut bytes, IFLA_ADDRESS, &[2, 0, 0, 0, 0, 7]);
        push_attribute(&mut bytes, IFLA_LINK, &below.to_ne_bytes());
        if is_elsewhere {
            push_attribute(&mut bytes, IFLA_LINK_NETNSID, &[0; 4]);
        }
        push_attribute(&mut bytes, IFLA_LINKINFO, &info);
        let mut header = NetlinkHeader::default();
        header.message_type = libc::RTM_NEWLINK;
        match RouteNetlinkMessage::deserialize(&header, &bytes).expect("a message") {
            RouteNetlinkMessage::NewLink(message) => Device::read(&message),
            other => panic!("{other:?}"),
        }
    }

    fn devices(known: impl IntoIterator<Item = (u32, Device)>) -> (Devices, Netlink) {
        let devices = Devices {
            known: known.into_iter().collect(),
        };
        (devices, Netlink::route().expect("a socket"))
    }

    #[test]
    fn a_vlan_is_read_with_its_tag() {
        let device = recorded(7, 2, 100, 0x8100, false);
        assert_eq!(
            device,
            Device {
                mac: [2, 0, 0, 0, 0, 7],
                mtu: 1496,
                layer: Layer::Ethernet,
                below: Some((
                    2,
                    Tag {
                        ether_type: 0x8100,
                        id: 100
                    }
                )),
            }
        );
    }

    #[test]
    fn the_tag_of_the_lowest_vlan_is_the_outermost() {
        let (mut devices, mut netlink) = devices([
            (8, recorded(8, 7, 200, 0x8100, false)),
            (7, recorded(7, 2, 100, 0x88a8, false)),
        ]);
        let path = devices.path(&mut netlink, 8, &[1, 2]).unwrap().unwrap();
        let tag = |ether_type, id| Tag { ether_type, id };
        assert_eq!(
            path,
            Path {
                interface: 2,
                tags: vec![tag(0x88a8, 100), tag(0x8100, 200)],
            }
        );
        let path = devices.path(&mut netlink, 2, &[1, 2]).unwrap().unwrap();
        assert_eq!((path.interface, path.tags), (2, vec![]));
    }

    #[test]
    fn what_is_below_in_another_namespace_is_out_of_reach() {
        let (mut devices, mut netlink) = devices([(7, recorded(7, 2, 100, 0x8100, true))]);
        assert_eq!(devices.path(&mut netlink, 7, &[2]).unwrap(), None);
    }
}
