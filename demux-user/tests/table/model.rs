//! The tables of the datapath on the host: plain collections, filled from what `compile` makes.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    config::{Config, Interface, MAX_INTERFACES},
    connection::{Connection, ConnectionKey},
    counters::InterfaceCounters,
    decide::{Decision, decide},
    layout::LocalPrefix,
    packet::Packet,
    protocol::Protocol,
    reason::{Count, Reason, Verdict},
    tables::{BindingTables, ConnectionTable, KernelSocket, Tables, Update, View},
};
use demux_user::bindings::{Compiled, compile};

use super::{
    check::{Snapshot, Subject, reported},
    sockets,
    world::{SECOND, World, is_forwarded},
};

/// As many bytes of a frame as the kernel's test runs keep in one piece, so that headers behind them
/// are out of the program's reach: a page without the room before and behind.
const LINEAR: usize = 4096 - 256 - 320;

/// The index of the interface that packets arrive on.
const IFINDEX: u32 = 7;

/// A frame of which only the first part is within reach.
pub struct Linear<'a>(pub &'a [u8]);

impl Packet for Linear<'_> {
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let reach = &self.0[..self.0.len().min(LINEAR)];
        reach.get(offset..)?.first_chunk()
    }

    fn frame_len(&self) -> usize {
        self.0.len()
    }
}

/// The tables.
pub struct Model {
    contents: Contents,
    /// Whether anything is stored; the twin is not live.
    live: Cell<bool>,
}

struct Contents {
    config: Config,
    ifindex: u32,
    interfaces: Vec<Option<Interface>>,
    bindings: HashMap<u16, Binding>,
    compiled: Compiled,
    locals: HashSet<Address>,
    local_prefixes: Vec<LocalPrefix>,
    forwarding: bool,
    now: Cell<u64>,
    capacity: usize,
    rows: RefCell<HashMap<ConnectionKey, Connection>>,
    counters: RefCell<Vec<InterfaceCounters>>,
    binding_counts: RefCell<Vec<Count>>,
}

impl Model {
    /// The tables of a world, on an interface with this index.
    pub fn new(world: &World, ifindex: u32) -> Self {
        let bindings = world.tabulated(ifindex, 0).bindings;
        let compiled = compile(&bindings).unwrap_or_else(|error| panic!("{error}"));
        Self::with_compiled(world, ifindex, &bindings, compiled)
    }

    /// The same for other bindings than the world's.
    pub fn with_compiled(
        world: &World,
        ifindex: u32,
        bindings: &[(u16, Binding)],
        compiled: Compiled,
    ) -> Self {
        let now = 1_000_000 * SECOND;
        let tabulated = world.tabulated(ifindex, now);
        let mut interfaces = vec![None; MAX_INTERFACES];
        for (slot, interface) in tabulated.interfaces {
            interfaces[slot as usize] = Some(interface);
        }
        let contents = Contents {
            config: tabulated.config,
            ifindex,
            interfaces,
            bindings: bindings.iter().copied().collect(),
            compiled,
            locals: tabulated.locals.into_iter().collect(),
            local_prefixes: tabulated.local_prefixes,
            forwarding: world.forwarding,
            now: Cell::new(now),
            capacity: usize::MAX,
            rows: RefCell::new(tabulated.row.into_iter().collect()),
            counters: RefCell::new(vec![InterfaceCounters::default(); MAX_INTERFACES + 1]),
            binding_counts: RefCell::new(vec![Count::default(); 256]),
        };
        Self {
            contents,
            live: Cell::new(true),
        }
    }

    /// Lets the connection table have no more rows than these.
    pub fn with_capacity(mut self, capacity: usize) -> Self {
        self.contents.capacity = capacity;
        self
    }

    pub fn advance(&self, seconds: u64) {
        self.contents
            .now
            .set(self.contents.now.get() + seconds * SECOND);
    }

    pub fn decide(&self, frame: &[u8]) -> Decision {
        reported(&decide(&Linear(frame), self.contents.ifindex, self).into())
    }

    /// What the twin says.
    pub fn explain(&self, frame: &[u8]) -> Decision {
        self.live.set(false);
        let decision = self.decide(frame);
        self.live.set(true);
        decision
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: self.contents.counters.borrow().clone(),
            binding_counts: self.contents.binding_counts.borrow().clone(),
            rows: self.contents.rows.borrow().clone(),
        }
    }
}

/// The model as a subject of the case table: a new one for each case.
pub struct Host {
    model: Model,
}

impl Host {
    pub fn new() -> Self {
        Self {
            model: Model::new(&super::world::passing(), IFINDEX),
        }
    }
}

impl Subject for Host {
    fn prepare(&mut self, world: &World) {
        self.model = Model::new(world, IFINDEX);
    }

    fn ifindex(&self) -> u32 {
        IFINDEX
    }

    fn now(&self) -> u64 {
        self.model.now()
    }

    fn snapshot(&self) -> Snapshot {
        self.model.snapshot()
    }

    fn run(&self, frame: &[u8]) -> Verdict {
        self.model.decide(frame).verdict
    }

    fn explain(&self, frame: &[u8]) -> Decision {
        let before = self.model.snapshot();
        let explanation = self.model.explain(frame);
        assert_eq!(before, self.model.snapshot(), "explaining changed a table");
        explanation
    }
}

impl BindingTables for Model {
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot> {
        let index = PortSlot::index(protocol, port) as usize;
        self.contents.compiled.ports.get(index).copied()
    }

    fn profile(&self, index: u16) -> Option<&PortProfile> {
        self.contents.compiled.profiles.get(usize::from(index))
    }

    fn address(&self, key: &AddressKey) -> Option<u16> {
        self.contents.compiled.addresses.get(key).copied()
    }

    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch> {
        self.contents
            .compiled
            .prefixes
            .iter()
            .filter(|(entry, _)| covers(entry, key))
            .max_by_key(|(entry, _)| entry.prefix_len)
            .map(|(_, found)| *found)
    }

    fn binding(&self, index: u16) -> Option<&Binding> {
        self.contents.bindings.get(&index)
    }
}

/// Whether an entry of the trie covers a key, as the kernel compares them: bit by bit.
fn covers(entry: &PrefixKey, key: &PrefixKey) -> bool {
    use zerocopy::IntoBytes as _;
    let (entry_bytes, key_bytes) = (&entry.as_bytes()[4..], &key.as_bytes()[4..]);
    (0..entry.prefix_len as usize).all(|bit| {
        let mask = 0x80 >> (bit % 8);
        entry_bytes[bit / 8] & mask == key_bytes[bit / 8] & mask
    })
}

impl ConnectionTable for Model {
    type Row = ConnectionKey;

    fn find(&self, key: &ConnectionKey) -> Option<ConnectionKey> {
        self.contents
            .rows
            .borrow()
            .contains_key(key)
            .then_some(*key)
    }

    fn view(&self, row: ConnectionKey) -> View {
        let connection = self.contents.rows.borrow()[&row];
        View {
            state: connection.state,
            remote_next: connection.remote_next,
            last_seen: connection.last_seen,
            epoch: connection.epoch,
            binding: connection.binding,
        }
    }

    fn update(&self, row: ConnectionKey, update: &Update) {
        if !self.live.get() {
            return;
        }
        let mut rows = self.contents.rows.borrow_mut();
        update.apply(rows.get_mut(&row).expect("the row that was found"));
    }

    fn insert(&self, key: &ConnectionKey, connection: &Connection) -> bool {
        if !self.live.get() {
            return true;
        }
        let mut rows = self.contents.rows.borrow_mut();
        let fits = rows.contains_key(key) || rows.len() < self.contents.capacity;
        if fits {
            rows.insert(*key, *connection);
        }
        fits
    }

    fn remove(&self, key: &ConnectionKey) {
        if !self.live.get() {
            return;
        }
        self.contents.rows.borrow_mut().remove(key);
    }
}

impl Tables for Model {
    fn config(&self) -> Option<&Config> {
        Some(&self.contents.config)
    }

    fn interface(&self, slot: u32) -> Option<&Interface> {
        self.contents.interfaces.get(slot as usize)?.as_ref()
    }

    fn now(&self) -> u64 {
        self.contents.now.get()
    }

    fn kernel_socket(&self, key: &ConnectionKey) -> KernelSocket {
        sockets::kernel_socket(key)
    }

    fn is_local(&self, address: &Address, prefixes: bool) -> bool {
        let within = |prefix: &LocalPrefix| {
            let bits = prefix.prefix_len - LocalPrefix::FIXED_BITS;
            let differ =
                u128::from_be_bytes(prefix.address.bytes) ^ u128::from_be_bytes(address.bytes);
            bits == 0 || differ >> (128 - bits) == 0
        };
        self.contents.locals.contains(address)
            || prefixes && self.contents.local_prefixes.iter().any(within)
    }

    fn may_forward(&self, key: &ConnectionKey) -> bool {
        is_forwarded(self.contents.forwarding, &key.local_address)
    }

    fn count(&self, slot: u32, verdict: Verdict, reason: Reason, bytes: u64) {
        if !self.live.get() {
            return;
        }
        self.contents.counters.borrow_mut()[slot as usize].add(verdict, reason, bytes);
    }

    fn count_untracked(&self, slot: u32, bytes: u64) {
        if !self.live.get() {
            return;
        }
        let untracked = &mut self.contents.counters.borrow_mut()[slot as usize].untracked;
        untracked.packets += 1;
        untracked.bytes += bytes;
    }

    fn count_binding(&self, index: u16, bytes: u64) {
        if !self.live.get() {
            return;
        }
        let count = &mut self.contents.binding_counts.borrow_mut()[usize::from(index)];
        count.packets += 1;
        count.bytes += bytes;
    }
}
