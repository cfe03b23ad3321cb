//! Packets and what became of them, as the programs tell them to a listener.
//!
//! A [`Selection`] is what the programs look at before they tell anything: a conjunction of plain
//! comparisons. Whoever asks for more selects a superset and looks again himself.

use crate::{
    address::Address, connection::Direction, decide::PackedDecision, listen::ListenerCounts,
    parse::Parsed, protocol::Protocol, reason::REASON_SLOTS,
};

/// A packet: a record of the ring buffer `TRACES`.
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
#[repr(C, align(8))]
pub struct Trace {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub time_ns: u64,
    /// The [`PackedDecision`]; 0 for a packet that leaves.
    pub decision: u64,
    /// This host's address; of this and what follows up to `flags` nothing is known where the packet
    /// was not parsed.
    pub local_address: Address,
    /// The other host's address.
    pub remote_address: Address,
    /// This host's port.
    pub local_port: u16,
    /// The other host's port.
    pub remote_port: u16,
    /// The number of the [`Protocol`].
    pub protocol: u32,
    /// Control bits of a TCP segment; 0 for UDP.
    pub flags: u8,
    /// The number of the [`Direction`]: whether the packet arrived or leaves.
    pub direction: u8,
    /// 1 where the packet was parsed.
    pub is_parsed: u8,
    /// Zero.
    pub reserved: u8,
    /// SEG.SEQ of a TCP segment.
    pub sequence: u32,
    /// SEG.ACK of a TCP segment with ACK.
    pub acknowledgement: u32,
    /// The length of the frame in bytes.
    pub length: u32,
    /// The interface.
    pub ifindex: u32,
    /// The CPU.
    pub cpu: u32,
    /// Segments that a packet which leaves will be cut into; 1 for most.
    pub segments: u32,
    /// Zero.
    pub reserved_too: u32,
}

const _: () = assert!(size_of::<Trace>() == 88);

impl Trace {
    /// TCP or UDP.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        if self.protocol == 0 {
            Protocol::Tcp
        } else {
            Protocol::Udp
        }
    }

    /// Whether the packet arrived or leaves.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        if self.direction == 0 {
            Direction::In
        } else {
            Direction::Out
        }
    }
}

/// Which packets are told.
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
pub struct Selection {
    /// This host's address, as far as the mask goes.
    pub local_address: Address,
    /// The bits of it that count, in the same order.
    pub local_mask: Address,
    /// The other host's address, as far as the mask goes.
    pub remote_address: Address,
    /// The bits of it that count.
    pub remote_mask: Address,
    /// The first port of this host.
    pub local_first: u16,
    /// The last.
    pub local_last: u16,
    /// The first port of the other host.
    pub remote_first: u16,
    /// The last.
    pub remote_last: u16,
    /// By the number of a reason, 1 where it is wanted.
    pub reasons: u32,
    /// By the number of a verdict.
    pub verdicts: u32,
    /// By the number of a [`Direction`].
    pub directions: u32,
    /// By the number of a protocol.
    pub protocols: u32,
    /// 1 where packets that were not parsed are wanted.
    pub unparsed: u32,
    /// The interface; 0 for any.
    pub ifindex: u32,
    /// Of so many packets that match one is told, by chance; 0 and 1 for all.
    pub one_in: u32,
    /// How many are told in one unit of [`crate::clock`], by each CPU; 0 for as many as there are.
    pub per_unit: u32,
}

const _: () = assert!(size_of::<Selection>() == 104);

impl Selection {
    /// Every packet.
    pub const ALL: Self = Self {
        local_address: Address::from_words([0; 2]),
        local_mask: Address::from_words([0; 2]),
        remote_address: Address::from_words([0; 2]),
        remote_mask: Address::from_words([0; 2]),
        local_first: 0,
        local_last: u16::MAX,
        remote_first: 0,
        remote_last: u16::MAX,
        reasons: u32::MAX,
        verdicts: u32::MAX,
        directions: u32::MAX,
        protocols: u32::MAX,
        unparsed: 1,
        ifindex: 0,
        one_in: 1,
        per_unit: 0,
    };

    /// Whether a packet is wanted.
    #[inline(always)]
    #[must_use]
    pub fn wants(&self, packet: &Seen<'_>) -> bool {
        let reason = 1_u32 << (packet.decision.reason_number() & (REASON_SLOTS - 1));
        let is_arriving = matches!(packet.direction, Direction::In);
        if self.directions >> (packet.direction as u32 & 1) & 1 == 0
            || self.ifindex != 0 && self.ifindex != packet.ifindex
            || is_arriving
                && (self.reasons & reason == 0
                    || self.verdicts >> packet.decision.verdict_number() & 1 == 0)
        {
            return false;
        }
        if !packet.is_parsed {
            return self.unparsed != 0;
        }
        let key = &packet.parsed.key;
        self.protocols >> (key.protocol as u32 & 1) & 1 != 0
            && (self.local_first..=self.local_last).contains(&key.local_port)
            && (self.remote_first..=self.remote_last).contains(&key.remote_port)
            && is_within(&key.local_address, &self.local_address, &self.local_mask)
            && is_within(&key.remote_address, &self.remote_address, &self.remote_mask)
    }
}

#[inline(always)]
fn is_within(address: &Address, wanted: &Address, mask: &Address) -> bool {
    let ([a, b], [c, d], [e, f]) = (address.words(), wanted.words(), mask.words());
    (a ^ c) & e | (b ^ d) & f == 0
}

/// A packet that may be told.
pub struct Seen<'a> {
    /// Its headers, local side first.
    pub parsed: &'a Parsed,
    /// Whether they were parsed without doubt.
    pub is_parsed: bool,
    /// What became of it; 0 for one that leaves.
    pub decision: PackedDecision,
    /// Whether it arrived or leaves.
    pub direction: Direction,
    /// The interface.
    pub ifindex: u32,
}

impl Seen<'_> {
    /// Writes the record, but for its time and its CPU.
    #[inline(always)]
    pub fn describe(&self, segments: u32, trace: &mut Trace) {
        let (key, segment) = (&self.parsed.key, &self.parsed.segment);
        trace.decision = self.decision.plain().0;
        trace.local_address = key.local_address;
        trace.remote_address = key.remote_address;
        trace.local_port = key.local_port;
        trace.remote_port = key.remote_port;
        trace.protocol = key.protocol as u32;
        let is_tcp = self.is_parsed && matches!(key.protocol, Protocol::Tcp);
        trace.flags = if is_tcp { segment.flags.0 as u8 } else { 0 };
        trace.direction = self.direction as u8;
        trace.is_parsed = self.is_parsed as u8;
        trace.sequence = segment.sequence;
        trace.acknowledgement = segment.acknowledgement;
        trace.length = self.parsed.frame_len;
        trace.ifindex = self.ifindex;
        trace.segments = segments;
    }
}

impl ListenerCounts {
    /// Takes one record from the allowance of a unit of the clock; `false` where nothing is left.
    #[inline(always)]
    pub fn take(&mut self, unit: u32, per_unit: u32) -> bool {
        if per_unit == 0 {
            return true;
        }
        if self.unit != unit {
            self.unit = unit;
            self.left = per_unit;
        }
        if self.left == 0 {
            self.held_back += 1;
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_for_one_unit_of_the_clock() {
        let mut counts = ListenerCounts::default();
        let told =
            |counts: &mut ListenerCounts, unit| (0..5).filter(|_| counts.take(unit, 3)).count();
        assert_eq!(told(&mut counts, 7), 3);
        assert_eq!(told(&mut counts, 8), 3);
        assert_eq!(counts.held_back, 4);
        assert!((0..9).all(|_| counts.take(8, 0)));
    }

    #[test]
    fn a_selection_wants_what_meets_all_of_it() {
        let mut parsed = Parsed::EMPTY;
        parsed.key.local_address = Address::from_v4([10, 0, 0, 2]);
        parsed.key.local_port = 80;
        let seen = |direction, is_parsed| Seen {
            parsed: &parsed,
            is_parsed,
            decision: PackedDecision(1 | 5 << 24),
            direction,
            ifindex: 3,
        };
        let arrived = seen(Direction::In, true);
        assert!(Selection::ALL.wants(&arrived));
        let wants = |change: &dyn Fn(&mut Selection), packet: &Seen<'_>| {
            let mut selection = Selection::ALL;
            change(&mut selection);
            selection.wants(packet)
        };
        assert!(wants(&|s| s.reasons = 1 << 5, &arrived));
        assert!(!wants(&|s| s.reasons = !(1 << 5), &arrived));
        assert!(wants(
            &|s| s.reasons = !(1 << 5),
            &seen(Direction::Out, true)
        ));
        assert!(!wants(&|s| s.verdicts = 1, &arrived));
        assert!(!wants(&|s| s.directions = 2, &arrived));
        assert!(!wants(&|s| s.ifindex = 4, &arrived));
        assert!(!wants(&|s| s.protocols = 2, &arrived));
        assert!(!wants(&|s| s.local_last = 79, &arrived));
        assert!(!wants(&|s| s.remote_first = 1, &arrived));
        assert!(!wants(&|s| s.unparsed = 0, &seen(Direction::In, false)));
        let network = |last: u8, mask: [u64; 2]| {
            move |selection: &mut Selection| {
                selection.local_address = Address::from_v4([10, 0, 0, last]);
                selection.local_mask = Address::from_words(mask);
            }
        };
        assert!(wants(&network(2, [u64::MAX; 2]), &arrived));
        assert!(!wants(&network(3, [u64::MAX; 2]), &arrived));
        let prefix = u64::from_ne_bytes([255, 255, 255, 255, 255, 255, 255, 0]);
        assert!(wants(&network(3, [u64::MAX, prefix]), &arrived));
    }
}
