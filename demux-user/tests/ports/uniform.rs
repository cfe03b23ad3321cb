//! Pearson's test for uniformity.

/// Into how many equal parts a range is cut.
pub const BINS: u64 = 100;

/// Ends the test if numbers below `range`, a multiple of [`BINS`], are not spread evenly. Even ones fail
/// by chance once in a million times.
#[track_caller]
pub fn assert_uniform(what: &str, numbers: impl Iterator<Item = u64>, range: u64) {
    assert_eq!(range % BINS, 0);
    let mut counts = [0_u32; BINS as usize];
    let mut total = 0;
    for number in numbers {
        assert!(number < range, "{what}: {number}");
        counts[(number * BINS / range) as usize] += 1;
        total += 1;
    }
    let expected = f64::from(total) / BINS as f64;
    assert!(expected >= 50.0, "{what}: too few numbers");
    let statistic: f64 = counts
        .iter()
        .map(|&count| (f64::from(count) - expected).powi(2) / expected)
        .sum();
    println!("{what}: chi-square {statistic:.1} of {total}");
    // By 99 degrees of freedom, as Wilson and Hilferty approximate it.
    assert!(statistic < 182.0, "{what}: {statistic}");
}
