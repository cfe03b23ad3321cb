//! The settings of the allocator: `ephemeral.range`, `ephemeral.algorithm` and `ephemeral.reserved`.

use std::io;

use demux_common::{
    ports::{Algorithm, Barred, Ephemeral, PERTURBATIONS},
    protocol::Protocol,
};
use rustix::rand::GetRandomFlags;
use zerocopy::IntoBytes as _;

use super::{PortRange, PortRanges, kernel, refresh};
use crate::{Error, Result, tables::Tables};

/// What stands for the kernel's own setting.
const KERNEL: &str = "kernel";

/// What stands for no port.
const NONE: &str = "none";

/// A change of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The range of ports; `None` for the kernel's `ip_local_port_range`.
    Range(Option<PortRange>),
    /// The algorithm where a request names none.
    Algorithm(Algorithm),
    /// The ports that are never handed out; `None` for the kernel's `ip_local_reserved_ports`.
    Reserved(Option<PortRanges>),
}

impl Change {
    /// Its key behind `ephemeral.`.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Algorithm(_) => "algorithm",
            Self::Reserved(_) => "reserved",
        }
    }

    /// Its value, as it is written and shown.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::Range(None) | Self::Reserved(None) => KERNEL.to_owned(),
            Self::Range(Some(range)) => range.to_string(),
            Self::Algorithm(algorithm) => algorithm.name().to_owned(),
            Self::Reserved(Some(ports)) if ports.ranges().is_empty() => NONE.to_owned(),
            Self::Reserved(Some(ports)) => ports.to_string(),
        }
    }

    /// Reads the value of a setting, given its key behind `ephemeral.`.
    ///
    /// # Errors
    ///
    /// A sentence that says what the value may be.
    pub fn parse(key: &str, value: &str) -> Result<Self, String> {
        match key {
            "range" if value == KERNEL => Ok(Self::Range(None)),
            "range" => match value.parse::<PortRange>() {
                Ok(range) => Ok(Self::Range(Some(range))),
                Err(reason) => Err(format!("{reason}; a range is FIRST-LAST, or {KERNEL}")),
            },
            "algorithm" => parse_algorithm(value).map(Self::Algorithm),
            "reserved" if value == KERNEL => Ok(Self::Reserved(None)),
            "reserved" if value == NONE => Ok(Self::Reserved(Some(PortRanges::default()))),
            "reserved" => match value.parse::<PortRanges>() {
                Ok(ports) if !value.is_empty() => Ok(Self::Reserved(Some(ports))),
                Ok(_) => Err(format!("say {NONE} for no port")),
                Err(reason) => Err(format!(
                    "{reason}; reserved ports are such as 8080,9000-9010, or {KERNEL}, or {NONE}"
                )),
            },
            _ => Err(
                "the keys are ephemeral.range, ephemeral.algorithm and ephemeral.reserved"
                    .to_owned(),
            ),
        }
    }
}

/// Reads the name of an algorithm.
///
/// # Errors
///
/// A sentence with the names that there are.
pub fn parse_algorithm(text: &str) -> Result<Algorithm, String> {
    Algorithm::ALL
        .into_iter()
        .find(|algorithm| algorithm.name() == text)
        .ok_or_else(|| {
            let names = Algorithm::ALL.map(Algorithm::name);
            format!("the algorithms are {}", names.join(", "))
        })
}

/// The settings as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSettings {
    /// The range; empty ones cannot be.
    pub range: PortRange,
    /// Whether it follows the kernel's.
    pub is_kernel_range: bool,
    /// The algorithm where a request names none.
    pub algorithm: Algorithm,
    /// The ports that are never handed out.
    pub reserved: PortRanges,
    /// Whether they follow the kernel's.
    pub is_kernel_reserved: bool,
}

impl PortSettings {
    /// Those of a new instance: the kernel's.
    ///
    /// # Errors
    ///
    /// Where the kernel's settings cannot be read.
    pub fn kernel() -> Result<Self> {
        Ok(Self {
            range: kernel::range()?,
            is_kernel_range: true,
            algorithm: Ephemeral::default().algorithm,
            reserved: kernel::reserved()?,
            is_kernel_reserved: true,
        })
    }

    /// Keys and values of `demux set`.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let range = if self.is_kernel_range {
            KERNEL.to_owned()
        } else {
            self.range.to_string()
        };
        let reserved = if self.is_kernel_reserved {
            KERNEL.to_owned()
        } else if self.reserved.ranges().is_empty() {
            NONE.to_owned()
        } else {
            self.reserved.to_string()
        };
        [
            ("range", range),
            ("algorithm", self.algorithm.name().to_owned()),
            ("reserved", reserved),
        ]
        .map(|(key, value)| (format!("ephemeral.{key}"), value))
        .into()
    }
}

/// The settings as they are.
///
/// # Errors
///
/// Where the maps or the kernel's settings cannot be read.
pub fn settings(tables: &Tables) -> Result<PortSettings> {
    let stored = tables.ephemeral()?;
    let is_kernel_range = stored.is_range_set == 0;
    let is_kernel_reserved = stored.is_reserved_set == 0;
    Ok(PortSettings {
        range: if is_kernel_range {
            kernel::range()?
        } else {
            PortRange {
                first: stored.first_port,
                last: stored.last_port,
            }
        },
        is_kernel_range,
        algorithm: stored.algorithm,
        reserved: if is_kernel_reserved {
            kernel::reserved()?
        } else {
            PortRanges::of_set(&tables.barred(Barred::Reserved, Protocol::Tcp)?)
        },
        is_kernel_reserved,
    })
}

/// Makes changes, all of them or none.
///
/// # Errors
///
/// [`Error::InvalidArgument`] where no port would be left.
pub fn change(tables: &Tables, changes: &[Change]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut settings = settings(tables)?;
    for change in changes.iter().cloned() {
        match change {
            Change::Range(range) => {
                settings.is_kernel_range = range.is_none();
                settings.range = range.map_or_else(kernel::range, Ok)?;
            }
            Change::Algorithm(algorithm) => settings.algorithm = algorithm,
            Change::Reserved(ports) => {
                settings.is_kernel_reserved = ports.is_none();
                settings.reserved = ports.map_or_else(kernel::reserved, Ok)?;
            }
        }
    }
    let set = settings.reserved.set();
    let is_reserved = |port: u16| super::barred::contains(&set, port);
    if (settings.range.first..=settings.range.last).all(is_reserved) {
        return Err(Error::invalid(
            "setting",
            format!("ephemeral.range={}", settings.range),
            "every port of it is reserved",
        ));
    }
    for protocol in Protocol::ALL {
        tables.set_barred(Barred::Reserved, protocol, &set)?;
    }
    let stored = tables.ephemeral()?;
    tables.set_ephemeral(&Ephemeral {
        first_port: settings.range.first,
        last_port: settings.range.last,
        algorithm: settings.algorithm,
        is_range_set: u8::from(!settings.is_kernel_range),
        is_reserved_set: u8::from(!settings.is_kernel_reserved),
        ..stored
    })
}

/// Gives a new instance its first settings: the kernel's, and counters that nobody can guess.
///
/// # Errors
///
/// Where the kernel's settings or random numbers cannot be had, or the maps cannot be written.
pub fn initialize(tables: &Tables) -> Result<()> {
    let mut counters = [0u32; PERTURBATIONS];
    fill(counters.as_mut_bytes())?;
    tables.set_perturbation(&counters)?;
    let mut position = [0u32];
    fill(position.as_mut_bytes())?;
    tables.set_ephemeral(&Ephemeral {
        position: position[0] & 0xffff,
        ..Ephemeral::default()
    })?;
    refresh(tables).map(|_settings| ())
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    rustix::rand::getrandom(bytes, GetRandomFlags::empty())
        .map(|_length| ())
        .map_err(|source| Error::io("get random numbers".to_owned(), io::Error::from(source)))
}
