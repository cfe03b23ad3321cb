//! Every map, in one place.
//!
//! The capacities here are what `demux load` takes where it is told nothing else.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, CpuMap, HashMap, LpmTrie, LruHashMap, PerCpuArray, XskMap, lpm_trie::Key},
    macros::btf_map,
};
use demux_common::{
    address::{Address, Family},
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface, MAX_INTERFACES},
    counters::{InterfaceCounters, TableCounters},
    fragments::{Datagram, Owner},
    layout::{LocalPrefix, Meta, capacity},
    listen::{Channel, Listener, ListenerCounts},
    owned::{Owned, OwnedKey},
    ports::{Barred, Ephemeral, ExecCgroup, HINT_WORDS, PERTURBATIONS},
    protocol::Protocol,
    reason::Count,
    reject::Budget,
    steering::{CpuList, XskSet, XskSocket},
    table::{self, Cold, Line, Secret},
    trace::Selection,
};

use crate::ring::Ring;

/// What the trie of prefixes compares: [`demux_common::binding::PrefixKey`] without its length.
#[repr(C)]
pub(crate) struct PrefixData {
    ifindex: u32,
    first_port: u16,
    last_port: u16,
    protocol: Protocol,
    family: Family,
    reserved: u32,
    address: [u8; 16],
}

/// What the trie of local prefixes compares: [`demux_common::layout::LocalPrefix`] without its length.
#[repr(C)]
pub(crate) struct LocalPrefixData {
    reserved: u32,
    address: [u8; 16],
}

const _: () = assert!(size_of::<Key<PrefixData>>() == size_of::<PrefixKey>());
const _: () = assert!(size_of::<Key<LocalPrefixData>>() == size_of::<LocalPrefix>());

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// Whose state this is; read by user space only.
#[btf_map]
pub(crate) static META: Array<Meta, 1> = Array::new();

#[btf_map]
pub(crate) static CONFIG: Array<Config, 1> = Array::new();

#[btf_map]
pub(crate) static INTERFACES: Array<Interface, MAX_INTERFACES> = Array::new();

/// One entry for each interface slot, and one for packets of interfaces without a slot.
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<InterfaceCounters, { MAX_INTERFACES + 1 }> =
    PerCpuArray::new();

#[btf_map]
pub(crate) static BINDINGS: Array<Binding, { capacity::BINDINGS as usize }> = Array::new();

#[btf_map]
pub(crate) static BINDING_COUNTS: PerCpuArray<Count, { capacity::BINDINGS as usize }> =
    PerCpuArray::new();

/// Mapped by the controller, which writes whole ranges of it.
#[btf_map]
pub(crate) static PORTS: Array<PortSlot, { PortSlot::COUNT }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
pub(crate) static PORT_PROFILES: Array<PortProfile, { 2 * capacity::BINDINGS as usize }> =
    Array::new();

#[btf_map]
pub(crate) static ADDRESSES: HashMap<
    AddressKey,
    u32,
    { 2 * capacity::BINDINGS as usize },
    NO_PREALLOC,
> = HashMap::new();

#[btf_map]
pub(crate) static PREFIXES: LpmTrie<PrefixData, PrefixMatch, { 2 * capacity::BINDINGS as usize }> =
    LpmTrie::new();

/// The hot lines of the connection table. Of mappable arrays the values begin on a page, so that
/// each line is one of the processor's cache.
#[btf_map]
pub(crate) static CONNECTIONS: Array<Line, LINES, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The cold lines of the connection table.
#[btf_map]
pub(crate) static CONNECTION_COLD: Array<Cold, LINES, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub(crate) static TABLE_COUNTS: PerCpuArray<TableCounters, 1> = PerCpuArray::new();

/// The key of the connection table's hash, for the programs to come: the present ones have it in
/// [`HASH_NUMBERS`]. Nobody but the owner may read it.
#[btf_map]
pub(crate) static SECRET: Array<Secret, 1> = Array::new();

/// Set by `demux load` before the programs are loaded, and constant from then on.
#[unsafe(no_mangle)]
pub(crate) static HASH_NUMBERS: [u64; Secret::NUMBERS] = [0; Secret::NUMBERS];

/// How many homes the connection table has; set like [`HASH_NUMBERS`].
#[unsafe(no_mangle)]
pub(crate) static TABLE_HOMES: u32 = table::homes(capacity::CONNECTIONS);

/// The cookie of the instance's network namespace; set like [`HASH_NUMBERS`].
#[unsafe(no_mangle)]
pub(crate) static NETNS_COOKIE: u64 = 0;

#[btf_map]
pub(crate) static EPHEMERAL: Array<Ephemeral, 1> = Array::new();

#[btf_map]
pub(crate) static PERTURBATION: Array<u32, PERTURBATIONS> = Array::new();

/// Mapped by the controller, like [`BARRED_PORTS`].
#[btf_map]
pub(crate) static PORT_HINTS: Array<u64, HINT_WORDS, { BPF_F_MMAPABLE as usize }> = Array::new();

#[btf_map]
pub(crate) static BARRED_PORTS: Array<u64, { Barred::WORDS }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

#[btf_map]
pub(crate) static OWNED_PORTS: HashMap<
    OwnedKey,
    Owned,
    { capacity::BINDINGS as usize },
    NO_PREALLOC,
> = HashMap::new();

#[btf_map]
pub(crate) static EXEC_CGROUPS: HashMap<
    u64,
    ExecCgroup,
    { capacity::EXEC_CGROUPS as usize },
    NO_PREALLOC,
> = HashMap::new();

/// The values are addresses, of which a trie keeps no more aligned than its keys.
#[btf_map]
pub(crate) static SOURCES: LpmTrie<LocalPrefixData, [u8; 16], { capacity::SOURCES as usize }> =
    LpmTrie::new();

#[btf_map]
pub(crate) static REPLY_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

#[btf_map]
pub(crate) static CPUS: CpuMap<{ capacity::CPUS as usize }> = CpuMap::new();

#[btf_map]
pub(crate) static CPU_LISTS: Array<CpuList, { capacity::BINDINGS as usize }> = Array::new();

#[btf_map]
pub(crate) static XSKS: XskMap<{ capacity::XSKS as usize }> = XskMap::new();

#[btf_map]
pub(crate) static XSK_SETS: Array<XskSet, { capacity::XSK_SETS as usize }> = Array::new();

/// For user space only.
#[btf_map]
pub(crate) static XSK_SOCKETS: Array<XskSocket, { capacity::XSKS as usize }> = Array::new();

#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<Datagram, Owner, { capacity::FRAGMENTS as usize }> =
    LruHashMap::new();

/// For user space only.
#[btf_map]
pub(crate) static LISTENERS: Array<Listener, { Channel::COUNT }> = Array::new();

#[btf_map]
pub(crate) static LISTENER_COUNTS: PerCpuArray<ListenerCounts, { Channel::COUNT }> =
    PerCpuArray::new();

/// Which packets are traced.
#[btf_map]
pub(crate) static SELECTION: Array<Selection, 1> = Array::new();

/// A ring of [`demux_common::event::Event`].
#[btf_map]
pub(crate) static EVENTS: Ring<{ capacity::EVENTS as usize }> = Ring::new();

/// A ring of [`demux_common::trace::Trace`].
#[btf_map]
pub(crate) static TRACES: Ring<{ capacity::TRACES as usize }> = Ring::new();

/// Where pieces of frames in several buffers are copied to be added up; of no use to anybody else, and
/// so not pinned.
#[btf_map]
pub(crate) static PIECE: PerCpuArray<[u64; PIECE_WORDS], 1> = PerCpuArray::new();

/// Words of such a piece.
pub(crate) const PIECE_WORDS: usize = 64;

const LINES: usize = table::lines(capacity::CONNECTIONS) as usize;

#[btf_map]
pub(crate) static LOCALS: HashMap<Address, u32, { capacity::LOCALS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static LOCAL_PREFIXES: LpmTrie<
    LocalPrefixData,
    u32,
    { capacity::LOCAL_PREFIXES as usize },
> = LpmTrie::new();
