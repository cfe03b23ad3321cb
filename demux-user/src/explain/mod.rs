//! What demux would do with a packet, asked of the twin of the program that does it.
//!
//! The twin runs on the live tables but stores nothing, drops every packet, and writes its report in
//! front of the frame; see `demux_common::explanation`.

pub mod capture;
pub mod frame;

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use demux_common::{
    binding::Target,
    decide::Decision,
    explanation::Explanation,
    layout::program,
    parse::parse,
    reason::{Reason, Stage, Verdict},
};
use zerocopy::{Immutable, IntoBytes, TryFromBytes as _};

use crate::{Error, Result, bindings::pattern::to_ip, bpf, state::Paths};

/// Bytes of an Ethernet header: what the kernel runs no program without.
const MIN_FRAME: usize = 14;

/// The twin of the ingress program.
#[derive(Debug)]
pub struct Twin {
    program: OwnedFd,
}

/// `struct xdp_md`, the context that the twin is run with.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

impl Twin {
    /// Opens the twin of an instance; read permission on its pin is enough.
    ///
    /// # Errors
    ///
    /// Where it is not pinned or not permitted.
    pub fn open(paths: &Paths) -> Result<Self> {
        let path = paths.program(program::EXPLAIN);
        let program = bpf::object_get(&path, true)
            .map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        Ok(Self { program })
    }

    /// Asks what would happen to a frame that arrives on the interface with this index.
    ///
    /// # Errors
    ///
    /// Where the kernel cannot run the twin on it: [`Error::UnknownInterface`] where the interface is gone.
    pub fn explain(&self, frame: &[u8], ifindex: u32) -> Result<Decision> {
        // Too short to be run, and hence too short to be parsed.
        if frame.len() < MIN_FRAME {
            return Ok(Decision {
                verdict: Verdict::Pass,
                reason: Reason::Truncated,
                stage: Stage::Parse,
                target: Target::Stack,
                binding: 0,
            });
        }
        let context = Context {
            data: 0,
            data_end: frame.len() as u32,
            data_meta: 0,
            ingress_ifindex: ifindex,
            rx_queue_index: 0,
            egress_ifindex: 0,
        };
        let capacity = size_of::<Explanation>() + frame.len();
        let outcome = bpf::test_run(
            self.program.as_fd(),
            frame,
            capacity,
            Some(context.as_bytes()),
            1,
        )
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENODEV) => Error::UnknownInterface(format!("index {ifindex}")),
            _ => Error::io("run the explain program", source),
        })?;
        if outcome.data_out.len() != capacity {
            return Err(Error::unexpected(
                "run the explain program",
                "it wrote no report",
            ));
        }
        let report = Explanation::try_read_from_prefix(&outcome.data_out).ok();
        report
            .and_then(|(report, _)| decision(&report))
            .ok_or_else(|| Error::unexpected("run the explain program", "its report is unreadable"))
    }
}

/// What a report says; `None` where its reason is none that this demux knows.
fn decision(report: &Explanation) -> Option<Decision> {
    Some(Decision {
        verdict: report.verdict,
        reason: report.reason()?,
        stage: report.stage,
        target: report.target,
        binding: report.binding,
    })
}

/// The endpoints of a frame, as seen when it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// This host's side: the destination.
    pub local: SocketAddr,
    /// The other side: the source.
    pub remote: SocketAddr,
}

impl Endpoints {
    /// Those of a frame, where it has any that may be judged.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let key = parse(frame).ok()?.key;
        Some(Self {
            protocol: key.protocol.name(),
            local: SocketAddr::new(to_ip(&key.local_address), key.local_port),
            remote: SocketAddr::new(to_ip(&key.remote_address), key.remote_port),
        })
    }
}
