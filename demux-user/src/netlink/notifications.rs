//! What rtnetlink tells everybody about: changes of interfaces, addresses, routes and neighbours.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd},
};

use netlink_packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::{DATAGRAM, RawMessage};

/// How much the kernel may keep for a reader that is busy.
const BACKLOG: usize = 1 << 20;

/// A socket that hears of changes. It never blocks; its descriptor is readable when something has
/// changed. No capability is needed.
#[derive(Debug)]
pub struct Notifications {
    socket: Socket,
    datagram: Vec<u8>,
}

/// What a reader of notifications has to go by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// Something has changed: a message of rtnetlink.
    Change(RawMessage),
    /// Changes were lost, since too many came at once: whatever was known may be wrong.
    Lost,
}

impl Notifications {
    /// Hears of changes that concern these groups (`RTNLGRP_` in `linux/rtnetlink.h`) in the present
    /// network namespace, from now on.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened, or the kernel has no such group.
    pub fn of(groups: &[u32]) -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        // Only the kernel is listened to.
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.set_rx_buf_sz(BACKLOG)?;
        for &group in groups {
            socket.add_membership(group)?;
        }
        Ok(Self {
            socket,
            datagram: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Visits what has come, and returns at once where nothing has.
    ///
    /// # Errors
    ///
    /// Where the socket fails.
    pub fn read(&mut self, mut visit: impl FnMut(Notification)) -> io::Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv(&mut self.datagram, libc::MSG_TRUNC) {
                // The buffer holds what any one change takes; if not, it is as good as lost.
                Ok(length) if length > self.datagram.len() => visit(Notification::Lost),
                Ok(_) => each_message(&self.datagram, &mut visit),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    visit(Notification::Lost);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the socket is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }
}

fn each_message(datagram: &[u8], visit: &mut impl FnMut(Notification)) {
    let mut rest = datagram;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).ok().and_then(|header| {
            let length = header.length() as usize;
            let message = NetlinkMessage::<RawMessage>::deserialize(&rest[..length]).ok()?;
            Some((length, message))
        });
        let Some((length, message)) = message else {
            return visit(Notification::Lost);
        };
        if let NetlinkPayload::InnerMessage(message) = message.payload {
            visit(Notification::Change(message));
        }
        rest = &rest[length.next_multiple_of(4).min(rest.len())..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_of_a_datagram_is_visited_and_damage_is_a_loss() {
        let mut datagram = Vec::new();
        for payload in [&b"link"[..], b"neighbour"] {
            datagram.extend((16 + payload.len() as u32).to_ne_bytes());
            datagram.extend(20_u16.to_ne_bytes());
            datagram.extend([0; 10]);
            datagram.extend(payload);
            datagram.resize(datagram.len().next_multiple_of(4), 0);
        }
        datagram.extend([1, 2, 3]);
        let mut seen = Vec::new();
        each_message(&datagram, &mut |notification| seen.push(notification));
        let change = |payload: &[u8]| {
            Notification::Change(RawMessage {
                message_type: 20,
                payload: payload.to_vec(),
            })
        };
        assert_eq!(
            seen,
            [change(b"link"), change(b"neighbour"), Notification::Lost]
        );
    }
}
