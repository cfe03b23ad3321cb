//! Running a program once, or many times, on a packet made up by us.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use aya_obj::generated::bpf_cmd;

use super::{address, address_mut, attributes, bpf};

/// What a program made of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// What the program returned, such as an `XDP_` action.
    pub retval: u32,
    /// The packet as the program left it.
    pub data_out: Vec<u8>,
    /// Mean nanoseconds of a run.
    pub duration_ns: u32,
}

/// Runs a program on `data_in` by `BPF_PROG_TEST_RUN`, `repeat` times (0 counts as once).
///
/// `ctx_in` is the context structure, for XDP `struct xdp_md`: its `data` must be 0 and `data_end` the
/// length of the packet; `ingress_ifindex` must name an interface of this namespace, or be 0.
/// Frames must have at least 14 bytes.
/// Up to `data_out_capacity` bytes of the packet are returned as it was after the last run.
///
/// # Errors
///
/// EINVAL for a frame or context that the kernel does not take, ENODEV for an unknown interface,
/// ENOSPC where the packet does not fit in `data_out_capacity`.
pub fn test_run(
    program: BorrowedFd<'_>,
    data_in: &[u8],
    data_out_capacity: usize,
    ctx_in: Option<&[u8]>,
    repeat: u32,
) -> io::Result<TestRunOutcome> {
    let mut data_out = vec![0; data_out_capacity];
    let mut attributes = attributes();
    // SAFETY: these are the fields of BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = program.as_raw_fd() as u32;
    test.data_in = address(data_in);
    test.data_size_in = data_in.len() as u32;
    if !data_out.is_empty() {
        test.data_out = address_mut(&mut data_out);
        test.data_size_out = data_out.len() as u32;
    }
    if let Some(context) = ctx_in {
        test.ctx_in = address(context);
        test.ctx_size_in = context.len() as u32;
    }
    test.repeat = repeat;
    // SAFETY: all buffers outlive the call and their lengths are right.
    unsafe { bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes) }?;
    // SAFETY: the kernel has written the fields.
    let test = unsafe { attributes.test };
    // Without a buffer the kernel still reports the length the packet has.
    data_out.truncate(test.data_size_out as usize);
    Ok(TestRunOutcome {
        retval: test.retval,
        data_out,
        duration_ns: test.duration,
    })
}
