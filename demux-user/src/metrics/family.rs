//! What a metric is: a name, a kind, and a value for each set of labels.

use std::borrow::Cow;

/// A metric, with all its values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Family {
    /// Without `_total` or `_info`, which the kind adds.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) samples: Vec<(Vec<Label>, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Its labels are what it says.
    Info,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Label {
    pub(super) name: &'static str,
    pub(super) value: Cow<'static, str>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    Integer(u64),
    Real(f64),
}

impl Label {
    pub(super) fn new(name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            value: value.into(),
        }
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Integer(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Integer(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl Family {
    pub(super) fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    pub(super) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    pub(super) fn info(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Info)
    }

    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds a value.
    pub(super) fn add<const N: usize>(&mut self, labels: [Label; N], value: impl Into<Value>) {
        self.samples.push((labels.into(), value.into()));
    }

    /// As [`Family::add`], for those that have one value.
    pub(super) fn with<const N: usize>(
        mut self,
        labels: [Label; N],
        value: impl Into<Value>,
    ) -> Self {
        self.add(labels, value);
        self
    }
}
