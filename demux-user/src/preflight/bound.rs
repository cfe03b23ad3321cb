//! Sockets that are bound to a device above an interface.
//!
//! XDP asks for sockets as if the packet had arrived on the interface itself, and there such a socket
//! is not found; the stack asks once more when the bridge, macvlan or VRF has taken the packet.

use std::collections::{BTreeMap, BTreeSet};

use demux_common::protocol::Protocol;

use super::Risk;
use crate::{
    Error, Result,
    interface::Interface,
    sockets::{self, SocketState, States},
};

/// The sockets that take new packets and are bound to a device above `interface`, which is one of `all`.
pub(super) fn risks(interface: &Interface, all: &[Interface]) -> Result<Vec<Risk>> {
    let above = above(interface, all);
    if above.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = BTreeSet::new();
    for (protocol, states) in [
        (Protocol::Tcp, States::of(&[SocketState::Listen])),
        (Protocol::Udp, States::ALL),
    ] {
        let visited = sockets::for_each(protocol, states, |socket| {
            if above.contains_key(&socket.ifindex) {
                found.insert((protocol.name(), socket.local, socket.ifindex));
            }
            Ok(())
        });
        match visited {
            // A kernel that does not list its sockets may have some all the same.
            Ok(()) | Err(Error::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let risk = |(protocol, local, ifindex)| Risk::BoundSocket {
        protocol,
        local,
        device: above[&ifindex].to_owned(),
    };
    Ok(found.into_iter().map(risk).collect())
}

/// The names, by index, of the devices that packets of `interface` may come to: its master, those that
/// take packets from it, and so on upwards.
fn above<'all>(interface: &Interface, all: &'all [Interface]) -> BTreeMap<u32, &'all str> {
    let mut above = BTreeMap::new();
    let mut below = vec![interface];
    while let Some(device) = below.pop() {
        let master = all.iter().find(|other| device.master == Some(other.index));
        for next in master.into_iter().chain(device.uppers(all)) {
            if above.insert(next.index, next.name.as_str()).is_none() {
                below.push(next);
            }
        }
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface;

    fn device(index: u32, kind: &str, link: Option<u32>, master: Option<u32>) -> Interface {
        Interface {
            index,
            name: format!("{kind}{index}"),
            kind: Some(kind.to_owned()),
            link,
            master,
            ..interface::by_name("lo").unwrap()
        }
    }

    #[test]
    fn what_is_above_is_found_at_every_height() {
        let all = [
            device(11, "veth", Some(90), Some(12)),
            device(12, "bond", None, None),
            device(13, "vlan", Some(12), Some(14)),
            device(14, "bridge", None, Some(16)),
            device(15, "macvlan", Some(14), None),
            device(16, "vrf", None, None),
            device(17, "ipvlan", Some(11), None),
            device(18, "vlan", Some(17), None),
            device(19, "vxlan", Some(11), None),
            device(20, "bridge", None, None),
        ];
        let names = |index: usize| above(&all[index], &all).into_values().collect::<Vec<_>>();
        let stack = [
            "bond12",
            "vlan13",
            "bridge14",
            "macvlan15",
            "vrf16",
            "ipvlan17",
            "vlan18",
        ];
        assert_eq!(names(0), stack);
        assert_eq!(names(3), ["macvlan15", "vrf16"]);
        assert_eq!(names(9), [""; 0]);
    }

    #[test]
    fn a_ring_of_devices_has_an_end() {
        let all = [
            device(11, "macvlan", Some(12), None),
            device(12, "macvlan", Some(11), None),
        ];
        assert_eq!(above(&all[0], &all).len(), 2);
    }
}
