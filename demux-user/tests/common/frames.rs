//! Frames as bytes, sent and received on an interface past the protocols of the kernel.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use super::{netns::Netns, sockets::socket};

/// A socket that sends whole frames on one interface.
#[derive(Debug)]
pub struct FrameSocket {
    socket: OwnedFd,
    ifindex: i32,
}

impl FrameSocket {
    pub fn new(netns: &Netns, interface: &str) -> Self {
        let ifindex = netns.index(interface) as i32;
        // Without a protocol it receives nothing.
        let socket = netns.enter(|| socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
        Self { socket, ifindex }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the structure holds only integers and arrays of them, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = self.ifindex;
        // SAFETY: the frame and the address are as long as told.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(
            sent,
            frame.len() as isize,
            "sending a frame: {}",
            io::Error::last_os_error()
        );
    }
}

/// A capture file with these frames, as tcpdump writes it.
pub fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    const ETHERNET: u32 = 1;
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0]);
    for word in [0, 0, 0x4_0000, ETHERNET] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        let length = frame.len() as u32;
        for word in [0, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

/// A socket that sees every frame which arrives on one interface, with its VLAN tags.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

impl Capture {
    pub fn new(netns: &Netns, interface: &str) -> Self {
        let socket = netns.enter(|| socket(libc::AF_PACKET, libc::SOCK_RAW, 0));
        let on = 1_i32;
        // SAFETY: the option's value is as long as told.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                size_of_val(&on) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        let mut address = link(netns.index(interface) as i32);
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: the address is as long as told.
        let result = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        Self { socket }
    }

    /// The next frame that has arrived and was not looked at yet.
    pub fn next(&self) -> Option<Vec<u8>> {
        /// Where tags stand.
        const TAG: usize = 12;
        loop {
            let mut frame = vec![0_u8; 1 << 16];
            let mut control = [0_u64; 8];
            let mut from = link(0);
            let mut part = libc::iovec {
                iov_base: frame.as_mut_ptr().cast(),
                iov_len: frame.len(),
            };
            // SAFETY: the structure holds only integers and pointers, for which zero is a value.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = size_of_val(&from) as libc::socklen_t;
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = size_of_val(&control);
            // SAFETY: all buffers outlive the call and are as long as told.
            let length = unsafe {
                libc::recvmsg(
                    self.socket.as_raw_fd(),
                    &raw mut message,
                    libc::MSG_DONTWAIT,
                )
            };
            if length < 0 {
                let error = io::Error::last_os_error();
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{error}");
                return None;
            }
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            frame.truncate(length as usize);
            // SAFETY: the kernel has filled in the message, whose buffers are still there.
            let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
            if let Some(header) = header
                && header.cmsg_type == libc::PACKET_AUXDATA
            {
                // SAFETY: that is what such a message holds.
                let data = unsafe {
                    libc::CMSG_DATA(header)
                        .cast::<libc::tpacket_auxdata>()
                        .read_unaligned()
                };
                if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    let tag = [
                        data.tp_vlan_tpid.to_be_bytes(),
                        data.tp_vlan_tci.to_be_bytes(),
                    ];
                    frame.splice(TAG..TAG, tag.concat());
                }
            }
            return Some(frame);
        }
    }
}

/// The address of an interface.
fn link(ifindex: i32) -> libc::sockaddr_ll {
    // SAFETY: the structure holds only integers and arrays of them, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex;
    address
}
