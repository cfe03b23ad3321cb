//! Fragments of packets whose binding is not the stack.
//!
//! Only the first fragment has ports. It tells whose the packet is, which is remembered for
//! [`LIFETIME`] under what all fragments of a packet have in common; the later ones follow it. Those
//! that come before the first, or are remembered no more, pass to the stack, which throws them away
//! when the rest does not come. Fragments make no rows and are not counted in any.
//!
//! A sender may use an identification again. So the first fragment of a packet that is the stack's ends
//! what was remembered under its own.

use crate::{
    address::{Address, Family},
    binding::Target,
    config::Interface,
    decide::{binding_of, is_own, target_of},
    packet::Packet,
    parse::Parsed,
    protocol::Protocol,
    tables::{Kernel, Tables},
    wire::{ethernet, ethernet::Station, loose::Loose},
};

/// How long the owner of a packet is remembered, in nanoseconds: as long as the kernel waits for the
/// rest of an IPv4 packet (`ipfrag_time`).
pub const LIFETIME: u64 = 30_000_000_000;

/// What all fragments of one packet have in common (RFC 791, section 3.2; RFC 8200, section 4.5).
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
pub struct Datagram {
    /// Who has sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The identification.
    pub id: u32,
    /// The number of the protocol. 0 for IPv6, whose fragments may differ in it: only what the first one
    /// says counts.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Datagram>() == 40);

/// Whose a packet in fragments is.
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
pub struct Owner {
    /// When this is to be forgotten, by the coarse monotonic clock in nanoseconds.
    pub expires: u64,
    /// The configuration epoch in which the first fragment arrived.
    pub epoch: u32,
    /// This host's port.
    pub local_port: u16,
    /// The other host's port.
    pub remote_port: u16,
    /// The index of the binding; 0 where the packet is the stack's.
    pub binding: u32,
    /// The number of the protocol: TCP or UDP.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Owner>() == 24);

/// What a frame is that the parser took for a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Not for this host's station, or cut too short to say more.
    Other = 0,
    /// The first fragment: it has the ports.
    First = 1,
    /// A later one.
    Later = 2,
    /// The first fragment of a packet that has no ports.
    Portless = 3,
}

/// Reads a fragment that arrived on the interface in a slot: addresses, protocol, ports if it is the
/// first, and the identification in the place of the sequence number.
#[inline(always)]
pub fn read<P, T>(packet: &P, tables: &T, slot: u32, parsed: &mut Parsed) -> Kind
where
    P: Packet + ?Sized,
    T: Kernel + ?Sized,
{
    let mut header = Loose::EMPTY;
    let Some(network) = network(packet, tables, slot) else {
        return Kind::Other;
    };
    if !tables.read_loose(packet, network, &mut header) {
        return Kind::Other;
    }
    parsed.key.local_address = header.destination;
    parsed.key.remote_address = header.source;
    parsed.family = header.destination.family();
    parsed.segment.sequence = header.id;
    let is_v4 = matches!(parsed.family, Family::Ipv4);
    match header.transport_protocol() {
        Some(protocol) => parsed.key.protocol = protocol,
        // Of IPv4, all fragments of a packet say the same.
        None if is_v4 => return Kind::Other,
        None if header.is_first != 0 => return Kind::Portless,
        None => {}
    }
    if header.is_first == 0 {
        return Kind::Later;
    }
    let Some(ports) = packet.get::<4>(header.transport()) else {
        return Kind::Other;
    };
    let [a, b, c, d] = *ports;
    parsed.key.local_port = u16::from_be_bytes([c, d]);
    parsed.key.remote_port = u16::from_be_bytes([a, b]);
    Kind::First
}

/// Where the IP header of a frame is that is for the station of the interface in a slot.
#[inline(always)]
pub(crate) fn network<P, T>(packet: &P, tables: &T, slot: u32) -> Option<usize>
where
    P: Packet + ?Sized,
    T: Kernel + ?Sized,
{
    let Interface { station, .. } = *tables.interface(slot)?;
    let frame = ethernet::read(packet).ok()?;
    (frame.destination == Station::new(station)).then_some(frame.payload)
}

/// The binding of a first fragment's local endpoint, if its packets do not go up the stack or are
/// refused, and it is for this host; else 0.
#[inline(always)]
pub fn binding<T: Kernel + ?Sized>(tables: &T, parsed: &Parsed, slot: u32) -> u16 {
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return 0;
    };
    let (key, family) = (&parsed.key, parsed.family);
    let binding = binding_of(tables, key, family, interface, 0);
    let (target, _) = target_of(tables, binding);
    let is_followed = target.is_steered() || matches!(target, Target::Drop);
    if is_followed && is_own(tables, &key.local_address, family, config) && !tables.may_forward(key)
    {
        binding
    } else {
        0
    }
}

/// Remembers whose a packet is, by its first fragment. That one is the stack's, where `binding` is 0,
/// only if something else is remembered.
#[inline(always)]
pub fn remember<T: Tables + ?Sized>(tables: &T, parsed: &Parsed, binding: u16) {
    let Some(config) = tables.config() else {
        return;
    };
    let datagram = Datagram::of(parsed);
    if binding == 0 && tables.kept_owner(&datagram).is_none() {
        return;
    }
    let owner = Owner {
        expires: tables.coarse_ns() + LIFETIME,
        epoch: config.epoch,
        local_port: parsed.key.local_port,
        remote_port: parsed.key.remote_port,
        binding: u32::from(binding),
        protocol: u32::from(parsed.key.protocol.ip_number()),
    };
    tables.keep_owner(&datagram, &owner);
}

/// The binding of the packet that a later fragment is of, whose protocol and ports are filled in; 0 where
/// that is not known any more.
#[inline(always)]
pub fn recall<T: Tables + ?Sized>(tables: &T, parsed: &mut Parsed) -> u16 {
    let Some(owner) = tables.kept_owner(&Datagram::of(parsed)) else {
        return 0;
    };
    let binding = owner.binding as u16;
    let is_known = owner.expires > tables.coarse_ns()
        && tables
            .binding(binding)
            .is_some_and(|binding| binding.is_of(owner.epoch));
    if !is_known {
        return 0;
    }
    parsed.key.protocol = if owner.protocol == u32::from(Protocol::Tcp.ip_number()) {
        Protocol::Tcp
    } else {
        Protocol::Udp
    };
    parsed.key.local_port = owner.local_port;
    parsed.key.remote_port = owner.remote_port;
    binding
}

impl Datagram {
    /// The packet of a fragment that was [read].
    #[inline(always)]
    fn of(parsed: &Parsed) -> Self {
        let key = &parsed.key;
        Self {
            source: Address::from_words(key.remote_address.words()),
            destination: Address::from_words(key.local_address.words()),
            id: parsed.segment.sequence,
            protocol: match parsed.family {
                Family::Ipv4 => u32::from(key.protocol.ip_number()),
                Family::Ipv6 => 0,
            },
        }
    }
}
