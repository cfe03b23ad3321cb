//! Threads of this process and of the kernel: where they run, and how long they have.

use std::{fs, io, path::PathBuf};

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

/// A thread, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Thread(u32);

impl Thread {
    /// The calling one.
    pub(crate) fn current() -> Self {
        Self(rustix::thread::gettid().as_raw_nonzero().get() as u32)
    }

    /// The threads of the kernel whose names begin like this.
    pub(crate) fn of_kernel(prefix: &str) -> Vec<Self> {
        let entries = fs::read_dir("/proc").expect("/proc");
        entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Self)
            .filter(|thread| {
                fs::read_to_string(thread.path("comm")).is_ok_and(|name| name.starts_with(prefix))
            })
            .collect()
    }

    /// Lets it run on one CPU only.
    pub(crate) fn bind(self, cpu: usize) {
        let mut set = CpuSet::new();
        set.set(cpu);
        let pid = Pid::from_raw(self.0 as i32);
        sched_setaffinity(pid, &set).unwrap_or_else(|error| panic!("CPU {cpu}: {error}"));
    }

    /// Lets it run in front of all that have no such priority, or a lower one.
    pub(crate) fn prefer(self, priority: i32) {
        let parameters = libc::sched_param {
            sched_priority: priority,
        };
        // SAFETY: the structure outlives the call.
        let result = unsafe {
            libc::sched_setscheduler(self.0 as i32, libc::SCHED_FIFO, &raw const parameters)
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            eprintln!("bench: others may take the processors: {error}");
        }
    }

    /// How many nanoseconds it has run. To be asked while it sleeps, or by itself.
    pub(crate) fn cpu_time(self) -> u64 {
        let text = fs::read_to_string(self.path("schedstat")).expect("a thread that lives");
        let first = text.split_whitespace().next();
        first.and_then(|word| word.parse().ok()).expect("a number")
    }

    fn path(self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.0).into()
    }
}
