//! The first few of many, in memory for a few.

use super::column::Rank;

/// Keeps those entries of a long sequence that come first by their rank; of equals, those that were
/// there first.
#[derive(Debug)]
pub(super) struct Best<T> {
    limit: usize,
    entries: Vec<(Rank, u64, T)>,
    seen: u64,
    /// What does not come before it will not be kept.
    bar: Option<Rank>,
}

impl<T> Best<T> {
    /// Room for so many.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: Vec::new(),
            seen: 0,
            bar: None,
        }
    }

    /// Offers an entry, which is made only where it may be kept.
    pub(super) fn offer(&mut self, rank: Rank, make: impl FnOnce() -> T) {
        self.seen += 1;
        if self.limit == 0 || self.bar.is_some_and(|bar| rank >= bar) {
            return;
        }
        self.entries.push((rank, self.seen, make()));
        // Room for as many again makes one selection pay for that many offers.
        if self.entries.len() >= 2 * self.limit {
            self.prune();
        }
    }

    fn prune(&mut self) {
        if self.entries.len() <= self.limit {
            return;
        }
        let (_, last, _) = self
            .entries
            .select_nth_unstable_by_key(self.limit - 1, |&(rank, seen, _)| (rank, seen));
        self.bar = Some(last.0);
        self.entries.truncate(self.limit);
    }

    /// How many were offered.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Those that were kept, in order.
    pub(super) fn into_sorted(mut self) -> Vec<T> {
        self.prune();
        self.entries
            .sort_unstable_by_key(|&(rank, seen, _)| (rank, seen));
        self.entries
            .into_iter()
            .map(|(_, _, entry)| entry)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a full sort would keep.
    fn naive(ranks: &[u64], limit: usize) -> Vec<(u64, usize)> {
        let mut all: Vec<_> = ranks.iter().copied().zip(0..).collect();
        all.sort_by_key(|&(rank, _)| rank);
        all.truncate(limit);
        all
    }

    #[test]
    fn the_first_are_kept_and_of_equals_the_earlier() {
        // A sequence with many equals, in no order.
        let ranks: Vec<u64> = (0..5000_u64).map(|number| number * 7919 % 101).collect();
        for limit in [0, 1, 7, 1000, 4999, 5000, 6000] {
            let mut best = Best::new(limit);
            for (index, &rank) in ranks.iter().enumerate() {
                best.offer(Rank::number(rank), || (rank, index));
                assert!(best.entries.len() <= 2 * limit.max(1));
            }
            assert_eq!(best.seen(), 5000);
            assert_eq!(best.into_sorted(), naive(&ranks, limit), "{limit}");
        }
    }

    #[test]
    fn what_cannot_be_kept_is_not_made() {
        let mut best = Best::new(10);
        let mut made = 0;
        for number in 0..1000 {
            best.offer(Rank::number(number), || made += 1);
        }
        assert_eq!(made, 20);
    }
}
