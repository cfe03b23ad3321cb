//! What is attached where no link need be ours.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd};

use super::{attributes, bpf};

/// How many programs of `attach_type` (such as `BPF_SK_LOOKUP`) are attached to the network namespace
/// behind `netns`. Needs CAP_NET_ADMIN.
///
/// # Errors
///
/// EPERM without the capability, EINVAL for attach types that do not attach to namespaces.
pub fn netns_program_count(netns: BorrowedFd<'_>, attach_type: bpf_attach_type) -> io::Result<u32> {
    let mut attributes = attributes();
    attributes.query.__bindgen_anon_1.target_fd = netns.as_raw_fd() as u32;
    attributes.query.attach_type = attach_type as u32;
    // SAFETY: no buffer for program ids is given, so nothing but the count is written.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes) }?;
    // SAFETY: the kernel has written the field.
    Ok(unsafe { attributes.query.__bindgen_anon_2.prog_cnt })
}

/// The kernel ids of the programs on the tcx hook of an interface for what leaves it, in the order in
/// which they run. Needs CAP_NET_ADMIN; aya's own needs CAP_SYS_ADMIN, since it opens the programs.
///
/// # Errors
///
/// EINVAL where the kernel has no tcx, ENODEV where there is no such interface.
pub fn tcx_egress_programs(ifindex: u32) -> io::Result<Vec<u32>> {
    // More than the kernel lets share a hook.
    let mut ids = [0_u32; 256];
    let mut attributes = attributes();
    attributes.query.__bindgen_anon_1.target_ifindex = ifindex;
    attributes.query.attach_type = bpf_attach_type::BPF_TCX_EGRESS as u32;
    attributes.query.prog_ids = (&raw mut ids) as u64;
    attributes.query.__bindgen_anon_2.count = ids.len() as u32;
    // SAFETY: the buffer outlives the call and holds as many ids as is said.
    unsafe { bpf(bpf_cmd::BPF_PROG_QUERY, &mut attributes) }?;
    // SAFETY: the kernel has written the field.
    let count = unsafe { attributes.query.__bindgen_anon_2.count } as usize;
    Ok(ids[..count.min(ids.len())].to_vec())
}
