//! What attaching to an interface will be like, foretold without attaching.

use std::io;

use super::is_absent;
use crate::{
    Error, Result,
    ethtool::{self, Channels},
    interface::{self, AttachedXdp, Interface},
    netlink::{Netlink, RawMessage, attribute, push_attribute},
};

// Numbers from the kernel's `genetlink.h` and `netdev.h`.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_NDO_XMIT: u64 = 1 << 2;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

/// The largest MTU every native driver takes without support for packets of several buffers:
/// a page less room for headers and the end of the buffer.
pub(crate) const ONE_BUFFER: u32 = 3500;

/// What is known about attaching to an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriverReport {
    /// The driver, where it tells its name.
    pub driver: Option<String>,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// The queues in use, where the driver tells.
    pub channels: Option<Channels>,
    /// Those of the other end of a veth pair, where it is in this namespace.
    pub peer_channels: Option<Channels>,
    /// Whether LRO is on, where the driver tells.
    pub lro: Option<bool>,
    /// The XDP program that holds the hook.
    pub xdp: Option<AttachedXdp>,
    /// Whether native mode can be had.
    pub native: Native,
    /// Whether attaching in native mode takes the link down for a moment; `None` for drivers not known.
    pub resets_link: Option<bool>,
}

/// Whether an interface can run XDP in native mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Native {
    /// Nothing speaks against it.
    Likely,
    /// It cannot, for this reason.
    Impossible(String),
    /// The kernel does not tell; only trying does.
    Unknown,
}

/// Finds out what attaching to `interface` will be like.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub fn report(interface: &Interface) -> Result<DriverReport> {
    let failed = |source| Error::io(format!("ask the driver of {}", interface.name), source);
    let all = interface::all()?;
    let channels = told(ethtool::channels(&interface.name)).map_err(failed)?;
    let peer_channels = match interface.peer(&all) {
        Some(peer) => told(ethtool::channels(&peer.name)).map_err(failed)?,
        None => None,
    };
    let mut report = DriverReport {
        driver: told(ethtool::driver(&interface.name)).map_err(failed)?,
        mtu: interface.mtu,
        channels,
        peer_channels,
        lro: told(ethtool::has_lro(&interface.name)).map_err(failed)?,
        xdp: interface.xdp,
        native: Native::Unknown,
        resets_link: None,
    };
    report.resets_link = report.driver.as_deref().and_then(resets_link);
    let features = told(xdp_features(interface.index)).map_err(failed)?;
    report.native = report.foretell(interface, features);
    Ok(report)
}

impl DriverReport {
    fn foretell(&self, interface: &Interface, features: Option<u64>) -> Native {
        let impossible = |reason: String| Native::Impossible(reason);
        if interface.is_loopback {
            return impossible("the loopback interface has no driver".into());
        }
        if let (Some(own), Some(peer)) = (self.channels, self.peer_channels)
            && own.rx < peer.tx
        {
            return impossible(format!(
                "{} receive queues are fewer than the {} transmit queues of its peer",
                own.rx, peer.tx
            ));
        }
        if self.lro == Some(true) {
            return impossible("LRO is on".into());
        }
        let Some(features) = features else {
            return Native::Unknown;
        };
        if features & NETDEV_XDP_ACT_BASIC == 0 {
            return impossible(match &self.driver {
                Some(driver) => format!("the driver {driver} has no XDP"),
                None => "its driver has no XDP".into(),
            });
        }
        if features & NETDEV_XDP_ACT_RX_SG == 0 && self.mtu > ONE_BUFFER {
            return impossible(format!(
                "an MTU of {} is more than the driver takes in one buffer",
                self.mtu
            ));
        }
        Native::Likely
    }
}

/// `None` for what a driver or kernel does not tell.
fn told<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether frames that XDP programs send to an interface leave by it; `None` where the kernel does
/// not tell, which is before Linux 6.3.
///
/// # Errors
///
/// Where the kernel cannot be asked.
pub(crate) fn takes_sent_frames(ifindex: u32) -> io::Result<Option<bool>> {
    let features = told(xdp_features(ifindex))?;
    Ok(features.map(|features| features & NETDEV_XDP_ACT_NDO_XMIT != 0))
}

/// What the driver does in native mode, as `NETDEV_XDP_ACT_` bits, told by Linux 6.3 and newer.
fn xdp_features(ifindex: u32) -> io::Result<u64> {
    let mut netlink = Netlink::generic()?;
    let family = netlink.request(
        generic(
            GENL_ID_CTRL,
            CTRL_CMD_GETFAMILY,
            CTRL_ATTR_FAMILY_NAME,
            b"netdev\0",
        ),
        0,
    )?;
    let family = integer(&family, CTRL_ATTR_FAMILY_ID).map(u16::from_ne_bytes)?;
    let device = netlink.request(
        generic(
            family,
            NETDEV_CMD_DEV_GET,
            NETDEV_A_DEV_IFINDEX,
            &ifindex.to_ne_bytes(),
        ),
        0,
    )?;
    integer(&device, NETDEV_A_DEV_XDP_FEATURES).map(u64::from_ne_bytes)
}

/// A request of generic netlink with one attribute.
fn generic(family: u16, command: u8, kind: u16, value: &[u8]) -> RawMessage {
    // struct genlmsghdr: command, version, reserved.
    let mut payload = vec![command, 1, 0, 0];
    push_attribute(&mut payload, kind, value);
    RawMessage {
        message_type: family,
        payload,
    }
}

/// The bytes of a number in the answer.
fn integer<const N: usize>(answer: &[RawMessage], kind: u16) -> io::Result<[u8; N]> {
    answer
        .iter()
        .find_map(|message| attribute(message.payload.get(4..)?, kind)?.try_into().ok())
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EOPNOTSUPP))
}

/// Whether a driver takes the link down to set up its queues for XDP, for drivers that are known.
fn resets_link(driver: &str) -> Option<bool> {
    match driver {
        "veth" | "tun" | "virtio_net" | "netkit" | "loopback" => Some(false),
        "ixgbe" | "ixgbevf" | "i40e" | "ice" | "igb" | "igc" | "bnxt_en" | "mlx4_en"
        | "mlx5_core" | "ena" | "qede" | "nfp" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface;

    #[test]
    fn reasons_against_native_mode() {
        let mut interface = interface::by_name("lo").unwrap();
        let report = DriverReport {
            driver: Some("some".into()),
            mtu: 9000,
            channels: Some(Channels { rx: 1, tx: 1 }),
            peer_channels: None,
            lro: None,
            xdp: None,
            native: Native::Unknown,
            resets_link: None,
        };
        let reason = |report: &DriverReport, interface: &Interface, features| match report
            .foretell(interface, features)
        {
            Native::Impossible(reason) => reason,
            other => format!("{other:?}"),
        };
        let basic = Some(NETDEV_XDP_ACT_BASIC);
        let frags = Some(NETDEV_XDP_ACT_BASIC | NETDEV_XDP_ACT_RX_SG);
        assert_eq!(
            reason(&report, &interface, frags),
            "the loopback interface has no driver"
        );
        interface.is_loopback = false;
        assert_eq!(reason(&report, &interface, frags), "Likely");
        assert_eq!(reason(&report, &interface, None), "Unknown");
        assert_eq!(
            reason(&report, &interface, Some(0)),
            "the driver some has no XDP"
        );
        assert_eq!(
            reason(&report, &interface, basic),
            "an MTU of 9000 is more than the driver takes in one buffer"
        );
        let crowded = DriverReport {
            peer_channels: Some(Channels { rx: 1, tx: 4 }),
            ..report.clone()
        };
        assert_eq!(
            reason(&crowded, &interface, frags),
            "1 receive queues are fewer than the 4 transmit queues of its peer"
        );
        let merging = DriverReport {
            lro: Some(true),
            ..report
        };
        assert_eq!(reason(&merging, &interface, frags), "LRO is on");
    }
}
