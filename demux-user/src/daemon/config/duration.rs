//! Times in the configuration: `30s`, `5m`, `500ms`; `off` where that is an answer.

use std::time::Duration;

/// The shortest and the longest period.
const RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

/// Reads a period; `None` is `off`.
///
/// # Errors
///
/// A sentence that says what there is.
pub(super) fn period(text: &str) -> Result<Option<Duration>, String> {
    if text == "off" {
        return Ok(None);
    }
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: Option<u64> = digits.parse().ok();
    let unit = match &text[digits.len()..] {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60 * 1000),
        "h" => Some(60 * 60 * 1000),
        _ => None,
    };
    number
        .zip(unit)
        .and_then(|(number, unit)| number.checked_mul(unit))
        .map(Duration::from_millis)
        .filter(|period| RANGE.contains(period))
        .map(Some)
        .ok_or_else(|| "a period is 100ms to 24h, written as 500ms, 30s, 5m or 1h, or off".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_have_a_unit_and_a_range() {
        assert_eq!(period("off"), Ok(None));
        assert_eq!(period("30s"), Ok(Some(Duration::from_secs(30))));
        assert_eq!(period("100ms"), Ok(Some(Duration::from_millis(100))));
        assert_eq!(period("24h"), Ok(Some(Duration::from_secs(86_400))));
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "0s",
            "99ms",
            "25h",
            "1d",
            "1 s",
            "99999999999999999h",
        ] {
            assert!(period(text).is_err(), "{text}");
        }
    }
}
