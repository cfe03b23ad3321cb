//! The BPF object: what is in it, and loading it with its maps pinned.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use aya_obj::Object;
use demux_common::{
    layout::{LAYOUT_VERSION, capacity, constant, map, program},
    table::{self, Secret},
};

use crate::{Error, Result, bpf, secret, state::Paths, tables::Tables};

/// The object that `cargo xtask build` made, or nothing.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/demux.o"));

/// How many entries the tables have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// Rows of the connection table.
    pub connections: u32,
    /// Bindings.
    pub bindings: u32,
}

impl Default for Capacities {
    fn default() -> Self {
        Self {
            connections: capacity::CONNECTIONS,
            bindings: capacity::BINDINGS - 1,
        }
    }
}

impl Capacities {
    /// The most connections that a table may be for: 2^24 of them already take 4 GiB.
    pub const MAX_CONNECTIONS: u32 = 1 << 24;
    /// The most bindings: their indexes are 16 bits wide, and 0 is none.
    pub const MAX_BINDINGS: u32 = 65_535;

    /// Entries of each map whose capacity can be chosen.
    fn entries(self) -> [(&'static str, u32); 9] {
        let bindings = self.bindings + 1;
        let lines = table::lines(self.connections);
        [
            (map::CONNECTIONS, lines),
            (map::CONNECTION_COLD, lines),
            (map::BINDINGS, bindings),
            (map::BINDING_COUNTS, bindings),
            (map::CPU_LISTS, bindings),
            // Each binding adds at most two bounds to the ports, and each bound at most one profile.
            // Twice as many again, because new profiles are written before old ones are given up.
            (map::PORT_PROFILES, (4 * bindings + 2).min(65_536)),
            // A dual-stack wildcard with a device has two keys.
            (map::ADDRESSES, 2 * bindings),
            (map::PREFIXES, 2 * bindings),
            (map::OWNED_PORTS, bindings),
        ]
    }
}

/// The bytes of the object.
///
/// # Errors
///
/// [`Error::NoObject`] where the binary was built without one.
pub fn bytes() -> Result<&'static [u8]> {
    if OBJECT.is_empty() {
        return Err(Error::NoObject);
    }
    Ok(OBJECT)
}

/// A checksum of the object: which build its programs are of. Never 0.
#[must_use]
pub fn build() -> u32 {
    env!("DEMUX_BPF_BUILD").parse().unwrap_or(1)
}

/// Refuses maps that are not as the object would make them, for as many connections and bindings.
///
/// # Errors
///
/// [`Error::LayoutMismatch`], and where a map cannot be opened.
pub fn check_maps(paths: &Paths, tables: &Tables) -> Result<()> {
    let object = Object::parse(bytes()?).map_err(|error| not_loaded(&error))?;
    let capacities = Capacities {
        connections: tables.max_connections()?,
        bindings: tables.max_bindings()?,
    };
    let cpus = bpf::possible_cpus().map_err(not_counted)? as u32;
    let mut entries: HashMap<&str, u32> = capacities.entries().into();
    entries.insert(map::CPUS, cpus);
    let mismatch = |found: String| Error::LayoutMismatch {
        path: paths.directory().to_path_buf(),
        found,
        expected: LAYOUT_VERSION.to_string(),
    };
    let names = || map::ALL.iter().chain(map::PRIVATE);
    for name in paths.map_names()? {
        if !names().any(|known| *known == name) {
            return Err(mismatch(format!("with a map {name}")));
        }
    }
    for name in names() {
        let expected = object.maps.get(*name).ok_or_else(|| {
            Error::unexpected("read the BPF object", format!("it has no map {name}"))
        })?;
        let path = paths.map(name);
        let info = bpf::object_get(&path, true)
            .and_then(|fd| bpf::map_info(fd.as_fd()))
            .map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        let max_entries = entries.get(*name).copied();
        let expected = [
            expected.map_type(),
            expected.key_size(),
            expected.value_size(),
            expected.map_flags(),
            max_entries.unwrap_or_else(|| expected.max_entries()),
        ];
        let found = [
            info.map_type,
            info.key_size,
            info.value_size,
            info.flags,
            info.max_entries,
        ];
        if found != expected {
            let [kind, key, value, flags, entries] = found;
            return Err(mismatch(format!(
                "with a map {name} of type {kind} and flags {flags:#x} for {entries} entries of \
                 {key} and {value} bytes"
            )));
        }
    }
    Ok(())
}

/// Creates the maps and pins them below `paths`, and prepares the programs, not loaded yet. `secret`
/// is the key of the connection table's hash.
///
/// # Errors
///
/// What the kernel refuses.
pub fn create(paths: &Paths, capacities: Capacities, secret: &Secret) -> Result<Ebpf> {
    let homes = table::homes(capacities.connections);
    let mut loader = EbpfLoader::new();
    loader.override_global(constant::HASH_NUMBERS, &secret.numbers, true);
    loader.override_global(constant::TABLE_HOMES, &homes, true);
    for (name, entries) in capacities.entries() {
        loader.map_max_entries(name, entries);
    }
    // The kernel refuses more CPUs than it was built for.
    loader.map_max_entries(map::CPUS, bpf::possible_cpus().map_err(not_counted)? as u32);
    for name in map::ALL.iter().chain(map::PRIVATE) {
        loader.map_pin_path(name, paths.map(name));
    }
    loader.load(bytes()?).map_err(|error| not_loaded(&error))
}

fn not_counted(source: io::Error) -> Error {
    Error::io("count the CPUs of this machine".to_owned(), source)
}

/// Prepares the programs of the object once more, upon the maps that are pinned below `paths`, for
/// those programs that an instance does not have from the beginning. None is loaded yet.
///
/// # Errors
///
/// Where the key of the hash may not be read, and what the kernel refuses.
pub fn open(paths: &Paths, tables: &Tables) -> Result<Ebpf> {
    let secret = secret::read(paths)?;
    let homes = table::homes(tables.max_connections()?);
    let cookie = tables.meta()?.netns_cookie;
    let mut loader = EbpfLoader::new();
    loader.override_global(constant::HASH_NUMBERS, &secret.numbers, true);
    loader.override_global(constant::TABLE_HOMES, &homes, true);
    loader.override_global(constant::NETNS_COOKIE, &cookie, true);
    for name in map::ALL.iter().chain(map::PRIVATE) {
        loader.map_pin_path(name, paths.map(name));
    }
    loader.load(bytes()?).map_err(|error| not_loaded(&error))
}

/// Loads a program of the object into the kernel and pins it.
///
/// # Errors
///
/// What the verifier or the BPF file system refuses.
pub fn load_program(ebpf: &mut Ebpf, name: &str, pin: &Path) -> Result<()> {
    load_unpinned(ebpf, name)?;
    self::pin(ebpf, name, pin)
}

/// Pins a program that has been loaded.
///
/// # Errors
///
/// What the BPF file system refuses.
pub fn pin(ebpf: &mut Ebpf, name: &str, pin: &Path) -> Result<()> {
    let failed = |reason: String| Error::unexpected(format!("pin {}", pin.display()), reason);
    ebpf.program_mut(name)
        .ok_or_else(|| failed("the object does not have it".to_owned()))?
        .pin(pin)
        .map_err(|error| failed(chain(&error)))
}

/// Loads a program of the object into the kernel, where it stays until `ebpf` is dropped and nothing
/// else holds it.
///
/// # Errors
///
/// What the verifier refuses.
pub fn load_unpinned<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Program> {
    let program = ebpf.program_mut(name).ok_or_else(|| {
        Error::unexpected("load the BPF object", format!("it has no program {name}"))
    })?;
    for attempt in 1.. {
        let result = match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            Program::CgroupSockAddr(program) => program.load(),
            Program::CgroupSock(program) => program.load(),
            other => {
                return Err(Error::unexpected(
                    "load the BPF object",
                    format!("its program {name} is of the type {:?}", other.prog_type()),
                ));
            }
        };
        match result {
            Ok(()) => break,
            Err(error) if is_interrupted(&error) && attempt < ATTEMPTS => {}
            Err(error) => return Err(not_loaded(&error)),
        }
    }
    Ok(program)
}

/// The descriptor of a program that has been loaded.
///
/// # Errors
///
/// Where it has not been.
pub fn program_fd<'e>(ebpf: &'e Ebpf, name: &str) -> Result<BorrowedFd<'e>> {
    let not_there = |reason: String| Error::unexpected(format!("use the program {name}"), reason);
    let program = ebpf
        .program(name)
        .ok_or_else(|| not_there("the object does not have it".to_owned()))?;
    Ok(program
        .fd()
        .map_err(|error| not_there(chain(&error)))?
        .as_fd())
}

/// How often the verifier is asked about a program, as by libbpf.
const ATTEMPTS: u32 = 5;

/// Whether the verifier has given up because the process had a signal to see to.
fn is_interrupted(error: &ProgramError) -> bool {
    matches!(error, ProgramError::LoadError { io_error, .. }
        if io_error.raw_os_error() == Some(libc::EAGAIN))
}

/// Names of all programs of the object.
#[must_use]
pub fn programs() -> &'static [&'static str] {
    program::ALL
}

fn not_loaded(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::unexpected("load the BPF object", shortened(&chain(error)))
}

/// A text without its middle, where it is long: the verifier may write megabytes, of which the end says why.
fn shortened(text: &str) -> String {
    const BEGIN: usize = 200;
    const END: usize = 800;
    let count = text.chars().count();
    if count <= BEGIN + END {
        return text.to_owned();
    }
    let begin: String = text.chars().take(BEGIN).collect();
    let end: String = text.chars().skip(count - END).collect();
    format!("{begin} … {end}")
}

/// An error with everything that caused it, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_loses_its_middle_alone() {
        assert_eq!(shortened("short"), "short");
        let long = format!("begin {} end", "é".repeat(10_000));
        let short = shortened(&long);
        assert_eq!(short.chars().count(), 200 + 3 + 800);
        assert!(short.starts_with("begin ") && short.ends_with(" end"));
    }
}
