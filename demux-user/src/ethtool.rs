//! What a driver tells about itself, through the ethtool ioctl.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// Numbers from the kernel's `ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
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
    let bytes: Vec<u8> = info
        .driver
        .into_iter()
        .take_while(|&byte| byte != 0)
        .collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
