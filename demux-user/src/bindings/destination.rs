//! Where bindings send their packets, as users write it: `stack`, `drop`, `reject`, `cpu:0-3`,
//! `xsk:NAME`.

use std::{borrow::Cow, collections::HashMap, fmt, fs, str::FromStr};

use demux_common::{
    binding::{Binding, Target},
    steering::{CpuList, MAX_CPUS, NAME_LEN, XskSet},
};

use crate::{Error, Result, tables::Tables};

/// Where the CPUs stand that can take packets now.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// Where packets go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Up the kernel's stack.
    Stack,
    /// Nowhere.
    Drop,
    /// Back to the sender, as a refusal.
    Reject,
    /// Up the kernel's stack on one of these CPUs.
    Cpus(Cpus),
    /// To the AF_XDP sockets of a set.
    Sockets(SetName),
}

/// CPUs, in ascending order: one at least, and no more than a binding has room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cpus(Vec<u16>);

/// The name of a set of AF_XDP sockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetName(String);

impl Destination {
    /// The target that the datapath knows it as.
    #[must_use]
    pub const fn target(&self) -> Target {
        match self {
            Self::Stack => Target::Stack,
            Self::Drop => Target::Drop,
            Self::Reject => Target::Reject,
            Self::Cpus(_) => Target::Cpu,
            Self::Sockets(_) => Target::Xsk,
        }
    }
}

impl FromStr for Destination {
    type Err = Error;

    /// Reads a target as users write it. Whether the CPUs exist is not asked.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(':') {
            None if text == "stack" => Ok(Self::Stack),
            None if text == "drop" => Ok(Self::Drop),
            None if text == "reject" => Ok(Self::Reject),
            Some(("cpu", list)) => list.parse().map(Self::Cpus),
            Some(("xsk", name)) => name.parse().map(Self::Sockets),
            _ => Err(Error::invalid(
                "target",
                text,
                "a target is stack, drop, reject, cpu:LIST or xsk:NAME",
            )),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stack | Self::Drop | Self::Reject => f.write_str(self.target().name()),
            Self::Cpus(cpus) => write!(f, "cpu:{cpus}"),
            Self::Sockets(name) => write!(f, "xsk:{name}"),
        }
    }
}

impl Cpus {
    /// Their numbers.
    #[must_use]
    pub fn numbers(&self) -> &[u16] {
        &self.0
    }

    /// As the datapath has them.
    #[must_use]
    pub fn list(&self) -> CpuList {
        let mut list = CpuList::EMPTY;
        list.count = self.0.len() as u32;
        list.cpus[..self.0.len()].copy_from_slice(&self.0);
        list
    }

    /// Refuses CPUs that are not there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] names them and those that are.
    pub fn check_online(&self) -> Result<()> {
        let text = fs::read_to_string(ONLINE)
            .map_err(|source| Error::io(format!("read {ONLINE}"), source))?;
        let text = text.trim();
        let online = numbers(text).ok_or_else(|| {
            Error::unexpected(format!("read {ONLINE}"), format!("it says {text:?}"))
        })?;
        let missing: Vec<u16> = self
            .0
            .iter()
            .copied()
            .filter(|cpu| !online.contains(cpu))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(
            "target",
            format!("cpu:{self}"),
            format!(
                "there is no CPU {}, or it is offline; online: {text}",
                Self(missing)
            ),
        ))
    }
}

impl FromStr for Cpus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::invalid("target", format!("cpu:{text}"), reason);
        let mut cpus = numbers(text).ok_or_else(|| {
            invalid("a list of CPUs is numbers and ranges such as 0-3,8".to_owned())
        })?;
        cpus.sort_unstable();
        cpus.dedup();
        if cpus.len() > MAX_CPUS {
            return Err(invalid(format!("a binding has room for {MAX_CPUS} CPUs")));
        }
        Ok(Self(cpus))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(&self.0))
    }
}

/// The numbers of a list such as `0-3,8`; `None` where it is none, or is empty.
fn numbers(list: &str) -> Option<Vec<u16>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(first) || !is_number(last) {
            return None;
        }
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// Ascending numbers as a list, neighbours as ranges.
fn written(numbers: &[u16]) -> String {
    let ranges: Vec<String> = numbers
        .chunk_by(|one, next| one + 1 == *next)
        .map(|range| match range {
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    ranges.join(",")
}

impl SetName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As the datapath has it: padded with zeros.
    #[must_use]
    pub fn stored(&self) -> [u8; NAME_LEN] {
        let mut bytes = [0; NAME_LEN];
        bytes[..self.0.len()].copy_from_slice(self.0.as_bytes());
        bytes
    }

    /// The name of a set; empty for one that is free.
    #[must_use]
    pub fn of(set: &XskSet) -> Self {
        let end = set.name.iter().position(|byte| *byte == 0);
        let name = &set.name[..end.unwrap_or(NAME_LEN)];
        Self(String::from_utf8_lossy(name).into_owned())
    }
}

impl FromStr for SetName {
    type Err = Error;

    /// Names are shown in tables and typed in shells: a letter or digit, then up to 30 more of those,
    /// dots, dashes and underscores.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = |reason: &str| Err(Error::invalid("name of a socket set", text, reason));
        if text.len() >= NAME_LEN {
            return invalid("it is longer than 31 bytes");
        }
        if !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return invalid("it does not begin with a letter or a digit");
        }
        let is_plain = |other: char| other.is_ascii_alphanumeric() || "._-".contains(other);
        if !text.chars().all(is_plain) {
            return invalid(
                "it has other characters than letters, digits, dots, dashes and underscores",
            );
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is needed to write the targets of bindings.
#[derive(Debug, Default)]
pub struct Labels {
    cpus: HashMap<u16, String>,
    sets: HashMap<u16, SetName>,
}

impl Labels {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Where a map cannot be read.
    pub fn read<'b>(
        tables: &Tables,
        bindings: impl IntoIterator<Item = &'b (u16, Binding)>,
    ) -> Result<Self> {
        let mut labels = Self::default();
        let mut has_sets = false;
        for (index, binding) in bindings {
            if binding.target == Target::Cpu {
                let list = tables.cpu_list(*index)?;
                labels.cpus.insert(*index, written(list.as_slice()));
            }
            has_sets |= binding.target == Target::Xsk;
        }
        if has_sets {
            let sets = tables.xsk_sets()?;
            let names = sets.iter().map(|(index, set)| (*index, SetName::of(set)));
            labels.sets = names.collect();
        }
        Ok(labels)
    }

    /// The target of a binding, as users write it.
    #[must_use]
    pub fn of(&self, index: u16, binding: &Binding) -> Cow<'static, str> {
        match binding.target {
            Target::Cpu => self
                .cpus
                .get(&index)
                .map_or("cpu".into(), |list| format!("cpu:{list}").into()),
            Target::Xsk => self
                .sets
                .get(&binding.set)
                .map_or("xsk".into(), |name| format!("xsk:{name}").into()),
            target => target.name().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_written_alike() {
        for text in ["stack", "drop", "reject", "cpu:0-3,8", "cpu:5", "xsk:web-1"] {
            let destination: Destination = text.parse().unwrap();
            assert_eq!(destination.to_string(), text);
        }
        let unsorted: Destination = "cpu:8,1,0,1".parse().unwrap();
        assert_eq!(unsorted.to_string(), "cpu:0-1,8");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let cpus = format!("cpu:0-{MAX_CPUS}");
        let name = format!("xsk:{}", "n".repeat(NAME_LEN));
        for text in [
            "",
            "cpu",
            "xsk",
            "cpu:",
            "xsk:",
            "cpu:a",
            "cpu:3-1",
            "cpu:1,",
            "cpu:-1",
            "cpu:+1",
            "cpu:99999",
            "xsk:-a",
            "xsk:a b",
            "stack:1",
            "nowhere",
            &cpus,
            &name,
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text:?}");
        }
    }
}
