//! How the kernel is brought to resolve a neighbour, with and without CAP_NET_ADMIN.
//!
//! With it, the neighbour's entry is marked as used. Without, an empty datagram is sent to the discard port
//! (9, RFC 863) of the next hop: the kernel must resolve it before it can send that.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd as _, OwnedFd},
};

use nix::libc;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sendto, socket_with};

use super::neighbour::{Key, tell_in_use};
use crate::netlink::Netlink;

/// The discard service.
const DISCARD: u16 = 9;

/// The two ways.
#[derive(Debug)]
pub(super) enum Prompt {
    /// By netlink.
    Netlink(Datagrams),
    /// By datagrams, since netlink was refused.
    Datagrams(Datagrams),
}

/// The sockets that datagrams are sent by, of both families; `None` where the kernel does not have it.
#[derive(Debug)]
pub(super) struct Datagrams {
    v4: Option<OwnedFd>,
    v6: Option<OwnedFd>,
}

impl Prompt {
    /// Begins with netlink. Sockets belong to the namespace of the thread that makes them, so they are made
    /// here, whether they will be needed or not.
    pub(super) fn new() -> Self {
        let socket = |family| {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(family, SocketType::DGRAM, flags, None).ok()
        };
        Self::Netlink(Datagrams {
            v4: socket(AddressFamily::INET),
            v6: socket(AddressFamily::INET6),
        })
    }

    /// Brings the kernel to resolve or verify a neighbour; returns at once. Whether it answers is seen in
    /// the kernel's neighbour table.
    pub(super) fn neighbour(&mut self, netlink: &mut Netlink, key: Key) -> io::Result<()> {
        if let Self::Netlink(datagrams) = self {
            match tell_in_use(netlink, key) {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    *self = Self::Datagrams(datagrams.take());
                }
                // The table is full, or the device went away: the packet waits in vain, as in the kernel.
                Err(error)
                    if matches!(
                        error.raw_os_error(),
                        Some(libc::ENOBUFS | libc::ENODEV | libc::ENETDOWN | libc::EINVAL)
                    ) =>
                {
                    return Ok(());
                }
                result => return result,
            }
        }
        if let Self::Datagrams(datagrams) = self {
            datagrams.send(key);
        }
        Ok(())
    }
}

impl Datagrams {
    fn take(&mut self) -> Self {
        Self {
            v4: self.v4.take(),
            v6: self.v6.take(),
        }
    }

    /// Sends an empty datagram to a neighbour. Where that fails the neighbour stays unresolved.
    fn send(&self, (device, address): Key) {
        let (socket, to) = match address {
            IpAddr::V4(address) => (&self.v4, SocketAddr::from((address, DISCARD))),
            IpAddr::V6(address) => {
                let to = SocketAddrV6::new(address, DISCARD, 0, device);
                (&self.v6, SocketAddr::V6(to))
            }
        };
        let Some(socket) = socket else { return };
        if leave_by(socket, address, device).is_ok() {
            // The neighbour is on the link: no gateway is to be asked.
            let _ = sendto(socket.as_fd(), &[], SendFlags::DONTROUTE, &to);
        }
    }
}

/// Lets a socket send by a device, which SO_BINDTODEVICE would forbid an unprivileged process to do twice.
fn leave_by(socket: &OwnedFd, address: IpAddr, device: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let (level, option) = match address {
        IpAddr::V4(Ipv4Addr { .. }) => (libc::IPPROTO_IP, libc::IP_UNICAST_IF),
        IpAddr::V6(Ipv6Addr { .. }) => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_IF),
    };
    // In network byte order, unlike every other option that takes an index.
    let value = device.to_be();
    // SAFETY: the option takes an integer, and is told its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
