//! The loaded programs as a subject of the case table.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    os::fd::{AsFd as _, OwnedFd},
};

use demux_common::{
    binding::{Binding, PortSlot, Target},
    clock::Clock,
    command::{Command, Outcome},
    config::Reply,
    connection::{Connection, ConnectionKey},
    decide::Decision,
    explanation::Explanation,
    fragments::{Datagram, Owner},
    layout::{map, program},
    parse::parse,
    ports::{Barred, HINT_WORDS},
    reason::Verdict,
    sent::Sent,
    steering::{CpuList, XskSet},
};
use demux_user::{
    bindings::{Compiled, compile, publish::publish},
    bpf::{self, BatchReader, MappedWords},
    clock,
    load::{create_instance, initial_config},
    netns::NetworkNamespace,
    object::Capacities,
    state::{Instance, Opened},
    tables::{Access, Control, Sender, Tables},
};
use rustix::{
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
    time::{ClockId, clock_gettime},
};
use zerocopy::{FromBytes as _, FromZeros, Immutable, IntoBytes, TryFromBytes as _};

use crate::{
    common::{
        bpf::{GENERIC, attach_xdp},
        bpffs::TemporaryBpfFs,
        netns::{Netns, Queues},
    },
    sockets::Sockets,
    table::{
        bound::cpu_list,
        check::{Leaving, Ran, Snapshot, Subject, reported},
        damaged::Stage,
        random,
        steering::{HandedTo, Kept},
        world::{Bound, EPOCH, Entry, HOST, Row, World},
    },
};

/// As many queues as the sockets of the tests are for, and one more.
const QUEUES: Queues = Queues { rx: 4, tx: 4 };

/// Room for every binding of the tests, and little to dump.
const CAPACITIES: Capacities = Capacities {
    connections: 64,
    bindings: 255,
};

/// An instance of demux in a namespace of its own, whose programs see only what test runs give them.
pub(crate) struct Live<'a> {
    host: &'a Netns,
    peer: &'a Netns,
    instance: Instance,
    tables: Tables,
    control: Control,
    clock: Clock,
    ingress: OwnedFd,
    egress: OwnedFd,
    twin: OwnedFd,
    sender: RefCell<Sender>,
    /// The sockets in their slots.
    xsks: BTreeMap<u16, OwnedFd>,
    /// The memory of the maps that are too large to be copied out by calls for every case.
    mapped: BTreeMap<&'static str, MappedWords>,
    ifindex: u32,
    /// An interface that has no entry, ever.
    stranger: u32,
    /// What the tables hold.
    world: Option<World>,
    sockets: Option<Sockets>,
    /// Programs that are attached nowhere are slow to run.
    _idle: [OwnedFd; 2],
    _bpffs: TemporaryBpfFs,
}

/// The outcome of a run of the program, as the kernel numbers it.
pub(crate) const XDP_DROP: u32 = 1;
pub(crate) const XDP_PASS: u32 = 2;
pub(crate) const XDP_TX: u32 = 3;
pub(crate) const XDP_REDIRECT: u32 = 4;

/// What the egress program returns: the next one decides.
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// A page without the room before and behind.
const LONGEST_LEAVING: usize = 4096 - 64 - 320;

/// `struct __sk_buff`, as far as test runs look at it.
#[derive(IntoBytes, Immutable, FromZeros)]
#[repr(C)]
struct Skb {
    len: u32,
    pkt_type: u32,
    mark: u32,
    queue_mapping: u32,
    protocol: u32,
    vlan_present: u32,
    vlan_tci: u32,
    vlan_proto: u32,
    priority: u32,
    ingress_ifindex: u32,
    ifindex: u32,
    tc_index: u32,
    cb: [u32; 5],
    hash: u32,
    tc_classid: u32,
    data: u32,
    data_end: u32,
    napi_id: u32,
    family: u32,
    remote_ip4: u32,
    local_ip4: u32,
    remote_ip6: [u32; 4],
    local_ip6: [u32; 4],
    remote_port: u32,
    local_port: u32,
    data_meta: u32,
    flow_keys: u64,
    tstamp: u64,
    wire_len: u32,
    gso_segs: u32,
    sk: u64,
    gso_size: u32,
    tstamp_type: u32,
    hwtstamp: u64,
}

impl<'a> Live<'a> {
    /// Runs `work` on a thread in the namespace.
    pub(crate) fn run<T: Send>(work: impl FnOnce(&mut Live<'_>) -> T + Send) -> T {
        let (host, peer) = (Netns::new(), Netns::new());
        host.enter(|| work(&mut Live::new(&host, &peer)))
    }

    fn new(host: &'a Netns, peer: &'a Netns) -> Self {
        host.veth_with_queues("v0", QUEUES, peer, "p0", QUEUES);
        host.veth("v1", peer, "p1");
        for address in HOST {
            let bits = match address {
                "10.0.0.2" => 24,
                "2001:db8::2" => 64,
                _ if address.contains(':') => 128,
                _ => 32,
            };
            host.add_address("v0", &format!("{address}/{bits}"));
        }
        peer.add_address("p0", "10.0.0.1/24");
        peer.add_address("p0", "2001:db8::1/64");
        // Down, so that nothing arrives there.
        host.veth("idle0", peer, "idle1");
        host.set_down("idle0");
        peer.set_down("idle1");

        let bpffs = TemporaryBpfFs::new();
        let cookie = host.enter(|| NetworkNamespace::current().unwrap().cookie());
        let Opened::New(new) = Instance::open_or_create(bpffs.bpffs(), cookie).unwrap() else {
            panic!("an instance in a new file system");
        };
        create_instance(&new, CAPACITIES, &initial_config()).expect("the instance (needs root)");
        let instance = new.publish().unwrap();
        let tables = Tables::open(&instance, Access::ReadWrite).unwrap();
        Sender::provide(instance.paths(), &tables).unwrap();
        let open = |name| bpf::object_get(&instance.paths().program(name), false).unwrap();
        let (ingress, twin) = (open(program::INGRESS), open(program::EXPLAIN));
        let control = Control::open(instance.paths()).unwrap();
        let idle = [
            host.enter(|| attach_xdp(ingress.as_fd(), host.index("idle0"), GENERIC)),
            peer.enter(|| attach_xdp(twin.as_fd(), peer.index("idle1"), GENERIC)),
        ];
        Self {
            ifindex: host.index("v0"),
            stranger: host.index("v1"),
            twin,
            sender: RefCell::new(Sender::open(instance.paths()).unwrap()),
            xsks: BTreeMap::new(),
            mapped: [
                (map::PORTS, PortSlot::COUNT),
                (map::PORT_HINTS, HINT_WORDS),
                (map::BARRED_PORTS, Barred::WORDS),
            ]
            .map(|(name, count)| {
                let words = MappedWords::new(tables.map_fd(name).unwrap(), count);
                (name, words.unwrap())
            })
            .into(),
            host,
            peer,
            clock: tables.config().unwrap().clock,
            control,
            egress: open(program::EGRESS),
            ingress,
            tables,
            instance,
            world: None,
            sockets: None,
            _idle: idle,
            _bpffs: bpffs,
        }
    }

    /// Opens the sockets that the case table counts on.
    pub(crate) fn open_sockets(&mut self) {
        self.sockets = Some(Sockets::open(self.host, self.peer));
    }

    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Publishes other bindings than the world's, made by chance.
    pub(crate) fn publish(&mut self, bindings: &[(u16, Binding)], compiled: &Compiled) {
        for (index, binding) in bindings {
            self.tables.set_binding(*index, binding).unwrap();
            let list = cpu_list(&random::cpus(*index));
            self.tables.set_cpu_list(*index, &list).unwrap();
        }
        publish(&self.tables, compiled).unwrap();
        if let Some(world) = &mut self.world {
            // Not what any world says.
            world.bindings = vec![Bound::tcp("")];
        }
    }

    /// What the program returns for a frame.
    pub(crate) fn action(&self, frame: &[u8]) -> u32 {
        let context = self.context(frame);
        bpf::test_run(self.ingress.as_fd(), frame, 0, Some(context.as_bytes()), 1)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
            .retval
    }

    /// What the program makes of a frame, with all refusals to spend.
    pub(crate) fn process(&self, frame: &[u8]) -> Ran {
        /// What an answer may be longer by than what it answers: IPv6 and ICMPv6.
        const MORE: usize = 48;
        self.refill();
        let context = self.context(frame);
        let room = frame.len() + MORE;
        let run = bpf::test_run(
            self.ingress.as_fd(),
            frame,
            room,
            Some(context.as_bytes()),
            1,
        )
        .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        let is_changed = run.data_out != frame;
        let verdict = match (run.retval, self.world.as_ref().map(|world| world.reply)) {
            (XDP_PASS, _) => Verdict::Pass,
            (XDP_DROP, _) => Verdict::Drop,
            (XDP_TX, Some(Reply::Transmit)) => Verdict::Reject,
            (XDP_REDIRECT, Some(Reply::Redirect)) if is_changed => Verdict::Reject,
            (XDP_REDIRECT, _) => Verdict::Redirect,
            (action, _) => panic!("the program returned {action}"),
        };
        if verdict == Verdict::Reject {
            return Ran {
                verdict,
                answer: Some(run.data_out),
                changed: None,
            };
        }
        Ran {
            verdict,
            answer: None,
            changed: is_changed.then_some(run.data_out),
        }
    }

    /// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    fn context(&self, frame: &[u8]) -> [u32; 6] {
        let queue = self.world.as_ref().map_or(0, |world| world.targets.queue);
        [0, frame.len() as u32, 0, self.arrives_on(), queue, 0]
    }

    /// Lets every CPU have sent no refusal for long.
    pub(crate) fn refill(&self) {
        let map = self.tables.map_fd(map::REPLY_BUDGET).unwrap();
        let stride = bpf::map_info(map).unwrap().value_stride().unwrap();
        bpf::map_update(map, &0u32.to_ne_bytes(), &vec![0; stride], 0).unwrap();
    }

    /// What the twin reports of a frame, whatever it does to the maps.
    pub(crate) fn report(&self, frame: &[u8]) -> Decision {
        let context = self.context(frame);
        let room = size_of::<Explanation>() + frame.len();
        let run = bpf::test_run(self.twin.as_fd(), frame, room, Some(context.as_bytes()), 1)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        assert_eq!((run.retval, run.data_out.len()), (XDP_DROP, room));
        let (report, _) = Explanation::try_read_from_prefix(&run.data_out).unwrap();
        reported(&report)
    }

    /// Hands packets to what a world has.
    fn equip(&mut self, world: &World, lists: &[(u16, CpuList)], sets: &[(u16, XskSet)]) {
        for index in self.tables.cpu_lists().unwrap() {
            self.tables.set_cpu_list(index, &CpuList::EMPTY).unwrap();
        }
        for (index, list) in lists {
            self.tables.set_cpu_list(*index, list).unwrap();
        }
        for (index, _) in self.tables.xsk_sets().unwrap() {
            self.tables.set_xsk_set(index, &XskSet::FREE).unwrap();
        }
        for (index, set) in sets {
            self.tables.set_xsk_set(*index, set).unwrap();
        }
        // Sockets that are closed leave their slots.
        self.xsks
            .retain(|slot, _| world.targets.slots.contains(slot));
        for &slot in &world.targets.slots {
            if self.xsks.contains_key(&slot) {
                continue;
            }
            let socket = socket_with(
                AddressFamily::XDP,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                None,
            )
            .unwrap();
            self.tables.publish_xsk(slot, socket.as_fd()).unwrap();
            self.xsks.insert(slot, socket);
        }
        for cpu in 0..self.tables.max_cpus().unwrap() as u16 {
            let cpus = self.tables.cpus().unwrap();
            let takes = cpus.iter().any(|(number, _)| *number == u32::from(cpu));
            match (takes, world.targets.cpus.contains(&cpu)) {
                (true, false) => self.tables.remove_cpu(cpu).unwrap(),
                (false, true) => self.tables.add_cpu(cpu).unwrap(),
                _ => {}
            }
        }
    }

    /// Remembers these packets in fragments, and no others.
    fn remember(&self, kept: impl IntoIterator<Item = (Datagram, Owner)>) {
        let fd = self.tables.map_fd(map::FRAGMENTS).unwrap();
        for datagram in self.fragments().keys() {
            bpf::map_delete(fd, datagram.as_bytes()).unwrap();
        }
        for (datagram, owner) in kept {
            bpf::map_update(fd, datagram.as_bytes(), owner.as_bytes(), 0).unwrap();
        }
    }

    fn fragments(&self) -> HashMap<Datagram, Owner> {
        let mut fragments = HashMap::new();
        BatchReader::new(self.tables.map_fd(map::FRAGMENTS).unwrap())
            .unwrap()
            .for_each(|key, value| {
                let datagram = Datagram::read_from_bytes(key).unwrap();
                fragments.insert(datagram, Owner::read_from_bytes(value).unwrap());
            })
            .unwrap();
        fragments
    }

    fn arrives_on(&self) -> u32 {
        match &self.world {
            Some(World {
                entry: Entry::Missing,
                ..
            }) => self.stranger,
            _ => self.ifindex,
        }
    }

    /// Has commands executed, each of which must be done.
    pub(crate) fn execute(&self, commands: &[Command]) {
        let outcomes = self.control.execute(commands).unwrap();
        assert!(
            outcomes.iter().all(|outcome| *outcome == Outcome::Done),
            "{outcomes:?} of {commands:?}"
        );
    }

    /// Enters a row while the settings are a world's and of this epoch.
    pub(crate) fn enter(&self, world: &World, epoch: u32, row: &Row) {
        let mut config = world
            .tabulated(self.ifindex, clock::now(), self.clock)
            .config;
        config.epoch = epoch;
        self.tables.set_config(&config).unwrap();
        self.execute(&[row.command(&self.clock)]);
        config.epoch = EPOCH;
        self.tables.set_config(&config).unwrap();
    }

    /// All maps, byte for byte.
    fn dump(&self) -> BTreeMap<&'static str, Vec<u8>> {
        map::ALL
            .iter()
            // The kernel shows nobody what is in there.
            .filter(|name| **name != map::XSKS)
            .map(|&name| (name, self.dump_map(name)))
            .collect()
    }

    fn dump_map(&self, name: &str) -> Vec<u8> {
        if let Some(mapped) = self.mapped.get(name) {
            return mapped.read().as_bytes().to_vec();
        }
        let mut bytes = Vec::new();
        BatchReader::new(self.tables.map_fd(name).unwrap())
            .unwrap()
            .for_each(|key, value| {
                bytes.extend(key);
                bytes.extend(value);
            })
            .unwrap();
        bytes
    }

    fn rows(&self) -> Vec<(ConnectionKey, Connection)> {
        let mut rows = Vec::new();
        self.tables
            .for_each_connection(|key, connection| {
                rows.push((key, connection));
                Ok(())
            })
            .unwrap();
        rows
    }
}

impl Stage for Live<'_> {
    fn keep(&mut self, kept: &[Kept]) {
        let now = clock::now();
        self.remember(kept.iter().map(|kept| kept.stored(now)));
    }

    fn enter(&mut self, rows: &[Row]) {
        let world = self.world.clone().expect("a world");
        for row in rows {
            Live::enter(self, &world, row.epoch + 1, row);
        }
    }

    fn remove(&mut self, rows: &[Row]) {
        let remove = |row: &Row| Command::remove(row.key);
        let commands: Vec<Command> = rows.iter().map(remove).collect();
        self.control.execute(&commands).unwrap();
    }
}

impl Subject for Live<'_> {
    fn prepare(&mut self, world: &World) {
        let tabulated = world.tabulated(self.ifindex, clock::now(), self.clock);
        let before = self.world.replace(world.clone());
        if before
            .as_ref()
            .is_none_or(|before| before.bindings != world.bindings)
        {
            // Rows lead to entries that no table does.
            for (index, _) in self.tables.bindings().unwrap() {
                self.tables.clear_binding(index, 0).unwrap();
            }
            for (index, binding) in &tabulated.bindings {
                self.tables.set_binding(*index, binding).unwrap();
            }
            publish(&self.tables, &compile(&tabulated.bindings).unwrap()).unwrap();
        }
        if before.as_ref().is_none_or(|before| {
            before.targets != world.targets || before.bindings != world.bindings
        }) {
            self.equip(world, &tabulated.cpu_lists, &tabulated.sets);
        }
        for (index, _) in before.iter().flat_map(|before| &before.freed) {
            if usize::from(*index) > world.bindings.len() {
                self.tables.clear_binding(*index, 0).unwrap();
            }
        }
        for (index, steered_until) in &world.freed {
            self.tables.clear_binding(*index, *steered_until).unwrap();
        }
        self.remember(tabulated.kept);
        if before
            .as_ref()
            .is_none_or(|before| before.forwarding != world.forwarding)
        {
            let value = if world.forwarding { "1" } else { "0" };
            self.host.sysctl("net/ipv4/conf/all/forwarding", value);
            self.host.sysctl("net/ipv6/conf/all/forwarding", value);
        }
        if before
            .as_ref()
            .is_none_or(|before| before.locals != world.locals)
        {
            for address in self.tables.locals().unwrap() {
                self.tables.remove_local(&address).unwrap();
            }
            for address in &tabulated.locals {
                self.tables.add_local(address).unwrap();
            }
        }
        if before.is_none_or(|before| before.local_prefix != world.local_prefix) {
            for prefix in self.tables.local_prefixes().unwrap() {
                self.tables.remove_local_prefix(&prefix).unwrap();
            }
            for prefix in &tabulated.local_prefixes {
                self.tables.add_local_prefix(prefix).unwrap();
            }
        }
        for (slot, _) in self.tables.interfaces().unwrap() {
            self.tables.clear_interface(slot).unwrap();
        }
        for (slot, interface) in &tabulated.interfaces {
            self.tables.set_interface(*slot, interface).unwrap();
        }
        let old: Vec<Command> = self
            .rows()
            .iter()
            .map(|(key, _)| Command::remove(*key))
            .collect();
        self.execute(&old);
        if let Some((epoch, command)) = tabulated.row {
            let mut config = tabulated.config;
            config.epoch = epoch;
            self.tables.set_config(&config).unwrap();
            self.execute(&[command]);
        }
        self.tables.set_config(&tabulated.config).unwrap();
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn now(&self) -> u32 {
        self.clock.at_ticks(self.control.ticks().unwrap())
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            counters: self
                .tables
                .counters()
                .unwrap()
                .into_iter()
                .map(|(_, counters)| counters)
                .collect(),
            binding_counts: self.tables.binding_counts().unwrap(),
            rows: self.rows().into_iter().collect(),
            table: self.tables.table_counters().unwrap(),
            fragments: self.fragments(),
        }
    }

    fn clock_ns(&self) -> u64 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
    }

    /// It is that without which the frame would go another way.
    fn destination(&self, frame: &[u8]) -> Option<HandedTo> {
        let is_steered = || self.report(frame).verdict == Verdict::Redirect;
        if !is_steered() {
            return None;
        }
        let mut needed = Vec::new();
        if self.report(frame).target == Target::Xsk {
            for (slot, socket) in &self.xsks {
                self.tables.withdraw_xsk(*slot).unwrap();
                if !is_steered() {
                    needed.push(HandedTo::Socket(u32::from(*slot)));
                }
                self.tables.publish_xsk(*slot, socket.as_fd()).unwrap();
            }
        } else {
            let world = self.world.as_ref().expect("a world");
            for &cpu in &world.targets.cpus {
                self.tables.remove_cpu(cpu).unwrap();
                if !is_steered() {
                    needed.push(HandedTo::Cpu(u32::from(cpu)));
                }
                self.tables.add_cpu(cpu).unwrap();
            }
        }
        assert_eq!(needed.len(), 1, "it goes to {needed:?}");
        needed.pop()
    }

    fn run(&self, frame: &[u8]) -> Ran {
        self.process(frame)
    }

    fn takes(&self, frame: &[u8]) -> bool {
        // Test runs of programs for socket buffers take what fits into a page, and of IP no less than
        // its header.
        let least = match frame.get(12..14) {
            Some([0x08, 0x00]) => 34,
            Some([0x86, 0xdd]) => 54,
            _ => 15,
        };
        (least..=LONGEST_LEAVING).contains(&frame.len())
    }

    fn leave(&self, frame: &[u8], leaving: &Leaving) {
        if leaving.is_reported {
            let parsed = parse(frame).expect("a frame that can be reported");
            let sent = Sent::new(self.arrives_on(), &parsed);
            self.sender.borrow_mut().report(&[sent]).unwrap();
            return;
        }
        let context = Skb {
            ifindex: self.arrives_on(),
            ingress_ifindex: if leaving.is_forwarded {
                self.stranger
            } else {
                0
            },
            gso_segs: leaving.segments,
            ..Skb::new_zeroed()
        };
        let outcome = bpf::test_run(
            self.egress.as_fd(),
            frame,
            frame.len(),
            Some(context.as_bytes()),
            1,
        )
        .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"));
        assert_eq!(outcome.retval, TC_ACT_UNSPEC);
        assert_eq!(outcome.data_out, frame);
    }

    fn explain(&self, frame: &[u8]) -> Decision {
        let before = self.dump();
        let decision = self.report(frame);
        let after = self.dump();
        for (name, bytes) in &before {
            assert!(*bytes == after[name], "explaining changed the map {name}");
        }
        decision
    }
}
