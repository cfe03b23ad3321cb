//! Refusals made at the driver: a TCP reset, or an ICMP port unreachable.
//!
//! What a refused packet is turned into:
//! - a TCP segment into the reset that a host without such a connection sends (RFC 9293, section
//!   3.10.7.1), whatever its flags, as Linux does (`tcp_v4_send_reset`); only a reset is never
//!   answered;
//! - a UDP datagram into an ICMP destination unreachable, port unreachable (RFC 792; type 3, code
//!   3) that quotes what fits into 576 bytes, or for IPv6 (RFC 4443; type 1, code 4) into 1,280.
//!
//! [`refuse`] is the way of a packet that is to be refused. It leaves with one of these outcomes:
//!
//! | verdict | reason | why |
//! |---|---|---|
//! | reject | as decided | the frame is the reply now |
//! | drop | `unanswerable` | nobody may be answered: see [`may_be_answered`] |
//! | drop | `rate-limited` | too many were answered lately: see [`Budget`] |
//! | drop | `bad-checksum` | the packet is damaged: see [`checksum`] |
//! | pass | `no-reply-path` | a reply would not leave, and no socket takes the packet: the kernel refuses it |
//! | drop | `no-reply-path` | the same, but a socket would take it |
//!
//! The reply is written over the packet. That of TCP is shorter than any segment and takes its
//! place; that of UDP goes in front of the datagram, which is then the quotation.
//!
//! A frame of several buffers has no reply path: its end is out of the program's reach, so it cannot
//! be verified. Nor has one of more than [`LONGEST`] bytes.

mod budget;
pub mod checksum;
mod reply;

use crate::{
    address::{Address, Family},
    binding::Target,
    config::{Interface, Reply},
    decide::PackedDecision,
    packet::Packet,
    parse::Parsed,
    protocol::Protocol,
    reason::{Reason, Verdict},
    tables::{Kernel, KernelSocket},
    tcp::Flags,
    wire::ethernet,
};

pub use budget::{BURST, Budget, RATE};

/// The longest frame that is answered, in bytes. Longer ones are jumbo frames in several buffers, or
/// what generic mode shows of segments that were merged on arrival.
pub const LONGEST: usize = 0x3fff;

/// A frame that can be turned into the answer to it.
pub trait Rewrite: Packet {
    /// Adds `length` bytes at `offset` to a sum of 16-bit words in memory order, as [`checksum`]
    /// has it; a last odd byte counts as if a zero followed. `None` where they are not all within
    /// reach.
    fn sum(&self, offset: usize, length: usize, sum: u32) -> Option<u32>;

    /// Writes a value; does nothing where the frame is shorter.
    fn put<T: Copy>(&mut self, offset: usize, value: &T);

    /// Makes room for `front` bytes before the frame, and then cuts it to `length` bytes, which are
    /// no more than there are. `false` where that cannot be done, and the frame is as it was.
    fn reshape(&mut self, front: usize, length: usize) -> bool;
}

/// Answers a packet that was decided to be refused, and says what became of it. The frame has
/// changed only where the verdict is still [`Verdict::Reject`].
#[inline(always)]
pub fn refuse<F, T>(
    frame: &mut F,
    tables: &T,
    parsed: &Parsed,
    slot: u32,
    decision: PackedDecision,
) -> PackedDecision
where
    F: Rewrite,
    T: Kernel + ?Sized,
{
    let dropped = |reason| decision.instead(Verdict::Drop, Target::Drop, reason);
    let (Some(interface), Some(config)) = (tables.interface(slot), tables.config()) else {
        return dropped(Reason::Unanswerable);
    };
    let Ok(ethernet) = ethernet::read(frame) else {
        return dropped(Reason::Unanswerable);
    };
    let is_loopback = is_loopback(interface);
    if !may_be_answered(parsed, is_loopback)
        || is_from_a_group(frame)
        || !is_loopback && tables.is_local(&parsed.key.remote_address, config.local_prefixes != 0)
    {
        return dropped(Reason::Unanswerable);
    }
    let length = frame.linear_len();
    if matches!(interface.reply, Reply::None) || length > LONGEST || length != frame.frame_len() {
        return unsent(tables, parsed, decision);
    }
    // Before the checksum, which is what costs most: a flood is to cost no more than it must.
    let budget = tables.budget().filled(tables.ticks(), config.clock.tick_ns);
    let Some(rest) = budget.spent() else {
        return dropped(Reason::RateLimited);
    };
    let network = ethernet.payload;
    let Some(total) = checksum::verify(frame, parsed, network) else {
        return dropped(Reason::BadChecksum);
    };
    let is_written = match parsed.key.protocol {
        Protocol::Tcp => reply::reset(frame, parsed, network),
        Protocol::Udp => reply::unreachable(frame, parsed, network, total),
    };
    if !is_written {
        return unsent(tables, parsed, decision);
    }
    tables.set_budget(&rest);
    if matches!(interface.reply, Reply::Redirect) {
        decision.by_redirect()
    } else {
        decision
    }
}

/// What becomes of a packet that cannot be answered here: the kernel refuses it, unless it would not.
#[inline(always)]
fn unsent<T: Kernel + ?Sized>(
    tables: &T,
    parsed: &Parsed,
    decision: PackedDecision,
) -> PackedDecision {
    match tables.kernel_socket(&parsed.key) {
        KernelSocket::None => decision.instead(Verdict::Pass, Target::Stack, Reason::NoReplyPath),
        _ => decision.instead(Verdict::Drop, Target::Drop, Reason::NoReplyPath),
    }
}

/// Whether an interface is the loopback interface, which alone has no address of its own.
const fn is_loopback(interface: &Interface) -> bool {
    let [a, b, c, d, e, f] = interface.station;
    a | b | c | d | e | f == 0
}

/// Whether a packet may be answered by whoever it is addressed to, as far as its addresses and flags
/// tell (RFC 1122, section 3.2.2; RFC 4443, section 2.4 (e)): not a reset, nothing from a source
/// that is no host, nothing from or to a loopback address that came by a wire, and not what claims
/// to come from its own destination.
///
/// Fragments, ICMP and groups as destinations are none of the parser's packets, so they do not come
/// here.
#[inline(always)]
#[must_use]
pub fn may_be_answered(parsed: &Parsed, is_loopback: bool) -> bool {
    let key = &parsed.key;
    if matches!(key.protocol, Protocol::Tcp) && parsed.segment.flags.has(Flags::RST) {
        return false;
    }
    // A remote that is a group, everybody or nobody, and the land attack.
    if !parsed.may_be_tracked() {
        return false;
    }
    let is_inner = |address: &Address| match parsed.family {
        Family::Ipv4 => address.is_v4_loopback(parsed.family),
        Family::Ipv6 => address.words() == LOOPBACK_V6.words(),
    };
    is_loopback || !is_inner(&key.remote_address) && !is_inner(&key.local_address)
}

/// `::1`.
const LOOPBACK_V6: Address = Address::from_v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

/// Whether the frame names a group of stations as its sender, whom nobody can answer.
#[inline(always)]
fn is_from_a_group<F: Packet>(frame: &F) -> bool {
    frame
        .get::<12>(0)
        .is_none_or(|[.., first, _, _, _, _, _]| first & 1 != 0)
}
