//! The one error type of the library: what failed, on which object, why, and what to do about it.
//!
//! An error carries four things. [`Display`](std::fmt::Display) is one line: operation, object, cause.
//! [`Error::hint`] is what the user can do. [`Error::code`] is a stable word for programs that read the
//! JSON output, and [`Error::exit_status`] is the status the command ends with.
//!
//! To add an error: add the variant with its line, then its row in `Error::class`, then its hint.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use crate::capability::Capability;

/// What every fallible function of the library returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // What the user wrote.
    /// A value that cannot be understood, or that is out of range.
    #[error("invalid {what} {value:?}: {reason}")]
    InvalidArgument {
        /// What the value was meant to be, such as `port`.
        what: &'static str,
        /// The value as written.
        value: String,
        /// Why it is refused.
        reason: String,
    },

    // What is not there.
    /// No instance in this network namespace.
    #[error("demux is not loaded in this network namespace")]
    NotLoaded,
    /// No BPF file system, hence no instance.
    #[error("demux is not loaded: no BPF file system is mounted at {}", .0.display())]
    NoBpfFs(PathBuf),
    /// No interface of that name or index in this network namespace.
    #[error("no interface {0:?} in this network namespace")]
    UnknownInterface(String),
    /// The interface exists, but demux is not attached to it.
    #[error("demux is not attached to {0}")]
    NotAttached(String),
    /// No network namespace of that name or path.
    #[error("cannot enter the network namespace {selector:?}: {reason}")]
    UnknownNamespace {
        /// The name or path as written.
        selector: String,
        /// Why it cannot be one.
        reason: String,
    },
    /// No binding of that name or pattern.
    #[error("no binding {0:?}")]
    BindingNotFound(String),
    /// No row of the connection table is what was asked for.
    #[error("no connection matches the filter")]
    ConnectionNotFound,
    /// No map of that name.
    #[error("no map {0:?}")]
    MapNotFound(String),

    /// No daemon listens on the socket.
    #[error("no demux daemon listens on {}", .0.display())]
    NoDaemon(PathBuf),

    // What is not allowed.
    /// The caller lacks capabilities.
    #[error("not permitted to {operation}: {} missing", .missing.join(" and "))]
    MissingCapability {
        /// What was to be done, such as `load programs`.
        operation: String,
        /// The names of the capabilities that are missing, such as `CAP_BPF`.
        missing: Vec<&'static str>,
    },

    /// The configuration does not let a user own a set of sockets.
    #[error("user {user} may not own the socket set {set:?}")]
    NotAnOwner {
        /// The user, by name and number.
        user: String,
        /// The name of the set.
        set: String,
        /// The file in which root may allow it.
        configuration: PathBuf,
    },
    /// A user has as much as the configuration allows.
    #[error("user {user} may not have more than {limit}")]
    OwnerLimit {
        /// The user, by name and number.
        user: String,
        /// How much of what, such as `64 queues`.
        limit: String,
        /// The file in which root may allow more.
        configuration: PathBuf,
    },
    /// The daemon has refused something, or given it up.
    #[error("{message}")]
    Refused {
        /// As [`Error::code`] in the daemon.
        code: String,
        /// As [`Error::exit_status`] in the daemon.
        status: u8,
        /// The daemon's error in one line.
        message: String,
        /// As [`Error::hint`] in the daemon.
        hint: String,
    },

    // What is in the way.
    /// A daemon listens on the socket already.
    #[error("a demux daemon{} listens on {} already", holders(.pid.as_slice()), .path.display())]
    DaemonRunning {
        /// The socket.
        path: PathBuf,
        /// Its process, where that can be seen.
        pid: Option<u32>,
    },
    /// A daemon serves this network namespace already.
    #[error("a demux daemon{} serves this network namespace already", holders(.pid.as_slice()))]
    NamespaceServed {
        /// Its process, where that can be seen.
        pid: Option<u32>,
    },
    /// A binding or a socket already has the local endpoint.
    #[error("cannot bind {pattern}: address in use by {holder}")]
    AddressInUse {
        /// The pattern that was refused.
        pattern: String,
        /// Who has it, such as `binding "web"`.
        holder: String,
    },
    /// Every port is in use towards a remote: EADDRNOTAVAIL.
    #[error("no port of {range} is free for {remote}")]
    PortsExhausted {
        /// The protocol and the remote endpoint.
        remote: String,
        /// The range of ports.
        range: String,
    },
    /// This host has no address from which to reach a remote: EADDRNOTAVAIL.
    #[error("cannot reach {remote}: {reason}")]
    NoSource {
        /// The protocol and the remote endpoint.
        remote: String,
        /// Why there is none.
        reason: String,
    },
    /// No frame takes a packet to its destination by the interfaces of a set: EHOSTUNREACH.
    #[error("cannot reach {destination}: {reason}")]
    Unreachable {
        /// Where the packet was to go.
        destination: IpAddr,
        /// Why it cannot.
        reason: String,
    },
    /// A packet is longer than the way to its destination takes: EMSGSIZE.
    #[error("a packet of {length} bytes is too long for {destination}: at most {mtu}")]
    PacketTooLong {
        /// Where the packet was to go.
        destination: IpAddr,
        /// Its length, in bytes.
        length: usize,
        /// The largest packet that fits, in bytes.
        mtu: usize,
    },
    /// The local port of a four-tuple is not reserved.
    #[error("{0} is not reserved")]
    NotReserved(String),
    /// The connection table has no room.
    #[error("the connection table has no room ({0} connections)")]
    ConnectionTableFull(u32),
    /// A socket of the kernel has the local endpoint, and would lose its packets.
    #[error("cannot bind {pattern}: address in use by {holder}: {socket}")]
    SocketInUse {
        /// The pattern that was refused.
        pattern: String,
        /// Who holds the socket, such as `process 12 (nginx)`; `the kernel` where no process does.
        holder: String,
        /// The state and the endpoints of the socket.
        socket: String,
    },
    /// The local address is not one of this host.
    #[error("cannot bind {pattern}: {address} is no address of this host")]
    AddressNotAvailable {
        /// The pattern that was refused.
        pattern: String,
        /// Its address.
        address: IpAddr,
    },
    /// As many bindings share a pattern by `--reuse-port` as can.
    #[error("cannot bind {pattern}: {max} bindings share it already")]
    GroupFull {
        /// The pattern.
        pattern: String,
        /// How many there may be.
        max: usize,
    },
    /// The name of a new binding is taken.
    #[error("a binding named {0:?} exists already")]
    NameTaken(String),
    /// A pattern stands for several bindings.
    #[error("{pattern:?} matches several bindings: {}", .names.join(", "))]
    AmbiguousBinding {
        /// What was given.
        pattern: String,
        /// The names of those that match.
        names: Vec<String>,
    },
    /// The binding table has no room.
    #[error("the binding table is full ({0} bindings)")]
    BindingTableFull(u32),
    /// A living process has the set of sockets.
    #[error("the socket set {name:?} is taken by process {pid} ({process})")]
    SocketSetTaken {
        /// The name of the set.
        name: String,
        /// The process that owns it.
        pid: u32,
        /// The name of that process.
        process: String,
    },
    /// A living process listens to what the programs tell.
    #[error("process {pid} ({process}) listens to the {channel} already")]
    ListenerTaken {
        /// What is listened to.
        channel: &'static str,
        /// The process that listens.
        pid: u32,
        /// The name of that process.
        process: String,
    },
    /// The set of sockets was given to somebody else meanwhile.
    #[error("the socket set {0:?} is not this process's any more")]
    SocketSetLost(String),
    /// No set of sockets more.
    #[error("cannot name another socket set: all {0} are in use")]
    SocketSetsFull(u16),
    /// No slots in a row for the sockets.
    #[error("no room for {wanted} more sockets: there are {max} slots in all")]
    SocketSlotsFull {
        /// How many sockets there should have been.
        wanted: u32,
        /// How many slots there are.
        max: u32,
    },
    /// Another XDP program is attached to the interface.
    #[error(
        "cannot attach to {interface}: XDP program {program} (id {program_id}, {mode}) is attached already"
    )]
    HookBusy {
        /// Name of the interface.
        interface: String,
        /// Name of the program that holds the hook, `?` where it cannot be read.
        program: String,
        /// Its kernel id.
        program_id: u32,
        /// `native` or `generic`.
        mode: &'static str,
    },
    /// The interface is loaded with other options.
    #[error("{interface} is loaded with other options: {}", .differences.join(", "))]
    OptionsDiffer {
        /// Name of the interface.
        interface: String,
        /// One entry each, such as `default is pass, not drop`.
        differences: Vec<String>,
        /// The command that applies them.
        remedy: String,
    },
    /// A default other than `pass` could cut off traffic that has no socket here.
    #[error("a default of {default} on {interface} could drop wanted packets: {}", .risks.join("; "))]
    UnsafeDefault {
        /// The default that was asked for.
        default: String,
        /// Name of the interface.
        interface: String,
        /// What was found, one entry each.
        risks: Vec<String>,
        /// What to do about it, one entry each.
        remedies: Vec<String>,
    },
    /// There is nothing left to confirm.
    #[error("the probation of {interface} has run out: its default is pass again")]
    ProbationOver {
        /// Name of the interface.
        interface: String,
        /// The default that was on probation.
        default: String,
    },
    /// A receive queue has the memory of somebody else's AF_XDP socket.
    #[error("cannot bind an AF_XDP socket to {queue}: it has the memory of another one already")]
    QueueBusy {
        /// The interface and the number of the queue.
        queue: String,
    },
    /// The caller may not lock as much memory.
    #[error("cannot {operation}: {bytes} bytes of memory cannot be locked")]
    LockedMemory {
        /// What was to be done.
        operation: String,
        /// How much is needed.
        bytes: u64,
    },
    /// Another demux command holds the state.
    #[error("another demux command is using {}{}", .path.display(), holders(.pids))]
    Locked {
        /// The directory that is locked.
        path: PathBuf,
        /// The processes that hold the lock, empty where they cannot be seen.
        pids: Vec<u32>,
    },
    /// The pinned state was written by a demux with another layout.
    #[error("the state in {} has layout {found}, this demux needs {expected}", .path.display())]
    LayoutMismatch {
        /// Directory of the instance.
        path: PathBuf,
        /// Layout version found.
        found: String,
        /// Layout version of this program.
        expected: String,
    },
    /// The pinned state belongs to another network namespace or another boot.
    #[error("the state in {} is stale: {reason}", .path.display())]
    StaleState {
        /// Directory of the instance.
        path: PathBuf,
        /// How it is known.
        reason: String,
    },
    /// The BPF file system would vanish together with a private mount namespace.
    #[error(
        "the BPF file system at {} is private to this mount namespace: everything pinned there is lost when it ends",
        .path.display()
    )]
    PrivateBpfFs {
        /// The mount point.
        path: PathBuf,
        /// A `-N` argument that selects the present network namespace from outside.
        namespace: Option<String>,
    },

    /// Nothing can be changed in the BPF file system.
    #[error("the BPF file system is mounted read-only: nothing can be changed in {}", .0.display())]
    ReadOnlyBpfFs(PathBuf),

    // What the kernel cannot do.
    /// The kernel is older than the programs need.
    #[error("Linux {found} is too old: demux needs {needed} or newer")]
    KernelTooOld {
        /// The release that runs.
        found: String,
        /// The oldest release that will do.
        needed: String,
    },
    /// The kernel or the driver does not have a feature.
    #[error("cannot {operation}: {reason}")]
    Unsupported {
        /// What was to be done.
        operation: String,
        /// What is missing.
        reason: String,
    },

    /// The binary was built without the BPF object.
    #[error("this demux was built without its BPF programs")]
    NoObject,

    // Whatever else the system answers.
    /// The BPF file system can be neither found nor mounted.
    #[error("cannot mount the BPF file system at {}: {reason}", .path.display())]
    CannotMount {
        /// The mount point.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A configuration file that cannot be understood.
    #[error("{}:{line}:{column}: {reason}", .path.display())]
    BadConfiguration {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A message to or from the daemon that is none.
    #[error("cannot understand the message: {reason}")]
    InvalidMessage {
        /// What is wrong with it.
        reason: String,
    },
    /// A file that is no capture of Ethernet frames, or a damaged one.
    #[error("cannot read the capture {}: {reason}", .path.display())]
    BadCapture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A system call failed.
    #[error("cannot {operation}: {}", describe(.source))]
    Io {
        /// What was to be done and to what, such as `open /sys/fs/bpf/demux`.
        operation: String,
        /// What the system answered.
        source: io::Error,
    },
    /// The system answered something that cannot be understood.
    #[error("cannot {operation}: {reason}")]
    Unexpected {
        /// What was to be done and to what.
        operation: String,
        /// What was wrong with the answer.
        reason: String,
    },
}

/// The status a command ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Permission = 4,
    Conflict = 5,
    Unsupported = 6,
}

impl Status {
    /// The status with this number; that of any other failure where there is none.
    fn of(number: u8) -> Self {
        match number {
            2 => Self::Usage,
            3 => Self::NotFound,
            4 => Self::Permission,
            5 => Self::Conflict,
            6 => Self::Unsupported,
            _ => Self::Failed,
        }
    }
}

impl Error {
    /// An [`Error::Io`]: `operation` reads on after the word "cannot".
    pub fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io {
            operation: operation.into(),
            source: source.into(),
        }
    }

    /// As [`Error::io`], but where the system forbids it, [`Error::MissingCapability`] with the capability
    /// that the operation needs.
    pub fn privileged(
        operation: impl Into<String>,
        source: impl Into<io::Error>,
        capability: Capability,
    ) -> Self {
        let source = source.into();
        if source.kind() != io::ErrorKind::PermissionDenied {
            return Self::io(operation, source);
        }
        Self::MissingCapability {
            operation: operation.into(),
            missing: vec![capability.name()],
        }
    }

    /// Why something pinned at `path`, or the pin itself, could not be had to change it: `operation` reads
    /// on after the words "not permitted to".
    pub(crate) fn unchangeable(
        operation: impl Into<String>,
        path: &Path,
        source: impl Into<io::Error>,
    ) -> Self {
        let source = source.into();
        if source.kind() == io::ErrorKind::ReadOnlyFilesystem {
            return Self::ReadOnlyBpfFs(path.to_owned());
        }
        Self::privileged(operation, source, Capability::DacOverride)
    }

    /// Whether it says that a pin may not be opened, or not in a read-only file system: links and programs
    /// cannot be opened to be read alone.
    pub(crate) fn keeps_a_pin_shut(&self) -> bool {
        matches!(self, Self::Io { source, .. } if matches!(source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    }

    /// An [`Error::Unexpected`]: `operation` reads on after the word "cannot".
    pub fn unexpected(operation: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Unexpected {
            operation: operation.into(),
            reason: reason.into(),
        }
    }

    /// An [`Error::InvalidArgument`].
    pub fn invalid(
        what: &'static str,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument {
            what,
            value: value.into(),
            reason: reason.into(),
        }
    }

    /// A stable snake_case word that names the kind of error, for programs.
    pub fn code(&self) -> &str {
        self.class().0
    }

    /// The exit status of a command that ends with this error: 1 failed, 2 usage, 3 not loaded or not
    /// found, 4 permission, 5 conflict, 6 the kernel lacks a feature.
    /// (7, "check, diff or doctor found something", is a result and not an error.)
    pub fn exit_status(&self) -> u8 {
        self.class().1 as u8
    }

    fn class(&self) -> (&str, Status) {
        match self {
            Self::InvalidArgument { .. } => ("invalid_argument", Status::Usage),

            Self::NotLoaded | Self::NoBpfFs(_) => ("not_loaded", Status::NotFound),
            Self::UnknownInterface(_) => ("unknown_interface", Status::NotFound),
            Self::NotAttached(_) => ("not_attached", Status::NotFound),
            Self::UnknownNamespace { .. } => ("unknown_namespace", Status::NotFound),
            Self::BindingNotFound(_) => ("binding_not_found", Status::NotFound),
            Self::ConnectionNotFound => ("connection_not_found", Status::NotFound),
            Self::MapNotFound(_) => ("map_not_found", Status::NotFound),

            Self::NoDaemon(_) => ("no_daemon", Status::NotFound),

            Self::MissingCapability { .. } | Self::NotAnOwner { .. } | Self::OwnerLimit { .. } => {
                ("permission_denied", Status::Permission)
            }
            Self::Refused { code, status, .. } => (code, Status::of(*status)),
            Self::DaemonRunning { .. } | Self::NamespaceServed { .. } => {
                ("daemon_running", Status::Conflict)
            }

            Self::PortsExhausted { .. } | Self::NoSource { .. } => {
                ("address_not_available", Status::Failed)
            }
            Self::Unreachable { .. } => ("unreachable", Status::Failed),
            Self::PacketTooLong { .. } => ("packet_too_long", Status::Failed),
            Self::NotReserved(_) => ("not_reserved", Status::NotFound),
            Self::ConnectionTableFull(_) => ("connection_table_full", Status::Failed),
            Self::AddressInUse { .. } | Self::SocketInUse { .. } => {
                ("address_in_use", Status::Conflict)
            }
            Self::AddressNotAvailable { .. } => ("address_not_available", Status::Failed),
            Self::GroupFull { .. } => ("group_full", Status::Failed),
            Self::NameTaken(_) => ("name_taken", Status::Conflict),
            Self::AmbiguousBinding { .. } => ("ambiguous_binding", Status::Conflict),
            Self::BindingTableFull(_) => ("binding_table_full", Status::Failed),
            Self::SocketSetTaken { .. } | Self::SocketSetLost(_) => {
                ("socket_set_taken", Status::Conflict)
            }
            Self::ListenerTaken { .. } => ("listener_taken", Status::Conflict),
            Self::SocketSetsFull(_) | Self::SocketSlotsFull { .. } => {
                ("socket_slots_full", Status::Failed)
            }
            Self::HookBusy { .. } => ("hook_busy", Status::Conflict),
            Self::OptionsDiffer { .. } => ("options_differ", Status::Conflict),
            Self::UnsafeDefault { .. } => ("unsafe_default", Status::Conflict),
            Self::ProbationOver { .. } => ("probation_over", Status::Conflict),
            Self::QueueBusy { .. } => ("queue_busy", Status::Conflict),
            Self::LockedMemory { .. } => ("locked_memory", Status::Failed),
            Self::Locked { .. } => ("locked", Status::Conflict),
            Self::LayoutMismatch { .. } => ("layout_mismatch", Status::Conflict),
            Self::StaleState { .. } => ("stale_state", Status::Conflict),
            Self::PrivateBpfFs { .. } => ("private_bpffs", Status::Conflict),

            Self::KernelTooOld { .. } => ("kernel_too_old", Status::Unsupported),
            Self::NoObject => ("no_bpf_object", Status::Failed),
            Self::Unsupported { .. } => ("unsupported", Status::Unsupported),

            Self::CannotMount { .. } => ("bpffs_unavailable", Status::Failed),
            Self::ReadOnlyBpfFs(_) => ("read_only_bpffs", Status::Failed),
            Self::BadCapture { .. } => ("bad_capture", Status::Failed),
            Self::BadConfiguration { .. } => ("bad_configuration", Status::Failed),
            Self::InvalidMessage { .. } => ("invalid_message", Status::Failed),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => ("permission_denied", Status::Permission),
                io::ErrorKind::Unsupported => ("unsupported", Status::Unsupported),
                _ => ("io_error", Status::Failed),
            },
            Self::Unexpected { .. } => ("unexpected", Status::Failed),
        }
    }

    /// What can be done about it, in one line. Every error has a hint.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoObject => "build it with: cargo xtask build".into(),
            Self::NotLoaded | Self::NoBpfFs(_) => "load it with: demux load IFACE".into(),
            Self::UnknownInterface(_) => {
                "list interfaces with: ip link; choose another namespace with -N".into()
            }
            Self::NotAttached(name) => format!("attach it with: demux load {name}"),
            Self::UnknownNamespace { .. } => {
                "give a name from: ip netns list, or a path such as /proc/PID/ns/net".into()
            }
            Self::BindingNotFound(_) => "list bindings with: demux bindings".into(),
            Self::ConnectionNotFound => "list connections with: demux connections FILTER".into(),
            Self::MapNotFound(_) => "list maps with: demux maps".into(),
            Self::MissingCapability { .. } => "run it as root, or grant the capability".into(),
            Self::NoDaemon(_) => "start it with: demux daemon".into(),
            Self::NotAnOwner {
                set, configuration, ..
            } => format!(
                "root may allow it in {}: [[owner]] user = \"NAME\" sets = [\"{set}\"]; then send the daemon SIGHUP",
                configuration.display()
            ),
            Self::OwnerLimit { configuration, .. } => format!(
                "root may allow more in {}: max_queues, max_memory_mib; then send the daemon SIGHUP",
                configuration.display()
            ),
            Self::Refused { hint, .. } => hint.clone(),
            Self::DaemonRunning { .. } => {
                "end it first, or listen elsewhere with --socket PATH".into()
            }
            Self::NamespaceServed { .. } => {
                "one serves all owners; end it first, or serve another namespace with -N".into()
            }
            Self::BadConfiguration { .. } => {
                "correct it; its form is in the README".into()
            }
            Self::InvalidMessage { .. } => {
                "use the demux library of the same version as the daemon".into()
            }
            Self::AddressInUse { .. } => {
                "see it with: demux bindings; or give both --reuse-addr or --reuse-port".into()
            }
            Self::PortsExhausted { .. } => {
                "see who has them with: demux ports; or widen it with: demux set ephemeral.range=FIRST-LAST"
                    .into()
            }
            Self::NoSource { .. } => "see: ip route get ADDRESS, ip address".into(),
            Self::Unreachable { .. } => {
                "see: ip route get ADDRESS from SOURCE, ip neighbour".into()
            }
            Self::PacketTooLong { .. } => "make shorter ones; see: ip route get ADDRESS".into(),
            Self::NotReserved(_) => {
                "see what is with: demux connections state reserved".into()
            }
            Self::ConnectionTableFull(_) => "load with a larger --max-connections".into(),
            Self::SocketInUse { .. } => {
                "see it with: ss -anptu; end it first, or bind to the stack".into()
            }
            Self::AddressNotAvailable { .. } => {
                "list addresses with: ip address; or insist with --freebind".into()
            }
            Self::GroupFull { .. } => "remove some with: demux unbind NAME".into(),
            Self::NameTaken(name) => format!("choose another name, or: demux unbind {name}"),
            Self::AmbiguousBinding { .. } => "name one of them".into(),
            Self::BindingTableFull(_) => "remove some with: demux unbind NAME".into(),
            Self::SocketSetTaken { pid, .. } => {
                format!("choose another name, or end process {pid}; demux xsks lists all sets")
            }
            Self::ListenerTaken { pid, .. } => format!("one process at a time; end process {pid}"),
            Self::SocketSetLost(_) => "open it again".into(),
            Self::SocketSetsFull(_) => {
                "end bindings to sets that nobody uses with: demux unbind NAME; demux xsks lists all sets"
                    .into()
            }
            Self::SocketSlotsFull { .. } => {
                "each receive queue of each interface takes a slot; reduce the queues with: \
                 ethtool -L IFACE combined N; demux xsks lists all sockets"
                    .into()
            }
            Self::HookBusy { interface, .. } => {
                format!("see it with: bpftool net show dev {interface}; detach it first")
            }
            Self::OptionsDiffer { remedy, .. } => format!("apply them with: {remedy}"),
            Self::UnsafeDefault { remedies, .. } => format!(
                "{}; else keep the default at pass, or insist with --force (and --try SECONDS)",
                remedies.join("; ")
            ),
            Self::ProbationOver { interface, default } => {
                format!("try it again with: demux set default@{interface}={default} --try SECONDS")
            }
            Self::QueueBusy { .. } => {
                "end the process that has it, or let several share it by way of the daemon: demux daemon"
                    .into()
            }
            Self::LockedMemory { .. } => {
                "raise the limit with: ulimit -l unlimited (LimitMEMLOCK=infinity in systemd); or use smaller rings"
                    .into()
            }
            Self::Locked { .. } => "try again when it has ended".into(),
            Self::LayoutMismatch { .. } => {
                "take the bindings along by the demux that made it: demux export > FILE; demux \
                 unload --all; then by this one: demux load IFACE; demux apply FILE"
                    .into()
            }
            Self::StaleState { .. } => "remove it with: demux clean".into(),
            Self::PrivateBpfFs { namespace, .. } => match namespace {
                Some(namespace) => {
                    format!("instead of ip netns exec, run: demux -N {namespace} COMMAND")
                }
                None => "run demux outside with -N NAME|PATH instead".into(),
            },
            Self::KernelTooOld { needed, .. } => format!("boot Linux {needed} or newer"),
            Self::CannotMount { path, .. } => format!(
                "as root: mount -t bpf bpf {}; or choose another with --bpffs PATH",
                path.display()
            ),
            Self::ReadOnlyBpfFs(path) => format!(
                "as root: mount -o remount,rw $(findmnt -n -o TARGET -T {})",
                path.display()
            ),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run it as root, or as a member of the group demux to read".into()
            }
            Self::InvalidArgument { what, .. } => correct_form(what).into(),
            Self::BadCapture { .. } => "capture frames with: tcpdump -i IFACE -w FILE".into(),
            Self::Unsupported { .. } => {
                "see what is possible with: demux load IFACE --check".into()
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "check the path".into()
            }
            Self::Io { .. } => "the kernel's log may tell more: dmesg".into(),
            Self::Unexpected { .. } => {
                "if it happens again, report this line and the output of: uname -r; demux --version"
                    .into()
            }
        })
    }
}

/// How an argument is written.
fn correct_form(what: &str) -> &'static str {
    match what {
        "local endpoint" => {
            "write ADDRESS:PORT, such as 10.0.0.2:80, [::1]:80, :8000-8999 or 10.0.0.0/8:*"
        }
        "setting" => "see what there is with: demux settings",
        "binding name" => "choose letters, digits, dots, dashes and underscores, such as web-1",
        "filter" => "see: demux connections --help",
        "IP packet" => "give one whole IPv4 or IPv6 packet, without an Ethernet header",
        "column" => "see: demux top --help",
        "kill filter" => {
            "say which, as in: demux kill remote 192.0.2.7; or end all of them: demux kill state all"
        }
        "packet" | "endpoint" | "endpoints" | "direction" | "TCP flags" => {
            "write it as in: demux explain tcp from 10.0.0.1:40000 to 10.0.0.2:80 --flags syn"
        }
        _ => "see: demux --help, and the --help of the command",
    }
}

fn holders(pids: &[u32]) -> String {
    match pids {
        [] => String::new(),
        [pid] => format!(" (process {pid})"),
        pids => {
            let pids: Vec<_> = pids.iter().map(u32::to_string).collect();
            format!(" (processes {})", pids.join(", "))
        }
    }
}

/// The system's words without the number that `io::Error` appends.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => text
            .strip_suffix(&format!(" (os error {code})"))
            .unwrap_or(&text)
            .to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_decides_code_and_status_of_an_io_error() {
        for (errno, code, status) in [
            (libc::EPERM, "permission_denied", 4),
            (libc::EACCES, "permission_denied", 4),
            (libc::EOPNOTSUPP, "unsupported", 6),
            (libc::EIO, "io_error", 1),
        ] {
            let error = Error::io("do it", io::Error::from_raw_os_error(errno));
            assert_eq!((error.code(), error.exit_status()), (code, status));
        }
    }

    #[test]
    fn an_error_is_one_line_without_the_number_of_the_errno() {
        let error = Error::io("open /x", io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.to_string(), "cannot open /x: Operation not permitted");
    }

    #[test]
    fn holders_of_a_lock_are_named() {
        let locked = |pids: &[u32]| {
            Error::Locked {
                path: "/a".into(),
                pids: pids.to_vec(),
            }
            .to_string()
        };
        assert_eq!(locked(&[]), "another demux command is using /a");
        assert_eq!(
            locked(&[7]),
            "another demux command is using /a (process 7)"
        );
        assert_eq!(
            locked(&[7, 8]),
            "another demux command is using /a (processes 7, 8)"
        );
    }
}
