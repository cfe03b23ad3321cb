//! Amounts in six columns at most.

/// A number of things, such as `9999`, `12.3k` or `4.6M`.
pub(super) fn amount(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A number of bytes, such as `9999`, `12.3K` or `4.6M`, with binary units.
pub(super) fn byte_amount(number: f64) -> String {
    scaled(number, 1024.0, &["", "K", "M", "G", "T", "P", "E"])
}

/// The same of what may be unknown.
pub(super) fn rate(number: Option<f64>, write: fn(f64) -> String) -> String {
    number.map_or_else(|| "-".into(), write)
}

fn scaled(number: f64, base: f64, units: &[&str]) -> String {
    // Rare packets should be seen, too.
    if number > 0.0 && number < 0.95 {
        return format!("{:.1}", number.max(0.1));
    }
    if number < 9999.5 {
        return format!("{number:.0}");
    }
    let mut value = number;
    let mut unit = "";
    for &next in units {
        unit = next;
        if value < 999.95 {
            break;
        }
        value /= base;
    }
    format!("{value:.1}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_few_digits() {
        for (number, text) in [
            (0.0, "0"),
            (0.01, "0.1"),
            (0.5, "0.5"),
            (0.96, "1"),
            (7.4, "7"),
            (9999.0, "9999"),
            (9999.6, "10.0k"),
            (12_345.0, "12.3k"),
            (999_960.0, "1.0M"),
            (4_600_000.0, "4.6M"),
            (u64::MAX as f64, "18.4E"),
        ] {
            assert_eq!(amount(number), text);
        }
        assert_eq!(byte_amount(10_240.0), "10.0K");
        assert_eq!(byte_amount(1_048_576.0), "1.0M");
        assert_eq!(rate(None, amount), "-");
    }

    #[test]
    fn amounts_fit_six_columns() {
        let mut number = 1.0_f64;
        while number < u64::MAX as f64 {
            for write in [amount, byte_amount] {
                assert!(write(number).len() <= 6, "{}", write(number));
                assert!(write(number * 0.999_97).len() <= 6);
            }
            number *= 1.37;
        }
    }
}
