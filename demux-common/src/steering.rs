//! Targets beyond the stack of the present processor: other CPUs, and AF_XDP sockets.
//!
//! A binding to `cpu:LIST` has a [`CpuList`] at its own index; its connections spread over the list by
//! the hash of the four-tuple, so a connection stays on its CPU as long as the binding exists.
//!
//! A binding to `xsk:NAME` names an [`XskSet`]: sockets of one owner, one for each receive queue of each
//! of its interfaces. The sockets stand in the map `XSKS`; those of one interface have as many slots in
//! a row as it has queues. A slot is filled once its socket is bound to that queue, and the kernel
//! itself empties it when the socket is closed.

use crate::{
    binding::{Binding, Target},
    config::{Interface, Mode},
    decide::PackedDecision,
    reason::{Reason, Verdict},
    tables::{Kernel, Tables},
};

/// How many CPUs a binding may name.
pub const MAX_CPUS: usize = 64;

/// The CPUs of a binding.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::FromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct CpuList {
    /// Their numbers, in ascending order.
    pub cpus: [u16; MAX_CPUS],
    /// How many there are; 0 for a binding to another target.
    pub count: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<CpuList>() == 136);

impl CpuList {
    /// No CPU.
    pub const EMPTY: Self = Self {
        cpus: [0; MAX_CPUS],
        count: 0,
        reserved: 0,
    };

    /// The CPU of a connection, by the hash of its four-tuple; `None` where the list is empty.
    #[inline(always)]
    #[must_use]
    pub fn pick(&self, hash: u32) -> Option<u16> {
        let count = u64::from(self.count);
        let place = (u64::from(hash) * count) >> 32;
        if count == 0 {
            return None;
        }
        // The mask is for the verifier, which does not follow the product.
        Some(self.cpus[place as usize & (MAX_CPUS - 1)])
    }

    /// The numbers.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        &self.cpus[..(self.count as usize).min(MAX_CPUS)]
    }
}

/// Bytes of a set's name, with the zero at its end.
pub const NAME_LEN: usize = 32;

/// On how many interfaces a set may have sockets.
pub const MAX_INTERFACES: usize = 4;

/// The sockets of a set on one interface. One aligned word, so that it is read and written whole.
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
#[repr(C, align(8))]
pub struct XskInterface {
    /// The index of the interface; 0 where this entry is not used.
    pub ifindex: u32,
    /// The slot in `XSKS` of its first receive queue.
    pub first_slot: u16,
    /// How many queues it has, and so how many slots in a row.
    pub queues: u16,
}

/// Who has the sockets of a set.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Ownership {
    /// Nobody: the set is only named by bindings.
    None = 0,
    /// A process that opened them itself.
    Direct = 1,
    /// The daemon, for the process that is named.
    Daemon = 2,
}

/// A named set of AF_XDP sockets. An entry whose name is empty is free; entry 0 is never used.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(C)]
pub struct XskSet {
    /// The interfaces on which it has sockets; those behind the last are all zero.
    pub interfaces: [XskInterface; MAX_INTERFACES],
    /// The name, ASCII, padded with zeros.
    pub name: [u8; NAME_LEN],
    /// When the owner's process was started, in clock ticks since boot (field 22 of
    /// /proc/PID/stat): with `pid` it names one process.
    pub started: u64,
    /// When the holder was started, likewise.
    pub holder_started: u64,
    /// The process that owns the sockets.
    pub pid: u32,
    /// The user of that process.
    pub uid: u32,
    /// The process that holds the sockets: the owner itself, or the daemon.
    pub holder: u32,
    /// Moves on whenever somebody opens the set.
    pub generation: u32,
    /// The longest frame that its sockets take, in bytes.
    pub longest: u32,
    /// Who has the sockets.
    pub ownership: Ownership,
    /// Zero.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<XskSet>() == 104);

impl XskSet {
    /// A free entry.
    pub const FREE: Self = Self {
        interfaces: [XskInterface {
            ifindex: 0,
            first_slot: 0,
            queues: 0,
        }; MAX_INTERFACES],
        name: [0; NAME_LEN],
        started: 0,
        holder_started: 0,
        pid: 0,
        uid: 0,
        holder: 0,
        generation: 0,
        longest: 0,
        ownership: Ownership::None,
        reserved: [0; 3],
    };
}

/// What user space keeps of the socket in a slot; the datapath does not look at it.
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
pub struct XskSocket {
    /// Its SO_COOKIE; 0 where the slot was never filled.
    pub cookie: u64,
    /// Its descriptor in the process that holds it.
    pub fd: u32,
    /// 1 in zero-copy mode.
    pub zero_copy: u32,
}

/// Hands a frame to the socket of its receive queue, or to the fallback of the binding; the decision
/// says where it goes. `ifindex` is the interface on which it has arrived.
#[inline(always)]
pub fn to_socket<T: Kernel + ?Sized>(
    tables: &T,
    ifindex: u32,
    length: u32,
    decision: PackedDecision,
) -> PackedDecision {
    match tables.binding(decision.binding()) {
        Some(binding) => to_socket_of(tables, binding, ifindex, length, decision),
        None => dropped(decision),
    }
}

/// As [`to_socket`], of a binding that was looked up.
#[inline(always)]
pub(crate) fn to_socket_of<T: Kernel + ?Sized>(
    tables: &T,
    binding: &Binding,
    ifindex: u32,
    length: u32,
    decision: PackedDecision,
) -> PackedDecision {
    let Some(set) = tables.xsk_set(binding.set) else {
        return fallen_back(binding, decision, Reason::NoTarget);
    };
    let queue = tables.rx_queue();
    for interface in &set.interfaces {
        // Read whole, and once.
        let interface = *interface;
        if interface.ifindex != ifindex || queue >= u32::from(interface.queues) {
            continue;
        }
        if length > set.longest {
            return fallen_back(binding, decision, Reason::TooLong);
        }
        if tables.redirect_to_socket(u32::from(interface.first_slot) + queue) {
            return decision;
        }
        break;
    }
    fallen_back(binding, decision, Reason::NoTarget)
}

/// Whether packets of an interface can be handed to other CPUs. In generic mode the kernel breaks what
/// a program that takes frames in several buffers redirects there (seen on Linux 6.18: the IP header is
/// looked for in the wrong place).
#[inline(always)]
pub(crate) const fn reaches_cpus(interface: &Interface) -> bool {
    matches!(interface.mode, Mode::Native)
}

/// What becomes of a packet that cannot be handed to another CPU as it is: it goes up the stack on this
/// one.
#[inline(always)]
pub(crate) const fn stays(decision: PackedDecision) -> PackedDecision {
    decision.instead(Verdict::Pass, Target::Stack, Reason::NoTarget)
}

/// Hands a frame to the CPU of its connection, whose four-tuple has this hash, or to the fallback of
/// the binding.
#[inline(always)]
pub fn to_cpu<T: Tables + ?Sized>(
    tables: &T,
    hash: u32,
    decision: PackedDecision,
) -> PackedDecision {
    match tables.binding(decision.binding()) {
        Some(binding) => to_cpu_of(tables, binding, hash, decision),
        None => dropped(decision),
    }
}

/// As [`to_cpu`], of a binding that was looked up.
#[inline(always)]
pub(crate) fn to_cpu_of<T: Tables + ?Sized>(
    tables: &T,
    binding: &Binding,
    hash: u32,
    decision: PackedDecision,
) -> PackedDecision {
    match tables.cpu(decision.binding(), hash) {
        Some(cpu) if tables.redirect_to_cpu(u32::from(cpu)) => decision,
        _ => fallen_back(binding, decision, Reason::NoTarget),
    }
}

/// What becomes of a packet that the target of its binding cannot take.
#[inline(always)]
fn fallen_back(binding: &Binding, decision: PackedDecision, reason: Reason) -> PackedDecision {
    if binding.has(Binding::FALLBACK_STACK) {
        decision.instead(Verdict::Pass, Target::Stack, reason)
    } else {
        decision.instead(Verdict::Drop, Target::Drop, reason)
    }
}

#[inline(always)]
fn dropped(decision: PackedDecision) -> PackedDecision {
    decision.instead(Verdict::Drop, Target::Drop, Reason::NoTarget)
}
