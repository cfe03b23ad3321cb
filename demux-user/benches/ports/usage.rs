//! The range of ports, and how much of it is in use.

use crate::common::chance::Random;

/// The range, the same for demux and for the kernel: from where the kernel's own begins, as many as
/// a process may usually have open files.
pub(crate) const FIRST: u16 = 32_768;
pub(crate) const LAST: u16 = 50_767;

/// How many ports it has.
pub(crate) const COUNT: usize = (LAST - FIRST) as usize + 1;

/// Parts of the range that are in use, in thousandths.
pub(crate) const USES: [u32; 5] = [0, 500, 900, 990, 999];

/// The part for which there are targets.
pub(crate) const TARGET_USE: u32 = 990;

/// How many ports such a part is.
pub(crate) const fn ports(per_mille: u32) -> usize {
    COUNT * per_mille as usize / 1000
}

/// Ports in use, each with what keeps it so.
pub(crate) struct InUse<T> {
    ports: Vec<(u16, T)>,
    random: Random,
}

impl<T> InUse<T> {
    pub(crate) fn new() -> Self {
        Self {
            ports: Vec::with_capacity(COUNT),
            random: Random::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.ports.len()
    }

    pub(crate) fn insert(&mut self, port: u16, keeper: T) {
        assert!((FIRST..=LAST).contains(&port), "{port} is not of the range");
        self.ports.push((port, keeper));
    }

    /// Takes out ports at random until only so many are left.
    pub(crate) fn shrink(&mut self, to: usize) -> Vec<(u16, T)> {
        let mut out = Vec::with_capacity(self.len().saturating_sub(to));
        while self.len() > to {
            let index = self.random.below(self.len());
            out.push(self.ports.swap_remove(index));
        }
        out
    }
}
