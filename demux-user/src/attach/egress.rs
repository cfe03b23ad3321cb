//! Egress: choosing the hook for outgoing packets, attaching there, and finding it again.
//!
//! Without egress, demux works on what arrives alone; so nothing here fails a load.

use std::{fmt, fs};

use demux_common::layout::program;

use super::{clsact, detach as detach_link, pinned_link, tcx};
use crate::{
    Error, Result,
    bpf::tcx_egress_programs,
    interface::{Interface, program_name},
    kernel::Version,
    state::Paths,
};

/// What is not known where outgoing packets are not seen.
pub const COST: &str =
    "outgoing packets are not counted, and states are those that arriving packets prove";

/// Which hook a user wants for outgoing packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressChoice {
    /// The best one that this kernel has.
    #[default]
    Auto,
    /// This one.
    Only(Hook),
    /// None of them.
    Nothing,
}

/// A hook for outgoing packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A link.
    Tcx,
    /// A filter of a qdisc.
    Clsact,
}

impl Hook {
    /// The first kernel with tcx.
    const TCX_SINCE: Version = Version { major: 6, minor: 6 };

    /// The word for it in commands and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// As [`Hook::name`], where it may be that there is none.
    #[must_use]
    pub const fn name_of(hook: Option<Self>) -> &'static str {
        match hook {
            Some(hook) => hook.name(),
            None => "none",
        }
    }

    /// The hook that is tried on a kernel of this version, and why.
    fn choose(choice: EgressChoice, version: Version) -> (Option<Self>, String) {
        match choice {
            EgressChoice::Nothing => (None, "asked for".to_owned()),
            EgressChoice::Only(hook) => (Some(hook), "asked for".to_owned()),
            EgressChoice::Auto if version < Self::TCX_SINCE => {
                (Some(Self::Clsact), format!("Linux {version} has no tcx"))
            }
            EgressChoice::Auto => (Some(Self::Tcx), format!("Linux {version} has it")),
        }
    }
}

/// What came of attaching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where the program is attached; `None` where it is not.
    pub hook: Option<Hook>,
    /// Why it is not, and what that costs.
    pub note: Option<String>,
}

impl Attached {
    fn not(reason: &str) -> Self {
        Self {
            hook: None,
            note: Some(format!("not attached ({reason}): {COST}")),
        }
    }
}

/// Attaches the egress program of an instance to an interface, if that can be done.
#[must_use]
pub fn attach(paths: &Paths, interface: &Interface, choice: EgressChoice) -> Attached {
    let program = paths.program(program::EGRESS);
    let version = match Version::running() {
        Ok(version) => version,
        Err(error) => return Attached::not(&error.to_string()),
    };
    let (hook, reason) = Hook::choose(choice, version);
    let attached = match hook {
        None => Err(reason),
        Some(_) if !program.exists() => {
            Err("the demux that made this instance had no such program".to_owned())
        }
        Some(Hook::Tcx) => tcx::attach(&program, interface, &paths.egress_link(interface.index)),
        Some(Hook::Clsact) => {
            clsact::attach(&program, interface, &paths.egress_filter(interface.index))
        }
    };
    match attached {
        Ok(()) => Attached { hook, note: None },
        Err(reason) => Attached::not(&reason),
    }
}

/// Detaches the egress program from an interface, wherever it is attached.
///
/// # Errors
///
/// Where a link or a filter cannot be removed; what is gone already is no error.
pub fn detach(paths: &Paths, ifindex: u32) -> Result<()> {
    detach_link(&paths.egress_link(ifindex))?;
    clsact::detach(paths, ifindex)
}

/// An egress program that was attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub hook: Hook,
    /// The kernel's id of the program, where the caller may know.
    pub program_id: Option<u32>,
    /// Whether it still is attached; what the caller may not know is taken to be as it was left.
    pub is_attached: bool,
    /// The filter, where it is one.
    pub filter: Option<clsact::Filter>,
}

/// The egress program of an instance on an interface; `None` where it was not attached.
///
/// # Errors
///
/// Where a pin cannot be read or rtnetlink cannot be asked.
pub fn find(paths: &Paths, ifindex: u32) -> Result<Option<Found>> {
    let link = match pinned_link(&paths.egress_link(ifindex)) {
        Err(error) if error.keeps_a_pin_shut() => Some((None, true)),
        link => link?.map(|link| (Some(link.program_id), link.ifindex == Some(ifindex))),
    };
    if let Some((program_id, is_attached)) = link {
        return Ok(Some(Found {
            hook: Hook::Tcx,
            program_id,
            is_attached,
            filter: None,
        }));
    }
    if fs::symlink_metadata(paths.egress_filter(ifindex)).is_err() {
        return Ok(None);
    }
    let filter = clsact::find(paths, ifindex)?;
    Ok(Some(Found {
        hook: Hook::Clsact,
        program_id: filter.as_ref().and_then(|filter| filter.program_id),
        is_attached: filter.is_some(),
        filter,
    }))
}

/// What is to be said of an interface named `interface` whose outgoing packets are not seen.
#[must_use]
pub fn shortcoming(found: Option<&Found>, interface: &str) -> Option<String> {
    let state = match found {
        Some(found) if found.is_attached => return None,
        Some(_) => "not attached any more",
        None => "not attached",
    };
    Some(format!(
        "{state}: {COST}; try again with: demux unload {interface}; demux load {interface}"
    ))
}

/// Something on the hooks for outgoing packets of an interface, whoever attached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// On which hook.
    pub hook: Hook,
    /// The kernel's id, of a BPF program.
    pub program_id: Option<u32>,
    /// The name of the program, or the kind of the filter; `?` where the caller may not know.
    pub name: String,
    /// Of a filter.
    pub priority: Option<u16>,
}

impl fmt::Display for Other {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (", self.name)?;
        if let Some(id) = self.program_id {
            write!(formatter, "id {id}, ")?;
        }
        write!(formatter, "{}", self.hook.name())?;
        if let Some(priority) = self.priority {
            write!(formatter, ", pref {priority}")?;
        }
        write!(formatter, ")")
    }
}

/// Everything on the hooks for outgoing packets of an interface, in the order in which it runs.
///
/// # Errors
///
/// EPERM without CAP_NET_ADMIN.
pub fn programs(ifindex: u32) -> Result<Vec<Other>> {
    let mut programs: Vec<Other> = tcx_programs(ifindex)?
        .into_iter()
        .map(|id| Other {
            hook: Hook::Tcx,
            program_id: Some(id),
            name: program_name(id).unwrap_or_else(|| "?".to_owned()),
            priority: None,
        })
        .collect();
    programs.extend(clsact::filters(ifindex)?.into_iter().map(|filter| {
        Other {
            hook: Hook::Clsact,
            program_id: filter.program_id,
            name: filter
                .program_id
                .and_then(program_name)
                .or(filter.program_name)
                .unwrap_or(filter.kind),
            priority: Some(filter.priority),
        }
    }));
    Ok(programs)
}

/// The kernel ids of the programs on the tcx hook, none where the kernel does not have it.
fn tcx_programs(ifindex: u32) -> Result<Vec<u32>> {
    match tcx_egress_programs(ifindex) {
        // ENODEV: the interface has gone meanwhile.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENODEV)) => {
            Ok(Vec::new())
        }
        answer => answer.map_err(|source| Error::io("list the programs of egress", source)),
    }
}

/// Where [`attach`] would end up, and why.
///
/// # Errors
///
/// As [`programs`].
pub fn foretell(interface: &Interface, choice: EgressChoice) -> Result<(Option<Hook>, String)> {
    let (hook, reason) = Hook::choose(choice, Version::running()?);
    let obstacle = match hook {
        Some(Hook::Tcx) => {
            (tcx_programs(interface.index)?.len() >= tcx::MOST_PROGRAMS).then(tcx::full)
        }
        Some(Hook::Clsact) => clsact::obstacle(interface.index)?,
        None => None,
    };
    Ok(match obstacle {
        Some(obstacle) => (None, obstacle),
        None => (hook, reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_decides_on_the_hook_unless_the_user_does() {
        let choose = |choice, major, minor| Hook::choose(choice, Version { major, minor }).0;
        assert_eq!(choose(EgressChoice::Auto, 6, 1), Some(Hook::Clsact));
        assert_eq!(choose(EgressChoice::Auto, 6, 5), Some(Hook::Clsact));
        assert_eq!(choose(EgressChoice::Auto, 6, 6), Some(Hook::Tcx));
        assert_eq!(choose(EgressChoice::Auto, 7, 0), Some(Hook::Tcx));
        let only = |hook| EgressChoice::Only(hook);
        assert_eq!(choose(only(Hook::Clsact), 6, 18), Some(Hook::Clsact));
        assert_eq!(choose(only(Hook::Tcx), 6, 1), Some(Hook::Tcx));
        assert_eq!(choose(EgressChoice::Nothing, 6, 18), None);
    }

    #[test]
    fn what_is_not_attached_says_what_that_costs() {
        let note = Attached::not("the kernel refused").note.unwrap();
        assert!(note.contains("the kernel refused"), "{note}");
        assert!(note.contains("not counted"), "{note}");
    }
}
