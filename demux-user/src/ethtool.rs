//! What a driver tells about itself, through the ethtool ioctl.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Numbers from the kernel's `ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETH_SS_FEATURES: u32 = 4;
const ETH_FLAG_LRO: u32 = 1 << 15;

/// How many queues of each kind are in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Receive queues, those that also transmit included.
    pub rx: u32,
    /// Transmit queues, those that also receive included.
    pub tx: u32,
}

/// The name of the driver behind the interface `name`.
///
/// # Errors
///
/// EOPNOTSUPP where it does not tell, ENODEV where there is no such interface.
pub fn driver(name: &str) -> io::Result<String> {
    let mut info = DriverInfo {
        command: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        _rest: [0; 160],
    };
    ask(name, &mut info)?;
    Ok(text(&info.driver))
}

/// How many queues the interface `name` uses.
///
/// # Errors
///
/// EOPNOTSUPP where the driver does not tell, ENODEV where there is no such interface.
pub fn channels(name: &str) -> io::Result<Channels> {
    let mut channels = ChannelInfo {
        command: ETHTOOL_GCHANNELS,
        ..Default::default()
    };
    ask(name, &mut channels)?;
    Ok(Channels {
        rx: channels.rx_count + channels.combined_count,
        tx: channels.tx_count + channels.combined_count,
    })
}

/// Whether the interface `name` merges received packets in hardware (LRO), which native XDP does not allow.
///
/// # Errors
///
/// EOPNOTSUPP where the driver does not tell, ENODEV where there is no such interface.
pub fn has_lro(name: &str) -> io::Result<bool> {
    let mut flags = Value {
        command: ETHTOOL_GFLAGS,
        data: 0,
    };
    ask(name, &mut flags)?;
    Ok(flags.data & ETH_FLAG_LRO != 0)
}

/// How many features are looked at. Linux 6.18 has 64.
const MAX_FEATURES: usize = 256;

/// The features of the interface `name` that are on, by the kernel's own names, such as `rx-lro`.
/// (The program ethtool calls some of them by longer ones.)
///
/// # Errors
///
/// EOPNOTSUPP where the driver does not tell, ENODEV where there is no such interface.
pub fn features(name: &str) -> io::Result<BTreeSet<String>> {
    let mut count = SetInfo {
        command: ETHTOOL_GSSET_INFO,
        reserved: 0,
        mask: 1 << ETH_SS_FEATURES,
        count: 0,
        padding: 0,
    };
    ask(name, &mut count)?;
    // The kernel writes all names, however much room is said to be.
    if count.count as usize > MAX_FEATURES {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    let mut names = Box::new(Names {
        command: ETHTOOL_GSTRINGS,
        set: ETH_SS_FEATURES,
        count: count.count,
        names: [[0; 32]; MAX_FEATURES],
    });
    ask(name, names.as_mut())?;
    let mut states = Features {
        command: ETHTOOL_GFEATURES,
        blocks: count.count.div_ceil(32),
        states: [FeatureBlock::default(); MAX_FEATURES / 32],
    };
    ask(name, &mut states)?;
    let is_on = |index: usize| states.states[index / 32].active >> (index % 32) & 1 != 0;
    Ok(names.names[..count.count as usize]
        .iter()
        .enumerate()
        .filter(|(index, _)| is_on(*index))
        .map(|(_, name)| text(name))
        .collect())
}

/// The text of a NUL-padded name.
fn text(bytes: &[u8]) -> String {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// `struct ethtool_sset_info` for one set.
#[repr(C)]
struct SetInfo {
    command: u32,
    reserved: u32,
    mask: u64,
    count: u32,
    padding: u32,
}

/// `struct ethtool_gstrings`.
#[repr(C)]
struct Names {
    command: u32,
    set: u32,
    count: u32,
    names: [[u8; 32]; MAX_FEATURES],
}

/// `struct ethtool_gfeatures`.
#[repr(C)]
struct Features {
    command: u32,
    blocks: u32,
    states: [FeatureBlock; MAX_FEATURES / 32],
}

/// `struct ethtool_get_features_block`: a bit for each of 32 features.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FeatureBlock {
    available: u32,
    requested: u32,
    active: u32,
    never_changed: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    _rest: [u8; 160],
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct ChannelInfo {
    command: u32,
    max: [u32; 4],
    rx_count: u32,
    tx_count: u32,
    other_count: u32,
    combined_count: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// What may be handed to the kernel: `repr(C)`, integers only, beginning with the command, whose
/// structure it is.
trait Command {}
impl Command for DriverInfo {}
impl Command for ChannelInfo {}
impl Command for Value {}
impl Command for SetInfo {}
impl Command for Names {}
impl Command for Features {}

fn ask<T: Command>(name: &str, command: &mut T) -> io::Result<()> {
    let socket: OwnedFd = socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    if name.len() >= ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let mut request = libc::ifreq {
        ifr_name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_data: (&raw mut *command).cast(),
        },
    };
    // SAFETY: the request and the command it points to outlive the call, and the command's type is the
    // structure that the kernel reads and writes for it.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_go_by_their_names() {
        let features = features("lo").unwrap();
        assert!(features.contains("loopback"), "{features:?}");
        assert!(!features.contains("rx-lro"), "{features:?}");
        assert_eq!(
            super::features("nosuch0").unwrap_err().raw_os_error(),
            Some(libc::ENODEV)
        );
    }
}
