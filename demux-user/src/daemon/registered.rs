//! Sockets that an owner has opened itself and brings to be published: what they must be.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use rustix::net::{
    AddressFamily,
    sockopt::{socket_cookie, socket_domain},
};

use crate::{
    Error, Result,
    netlink::{Netlink, RawMessage, attribute},
    netns::NetworkNamespace,
    xsk::{
        queue::{Place, QueueId},
        socket::Socket,
    },
};

/// From the kernel's `sock_diag.h` and `xdp_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const XDP_SHOW_INFO: u32 = 1;
const XDP_DIAG_INFO: u16 = 1;

/// `SO_NETNS_COOKIE`.
const NETNS_COOKIE: libc::c_int = 71;

/// Makes sure that a descriptor is an AF_XDP socket of this network namespace that is bound to a queue: of
/// any other the datapath would lose what it hands to it.
///
/// # Errors
///
/// [`Error::InvalidArgument`] says what it is instead.
pub(super) fn check(fd: OwnedFd, place: &Place) -> Result<Socket> {
    let refused = |reason: String| Error::invalid("socket", place.to_string(), reason);
    match socket_domain(&fd) {
        Ok(AddressFamily::XDP) => {}
        Ok(_) => return Err(refused("it is of another family than AF_XDP".into())),
        Err(_) => return Err(refused("it is no socket".into())),
    }
    let here = NetworkNamespace::current()?.cookie();
    let there = netns_cookie(&fd)
        .map_err(|source| Error::io("find out the network namespace of a socket", source))?;
    if there != here {
        return Err(refused("it is of another network namespace".into()));
    }
    let cookie =
        socket_cookie(&fd).map_err(|errno| Error::io("read the cookie of a socket", errno))?;
    match bound_to(cookie) {
        Ok(Some(id)) if id == place.id => {}
        Ok(Some(id)) => {
            return Err(refused(format!(
                "it is bound to queue {} of the interface with index {}",
                id.queue, id.ifindex
            )));
        }
        Ok(None) => return Err(refused("it is not bound to a queue".into())),
        // Without CONFIG_XDP_SOCKETS_DIAG the kernel cannot say. Then the owner has to know.
        Err(source) if source.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::io("list the AF_XDP sockets", source)),
    }
    Socket::from_fd(fd)
}

/// The queue that the socket with a cookie is bound to.
fn bound_to(cookie: u64) -> io::Result<Option<QueueId>> {
    // struct xdp_diag_req: family, protocol, padding; inode; what to show; cookie.
    let mut request = vec![libc::AF_XDP as u8, 0, 0, 0];
    request.extend(0_u32.to_ne_bytes());
    request.extend(XDP_SHOW_INFO.to_ne_bytes());
    request.extend([0; 8]);
    let answers = Netlink::sock_diag()?.dump(&RawMessage {
        message_type: SOCK_DIAG_BY_FAMILY,
        payload: request,
    })?;
    // struct xdp_diag_msg: family, type, padding; inode; cookie, low half first.
    Ok(answers.iter().find_map(|answer| {
        let message = answer.payload.get(..16)?;
        let half = |at: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| message[at + byte]));
        if u64::from(half(8)) | u64::from(half(12)) << 32 != cookie {
            return None;
        }
        // struct xdp_diag_info: index, queue.
        let info = attribute(&answer.payload[16..], XDP_DIAG_INFO)?;
        let ifindex = u32::from_ne_bytes(info.get(..4)?.try_into().ok()?);
        let queue = u32::from_ne_bytes(info.get(4..8)?.try_into().ok()?);
        (ifindex != 0).then_some(QueueId { ifindex, queue })
    }))
}

fn netns_cookie(fd: &OwnedFd) -> io::Result<u64> {
    use std::os::fd::AsRawFd as _;
    let mut cookie = 0_u64;
    let mut len = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes one word to `cookie`, whose size `len` says.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(cookie)
}
