//! Ranges of ports, and lists of them as `ip_local_reserved_ports` has them.

use std::{fmt, str::FromStr};

use demux_common::ports::SET_WORDS;

use crate::tables::PortSet;

/// Ports from a first to a last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    /// The first port; not 0.
    pub first: u16,
    /// The last port, not below the first.
    pub last: u16,
}

impl PortRange {
    /// How many ports there are.
    #[must_use]
    pub fn count(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            // No sign and no blank, which a number may have in Rust.
            let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|port| is_number && *port != 0);
            number.ok_or_else(|| "a port is a number from 1 to 65535".to_owned())
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        if last < first {
            return Err("the range is reversed: it ends before it begins".to_owned());
        }
        Ok(Self { first, last })
    }
}

/// Ranges of ports, in ascending order and apart from each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortRanges(Vec<PortRange>);

impl PortRanges {
    /// The ranges.
    #[must_use]
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// The ports, one bit for each.
    #[must_use]
    pub fn set(&self) -> PortSet {
        let mut set = [0; SET_WORDS];
        for range in &self.0 {
            for port in range.first..=range.last {
                set[usize::from(port >> 6)] |= 1 << (port & 63);
            }
        }
        set
    }

    /// The ranges of a set.
    #[must_use]
    pub fn of_set(set: &PortSet) -> Self {
        let is_in = |port: u16| set[usize::from(port >> 6)] >> (port & 63) & 1 != 0;
        let mut ranges: Vec<PortRange> = Vec::new();
        for port in (1..=u16::MAX).filter(|port| is_in(*port)) {
            match ranges.last_mut() {
                Some(range) if range.last + 1 == port => range.last = port,
                _ => ranges.push(PortRange {
                    first: port,
                    last: port,
                }),
            }
        }
        Self(ranges)
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

impl FromStr for PortRanges {
    type Err = String;

    /// Reads ports and ranges with commas between them; nothing at all is the empty list.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut set = [0; SET_WORDS];
        for item in text.split(',').filter(|_| !text.is_empty()) {
            let range: PortRange = item.parse()?;
            for (to, from) in set.iter_mut().zip(Self(vec![range]).set()) {
                *to |= from;
            }
        }
        Ok(Self::of_set(&set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_joined_and_written_back() {
        for (text, written) in [
            ("", ""),
            ("8080", "8080"),
            ("1,2-4,10-10", "1-4,10"),
            ("9148,8080", "8080,9148"),
            ("60000-65535,1-3", "1-3,60000-65535"),
        ] {
            let ranges: PortRanges = text.parse().unwrap();
            assert_eq!(ranges.to_string(), written, "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_ports_is_refused() {
        for text in [
            "0", "65536", "-", "1-", "-1", "+1", " 1", "5-4", "1,,2", "x", "1,",
        ] {
            assert!(text.parse::<PortRanges>().is_err(), "{text:?}");
        }
    }
}
