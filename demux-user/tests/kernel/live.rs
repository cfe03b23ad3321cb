//! The loaded programs as a subject of the case table.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
};

use demux_common::{
    binding::{Binding, PortSlot},
    connection::{Connection, ConnectionKey},
    decide::Decision,
    layout::{map, program},
    reason::Verdict,
};
use demux_user::{
    bindings::{Compiled, compile, publish::publish},
    bpf::{self, BatchReader, MappedWords},
    clock,
    explain::Twin,
    load::{create_instance, initial_config},
    netns::NetworkNamespace,
    object::Capacities,
    state::{Instance, Opened},
    tables::{Access, Tables},
};
use zerocopy::IntoBytes as _;

use crate::{
    common::{
        bpf::{GENERIC, attach_xdp},
        bpffs::TemporaryBpfFs,
        netns::Netns,
    },
    sockets::Sockets,
    table::{
        check::{Snapshot, Subject},
        world::{Bound, Entry, HOST, World},
    },
};

/// Room for every binding of the tests, and little to dump.
const CAPACITIES: Capacities = Capacities {
    connections: 1024,
    bindings: 255,
};

/// An instance of demux in a namespace of its own, whose programs see only what test runs give them.
pub(crate) struct Live<'a> {
    host: &'a Netns,
    peer: &'a Netns,
    instance: Instance,
    tables: Tables,
    ingress: OwnedFd,
    twin: Twin,
    ports: MappedWords,
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

impl<'a> Live<'a> {
    /// Runs `work` on a thread in the namespace.
    pub(crate) fn run<T: Send>(work: impl FnOnce(&mut Live<'_>) -> T + Send) -> T {
        let (host, peer) = (Netns::new(), Netns::new());
        host.enter(|| work(&mut Live::new(&host, &peer)))
    }

    fn new(host: &'a Netns, peer: &'a Netns) -> Self {
        host.veth("v0", peer, "p0");
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
        let open = |name| bpf::object_get(&instance.paths().program(name), false).unwrap();
        let (ingress, twin) = (open(program::INGRESS), open(program::EXPLAIN));
        let idle = [
            host.enter(|| attach_xdp(ingress.as_fd(), host.index("idle0"), GENERIC)),
            peer.enter(|| attach_xdp(twin.as_fd(), peer.index("idle1"), GENERIC)),
        ];
        Self {
            ifindex: host.index("v0"),
            stranger: host.index("v1"),
            twin: Twin::open(instance.paths()).unwrap(),
            ports: MappedWords::new(tables.map_fd(map::PORTS).unwrap(), PortSlot::COUNT).unwrap(),
            host,
            peer,
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

    /// Publishes other bindings than the world's.
    pub(crate) fn publish(&mut self, bindings: &[(u16, Binding)], compiled: &Compiled) {
        for (index, binding) in bindings {
            self.tables.set_binding(*index, binding).unwrap();
        }
        publish(&self.tables, compiled).unwrap();
        if let Some(world) = &mut self.world {
            // Not what any world says.
            world.bindings = vec![Bound::tcp("")];
        }
    }

    /// What the program returns for a frame.
    pub(crate) fn action(&self, frame: &[u8]) -> u32 {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, self.arrives_on(), 0, 0];
        bpf::test_run(self.ingress.as_fd(), frame, 0, Some(context.as_bytes()), 1)
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
            .retval
    }

    /// What the twin reports of a frame, whatever it does to the maps.
    pub(crate) fn report(&self, frame: &[u8]) -> Decision {
        self.twin
            .explain(frame, self.arrives_on())
            .unwrap_or_else(|error| panic!("{error}: {frame:02x?}"))
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

    /// All maps, byte for byte.
    fn dump(&self) -> BTreeMap<&'static str, Vec<u8>> {
        map::ALL
            .iter()
            .map(|&name| (name, self.dump_map(name)))
            .collect()
    }

    fn dump_map(&self, name: &str) -> Vec<u8> {
        if name == map::PORTS {
            // Too large to be copied out by calls for every case.
            return self.ports.read().as_bytes().to_vec();
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

impl Subject for Live<'_> {
    fn prepare(&mut self, world: &World) {
        let tabulated = world.tabulated(self.ifindex, self.now());
        let before = self.world.replace(world.clone());
        if before
            .as_ref()
            .is_none_or(|before| before.bindings != world.bindings)
        {
            for (index, binding) in &tabulated.bindings {
                self.tables.set_binding(*index, binding).unwrap();
            }
            publish(&self.tables, &compile(&tabulated.bindings).unwrap()).unwrap();
        }
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
        self.tables.set_config(&tabulated.config).unwrap();
        for (key, _) in self.rows() {
            self.tables.remove_connection(&key).unwrap();
        }
        if let Some((key, connection)) = tabulated.row {
            let rows = self.tables.map_fd(map::CONNECTIONS).unwrap();
            bpf::map_update(rows, key.as_bytes(), connection.as_bytes(), 0).unwrap();
        }
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn now(&self) -> u64 {
        clock::now()
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
        }
    }

    fn run(&self, frame: &[u8]) -> Verdict {
        match self.action(frame) {
            XDP_PASS => Verdict::Pass,
            XDP_DROP => Verdict::Drop,
            action => panic!("the program returned {action}"),
        }
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
