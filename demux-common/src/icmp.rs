//! ICMP and ICMPv6 errors about connections that somebody else than the kernel serves.
//!
//! An error quotes the packet that caused it (RFC 792; RFC 4443), of which the addresses and ports are
//! enough to find the row. Where its binding is steered, the error goes to the connection's owner;
//! else, as all ICMP, to the kernel.

use crate::{
    address::Family, fragments::network, packet::Packet, parse::Parsed, tables::Kernel,
    wire::loose::Loose,
};

const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// Bytes of an error in front of the packet that it quotes.
const HEADER: usize = 8;

/// Reads an error that arrived on the interface in a slot: the four-tuple that it is about. `false`
/// where the frame is none, or quotes too little.
#[inline(always)]
pub fn read<P, T>(packet: &P, tables: &T, slot: u32, parsed: &mut Parsed) -> bool
where
    P: Packet + ?Sized,
    T: Kernel + ?Sized,
{
    read_within(packet, tables, slot, parsed).is_some()
}

#[inline(always)]
fn read_within<P, T>(packet: &P, tables: &T, slot: u32, parsed: &mut Parsed) -> Option<()>
where
    P: Packet + ?Sized,
    T: Kernel + ?Sized,
{
    let mut header = Loose::EMPTY;
    let network = network(packet, tables, slot)?;
    if !tables.read_loose(packet, network, &mut header) {
        return None;
    }
    let [kind, ..] = *packet.get::<HEADER>(header.transport())?;
    let told = header.destination;
    let is_error = match (told.family(), header.protocol) {
        // Destination unreachable, source quench, time exceeded, parameter problem.
        (Family::Ipv4, ICMP) => matches!(kind, 3 | 4 | 11 | 12),
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (Family::Ipv6, ICMPV6) => matches!(kind, 1..=4),
        _ => false,
    };
    if !is_error {
        return None;
    }
    let quotation = header.transport() + HEADER;
    if !tables.read_loose(packet, quotation, &mut header) || header.is_first == 0 {
        return None;
    }
    let protocol = header.transport_protocol()?;
    let [a, b, c, d] = *packet.get::<4>(header.transport())?;
    // Whoever sent the quoted packet is the one to be told: its source is local.
    if header.source.words() != told.words() {
        return None;
    }
    parsed.key.local_address = header.source;
    parsed.key.remote_address = header.destination;
    parsed.key.local_port = u16::from_be_bytes([a, b]);
    parsed.key.remote_port = u16::from_be_bytes([c, d]);
    parsed.key.protocol = protocol;
    parsed.family = told.family();
    Some(())
}
