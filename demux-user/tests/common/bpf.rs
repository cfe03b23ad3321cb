//! The smallest BPF objects, made without a loader.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_map_type, bpf_prog_type};

/// `XDP_FLAGS_SKB_MODE`: attach in generic mode.
pub const GENERIC: u32 = 1 << 1;

/// `XDP_FLAGS_DRV_MODE`: attach in native mode.
pub const NATIVE: u32 = 1 << 2;

/// A map with the kernel's `flags`.
pub fn map(
    kind: bpf_map_type,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
) -> OwnedFd {
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_MAP_CREATE.
    let map = unsafe { &mut attributes.__bindgen_anon_1 };
    map.map_type = kind as u32;
    map.key_size = key_size;
    map.value_size = value_size;
    map.max_entries = max_entries;
    map.map_flags = flags;
    map.map_name = name("test_map");
    create(bpf_cmd::BPF_MAP_CREATE, &mut attributes)
}

/// An XDP program that returns `action` for every packet.
pub fn xdp_program(program_name: &str, action: u8) -> OwnedFd {
    program(
        program_name,
        bpf_prog_type::BPF_PROG_TYPE_XDP,
        bpf_attach_type::BPF_XDP,
        action,
    )
}

/// A program for packets that leave, which lets them go and ends the chain.
pub fn egress_program(program_name: &str) -> OwnedFd {
    program(
        program_name,
        bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
        bpf_attach_type::BPF_CGROUP_INET_INGRESS,
        0,
    )
}

/// Attaches a program behind all others to what leaves the interface with this index.
///
/// It is detached with the descriptor.
pub fn attach_tcx(program: BorrowedFd<'_>, ifindex: u32) -> OwnedFd {
    attach(program, ifindex, bpf_attach_type::BPF_TCX_EGRESS, 0)
}

/// As [`attach_tcx`], to what arrives.
pub fn attach_tcx_ingress(program: BorrowedFd<'_>, ifindex: u32) -> OwnedFd {
    attach(program, ifindex, bpf_attach_type::BPF_TCX_INGRESS, 0)
}

/// A program for the socket lookup that lets the kernel choose.
pub fn sk_lookup_program() -> OwnedFd {
    program(
        "test_sk_lookup",
        bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP,
        bpf_attach_type::BPF_SK_LOOKUP,
        1,
    )
}

/// Attaches an XDP program to the interface with this index, by [`GENERIC`] or [`NATIVE`].
///
/// It is detached with the descriptor.
pub fn attach_xdp(program: BorrowedFd<'_>, ifindex: u32, mode: u32) -> OwnedFd {
    attach(program, ifindex, bpf_attach_type::BPF_XDP, mode)
}

/// Attaches a program for the socket lookup to a network namespace.
pub fn attach_sk_lookup(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> OwnedFd {
    attach(
        program,
        netns.as_raw_fd() as u32,
        bpf_attach_type::BPF_SK_LOOKUP,
        0,
    )
}

/// An XDP program, for frames in several buffers too, that gives every packet to the AF_XDP socket in a map
/// at the number of its receive queue, and passes it where there is none.
pub fn redirect_program(sockets: BorrowedFd<'_>) -> OwnedFd {
    const HAS_FRAGS: u32 = 1 << 5;
    let [a, b, c, d] = sockets.as_raw_fd().to_ne_bytes();
    load(
        "test_redirect",
        bpf_prog_type::BPF_PROG_TYPE_XDP,
        bpf_attach_type::BPF_XDP,
        HAS_FRAGS,
        &[
            // r2 = context->rx_queue_index
            [0x61, 0x12, 16, 0, 0, 0, 0, 0],
            // r1 = map, in two slots
            [0x18, 0x11, 0, 0, a, b, c, d],
            [0; 8],
            // r3 = XDP_PASS
            [0xb7, 3, 0, 0, 2, 0, 0, 0],
            // bpf_redirect_map
            [0x85, 0, 0, 0, 51, 0, 0, 0],
            EXIT,
        ],
    )
}

const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

fn program(
    program_name: &str,
    kind: bpf_prog_type,
    attach_type: bpf_attach_type,
    result: u8,
) -> OwnedFd {
    // "r0 = result; exit"
    let instructions = [[0xb7, 0, 0, 0, result, 0, 0, 0], EXIT];
    load(program_name, kind, attach_type, 0, &instructions)
}

fn load(
    program_name: &str,
    kind: bpf_prog_type,
    attach_type: bpf_attach_type,
    flags: u32,
    instructions: &[[u8; 8]],
) -> OwnedFd {
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_PROG_LOAD.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.expected_attach_type = attach_type as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = instructions.len() as u32;
    program.license = c"GPL".as_ptr() as u64;
    program.prog_flags = flags;
    program.prog_name = name(program_name);
    create(bpf_cmd::BPF_PROG_LOAD, &mut attributes)
}

fn attach(program: BorrowedFd<'_>, target: u32, kind: bpf_attach_type, flags: u32) -> OwnedFd {
    let mut attributes = attributes();
    attributes.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attributes.link_create.__bindgen_anon_2.target_ifindex = target;
    attributes.link_create.attach_type = kind as u32;
    attributes.link_create.flags = flags;
    create(bpf_cmd::BPF_LINK_CREATE, &mut attributes)
}

fn attributes() -> bpf_attr {
    // SAFETY: the union holds only integers and arrays of them, for which zero is a value.
    unsafe { mem::zeroed() }
}

fn create(command: bpf_cmd, attributes: &mut bpf_attr) -> OwnedFd {
    // SAFETY: the attributes and the buffers in them outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attributes,
            size_of::<bpf_attr>(),
        )
    };
    assert!(
        fd >= 0,
        "{command:?} (needs root): {}",
        io::Error::last_os_error()
    );
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn name(text: &str) -> [libc::c_char; 16] {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(text.bytes()) {
        *to = from as libc::c_char;
    }
    name
}
