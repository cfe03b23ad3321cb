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
