//! The names and the version of what is pinned: the contract between one demux and the next.

/// The version of all map types together. A pinned instance of another version is refused.
pub const LAYOUT_VERSION: u32 = 5;

/// Names of maps, which are also the names of their pins. At most 15 bytes, as the kernel keeps no more.
pub mod map {
    /// [`super::Meta`].
    pub const META: &str = "META";
    /// [`crate::config::Config`].
    pub const CONFIG: &str = "CONFIG";
    /// [`crate::config::Interface`] by slot.
    pub const INTERFACES: &str = "INTERFACES";
    /// [`crate::counters::InterfaceCounters`] by slot, per CPU.
    pub const COUNTERS: &str = "COUNTERS";
    /// [`crate::binding::Binding`] by index.
    pub const BINDINGS: &str = "BINDINGS";
    /// [`crate::reason::Count`] by index of the binding, per CPU.
    pub const BINDING_COUNTS: &str = "BINDING_COUNTS";
    /// [`crate::binding::PortSlot`] by protocol and port.
    pub const PORTS: &str = "PORTS";
    /// [`crate::binding::PortProfile`] by index.
    pub const PORT_PROFILES: &str = "PORT_PROFILES";
    /// Index of the binding by [`crate::binding::AddressKey`].
    pub const ADDRESSES: &str = "ADDRESSES";
    /// [`crate::binding::PrefixMatch`] by [`crate::binding::PrefixKey`].
    pub const PREFIXES: &str = "PREFIXES";
    /// [`crate::table::Line`] by index.
    pub const CONNECTIONS: &str = "CONNECTIONS";
    /// [`crate::table::Cold`] by index.
    pub const CONNECTION_COLD: &str = "CONNECTION_COLD";
    /// [`crate::counters::TableCounters`], per CPU.
    pub const TABLE_COUNTS: &str = "TABLE_COUNTS";
    /// [`crate::table::Secret`]; nobody but the owner may read it.
    pub const SECRET: &str = "SECRET";
    /// [`crate::ports::Ephemeral`].
    pub const EPHEMERAL: &str = "EPHEMERAL";
    /// Counters of the double-hash algorithm, by a hash of the destination.
    pub const PERTURBATION: &str = "PERTURBATION";
    /// Sets of ports that were in use towards destinations when last looked at: see [`crate::ports`].
    pub const PORT_HINTS: &str = "PORT_HINTS";
    /// Sets of ports that are never handed out: see [`crate::ports`].
    pub const BARRED_PORTS: &str = "BARRED_PORTS";
    /// [`crate::owned::Owned`] by [`crate::owned::OwnedKey`].
    pub const OWNED_PORTS: &str = "OWNED_PORTS";
    /// [`crate::ports::ExecCgroup`] by the id of a control group.
    pub const EXEC_CGROUPS: &str = "EXEC_CGROUPS";
    /// The address from which this host sends, by [`super::LocalPrefix`] of the destination.
    pub const SOURCES: &str = "SOURCES";
    /// [`crate::reject::Budget`], per CPU.
    pub const REPLY_BUDGET: &str = "REPLY_BUDGET";
    /// The CPUs that packets can be handed to (BPF_MAP_TYPE_CPUMAP), by their number.
    pub const CPUS: &str = "CPUS";
    /// [`crate::steering::CpuList`] by index of the binding.
    pub const CPU_LISTS: &str = "CPU_LISTS";
    /// AF_XDP sockets (BPF_MAP_TYPE_XSKMAP), by slot: see [`crate::steering`].
    pub const XSKS: &str = "XSKS";
    /// [`crate::steering::XskSet`] by index.
    pub const XSK_SETS: &str = "XSK_SETS";
    /// [`crate::steering::XskSocket`] by slot.
    pub const XSK_SOCKETS: &str = "XSK_SOCKETS";
    /// [`crate::fragments::Owner`] by [`crate::fragments::Datagram`].
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// 1 by each local address.
    pub const LOCALS: &str = "LOCALS";
    /// 1 by each local prefix shorter than an address.
    pub const LOCAL_PREFIXES: &str = "LOCAL_PREFIXES";

    /// [`crate::listen::Listener`] by [`crate::listen::Channel`].
    pub const LISTENERS: &str = "LISTENERS";
    /// [`crate::listen::ListenerCounts`] by [`crate::listen::Channel`], per CPU.
    pub const LISTENER_COUNTS: &str = "LISTENER_COUNTS";
    /// [`crate::trace::Selection`].
    pub const SELECTION: &str = "SELECTION";
    /// A ring buffer of [`crate::event::Event`]; only the owner may read it.
    pub const EVENTS: &str = "EVENTS";
    /// A ring buffer of [`crate::trace::Trace`]; only the owner may read it.
    pub const TRACES: &str = "TRACES";

    /// All of them that whoever may look at demux may read.
    pub const ALL: &[&str] = &[
        META,
        CONFIG,
        INTERFACES,
        COUNTERS,
        BINDINGS,
        BINDING_COUNTS,
        PORTS,
        PORT_PROFILES,
        ADDRESSES,
        PREFIXES,
        CONNECTIONS,
        CONNECTION_COLD,
        TABLE_COUNTS,
        EPHEMERAL,
        PERTURBATION,
        PORT_HINTS,
        BARRED_PORTS,
        OWNED_PORTS,
        EXEC_CGROUPS,
        SOURCES,
        REPLY_BUDGET,
        CPUS,
        CPU_LISTS,
        XSKS,
        XSK_SETS,
        XSK_SOCKETS,
        FRAGMENTS,
        LOCALS,
        LOCAL_PREFIXES,
        LISTENERS,
        LISTENER_COUNTS,
        SELECTION,
    ];

    /// Those that only the owner may read.
    pub const PRIVATE: &[&str] = &[SECRET, EVENTS, TRACES];
}

/// Names of programs, which are also the names of their pins.
pub mod program {
    /// The ingress program.
    pub const INGRESS: &str = "demux_xdp";
    /// The egress program.
    pub const EGRESS: &str = "demux_egress";
    /// What changes the connection table for the controller, in test runs only.
    pub const CONTROL: &str = "demux_control";
    /// The twin of the ingress program for `explain`.
    pub const EXPLAIN: &str = "demux_explain";

    /// Keeps bind(2) away from IPv4 endpoints that demux owns; loaded when first needed.
    pub const BIND_V4: &str = "demux_bind4";
    /// The same for IPv6.
    pub const BIND_V6: &str = "demux_bind6";
    /// The same where the kernel has chosen the port; loaded when first needed.
    pub const BOUND_V4: &str = "demux_bound4";
    /// The same for IPv6.
    pub const BOUND_V6: &str = "demux_bound6";
    /// Chooses the source port of connect(2) over IPv4 for `demux exec`; loaded when first needed.
    pub const CONNECT_V4: &str = "demux_connect4";
    /// The same for IPv6.
    pub const CONNECT_V6: &str = "demux_connect6";

    /// What enters into the connection table what the owners of AF_XDP sockets have sent, in test
    /// runs only; loaded when first needed.
    pub const SENT: &str = "demux_sent";

    /// Those that watch over bind(2).
    pub const BIND: &[&str] = &[BIND_V4, BIND_V6, BOUND_V4, BOUND_V6];

    /// Those that every instance has.
    pub const ALL: &[&str] = &[INGRESS, EGRESS, CONTROL, EXPLAIN];
}

/// Names of constants that are set before the programs are loaded.
pub mod constant {
    /// The numbers of [`crate::table::Secret`].
    pub const HASH_NUMBERS: &str = "HASH_NUMBERS";
    /// How many homes the connection table has: [`crate::table::homes`].
    pub const TABLE_HOMES: &str = "TABLE_HOMES";
    /// The cookie of the instance's network namespace.
    pub const NETNS_COOKIE: &str = "NETNS_COOKIE";
}

/// How many entries the tables have where `load` is told nothing else.
pub mod capacity {
    /// Rows of the connection table.
    pub const CONNECTIONS: u32 = 131_072;
    /// Bindings, the unused entry 0 included.
    pub const BINDINGS: u32 = 4096;
    /// Local addresses.
    pub const LOCALS: u32 = 16_384;
    /// Local prefixes.
    pub const LOCAL_PREFIXES: u32 = 1024;
    /// Destinations with a source address.
    pub const SOURCES: u32 = 4096;
    /// CPUs, where the object is loaded by others: `load` takes as many as the machine may have.
    pub const CPUS: u32 = 256;
    /// AF_XDP sockets.
    pub const XSKS: u32 = 1024;
    /// Sets of AF_XDP sockets, the unused entry 0 included.
    pub const XSK_SETS: u32 = 64;
    /// Datagrams whose later fragments follow the first.
    pub const FRAGMENTS: u32 = 4096;
    /// Bytes of the ring buffer of events.
    pub const EVENTS: u32 = 1 << 20;
    /// Bytes of the ring buffer of traced packets.
    pub const TRACES: u32 = 1 << 19;
    /// Control groups of `demux exec`.
    pub const EXEC_CGROUPS: u32 = 1024;
}

/// A prefix of local addresses: a key of the trie [`map::LOCAL_PREFIXES`], which compares what
/// stands behind `prefix_len`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct LocalPrefix {
    /// Bits that must match: [`LocalPrefix::FIXED_BITS`] and those of the mapped prefix.
    pub prefix_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The network.
    pub address: crate::address::Address,
}

impl LocalPrefix {
    /// Bits before the address, which always match whole.
    pub const FIXED_BITS: u32 = 32;
    /// Bits of a key that is looked up.
    pub const ALL_BITS: u32 = Self::FIXED_BITS + 128;
}

const _: () = assert!(size_of::<LocalPrefix>() == 24);

/// What a value of [`map::SOURCES`] says of its destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nothing: several addresses may be taken, or it depends on more than the destination.
    Unknown,
    /// This host is the destination, and answers itself.
    Destination,
    /// Packets leave from the address that the value is.
    Address,
}

impl Source {
    /// The value for [`Source::Unknown`].
    pub const UNKNOWN: crate::address::Address = crate::address::ANY_V6;
    /// The value for [`Source::Destination`].
    pub const DESTINATION: crate::address::Address = crate::address::ANY_V4;

    /// What a value says.
    #[inline(always)]
    #[must_use]
    pub const fn of(value: &crate::address::Address) -> Self {
        let [high, low] = value.words();
        let [mapped_high, mapped_low] = Self::DESTINATION.words();
        if high | low == 0 {
            Self::Unknown
        } else if high == mapped_high && low == mapped_low {
            Self::Destination
        } else {
            Self::Address
        }
    }
}

/// Whose state this is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct Meta {
    /// [`LAYOUT_VERSION`] of the demux that made it.
    pub layout_version: u32,
    /// Which BPF object the programs are of, by a checksum; 0 while they are being replaced.
    pub build: u32,
    /// The cookie of the network namespace (SO_NETNS_COOKIE), never used twice while the machine is up.
    pub netns_cookie: u64,
    /// The boot id of the kernel (/proc/sys/kernel/random/boot_id) as bytes.
    pub boot_id: [u8; 16],
}

const _: () = assert!(size_of::<Meta>() == 32);
