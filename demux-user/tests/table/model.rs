//! The tables of the datapath on the host: the real connection table in the memory of the test, and
//! plain collections, filled from what `compile` makes.

use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, HashSet},
};

use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch},
    clock::Clock,
    command::{self, Command, Outcome},
    config::{Config, Interface, MAX_INTERFACES},
    connection::ConnectionKey,
    counters::{InterfaceCounters, TableCounters},
    decide::{Decision, PackedDecision, decide},
    egress::{self, Departure},
    fast,
    fragments::{Datagram, Owner},
    layout::LocalPrefix,
    packet::Packet,
    parse::{Parsed, parse},
    protocol::Protocol,
    reason::{Count, Reason, Verdict},
    reject::{self, Budget},
    sent::{self, Sent},
    steering::XskSet,
    table::{self, Line, Memory, Numbers, Probe, Recorded, Secret, homes},
    tables::{BindingTables, Kernel, KernelSocket, TableEvent, Tables},
};
use demux_user::bindings::{Compiled, compile};

use super::{
    answer::Buffer,
    bound::cpu_list,
    check::{Leaving, Ran, Snapshot, Subject, reported},
    damaged::Stage,
    memory::{Handle, Lines},
    ports::Ports,
    random, sockets,
    steering::{HandedTo, Kept, Steering},
    world::{Row, SECOND, World, is_forwarded},
};

/// As many bytes of a frame as the kernel's test runs keep in one piece, so that headers behind them
/// are out of the program's reach: a page without the room before and behind.
const LINEAR: usize = 4096 - 256 - 320;

/// The index of the interface that packets arrive on.
const IFINDEX: u32 = 7;

/// An interface that forwarded packets came in by.
const ANOTHER: u32 = 8;

/// How many connections the table is for, where nothing else is asked for.
const CONNECTIONS: u32 = 64;

/// What `CLOCK_MONOTONIC` shows at first.
const START: u64 = 1_000_000 * SECOND;

/// Nanoseconds of a tick.
const TICK: u32 = 4_000_000;

/// Random numbers, the same every time.
pub const SECRET: Secret = Secret {
    ports: [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908],
    numbers: [
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7344,
        0xa409_3822_299f_31d0,
        0x082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377,
        0xbe54_66cf_34e9_0c6c,
        0xc0ac_29b7_c97c_50dd,
        0x3f84_d5b5_b547_0917,
        0x9216_d5d9_8979_fb1b,
        0xd131_0ba6_98df_b5ac,
        0x2ffd_72db_d01a_dfb7,
        0xb8e1_afed_6a26_7e96,
        0xba7c_9045_f12c_7f99,
    ],
};

/// A clock whose units have not wrapped for a long time.
pub const STEADY: Clock = Clock::new(0, TICK);

/// A clock whose units have wrapped three seconds before the tests begin.
pub const WRAPPED: Clock = {
    let passed = (START - 3 * SECOND) / TICK as u64;
    Clock::new((1 << (32 + STEADY.shift)) - passed, TICK)
};

/// A frame of which only the first part is within reach.
pub struct Linear<'a>(pub &'a [u8]);

impl Packet for Linear<'_> {
    fn get<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.0[..self.linear_len()].get(offset..)?.first_chunk()
    }

    fn frame_len(&self) -> usize {
        self.0.len()
    }

    fn linear_len(&self) -> usize {
        self.0.len().min(LINEAR)
    }
}

/// The tables.
pub struct Model {
    contents: Contents,
    lines: Lines,
    /// Whether anything is stored; the twin is not live.
    live: Cell<bool>,
    /// What became of the last frame that was answered.
    answer: RefCell<Option<Vec<u8>>>,
    budget: Cell<Budget>,
    /// Whether packets may take the shortest way.
    has_shortcut: bool,
    /// How many packets took it, arriving and leaving.
    taken: Cell<[usize; 2]>,
    /// What of the present frame is in other buffers.
    out_of_reach: RefCell<Vec<u8>>,
    /// The last frame whose checksum was looked at, as it went on.
    completed: RefCell<Option<Vec<u8>>>,
    /// What packets are handed to.
    pub steering: Steering,
    /// What the port allocator has.
    pub ports: Ports,
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
    connections: u32,
    counters: RefCell<Vec<InterfaceCounters>>,
    binding_counts: RefCell<Vec<Count>>,
    table: RefCell<TableCounters>,
}

impl Model {
    /// The tables of a world, on an interface with this index.
    pub fn new(world: &World, ifindex: u32) -> Self {
        Self::at(world, ifindex, STEADY)
    }

    /// The same, with another clock.
    pub fn at(world: &World, ifindex: u32, clock: Clock) -> Self {
        let bindings = world.tabulated(ifindex, 0, clock).bindings;
        let compiled = compile(&bindings).unwrap_or_else(|error| panic!("{error}"));
        Self::with(world, ifindex, &bindings, compiled, clock)
    }

    /// The same for other bindings than the world's, made by chance.
    pub fn with_compiled(
        world: &World,
        ifindex: u32,
        bindings: &[(u16, Binding)],
        compiled: Compiled,
    ) -> Self {
        let mut model = Self::with(world, ifindex, bindings, compiled, STEADY);
        for (index, _) in bindings {
            let list = cpu_list(&random::cpus(*index));
            model.steering.lists.insert(*index, list);
        }
        model
    }

    fn with(
        world: &World,
        ifindex: u32,
        bindings: &[(u16, Binding)],
        compiled: Compiled,
        clock: Clock,
    ) -> Self {
        let tabulated = world.tabulated(ifindex, START, clock);
        let mut interfaces = vec![None; MAX_INTERFACES];
        for (slot, interface) in tabulated.interfaces {
            interfaces[slot as usize] = Some(interface);
        }
        let targets = &world.targets;
        let steering = Steering {
            lists: tabulated.cpu_lists.into_iter().collect(),
            cpus: targets.cpus.iter().map(|cpu| u32::from(*cpu)).collect(),
            sets: tabulated.sets.into_iter().collect(),
            sockets: targets.slots.iter().map(|slot| u32::from(*slot)).collect(),
            queue: targets.queue,
            fragments: RefCell::new(tabulated.kept.into_iter().collect()),
            ..Steering::default()
        };
        let freed = world.freed.iter().map(|&(index, steered_until)| {
            let free = Binding {
                steered_until,
                ..Binding::FREE
            };
            (index, free)
        });
        let contents = Contents {
            config: tabulated.config,
            ifindex,
            interfaces,
            bindings: bindings.iter().copied().chain(freed).collect(),
            compiled,
            locals: tabulated.locals.into_iter().collect(),
            local_prefixes: tabulated.local_prefixes,
            forwarding: world.forwarding,
            now: Cell::new(START),
            connections: CONNECTIONS,
            counters: RefCell::new(vec![InterfaceCounters::default(); MAX_INTERFACES + 1]),
            binding_counts: RefCell::new(vec![Count::default(); 256]),
            table: RefCell::default(),
        };
        let mut model = Self {
            contents,
            lines: Lines::new(CONNECTIONS),
            live: Cell::new(true),
            answer: RefCell::default(),
            budget: Cell::default(),
            has_shortcut: true,
            taken: Cell::default(),
            out_of_reach: RefCell::default(),
            completed: RefCell::default(),
            steering,
            ports: Ports::default(),
        };
        if let Some((epoch, command)) = tabulated.row {
            assert_eq!(model.enter(epoch, &command), Outcome::Done);
        }
        model
    }

    /// Makes the connection table one for so many connections, and empty.
    pub fn with_connections(mut self, connections: u32) -> Self {
        self.contents.connections = connections;
        self.lines = Lines::new(connections);
        self
    }

    /// Lets every packet take the long way.
    pub fn without_shortcut(mut self) -> Self {
        self.has_shortcut = false;
        self
    }

    /// Other bindings, which make another epoch.
    pub fn rebind(&mut self, bindings: &[(u16, Binding)]) {
        self.contents.compiled = compile(bindings).unwrap_or_else(|error| panic!("{error}"));
        self.contents.bindings = bindings.iter().copied().collect();
        self.contents.config.epoch += 1;
    }

    /// Executes a command while the settings are of this epoch.
    pub fn enter(&mut self, epoch: u32, command: &Command) -> Outcome {
        let present = self.contents.config.epoch;
        self.contents.config.epoch = epoch;
        let outcome = command::execute(self, command);
        self.contents.config.epoch = present;
        outcome
    }

    /// How many packets took the shortest way since this was last asked, arriving and leaving.
    pub fn taken(&self) -> [usize; 2] {
        self.taken.take()
    }

    /// Counts packets that arrived before.
    pub fn count_before(&self, key: &ConnectionKey, packets: u32, bytes: u32) {
        let probe = Probe::new(key, self, self.homes());
        let found = table::find(self, &probe, key).expect("a row");
        let recorded = table::count::<{ Line::RX }, _>(self, &found, packets, bytes);
        assert_eq!(recorded, Recorded::Yes);
        let recorded = table::count::<{ Line::TX }, _>(self, &found, packets, bytes);
        assert_eq!(recorded, Recorded::Yes);
    }

    /// The memory of the connection table.
    pub fn lines(&self) -> &Lines {
        &self.lines
    }

    pub fn advance(&self, seconds: u64) {
        self.advance_ns(seconds * SECOND);
    }

    pub fn advance_ns(&self, nanoseconds: u64) {
        self.contents.now.set(self.contents.now.get() + nanoseconds);
    }

    /// The time of the connection table.
    pub fn now(&self) -> u32 {
        self.contents.config.clock.at(self.contents.now.get())
    }

    pub fn decide(&self, frame: &[u8]) -> Decision {
        let rest = frame.get(LINEAR..).unwrap_or_default();
        *self.out_of_reach.borrow_mut() = rest.to_vec();
        let decision = decide(&Linear(frame), self.contents.ifindex, self);
        reported(&decision.plain().into())
    }

    /// What becomes of a frame: the decision, and the answer to it if there is one.
    pub fn process(&self, frame: &[u8]) -> (Decision, Option<Vec<u8>>) {
        let decision = self.decide(frame);
        (decision, self.answer.take())
    }

    /// Has sent no refusal for long.
    pub fn refill(&self) {
        self.budget.set(Budget::default());
    }

    /// The last frame that was handed on or passed after its checksum was looked at, if that changed it.
    pub fn changed(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let completed = self.completed.take()?;
        (completed != frame).then_some(completed)
    }

    /// What the twin says.
    pub fn explain(&self, frame: &[u8]) -> Decision {
        self.live.set(false);
        let decision = self.decide(frame);
        self.live.set(true);
        decision
    }

    /// Lets a frame leave.
    pub fn leave(&self, frame: &[u8], leaving: &Leaving) {
        if leaving.is_reported {
            let parsed = parse(frame).expect("a frame that can be reported");
            sent::enter(self, &Sent::new(self.contents.ifindex, &parsed));
            return;
        }
        let departure = Departure {
            ifindex: self.contents.ifindex,
            segments: leaving.segments,
            is_forwarded: if leaving.is_forwarded { ANOTHER } else { 0 },
            is_reported: 0,
        };
        egress::observe(frame, &departure, self);
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: self.contents.counters.borrow().clone(),
            binding_counts: self.contents.binding_counts.borrow().clone(),
            rows: self.lines.rows(),
            table: *self.contents.table.borrow(),
            fragments: self.steering.fragments.borrow().clone(),
        }
    }

    /// Whether this has counted what another model has.
    pub fn counts_as(&self, other: &Self) -> bool {
        let (one, other) = (&self.contents, &other.contents);
        one.counters == other.counters
            && one.binding_counts == other.binding_counts
            && one.table == other.table
    }

    fn is_live(&self) -> bool {
        self.live.get()
    }
}

/// The model as a subject of the case table: a new one for each case.
pub struct Host {
    model: Model,
    clock: Clock,
}

impl Host {
    /// With this clock.
    pub fn new(clock: Clock) -> Self {
        Self {
            model: Model::at(&super::world::passing(), IFINDEX, clock),
            clock,
        }
    }
}

impl Subject for Host {
    fn prepare(&mut self, world: &World) {
        self.model = Model::at(world, IFINDEX, self.clock);
    }

    fn ifindex(&self) -> u32 {
        IFINDEX
    }

    fn now(&self) -> u32 {
        self.model.now()
    }

    fn snapshot(&self) -> Snapshot {
        self.model.lines.assert_sound();
        self.model.snapshot()
    }

    fn run(&self, frame: &[u8]) -> Ran {
        let (Decision { verdict, .. }, answer) = self.model.process(frame);
        Ran {
            verdict,
            answer,
            changed: self.model.changed(frame),
        }
    }

    fn destination(&self, frame: &[u8]) -> Option<HandedTo> {
        self.model.explain(frame);
        self.model.steering.handed()
    }

    fn clock_ns(&self) -> u64 {
        self.model.coarse_ns()
    }

    fn leave(&self, frame: &[u8], leaving: &Leaving) {
        self.model.leave(frame, leaving);
    }

    fn takes(&self, _frame: &[u8]) -> bool {
        true
    }

    fn explain(&self, frame: &[u8]) -> Decision {
        let all = || {
            let lines = &self.model.lines;
            let both = |index| (lines.hot(index), lines.cold_line(index));
            let lines: Vec<_> = (0..lines.count()).map(both).collect();
            (self.model.snapshot(), lines)
        };
        let before = all();
        let explanation = self.model.explain(frame);
        assert_eq!(before, all(), "explaining changed a table");
        explanation
    }
}

impl Stage for Model {
    fn keep(&mut self, kept: &[Kept]) {
        let now = self.contents.now.get();
        let fragments = kept.iter().map(|kept| kept.stored(now)).collect();
        self.steering.fragments = RefCell::new(fragments);
    }

    fn enter(&mut self, rows: &[Row]) {
        for row in rows {
            let command = row.command(&self.contents.config.clock);
            let outcome = Self::enter(self, row.epoch + 1, &command);
            assert_eq!(outcome, Outcome::Done);
        }
    }

    fn remove(&mut self, rows: &[Row]) {
        for row in rows {
            command::execute(self, &Command::remove(row.key));
        }
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

impl Numbers for Model {
    fn number(&self, index: usize) -> u64 {
        SECRET.number(index)
    }
}

impl Memory for Model {
    type Line = Handle;

    fn line(&self, index: u32) -> Option<Handle> {
        self.lines.line(index)
    }

    fn cold(&self, index: u32) -> Option<Handle> {
        self.lines.cold(index)
    }

    fn load32<const AT: usize>(&self, line: Handle) -> u32 {
        self.lines.load32::<AT>(line)
    }

    fn load64<const AT: usize>(&self, line: Handle) -> u64 {
        self.lines.load64::<AT>(line)
    }

    fn store32<const AT: usize>(&self, line: Handle, value: u32) {
        if self.is_live() {
            self.lines.store32::<AT>(line, value);
        }
    }

    fn store64<const AT: usize>(&self, line: Handle, value: u64) {
        if self.is_live() {
            self.lines.store64::<AT>(line, value);
        }
    }

    fn exchange32<const AT: usize>(&self, line: Handle, old: u32, new: u32) -> bool {
        !self.is_live() || self.lines.exchange32::<AT>(line, old, new)
    }

    fn exchange64<const AT: usize>(&self, line: Handle, old: u64, new: u64) -> bool {
        !self.is_live() || self.lines.exchange64::<AT>(line, old, new)
    }

    fn and32<const AT: usize>(&self, line: Handle, mask: u32) {
        if self.is_live() {
            self.lines.and32::<AT>(line, mask);
        }
    }

    fn add32<const AT: usize>(&self, line: Handle, addend: u32) {
        if self.is_live() {
            self.lines.add32::<AT>(line, addend);
        }
    }

    fn pressure(&self) -> u32 {
        self.contents.table.borrow().pressure as u32
    }

    fn set_pressure(&self, pressure: u32) {
        if self.is_live() {
            self.contents.table.borrow_mut().pressure = u64::from(pressure);
        }
    }
}

impl Tables for Model {
    fn config(&self) -> Option<&Config> {
        Some(&self.contents.config)
    }

    fn interface(&self, slot: u32) -> Option<&Interface> {
        self.contents.interfaces.get(slot as usize)?.as_ref()
    }

    fn homes(&self) -> u32 {
        homes(self.contents.connections)
    }

    fn ticks(&self) -> u64 {
        let clock = &self.contents.config.clock;
        clock.ticks_at_zero + self.contents.now.get() / u64::from(clock.tick_ns)
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

    fn count(&self, slot: u32, verdict: Verdict, reason: Reason, bytes: u64) {
        if self.is_live() {
            self.contents.counters.borrow_mut()[slot as usize].add(verdict, reason, bytes);
        }
    }

    fn count_packed(&self, slot: u32, decision: PackedDecision, bytes: u64) {
        let Decision {
            verdict, reason, ..
        } = reported(&decision.plain().into());
        self.count(slot, verdict, reason, bytes);
    }

    fn count_untracked(&self, slot: u32, bytes: u64) {
        if self.is_live() {
            let untracked = &mut self.contents.counters.borrow_mut()[slot as usize].untracked;
            untracked.packets += 1;
            untracked.bytes += bytes;
        }
    }

    fn count_binding(&self, index: u16, bytes: u64) {
        if self.is_live() {
            let count = &mut self.contents.binding_counts.borrow_mut()[usize::from(index)];
            count.packets += 1;
            count.bytes += bytes;
        }
    }

    fn count_event(&self, event: TableEvent) {
        if self.is_live() {
            let mut table = self.contents.table.borrow_mut();
            *match event {
                TableEvent::Entered => &mut table.entered,
                TableEvent::OverExpired => &mut table.over_expired,
                TableEvent::OverUnconfirmed => &mut table.over_unconfirmed,
                TableEvent::Untracked => &mut table.untracked,
                TableEvent::Ended => &mut table.ended,
            } += 1;
        }
    }

    fn coarse_ns(&self) -> u64 {
        self.contents.now.get()
    }

    fn kept_owner(&self, datagram: &Datagram) -> Option<Owner> {
        self.steering.fragments.borrow().get(datagram).copied()
    }

    fn keep_owner(&self, datagram: &Datagram, owner: &Owner) {
        if self.is_live() {
            let mut fragments = self.steering.fragments.borrow_mut();
            fragments.insert(*datagram, *owner);
        }
    }

    fn cpu(&self, binding: u16, hash: u32) -> Option<u16> {
        self.steering.lists.get(&binding)?.pick(hash)
    }

    fn redirect_to_cpu(&self, cpu: u32) -> bool {
        self.steering.redirect_to_cpu(cpu)
    }

    fn leaves(&self, parsed: &Parsed, packets: u32, bytes: u32) -> bool {
        let leaves = self.has_shortcut && fast::leaves(self, parsed, packets, bytes);
        let [arrived, left] = self.taken.get();
        self.taken.set([arrived, left + usize::from(leaves)]);
        leaves
    }
}

impl Kernel for Model {
    fn kernel_socket(&self, key: &ConnectionKey) -> KernelSocket {
        sockets::kernel_socket(key)
    }

    fn may_forward(&self, key: &ConnectionKey) -> bool {
        is_forwarded(self.contents.forwarding, &key.local_address)
    }

    fn rx_queue(&self) -> u32 {
        self.steering.queue
    }

    fn xsk_set(&self, index: u16) -> Option<&XskSet> {
        self.steering.sets.get(&index)
    }

    fn redirect_to_socket(&self, slot: u32) -> bool {
        self.steering.redirect_to_socket(slot)
    }

    fn complete<P: Packet + ?Sized>(&self, packet: &P, parsed: &Parsed) -> bool {
        if !self.is_live() {
            return true;
        }
        let mut buffer = Buffer::of(packet);
        buffer.rest.clone_from(&self.out_of_reach.borrow());
        let is_complete = reject::checksum::complete(&mut buffer, parsed);
        let frame = [buffer.bytes, buffer.rest].concat();
        *self.completed.borrow_mut() = is_complete.then_some(frame);
        is_complete
    }

    fn budget(&self) -> Budget {
        self.budget.get()
    }

    fn set_budget(&self, budget: &Budget) {
        self.budget.set(*budget);
    }

    fn refuse<P: Packet + ?Sized>(
        &self,
        packet: &P,
        parsed: &Parsed,
        slot: u32,
        decision: PackedDecision,
    ) -> PackedDecision {
        if !self.is_live() {
            return decision;
        }
        let mut buffer = Buffer::of(packet);
        let outcome = reject::refuse(&mut buffer, self, parsed, slot, decision);
        let is_sent = outcome.is(Verdict::Reject);
        *self.answer.borrow_mut() = is_sent.then_some(buffer.bytes);
        outcome
    }

    fn arrives<P: Packet + ?Sized>(&self, packet: &P, ifindex: u32) -> Option<PackedDecision> {
        if !self.has_shortcut {
            return None;
        }
        let decision = fast::arrives(packet, ifindex, self);
        let [arrived, left] = self.taken.get();
        self.taken
            .set([arrived + usize::from(decision.is_some()), left]);
        decision
    }

    fn track(&self, parsed: &Parsed, slot: u32, decision: PackedDecision) -> PackedDecision {
        // As the kernel program does: with no stores there is nothing to do.
        if self.is_live() {
            demux_common::decide::track(self, parsed, slot, decision)
        } else {
            PackedDecision(0)
        }
    }

    fn confirm(&self, parsed: &Parsed) {
        if self.is_live() {
            demux_common::decide::confirm(self, parsed);
        }
    }
}
