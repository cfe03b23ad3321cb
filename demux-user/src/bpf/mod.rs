//! The bpf(2) calls that aya 0.14 lacks, on plain descriptors and byte slices.
//!
//! Nothing here knows what a map or program is for.
//! Every function returns the system's own error; callers add the object it was about.

mod batch;
mod cpu;
mod info;
mod map;
mod memory;
mod object;
mod probe;
mod query;
mod test_run;

use std::{io, mem};

use aya_obj::generated::{bpf_attr, bpf_cmd};

pub use self::{
    batch::{Batch, BatchReader, array_read},
    cpu::possible_cpus,
    info::{
        CgroupLink, LinkInfo, MapInfo, ProgramInfo, link_info, map_info, map_memory, program_info,
    },
    map::{map_delete, map_get_next_key, map_lookup, map_update, map_update_batch},
    memory::{MappedWords, synchronize},
    object::{
        link_detach, link_ids, link_open_by_id, link_update, object_get, object_pin,
        program_open_by_id,
    },
    probe::{has_batches, has_link_update, mappable_array, passing_program},
    query::{netns_program_count, tcx_egress_programs},
    test_run::{TestRunOutcome, test_run},
};

/// All zero, as the kernel wants every byte that a command does not use.
fn attributes() -> bpf_attr {
    // SAFETY: the union holds only integers and arrays of them, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// Calls bpf(2) and returns its non-negative result.
///
/// # Safety
///
/// Every address in `attributes` that `command` uses must be valid for what the kernel reads or writes there.
unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: the attributes outlive the call and their size is right; the caller vouches for what they point to.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_int,
            &raw mut *attributes,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// The address of a buffer that the kernel reads.
fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr() as u64
}

/// The address of a buffer that the kernel writes.
fn address_mut(bytes: &mut [u8]) -> u64 {
    bytes.as_mut_ptr() as u64
}

/// The text of a NUL-padded kernel name.
fn name(bytes: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        .map(|&byte| byte as u8)
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
