//! The sections `[[owner]]`: who may own which sets, and how much of them.

use serde::Deserialize;
use toml::Spanned;

use super::Fault;
use crate::{
    accounts::{User, group_id as id_of_group},
    bindings::SetName,
    daemon::peer::Peer,
};

/// A name that stands for every set.
const EVERY: &str = "*";

/// How much one user may have in use at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Queues of all sets together.
    pub queues: u32,
    /// Bytes of all regions together.
    pub memory: u64,
}

impl Limits {
    /// Those of an entry that gives none.
    pub const DEFAULT: Self = Self {
        queues: 64,
        memory: 512 << 20,
    };

    /// Those of root.
    pub(super) const NONE: Self = Self {
        queues: u32::MAX,
        memory: u64::MAX,
    };
}

/// An entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    who: Who,
    sets: Vec<String>,
    limits: Limits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    User(u32),
    Group(u32),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OwnerSection {
    pub(crate) user: Option<Spanned<NameOrNumber>>,
    pub(crate) group: Option<Spanned<NameOrNumber>>,
    pub(crate) sets: Vec<Spanned<String>>,
    pub(crate) max_queues: Option<u32>,
    pub(crate) max_memory_mib: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
pub(crate) enum NameOrNumber {
    Number(u32),
    Name(String),
}

impl Who {
    fn is(self, peer: &Peer) -> bool {
        match self {
            Self::User(uid) => peer.uid == uid,
            Self::Group(gid) => peer.groups.contains(&gid),
        }
    }
}

impl Owner {
    /// How much the peer may have if the entry allows it this set.
    pub(super) fn allows(&self, peer: &Peer, set: &str) -> Option<Limits> {
        (self.who.is(peer) && self.has(set)).then_some(self.limits)
    }

    fn has(&self, set: &str) -> bool {
        self.sets.iter().any(|name| name == EVERY || name == set)
    }

    /// What a section says.
    pub(super) fn read(section: Spanned<OwnerSection>) -> Result<Self, Fault> {
        let span = section.span();
        let section = section.into_inner();
        let who = match (section.user, section.group) {
            (Some(user), None) => Who::User(user_id(user)?),
            (None, Some(group)) => Who::Group(group_id(group)?),
            (None, None) => return Err(("an owner has a user or a group".into(), span)),
            (Some(_), Some(group)) => {
                let reason = "an owner has a user or a group, not both";
                return Err((reason.into(), group.span()));
            }
        };
        if section.sets.is_empty() {
            return Err(("an owner without sets may own nothing".into(), span));
        }
        let mut sets = Vec::new();
        for name in section.sets {
            if name.get_ref() != EVERY
                && let Err(error) = name.get_ref().parse::<SetName>()
            {
                return Err((error.to_string(), name.span()));
            }
            sets.push(name.into_inner());
        }
        Ok(Self {
            who,
            sets,
            limits: Limits {
                queues: section.max_queues.unwrap_or(Limits::DEFAULT.queues),
                memory: section
                    .max_memory_mib
                    .map_or(Limits::DEFAULT.memory, |mib| u64::from(mib) << 20),
            },
        })
    }
}

fn user_id(user: Spanned<NameOrNumber>) -> Result<u32, Fault> {
    let span = user.span();
    match user.into_inner() {
        NameOrNumber::Number(uid) => Ok(uid),
        NameOrNumber::Name(name) => match User::by_name(&name) {
            Ok(Some(user)) => Ok(user.uid),
            _ => Err((format!("there is no user {name:?}"), span)),
        },
    }
}

fn group_id(group: Spanned<NameOrNumber>) -> Result<u32, Fault> {
    let span = group.span();
    match group.into_inner() {
        NameOrNumber::Number(gid) => Ok(gid),
        NameOrNumber::Name(name) => match id_of_group(&name) {
            Ok(Some(gid)) => Ok(gid),
            _ => Err((format!("there is no group {name:?}"), span)),
        },
    }
}
