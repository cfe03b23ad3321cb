//! Frames to and from user space: the example of a UDP echo server, over IPv4 and IPv6, with one queue and
//! several, for jumbo frames and for tagged ones.

mod common;

use std::{
    io,
    net::UdpSocket,
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use common::{
    demux::Demux,
    netns::{Netns, Queues},
    owner::Owner,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::{udp, udp_to},
};
use etherparse::{PacketBuilder, PacketBuilderStep, SlicedPacket, TransportSlice, VlanId};

/// The port of the echo server.
const ECHO: u16 = 7;
/// The port of clients that make their own frames.
const CLIENT: u16 = 40_007;
/// The MTU of links with jumbo frames, less the headers of IPv6 and UDP.
const JUMBO: usize = 9000 - 48;

/// The two hosts with a cable of so many queues each way, for packets of up to 9,000 bytes.
fn pair(queues: u32) -> Pair {
    let pair = Pair {
        host: quick_netns(),
        peer: quick_netns(),
    };
    let queues = Queues {
        rx: queues,
        tx: queues,
    };
    pair.host
        .veth_with_queues(HOST, queues, &pair.peer, PEER, queues);
    pair.host.set_mtu(HOST, 9000);
    pair.peer.set_mtu(PEER, 9000);
    for family in FAMILIES {
        let bits = if family == Family::V4 { 24 } else { 64 };
        pair.host
            .add_address(HOST, &format!("{}/{bits}", family.host()));
        pair.peer
            .add_address(PEER, &format!("{}/{bits}", family.peer()));
    }
    pair
}

#[track_caller]
fn serve<'p>(pair: &'p Pair, mode: &str) -> (Demux<'p>, Owner) {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --mode {mode}"));
    demux.ok(&format!("bind udp :{ECHO} --to xsk:echo --name echo"));
    let arguments = format!("--set echo --iface {HOST} --access direct");
    let owner = Owner::start(&demux, "udp_echo", &arguments);
    (demux, owner)
}

/// Bytes that differ from place to place and from one call to another.
fn data(length: usize, salt: usize) -> Vec<u8> {
    (0..length)
        .map(|place| (place * 31 + (place >> 8) + salt) as u8)
        .collect()
}

#[track_caller]
fn echoes(client: &UdpSocket, length: usize, salt: usize) {
    let sent = data(length, salt);
    client.send(&sent).expect("sending");
    let mut buffer = vec![0; 10_000];
    let received = client.recv(&mut buffer);
    let received = received.unwrap_or_else(|error| panic!("{length} bytes: {error}"));
    assert!(
        buffer[..received] == sent,
        "{length} bytes came back changed"
    );
}

fn datagrams_come_back(mode: &str) {
    for queues in [1, 4] {
        let pair = pair(queues);
        let (demux, mut owner) = serve(&pair, mode);
        for family in FAMILIES {
            for client in 0..16 {
                let client = udp_to(
                    &pair.peer,
                    family.at_peer(50_000 + client),
                    family.at_host(ECHO),
                );
                for (salt, length) in [0, 1, 500, 1400].into_iter().enumerate() {
                    echoes(&client, length, salt);
                }
            }
            // The kernel has the other ports, and nobody has noticed.
            let server = udp(&pair.host, family.at_host(53));
            let client = udp(&pair.peer, family.at_peer(50_053));
            common::sockets::ask(&client, &server, family.at_host(53));
            common::sockets::ping(&pair.peer, family.host());
        }
        owner.assert_running();
        assert_eq!(demux.count("drop", "no-target"), 0);
        owner.interrupt();
    }
}

fn jumbo_frames_come_back(mode: &str) {
    let pair = pair(1);
    let (_demux, mut owner) = serve(&pair, mode);
    for family in FAMILIES {
        let client = udp_to(&pair.peer, family.at_peer(50_000), family.at_host(ECHO));
        // Around the size of a chunk, and up to the longest.
        for length in (3700..4200).step_by(50).chain([8000, JUMBO]) {
            echoes(&client, length, 0);
        }
    }
    owner.assert_running();
}

fn tagged_frames_come_back_with_their_tags(mode: &str) {
    let pair = pair(1);
    let (_demux, mut owner) = serve(&pair, mode);
    let wire = Wire::new(&pair.peer);
    for family in FAMILIES {
        for length in [10, 1400, 6000] {
            let payload = data(length, length);
            let id = VlanId::try_new(100).unwrap();
            let ethernet = PacketBuilder::ethernet2(pair.peer.mac(PEER), pair.host.mac(HOST));
            let ip = match (family.peer(), family.host()) {
                (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) => ethernet
                    .single_vlan(id)
                    .ipv4(from.octets(), to.octets(), 64),
                (std::net::IpAddr::V6(from), std::net::IpAddr::V6(to)) => ethernet
                    .single_vlan(id)
                    .ipv6(from.octets(), to.octets(), 64),
                _ => unreachable!("both are of one family"),
            };
            wire.send(&udp_frame(ip, &payload));
            let (frame, tag) = wire.answer();
            assert_eq!(tag, Some(100), "{family:?}, {length} bytes");
            let parsed = SlicedPacket::from_ethernet(&frame).expect("a frame");
            let Some(TransportSlice::Udp(answer)) = parsed.transport else {
                panic!("{parsed:?}");
            };
            assert_eq!(
                (answer.source_port(), answer.destination_port()),
                (ECHO, CLIENT)
            );
            assert!(answer.payload() == payload);
            assert_eq!(frame[..6], pair.peer.mac(PEER));
            assert_eq!(frame[6..12], pair.host.mac(HOST));
        }
    }
    owner.assert_running();
}

common::in_both_modes! {
    datagrams_come_back
    jumbo_frames_come_back
    tagged_frames_come_back_with_their_tags
}

fn udp_frame(ip: PacketBuilderStep<etherparse::IpHeaders>, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    ip.udp(CLIENT, ECHO)
        .write(&mut frame, payload)
        .expect("a frame");
    frame
}

/// A damaged datagram gets no answer; the next good one does.
#[test]
fn damage_is_not_echoed() {
    let pair = pair(1);
    let (_demux, mut owner) = serve(&pair, "native");
    let wire = Wire::new(&pair.peer);
    let frame = |payload: &[u8]| {
        let ethernet = PacketBuilder::ethernet2(pair.peer.mac(PEER), pair.host.mac(HOST));
        udp_frame(ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64), payload)
    };
    let mut damaged = frame(b"damaged");
    *damaged.last_mut().unwrap() ^= 1;
    wire.send(&damaged);
    wire.send(&frame(b"sound"));
    let (answer, _) = wire.answer();
    assert!(answer.ends_with(b"sound"), "{answer:?}");
    owner.assert_running();
}

/// Frames on the peer's interface, as they are.
struct Wire {
    socket: OwnedFd,
}

impl Wire {
    fn new(netns: &Netns) -> Self {
        let index = netns.index(PEER);
        let all = (libc::ETH_P_ALL as u16).to_be();
        let socket = netns
            .enter(|| common::sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(all)));
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: all,
            sll_ifindex: index.cast_signed(),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the address is as long as told.
        let bound = unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        assert_eq!(bound, 0, "{}", io::Error::last_os_error());
        let wire = Self { socket };
        wire.set(libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32);
        wire.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32);
        let patience = libc::timeval {
            tv_sec: Duration::from_secs(10).as_secs().cast_signed(),
            tv_usec: 0,
        };
        wire.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience);
        wire
    }

    fn set<T>(&self, level: i32, option: i32, value: &T) {
        // SAFETY: the value is as long as told.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    fn send(&self, frame: &[u8]) {
        // SAFETY: the frame is as long as told.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame from the echo server to the client that makes its own, without its tag, which Linux
    /// takes off before any socket sees the frame; and the VLAN of that.
    #[track_caller]
    fn answer(&self) -> (Vec<u8>, Option<u16>) {
        loop {
            let (frame, tag) = self.receive();
            if is_answer(&frame) {
                return (frame, tag);
            }
        }
    }

    #[track_caller]
    fn receive(&self) -> (Vec<u8>, Option<u16>) {
        let mut frame = vec![0; 10_000];
        let mut control = [0_u64; 8];
        let mut part = libc::iovec {
            iov_base: frame.as_mut_ptr().cast(),
            iov_len: frame.len(),
        };
        // SAFETY: zero is a value of every field.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: the buffers live longer than the call, and are as long as told.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        assert!(length >= 0, "no answer: {}", io::Error::last_os_error());
        frame.truncate(length.cast_unsigned());
        // SAFETY: the kernel has filled in the header and the control buffer.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        assert!(!header.is_null(), "the auxiliary data");
        // SAFETY: it is the only message that this socket asks for, which has this type.
        let auxiliary = unsafe {
            libc::CMSG_DATA(header)
                .cast::<libc::tpacket_auxdata>()
                .read_unaligned()
        };
        let is_tagged = auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
        (frame, is_tagged.then_some(auxiliary.tp_vlan_tci & 0xfff))
    }
}

/// Whether a frame is from the echo server to the client that makes its own.
fn is_answer(frame: &[u8]) -> bool {
    let transport = SlicedPacket::from_ethernet(frame).map(|parsed| parsed.transport);
    matches!(transport, Ok(Some(TransportSlice::Udp(udp)))
        if (udp.source_port(), udp.destination_port()) == (ECHO, CLIENT))
}
