//! What lies below the `demux` command: the maps and programs of an instance, and frames that are
//! given to its program as if they had arrived.

use std::{
    io, mem,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::{BPF_F_TEST_XDP_LIVE_FRAMES, bpf_attr, bpf_cmd};
use demux_common::{
    connection::{Connection, ConnectionKey, State},
    layout::{map, program},
    protocol::Protocol,
    table::{Cold, Flags, Line, Occupancy, WINDOW},
};
use demux_user::{
    bindings::pattern::from_ip,
    bpf,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::{Access, Control, Tables},
};
use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};
use zerocopy::{Immutable, IntoBytes as _, KnownLayout, TryFromBytes};

use super::demux::Demux;

pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// The maps and programs of an instance. Its directory is not locked: commands go on.
#[derive(Debug)]
pub struct Inside {
    pub tables: Tables,
    pub control: Control,
    ingress: OwnedFd,
}

impl Inside {
    pub fn of(demux: &Demux<'_>) -> Self {
        demux.netns().enter(|| Self::here(demux.bpffs()))
    }

    /// Those of the present namespace, pinned in this file system.
    pub fn here(bpffs: &Path) -> Self {
        let bpffs = BpfFs::find_or_mount(Some(bpffs)).unwrap();
        let cookie = NetworkNamespace::current().unwrap().cookie();
        let instance = Instance::open(&bpffs, cookie, Lock::Shared).unwrap();
        let pin = instance.paths().program(program::INGRESS);
        Self {
            tables: Tables::open(&instance, Access::ReadWrite).unwrap(),
            control: Control::open(instance.paths()).unwrap(),
            ingress: bpf::object_get(&pin, false).unwrap(),
        }
    }

    /// The program for arriving frames.
    pub fn ingress(&self) -> BorrowedFd<'_> {
        self.ingress.as_fd()
    }

    /// Gives a frame to the program as if it had arrived on an interface of the present namespace.
    pub fn arrives(&self, frame: &[u8], ifindex: u32) -> u32 {
        run(self.ingress(), frame, ifindex, 1)
    }

    /// Every row, expired or not.
    pub fn rows(&self) -> Vec<(ConnectionKey, Connection)> {
        let mut rows = Vec::new();
        self.tables
            .for_each_connection(|key, connection| {
                rows.push((key, connection));
                Ok(())
            })
            .unwrap();
        rows
    }

    /// What is wrong with the lines of the table while nobody writes them: every line is empty, or has a
    /// connection and is named by its home, and homes name no other lines; and an IPv6 connection has
    /// its addresses.
    pub fn damage(&self) -> Vec<String> {
        let lines: Vec<Line> = self.read(map::CONNECTIONS);
        let cold: Vec<Cold> = self.read(map::CONNECTION_COLD);
        let mut damage = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let hop = usize::from(line.hop);
            match line.occupancy {
                Occupancy::Empty => {}
                Occupancy::Busy => damage.push(format!("line {index} is busy for ever: {line:?}")),
                Occupancy::Live if lines[index - hop].hops >> hop & 1 == 0 => {
                    damage.push(format!("line {index} is not reached: {line:?}"));
                }
                Occupancy::Live
                    if Flags(line.flags).has(Flags::IPV6)
                        && !cold[index].belongs_to(line.generation) =>
                {
                    damage.push(format!("line {index} has {:?}: {line:?}", cold[index]));
                }
                Occupancy::Live => {}
            }
            for hop in 0..WINDOW as usize {
                if line.hops >> hop & 1 == 0 {
                    continue;
                }
                match lines.get(index + hop) {
                    Some(named)
                        if named.occupancy == Occupancy::Live && usize::from(named.hop) == hop => {}
                    named => damage.push(format!("home {index} names {hop} on: {named:?}")),
                }
            }
        }
        damage
    }

    fn read<T: TryFromBytes + KnownLayout + Immutable>(&self, name: &str) -> Vec<T> {
        let fd = self.tables.map_fd(name).unwrap();
        let count = bpf::map_info(fd).unwrap().max_entries;
        let mut bytes = vec![0; count as usize * size_of::<T>()];
        bpf::array_read(fd, 0, size_of::<T>(), &mut bytes).unwrap();
        bytes
            .chunks_exact(size_of::<T>())
            .map(|line| T::try_read_from_bytes(line).unwrap_or_else(|_| panic!("{name}")))
            .collect()
    }
}

/// Runs an XDP program on a frame, as often as told, and returns what it made of it the last time.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, times: u32) -> u32 {
    let context = context(frame, ifindex);
    bpf::test_run(program, frame, 0, Some(context.as_bytes()), times)
        .unwrap_or_else(|error| panic!("a test run of {} bytes: {error}", frame.len()))
        .retval
}

/// Runs an XDP program on a frame, as often as told, and lets each frame that it passes go up the stack.
pub fn run_live(program: BorrowedFd<'_>, frame: &[u8], ifindex: u32, times: u32) {
    let context = context(frame, ifindex);
    // SAFETY: the union holds only integers and arrays of them, for which zero is a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: these are the fields of BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = program.as_raw_fd() as u32;
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = frame.len() as u32;
    test.ctx_in = context.as_ptr() as u64;
    test.ctx_size_in = size_of_val(&context) as u32;
    test.repeat = times;
    test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    // SAFETY: all buffers outlive the call and their lengths are right.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN as libc::c_int,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    assert!(result >= 0, "live frames: {}", io::Error::last_os_error());
}

/// `struct xdp_md`.
fn context(frame: &[u8], ifindex: u32) -> [u32; 6] {
    [0, frame.len() as u32, 0, ifindex, 0, 0]
}

/// The stations that a frame goes from and to.
#[derive(Debug, Clone, Copy)]
pub struct Stations {
    pub from: [u8; 6],
    pub to: [u8; 6],
}

impl Stations {
    /// A TCP segment without data.
    pub fn segment(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        flags: u8,
        [sequence, acknowledgement]: [u32; 2],
    ) -> Vec<u8> {
        let mut header = TcpHeader::new(from.port(), to.port(), sequence, 64_240);
        header.fin = flags & FIN != 0;
        header.syn = flags & SYN != 0;
        header.rst = flags & RST != 0;
        header.ack = flags & ACK != 0;
        if header.ack {
            header.acknowledgment_number = acknowledgement;
        }
        let mut frame = Vec::new();
        let builder = self.addressed(from, to).tcp_header(header);
        builder.write(&mut frame, &[]).expect("a segment");
        frame
    }

    pub fn datagram(&self, from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let builder = self.addressed(from, to).udp(from.port(), to.port());
        builder.write(&mut frame, data).expect("a datagram");
        frame
    }

    fn addressed(
        &self,
        from: SocketAddr,
        to: SocketAddr,
    ) -> PacketBuilderStep<etherparse::IpHeaders> {
        let ethernet = PacketBuilder::ethernet2(self.from, self.to);
        match (from, to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                ethernet.ipv4(from.ip().octets(), to.ip().octets(), 64)
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                ethernet.ipv6(from.ip().octets(), to.ip().octets(), 64)
            }
            _ => panic!("{from} and {to} are of two families"),
        }
    }
}

/// The four-tuple of a conversation, seen from the host at `local`.
pub fn key(protocol: Protocol, local: SocketAddr, remote: SocketAddr) -> ConnectionKey {
    ConnectionKey {
        local_address: from_ip(local.ip()),
        remote_address: from_ip(remote.ip()),
        local_port: local.port(),
        remote_port: remote.port(),
        protocol,
    }
}

/// Enters an established connection that the host has consented to.
pub fn enter_confirmed(key: ConnectionKey) -> demux_common::command::Command {
    let flags = Flags(Flags::CONFIRMED);
    demux_common::command::Command::enter(key, State::Established, flags)
}
