//! Amounts and durations as people read them.

/// Bytes with a binary unit, such as `1.5 MiB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    // What would be printed as 1024.0 belongs to the next unit.
    while value >= 1023.95 {
        value /= 1024.0;
        unit = units.next();
    }
    format!("{value:.1} {}", unit.unwrap_or(&"EiB"))
}

/// How the checksum of a BPF object is written.
#[must_use]
pub fn build_name(build: u32) -> String {
    format!("{build:08x}")
}

/// A duration given in milliseconds with its two largest units, such as `2h13m`.
#[must_use]
pub fn milliseconds(duration: u64) -> String {
    let seconds = duration / 1000;
    match seconds {
        0 => format!("{duration}ms"),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_unit_that_leaves_few_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(bytes(1_572_864), "1.5 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }

    #[test]
    fn durations_have_their_two_largest_units() {
        assert_eq!(milliseconds(0), "0ms");
        assert_eq!(milliseconds(999), "999ms");
        assert_eq!(milliseconds(59_999), "59s");
        assert_eq!(milliseconds(60_000), "1m00s");
        assert_eq!(milliseconds(8_000_000), "2h13m");
        assert_eq!(milliseconds(90_000_000), "1d01h");
    }
}
