//! The places in which the programs of an instance run, and putting others there while they do.
//!
//! The kernel takes one program for the other: whoever passes by meets one of both, and nobody none.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use aya_obj::generated::bpf_attach_type;
use demux_common::layout::program;

use super::clsact::{self, Filter};
use crate::{
    Error, Result, bpf,
    interface::{self, Interface},
    state::Paths,
};

/// A place in which a program runs.
#[derive(Debug)]
pub struct Place {
    /// What is said of it, such as `demux_xdp on the interface with index 3`.
    name: String,
    /// The name of the program that belongs there.
    program: &'static str,
    hook: Hook,
}

#[derive(Debug)]
enum Hook {
    Link {
        link: OwnedFd,
        /// The program that it had when it was found; `None` where the caller may not open it.
        before: Option<OwnedFd>,
    },
    Filter {
        interface: Interface,
        filter: Filter,
    },
}

/// The places that were found.
#[derive(Debug, Default)]
pub struct Places {
    /// Those of the instance, in the order in which `load` attaches.
    pub places: Vec<Place>,
    /// Which could not be looked for, and why.
    pub note: Option<String>,
}

impl Places {
    /// All places of an instance: its interfaces, its hooks of bind(2), and those of running `demux exec`,
    /// whose control groups have these ids.
    ///
    /// # Errors
    ///
    /// Where a pin cannot be opened.
    pub fn find(paths: &Paths, exec_groups: &[u64]) -> Result<Self> {
        let mut places = Self::default();
        for ifindex in paths.egress_links()? {
            places.add_device(&paths.egress_link(ifindex), program::EGRESS, ifindex)?;
        }
        for ifindex in paths.egress_filters()? {
            places.add_filter(paths, ifindex)?;
        }
        for ifindex in paths.xdp_links()? {
            places.add_device(&paths.xdp_link(ifindex), program::INGRESS, ifindex)?;
        }
        for name in program::BIND {
            places.add_group(&paths.bind_link(name), name)?;
        }
        if !exec_groups.is_empty()
            && let Err(error) = places.add_exec(exec_groups)
        {
            places.note = Some(format!(
                "what runs under demux exec keeps its programs until it ends: {error}"
            ));
        }
        Ok(places)
    }

    fn add_device(&mut self, pin: &Path, program: &'static str, ifindex: u32) -> Result<()> {
        let Some((link, info)) = open(pin)? else {
            return Ok(());
        };
        // Of an interface that is gone.
        if info.ifindex.is_none_or(|ifindex| ifindex == 0) {
            return Ok(());
        }
        self.add_link(
            format!("{program} on the interface with index {ifindex}"),
            program,
            link,
            info.program_id,
        );
        Ok(())
    }

    fn add_group(&mut self, pin: &Path, program: &'static str) -> Result<()> {
        let Some((link, info)) = open(pin)? else {
            return Ok(());
        };
        if info.cgroup.is_some_and(|group| group.id != 0) {
            let name = format!("{program} on the control groups");
            self.add_link(name, program, link, info.program_id);
        }
        Ok(())
    }

    /// The links of running commands are held by their watchers, and pinned nowhere.
    fn add_exec(&mut self, groups: &[u64]) -> io::Result<()> {
        for id in bpf::link_ids()? {
            // One that has gone meanwhile.
            let Ok(link) = bpf::link_open_by_id(id) else {
                continue;
            };
            let info = bpf::link_info(link.as_fd())?;
            let Some(group) = info.cgroup.filter(|group| groups.contains(&group.id)) else {
                continue;
            };
            let program = if group.attach_type == bpf_attach_type::BPF_CGROUP_INET4_CONNECT as u32 {
                program::CONNECT_V4
            } else if group.attach_type == bpf_attach_type::BPF_CGROUP_INET6_CONNECT as u32 {
                program::CONNECT_V6
            } else {
                continue;
            };
            // Others may have attached theirs to the group.
            let is_ours = bpf::program_open_by_id(info.program_id)
                .and_then(|program| bpf::program_info(program.as_fd()))
                .is_ok_and(|info| info.name == program);
            if is_ours {
                let name = format!("{program} on the control group with id {}", group.id);
                self.add_link(name, program, link, info.program_id);
            }
        }
        Ok(())
    }

    fn add_filter(&mut self, paths: &Paths, ifindex: u32) -> Result<()> {
        let (Some(interface), Some(filter)) =
            (interface::by_index(ifindex)?, clsact::find(paths, ifindex)?)
        else {
            return Ok(());
        };
        clsact::settle(paths, ifindex, &filter)?;
        self.places.push(Place {
            name: format!("{} on {}", program::EGRESS, interface.name),
            program: program::EGRESS,
            hook: Hook::Filter { interface, filter },
        });
        Ok(())
    }

    fn add_link(&mut self, name: String, program: &'static str, link: OwnedFd, before: u32) {
        self.places.push(Place {
            name,
            program,
            hook: Hook::Link {
                link,
                before: bpf::program_open_by_id(before).ok(),
            },
        });
    }

    /// Puts new programs in all places, and those that were there back if the kernel refuses one.
    /// `new` has their descriptors; the egress program is pinned among the programs of the instance,
    /// and the one before it among the next ones.
    ///
    /// # Errors
    ///
    /// Why the kernel refuses.
    pub fn replace(&self, paths: &Paths, new: &HashMap<&str, BorrowedFd<'_>>) -> Result<()> {
        for (done, place) in self.places.iter().enumerate() {
            if let Err(error) = place.replace(paths, new) {
                for place in self.places[..done].iter().rev() {
                    // What cannot be set back has a program that does the same on the same maps.
                    let _ = place.set_back(paths);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// The names of the programs that have a place.
    #[must_use]
    pub fn programs(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.places.iter().map(|place| place.program).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Place {
    fn replace(&self, paths: &Paths, new: &HashMap<&str, BorrowedFd<'_>>) -> Result<()> {
        match &self.hook {
            Hook::Link { link, before } => {
                let new = new.get(self.program).ok_or_else(|| {
                    Error::unexpected(format!("replace {}", self.name), "it was not loaded")
                })?;
                let before = before.as_ref().map(OwnedFd::as_fd);
                self.update(bpf::link_update(link.as_fd(), *new, before))
            }
            Hook::Filter { interface, filter } => {
                let program = paths.program(program::EGRESS);
                clsact::replace(paths, interface, filter, &program, false)
            }
        }
    }

    fn set_back(&self, paths: &Paths) -> Result<()> {
        match &self.hook {
            Hook::Link { link, before } => match before {
                Some(before) => self.update(bpf::link_update(link.as_fd(), before.as_fd(), None)),
                None => Ok(()),
            },
            Hook::Filter { interface, filter } => {
                let program = paths.next_program(program::EGRESS);
                clsact::replace(paths, interface, filter, &program, true)
            }
        }
    }

    fn update(&self, answer: io::Result<()>) -> Result<()> {
        match answer {
            // The interface or the group has gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
            answer => answer.map_err(|source| Error::io(format!("replace {}", self.name), source)),
        }
    }
}

/// Opens a pinned link; `None` where there is none.
fn open(pin: &Path) -> Result<Option<(OwnedFd, bpf::LinkInfo)>> {
    let opened = bpf::object_get(pin, false).and_then(|link| {
        let info = bpf::link_info(link.as_fd())?;
        Ok((link, info))
    });
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io(format!("open {}", pin.display()), source)),
    }
}
