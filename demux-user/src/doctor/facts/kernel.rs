//! What the kernel is and can do, found out by asking it for the smallest objects of each kind.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    programs::{ProgramError, ProgramType},
    sys::{is_helper_supported, is_map_supported, is_program_supported},
};

use super::{Fact, Needs, needs, number, reason};
use crate::{
    Error,
    bpf::{self, has_batches, has_link_update, mappable_array, passing_program},
    kernel::{self, Version},
    netns::NetworkNamespace,
    sockets::{self, SocketState, States},
};
use demux_common::protocol::Protocol;

/// The index that the loopback interface has in every namespace.
const LOOPBACK: u32 = 1;

/// Something that a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// XDP programs for packets of several buffers.
    Frags,
    /// Running a program on a packet made up by the caller.
    TestRun,
    /// Reading many entries of a map at once.
    Batches,
    /// Arrays that can be mapped into memory.
    MappableArrays,
    /// The cookie of a network namespace.
    NetnsCookie,
    /// A hook for outgoing packets that ends with its pin.
    Tcx,
    /// Putting another program into a link.
    LinkUpdate,
    /// Programs on bind(2) and connect(2).
    CgroupHooks,
    /// Listing sockets.
    SockDiag,
    /// Translating programs to machine code.
    Jit,
}

/// Whether something is there.
pub type Probed = Fact<bool>;

/// The kernel.
#[derive(Clone, Debug)]
pub struct KernelFacts {
    /// Its release.
    pub release: String,
    /// The first two numbers of it.
    pub version: Option<Version>,
    /// What it can do.
    pub features: Vec<(Feature, Probed)>,
    /// Types of maps by their names in aya, with a map of demux that is of that type.
    pub maps: Fact<Vec<(String, String, Probed)>>,
    /// Helpers by program and name.
    pub helpers: Fact<Vec<(&'static str, String, Probed)>>,
    /// Whether it describes its own types.
    pub has_btf: bool,
    /// `net.core.bpf_jit_harden`; `None` where this namespace does not show it.
    pub jit_harden: Fact<Option<u32>>,
    /// `kernel.unprivileged_bpf_disabled`; `None` in a kernel without it.
    pub unprivileged_disabled: Fact<Option<u32>>,
}

impl KernelFacts {
    pub(super) fn gather() -> Self {
        let needs = needs();
        Self {
            release: kernel::release(),
            version: Version::running().ok(),
            features: features(),
            maps: needs.as_ref().map(maps).map_err(Clone::clone),
            helpers: needs.as_ref().map(helpers).map_err(Clone::clone),
            has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            jit_harden: number("/proc/sys/net/core/bpf_jit_harden"),
            unprivileged_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
        }
    }
}

fn features() -> Vec<(Feature, Probed)> {
    let program = passing_program(false);
    vec![
        (Feature::Frags, loaded(&passing_program(true))),
        (Feature::TestRun, test_run(&program)),
        (Feature::Batches, batches()),
        (Feature::MappableArrays, loaded(&mappable_array())),
        (Feature::NetnsCookie, netns_cookie()),
        (Feature::Tcx, tcx()),
        (
            Feature::LinkUpdate,
            has_link_update().map_err(|error| why(&error)),
        ),
        (Feature::CgroupHooks, cgroup_hooks()),
        (Feature::SockDiag, sock_diag()),
        (Feature::Jit, jit(&program)),
    ]
}

/// Why a kernel did not answer a probe.
fn why(error: &io::Error) -> String {
    reason("asking the kernel", error)
}

fn loaded(object: &io::Result<OwnedFd>) -> Probed {
    match object {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(why(error)),
    }
}

fn test_run(program: &io::Result<OwnedFd>) -> Probed {
    let program = program.as_ref().map_err(why)?;
    match bpf::test_run(program.as_fd(), &[0; 64], 0, None, 1) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(why(&error)),
        Err(_) => Ok(false),
    }
}

fn batches() -> Probed {
    let map = mappable_array().map_err(|error| why(&error))?;
    has_batches(map.as_fd()).map_err(|error| why(&error))
}

fn netns_cookie() -> Probed {
    match NetworkNamespace::current() {
        Ok(_) => Ok(true),
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            Ok(false)
        }
        Err(error) => Err(error.to_string()),
    }
}

fn tcx() -> Probed {
    match bpf::tcx_egress_programs(LOOPBACK) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(why(&error)),
    }
}

fn cgroup_hooks() -> Probed {
    for kind in [ProgramType::CgroupSockAddr, ProgramType::CgroupSock] {
        if !is_program_supported(kind).map_err(|error| not_told(&error))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sock_diag() -> Probed {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        match sockets::for_each(protocol, States::of(&[SocketState::Listen]), |_socket| {
            Ok(())
        }) {
            Ok(()) => {}
            Err(Error::Unsupported { .. }) => return Ok(false),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(true)
}

fn jit(program: &io::Result<OwnedFd>) -> Probed {
    let program = program.as_ref().map_err(why)?;
    let info = bpf::program_info(program.as_fd()).map_err(|error| why(&error))?;
    Ok(info.jited_size > 0)
}

fn maps(needs: &Needs) -> Vec<(String, String, Probed)> {
    needs
        .maps
        .iter()
        .map(|(kind, map)| {
            let probed = is_map_supported(*kind).map_err(|error| why(&error.io_error));
            (format!("{kind:?}"), map.clone(), probed)
        })
        .collect()
}

fn helpers(needs: &Needs) -> Vec<(&'static str, String, Probed)> {
    let mut helpers = Vec::new();
    for (kind, program, called) in &needs.helpers {
        for &helper in called {
            let name = format!("{helper:?}").replace("BPF_FUNC_", "bpf_");
            let probed = is_helper_supported(*kind, helper).map_err(|error| not_told(&error));
            helpers.push((*program, name, probed));
        }
    }
    helpers
}

fn not_told(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => why(&error.io_error),
        other => other.to_string(),
    }
}
