//! The smallest objects that tell what the kernel can do. They live as long as their descriptors.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use aya_obj::generated::{
    BPF_ALU64, BPF_EXIT, BPF_F_MMAPABLE, BPF_F_XDP_HAS_FRAGS, BPF_JMP, BPF_K, BPF_MOV, bpf_cmd,
    bpf_insn, bpf_map_type, bpf_prog_type,
};

use super::{attributes, bpf};

/// What `XDP_PASS` is in the kernel's `bpf.h`.
const XDP_PASS: i32 = 2;

/// Makes an array of four 8-byte values that could be mapped into memory. Needs CAP_BPF.
///
/// # Errors
///
/// EPERM without the capability, EINVAL where the kernel has no such arrays.
pub fn mappable_array() -> io::Result<OwnedFd> {
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_MAP_CREATE.
    let map = unsafe { &mut attributes.__bindgen_anon_1 };
    map.map_type = bpf_map_type::BPF_MAP_TYPE_ARRAY as u32;
    map.key_size = 4;
    map.value_size = 8;
    map.max_entries = 4;
    map.map_flags = BPF_F_MMAPABLE;
    // SAFETY: this command follows no address but that of a file descriptor it does not have here.
    let fd = unsafe { bpf(bpf_cmd::BPF_MAP_CREATE, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Loads an XDP program that passes every packet, with or without the flag for packets of several
/// buffers. It is attached to nothing. Needs CAP_BPF and CAP_NET_ADMIN.
///
/// # Errors
///
/// EPERM without the capabilities, EINVAL where the kernel does not know the flag.
pub fn passing_program(frags: bool) -> io::Result<OwnedFd> {
    let instruction = |code: u32, imm: i32| bpf_insn {
        code: code as u8,
        _bitfield_align_1: [],
        _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
        off: 0,
        imm,
    };
    let instructions = [
        instruction(BPF_ALU64 | BPF_MOV | BPF_K, XDP_PASS),
        instruction(BPF_JMP | BPF_EXIT, 0),
    ];
    let license = c"Dual MIT/GPL";
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_PROG_LOAD.
    let program = unsafe { &mut attributes.__bindgen_anon_3 };
    program.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
    program.insns = instructions.as_ptr() as u64;
    program.insn_cnt = instructions.len() as u32;
    program.license = license.as_ptr() as u64;
    program.prog_flags = if frags { BPF_F_XDP_HAS_FRAGS } else { 0 };
    // SAFETY: instructions and license outlive the call and their lengths are right.
    let fd = unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Asks for all of `map` at once, and says whether the kernel knows how.
///
/// # Errors
///
/// Whatever else the kernel answers.
pub fn has_batches(map: BorrowedFd<'_>) -> io::Result<bool> {
    let (mut next, mut keys, mut values) = ([0_u32; 1], [0_u32; 4], [0_u64; 4]);
    let mut attributes = attributes();
    // SAFETY: these are the fields of the batch commands.
    let batch = unsafe { &mut attributes.batch };
    batch.map_fd = map.as_raw_fd() as u32;
    batch.out_batch = (&raw mut next) as u64;
    batch.keys = (&raw mut keys) as u64;
    batch.values = (&raw mut values) as u64;
    batch.count = keys.len() as u32;
    // SAFETY: the buffers outlive the call and hold as many keys and values as is said.
    match unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) } {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT) => Ok(true),
            Some(libc::EINVAL | ENOTSUPP) => Ok(false),
            _ => Err(error),
        },
    }
}

/// The kernel's own number for what it does not do; it is no errno of any system call's manual.
const ENOTSUPP: i32 = 524;

/// Whether the kernel can put another program into a link. It is asked for no link at all.
///
/// # Errors
///
/// EPERM where bpf(2) is closed to the caller.
pub fn has_link_update() -> io::Result<bool> {
    let mut attributes = attributes();
    attributes.link_update.link_fd = u32::MAX;
    // SAFETY: this command follows no address.
    match unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes) } {
        Ok(_) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::EBADF) => Ok(true),
            Some(libc::EINVAL) => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::bpf::{map_info, program_info, test_run};

    #[test]
    fn what_this_kernel_can_do_is_found_out() {
        let map = mappable_array().expect("a map (needs root)");
        assert_eq!(map_info(map.as_fd()).unwrap().max_entries, 4);
        assert!(has_batches(map.as_fd()).unwrap());
        assert!(has_link_update().unwrap());
        for frags in [false, true] {
            let program = passing_program(frags).expect("a program (needs root)");
            assert!(program_info(program.as_fd()).unwrap().id > 0);
            let outcome = test_run(program.as_fd(), &[0; 64], 0, None, 1).unwrap();
            assert_eq!(outcome.retval, XDP_PASS as u32);
        }
    }
}
