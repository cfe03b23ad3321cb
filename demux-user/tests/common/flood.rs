//! Floods of spoofed packets: a program that gives each frame another source and hands it on, written
//! in instructions, so that a test needs no other object; and a cable that loses what it should carry.

use std::{
    io, mem,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    BPF_F_XDP_HAS_FRAGS, bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type,
};
use demux_user::bpf;

use super::{
    bpf::{GENERIC, attach_tcx, attach_xdp, map, xdp_program},
    pair::{PEER, Pair},
};

/// What about a frame is random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A TCP segment over IPv4: one of 2^24 addresses, the port, and the sequence number. The checksums
    /// are left wrong.
    V4Tcp,
    /// A datagram over IPv4: one of 2^24 addresses, and the port. The checksums are left wrong.
    V4Udp,
    /// A TCP segment over IPv6: 32 bits of the address, the port, and the sequence number.
    V6Tcp,
    /// A datagram over IPv4 without a checksum of its own: one of 256 addresses, which leave the
    /// checksum of the header right, and the port.
    V4UdpSound,
}

/// The first byte of every random IPv4 address.
pub const FIRST_BYTE: u8 = 100;

/// A program that makes the source of each frame random and hands it on to another one.
#[derive(Debug)]
pub struct Mutator {
    program: OwnedFd,
    _next: OwnedFd,
}

impl Mutator {
    pub fn new(source: Source, next: BorrowedFd<'_>) -> Self {
        let programs = map(bpf_map_type::BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0);
        let value = next.as_raw_fd().to_ne_bytes();
        bpf::map_update(programs.as_fd(), &[0; 4], &value, 0).unwrap();
        let program = load(
            &instructions(source, programs.as_raw_fd()),
            bpf_prog_type::BPF_PROG_TYPE_XDP,
            bpf_attach_type::BPF_XDP,
            // As the program that frames are handed on to.
            BPF_F_XDP_HAS_FRAGS,
        );
        Self {
            program,
            _next: programs,
        }
    }

    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }
}

/// One instruction: operation, destination, source, offset and constant.
fn op(code: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    u64::from(code)
        | u64::from(to) << 8
        | u64::from(from) << 12
        | u64::from(offset as u16) << 16
        | u64::from(constant as u32) << 32
}

fn instructions(source: Source, programs: i32) -> Vec<u64> {
    const PRANDOM: i32 = 7;
    const TAIL_CALL: i32 = 12;
    // linux/bpf.h: class, size or operation, and where the operand is.
    const COPY: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const AND32: u8 = 0x54;
    const OR32: u8 = 0x44;
    const OR32_REGISTER: u8 = 0x4c;
    const XOR32: u8 = 0xa4;
    const SHIFT_LEFT32: u8 = 0x64;
    const LOAD32: u8 = 0x61;
    const STORE32: u8 = 0x63;
    const STORE16: u8 = 0x6b;
    const JUMP_IF_GREATER: u8 = 0x2d;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const LOAD_MAP: u8 = 0x18;

    let is_v6 = source == Source::V6Tcp;
    let (address, transport) = if is_v6 { (22 + 12, 54) } else { (26, 34) };
    let random = op(CALL, 0, 0, 0, PRANDOM);
    let mut body = vec![random];
    match source {
        Source::V4Tcp | Source::V4Udp => body.extend([
            op(AND32, 0, 0, 0, !0xff),
            op(OR32, 0, 0, 0, i32::from(FIRST_BYTE)),
        ]),
        Source::V6Tcp => {}
        // The second half is the complement of the first, so that they sum up to the same.
        Source::V4UdpSound => body.extend([
            op(AND32, 0, 0, 0, 0xff),
            op(COPY, 1, 0, 0, 0),
            op(SHIFT_LEFT32, 1, 0, 0, 8),
            op(XOR32, 0, 0, 0, 0xff),
            op(SHIFT_LEFT32, 0, 0, 0, 24),
            op(OR32_REGISTER, 0, 1, 0, 0),
            op(
                OR32,
                0,
                0,
                0,
                i32::from(FIRST_BYTE) | i32::from(!FIRST_BYTE) << 16,
            ),
        ]),
    }
    body.extend([
        op(STORE32, 7, 0, address, 0),
        random,
        op(STORE16, 7, 0, transport, 0),
    ]);
    if matches!(source, Source::V4Tcp | Source::V6Tcp) {
        body.extend([random, op(STORE32, 7, 0, transport + 4, 0)]);
    }
    body.extend([
        op(COPY, 1, 6, 0, 0),
        op(LOAD_MAP, 2, 1, 0, programs),
        0,
        op(SET, 3, 0, 0, 0),
        op(CALL, 0, 0, 0, TAIL_CALL),
    ]);
    let mut program = vec![
        op(COPY, 6, 1, 0, 0),
        op(LOAD32, 7, 1, 0, 0),
        op(LOAD32, 2, 1, 4, 0),
        op(COPY, 3, 7, 0, 0),
        op(ADD, 3, 0, 0, i32::from(transport) + 8),
        op(JUMP_IF_GREATER, 3, 2, body.len() as i16, 0),
    ];
    program.extend(body);
    // XDP_ABORTED.
    program.extend([op(SET, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

fn load(
    instructions: &[u64],
    kind: bpf_prog_type,
    attach_type: bpf_attach_type,
    flags: u32,
) -> OwnedFd {
    let mut log = vec![0u8; 1 << 16];
    // SAFETY: the union holds only integers and arrays of them, for which zero is a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: these are the fields of BPF_PROG_LOAD.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.expected_attach_type = attach_type as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = instructions.len() as u32;
    program.license = c"GPL".as_ptr() as u64;
    program.prog_flags = flags;
    program.log_level = 1;
    program.log_buf = log.as_mut_ptr() as u64;
    program.log_size = log.len() as u32;
    // SAFETY: the attributes and the buffers in them outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_LOAD as libc::c_int,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    assert!(
        fd >= 0,
        "{}: {}",
        io::Error::last_os_error(),
        String::from_utf8_lossy(&log)
    );
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// A cable that carries nothing for as long as the value lives, though both ends are up. What a host
/// sends has left it.
#[derive(Debug)]
pub struct Cut {
    _links: Vec<OwnedFd>,
}

impl Cut {
    /// Nothing arrives at either end.
    pub fn both_ways(pair: &Pair) -> Self {
        let mut cut = Self::to_peer(pair);
        cut._links.extend(Self::to_host(pair)._links);
        cut
    }

    /// Nothing arrives at the peer.
    pub fn to_peer(pair: &Pair) -> Self {
        let link = pair.peer.enter(|| {
            let program = xdp_program("test_cut", super::inside::XDP_DROP as u8);
            attach_xdp(program.as_fd(), pair.peer.index(PEER), GENERIC)
        });
        Self { _links: vec![link] }
    }

    /// Nothing arrives at the host.
    pub fn to_host(pair: &Pair) -> Self {
        const SET: u8 = 0xb7;
        const EXIT: u8 = 0x95;
        const TC_ACT_SHOT: i32 = 2;
        let link = pair.peer.enter(|| {
            let program = load(
                &[op(SET, 0, 0, 0, TC_ACT_SHOT), op(EXIT, 0, 0, 0, 0)],
                bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
                bpf_attach_type::BPF_CGROUP_INET_INGRESS,
                0,
            );
            attach_tcx(program.as_fd(), pair.peer.index(PEER))
        });
        Self { _links: vec![link] }
    }
}
