//! The sender.

use std::{
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    time::{Duration, Instant},
};

use aya_obj::generated::{bpf_attr, bpf_cmd};
use demux_user::bpf;

use crate::{common::netns::Netns, threads::Thread};

/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program says of a frame is done.
const LIVE_FRAMES: u32 = 1 << 1;

/// How many frames are under way at once: less than a veth queue holds.
const BATCH: u32 = 64;

/// What sends frames, by a program that gives each another source port.
pub(crate) struct Feeder<'a> {
    /// Where it sends.
    pub(crate) peer: &'a Netns,
    pub(crate) program: BorrowedFd<'a>,
    /// What the program is to know.
    pub(crate) map: BorrowedFd<'a>,
    /// The CPU that it runs on.
    pub(crate) cpu: usize,
}

/// How many frames wake everybody before time is taken.
const WARM_UP: u32 = 64 * BATCH;

/// What sending has taken, once everybody was awake.
pub(crate) struct Taken {
    pub(crate) time: Duration,
    pub(crate) cpu_time: u64,
    /// How many frames have arrived in that time.
    pub(crate) arrived: u64,
}

impl Feeder<'_> {
    /// Sends a frame so often by an interface of the peer, beginning with the first flow.
    pub(crate) fn send(&self, frame: &[u8], ifindex: u32, count: u32) {
        self.set_interface(ifindex);
        self.run(|| live_run(self.program, frame, count).expect("frames are sent"));
    }

    /// Does so as fast as it can, after some that are not counted. `arrived` says how many have arrived so
    /// far.
    pub(crate) fn measure(
        &self,
        frame: &[u8],
        ifindex: u32,
        count: u32,
        arrived: impl Fn() -> u64 + Sync,
    ) -> Taken {
        self.set_interface(ifindex);
        self.run(|| {
            let thread = Thread::current();
            live_run(self.program, frame, WARM_UP).expect("frames are sent");
            let (begun, before, cpu_time) = (Instant::now(), arrived(), thread.cpu_time());
            live_run(self.program, frame, count).expect("frames are sent");
            let (time, after) = (begun.elapsed(), arrived());
            Taken {
                time,
                cpu_time: thread.cpu_time() - cpu_time,
                arrived: after - before,
            }
        })
    }

    fn set_interface(&self, ifindex: u32) {
        let words = [ifindex, 0];
        let value: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bpf::map_update(self.map, &[0; 4], &value, 0).expect("what to send by");
    }

    /// Does something at the peer, on the sender's CPU.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.peer.enter(|| {
            let thread = Thread::current();
            thread.bind(self.cpu);
            thread.prefer(1);
            work()
        })
    }
}

fn live_run(program: BorrowedFd<'_>, frame: &[u8], count: u32) -> io::Result<()> {
    // SAFETY: the union holds only integers and arrays of them, for which zero is a value.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: these are the fields of BPF_PROG_TEST_RUN.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = program.as_raw_fd() as u32;
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = frame.len() as u32;
    test.repeat = count;
    test.flags = LIVE_FRAMES;
    test.batch_size = BATCH;
    // SAFETY: the attributes and the frame outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            bpf_cmd::BPF_PROG_TEST_RUN as libc::c_int,
            &raw mut attributes,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
