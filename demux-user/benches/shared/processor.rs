//! A processor for the measurements alone, and what the other ones do meanwhile.

use std::io;

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};

/// Keeps this thread on the last processor, in front of all others that want it: interrupts go to
/// the first more often, and niceness counts for nothing among sessions. Returns its number.
pub(crate) fn settle() -> usize {
    let last = std::thread::available_parallelism().map_or(1, usize::from) - 1;
    let mut set = CpuSet::new();
    set.set(last);
    if let Err(error) = sched_setaffinity(None::<Pid>, &set) {
        eprintln!("bench: not bound to a processor: {error}");
    }
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the structure outlives the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } < 0 {
        let error = io::Error::last_os_error();
        eprintln!("bench: others may take the processor: {error}");
    }
    last
}

/// How busy the other processors are, which memory-bound cases feel.
pub(crate) struct Others {
    ours: usize,
    begun: Ticks,
}

/// What processors have done, in ticks.
struct Ticks {
    busy: u64,
    idle: u64,
}

impl Others {
    /// Begins to watch all processors but one.
    pub(crate) fn watch(ours: usize) -> Self {
        let begun = Ticks::without(ours);
        Self { ours, begun }
    }

    /// How much of their time they have worked since, in percent.
    pub(crate) fn percent(&self) -> f64 {
        let Ticks { busy, idle } = Ticks::without(self.ours);
        let (busy, idle) = (busy - self.begun.busy, idle - self.begun.idle);
        100.0 * busy as f64 / (busy + idle).max(1) as f64
    }
}

impl Ticks {
    fn without(ours: usize) -> Self {
        let ours = format!("cpu{ours}");
        let mut ticks = Self { busy: 0, idle: 0 };
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        for line in stat.lines().filter(|line| line.starts_with("cpu")) {
            let (name, times) = line.split_once(' ').unwrap_or_default();
            if name == "cpu" || name == ours {
                continue;
            }
            // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user.
            for (index, time) in times.split_whitespace().take(8).enumerate() {
                let time: u64 = time.parse().unwrap_or_default();
                match index {
                    3 | 4 => ticks.idle += time,
                    _ => ticks.busy += time,
                }
            }
        }
        ticks
    }
}
