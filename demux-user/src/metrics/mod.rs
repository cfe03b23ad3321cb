//! The state of an instance as metrics, in the text of OpenMetrics.
//!
//! `family` is what a metric is, `sample` reads, `encode` writes. Labels are of what a
//! user has named or demux has numbered (interfaces, bindings, sets, reasons), never of connections.

mod encode;
mod family;
mod sample;

use std::path::Path;

use self::{
    encode::encode,
    family::{Family, Label},
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    state::{Instance, Lock, Paths},
    tables::{Access, Tables},
};

/// The content type of the text.
pub const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrape {
    /// Whether there are series for each binding.
    pub bindings: bool,
    /// What could not be read before.
    pub errors: u64,
    /// What the daemon has done, where it is the daemon that asks.
    pub daemon: Option<DaemonCounts>,
}

impl Default for Scrape {
    fn default() -> Self {
        Self {
            bindings: true,
            errors: 0,
            daemon: None,
        }
    }
}

/// What a daemon has done since it was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DaemonCounts {
    /// Sweeps of the connection table.
    pub sweeps: u64,
    /// Rows that these have removed.
    pub swept: u64,
    /// Interfaces that were attached again.
    pub attached: u64,
    /// Sets of sockets that are open by way of the daemon.
    pub sets: u64,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The metrics.
    pub text: String,
    /// What could not be read, now and before.
    pub errors: u64,
}

/// The metrics of the instance of the present network namespace, and what there is to say where there is
/// none, or where it cannot be read.
#[must_use]
pub fn present(bpffs: Option<&Path>, scrape: Scrape) -> Text {
    match open(bpffs) {
        Ok((tables, paths)) => of(&tables, &paths, scrape),
        Err(Error::NotLoaded | Error::NoBpfFs(_)) => finish(Vec::new(), false, scrape),
        Err(_) => finish(
            Vec::new(),
            false,
            Scrape {
                errors: scrape.errors + 1,
                ..scrape
            },
        ),
    }
}

/// The metrics of an instance. What cannot be read is left out, and counted.
#[must_use]
pub fn of(tables: &Tables, paths: &Paths, mut scrape: Scrape) -> Text {
    let mut families = Vec::new();
    for part in sample::parts(tables, paths, scrape.bindings) {
        match part {
            Ok(part) => families.extend(part),
            Err(_) => scrape.errors += 1,
        }
    }
    finish(families, true, scrape)
}

fn open(bpffs: Option<&Path>) -> Result<(Tables, Paths)> {
    let bpffs = BpfFs::find(bpffs)?;
    let namespace = NetworkNamespace::current()?;
    let instance = Instance::open(&bpffs, namespace.cookie(), Lock::Shared)?;
    let tables = Tables::open(&instance, Access::ReadOnly)?;
    Ok((tables, instance.paths().clone()))
}

/// Adds what is not of an instance.
fn finish(mut families: Vec<Family>, is_loaded: bool, scrape: Scrape) -> Text {
    families.insert(
        0,
        Family::info("demux_build", "The demux that reads this.")
            .with([Label::new("version", env!("CARGO_PKG_VERSION"))], 1_u64),
    );
    families.push(
        Family::gauge(
            "demux_loaded",
            "1 where this network namespace has an instance.",
        )
        .with([], u64::from(is_loaded)),
    );
    families.push(
        Family::counter("demux_scrape_errors", "Parts that could not be read.")
            .with([], scrape.errors),
    );
    if let Some(daemon) = scrape.daemon {
        families.extend(sample::daemon(&daemon));
    }
    Text {
        text: encode(&families),
        errors: scrape.errors,
    }
}
