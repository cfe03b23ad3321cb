//! What would change, for people and programs to read.

use std::fmt;

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It comes.
    Add,
    /// It becomes another.
    Change,
    /// It goes.
    Remove,
}

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The tables.
    Instance,
    /// An interface that demux is attached to.
    Interface,
    /// A setting, by the key of `demux set`.
    Setting,
    /// A binding.
    Binding,
}

/// One thing that would change.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// To what.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// What it is now, in words; `None` where it is not there.
    pub before: Option<String>,
    /// What it will be; `None` where it will not be there.
    pub after: Option<String>,
}

impl Change {
    /// Something that comes.
    #[must_use]
    pub fn add(kind: Kind, name: &str, after: String) -> Self {
        Self {
            action: Action::Add,
            kind,
            name: name.to_owned(),
            before: None,
            after: Some(after),
        }
    }

    /// Something that becomes another.
    #[must_use]
    pub fn turn(kind: Kind, name: &str, before: String, after: String) -> Self {
        Self {
            action: Action::Change,
            kind,
            name: name.to_owned(),
            before: Some(before),
            after: Some(after),
        }
    }

    /// Something that goes.
    #[must_use]
    pub fn remove(kind: Kind, name: &str, before: String) -> Self {
        Self {
            action: Action::Remove,
            kind,
            name: name.to_owned(),
            before: Some(before),
            after: None,
        }
    }
}

impl Action {
    /// The sign before a line of a difference.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Add => '+',
            Self::Change => '~',
            Self::Remove => '-',
        }
    }
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Interface => "interface",
            Self::Setting => "setting",
            Self::Binding => "binding",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.action.sign(),
            self.kind.name(),
            self.name
        )?;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, ": {before} -> {after}"),
            (Some(only), None) | (None, Some(only)) if !only.is_empty() => write!(f, ": {only}"),
            _ => Ok(()),
        }
    }
}
