//! What demux is meant to reach, and the names of the cases that say whether it does.

/// Names of cases.
pub(crate) mod name {
    pub(crate) const PARSE: &str = "parse tcp4";
    pub(crate) const SKC_V4: &str = "skc-lookup tcp4 hot";
    pub(crate) const SKC_V6: &str = "skc-lookup tcp6 hot";
    pub(crate) const XDP_FILTER: &str = "xdp-filter tcp4 hot";
    pub(crate) const XDP_FILTER_TCP: &str = "xdp-filter tcp4 hot (tcp only)";
    pub(crate) const TCP4: &str = "demux tcp4 hot";
    pub(crate) const TCP6: &str = "demux tcp6 hot";
    pub(crate) const UDP4: &str = "demux udp4 hot";
    pub(crate) const NOT_IP: &str = "demux not-ip";
    pub(crate) const DROP: &str = "demux default drop";
    pub(crate) const DROPPED: &str = "demux dropped, single runs";
    pub(crate) const REJECTED_TCP4: &str = "demux rejected tcp4";
    pub(crate) const REJECTED_TCP6: &str = "demux rejected tcp6";
    pub(crate) const REJECTED_UDP4: &str = "demux rejected udp4";
    pub(crate) const REJECTED_UDP4_LONG: &str = "demux rejected udp4, 1472 bytes";
    pub(crate) const REJECTED_UDP4_LONG_PARTIAL: &str = "demux rejected udp4, 1472 bytes, partial";
    pub(crate) const REJECTED_LIMITED: &str = "demux rejected over the limit";
    pub(crate) const FLOOD: &str = "demux syn flood";
    pub(crate) const FLOOD_ACK: &str = "demux ack flood";
    pub(crate) const FLOOD_LISTENER: &str = "demux syn flood (kernel listener)";
    pub(crate) const FLOOD_CLOSED: &str = "demux syn flood (closed port)";
    pub(crate) const RANDOM_1K: &str = "demux random 1k";
    pub(crate) const RANDOM_1K_HASH: &str = "hash random 1k";
    pub(crate) const RANDOM_64K: &str = "demux random 64k";
    pub(crate) const RANDOM_64K_HASH: &str = "hash random 64k";
    pub(crate) const RANDOM: &str = "demux random 1M";
    pub(crate) const RANDOM_HASH: &str = "hash random 1M";
    pub(crate) const WAITING: &str = "demux waiting 1M";
    pub(crate) const WAITING_HASH: &str = "hash waiting 1M";
    pub(crate) const LOOKUP_RANDOM: &str = "demux-lookup random 1M";
    pub(crate) const LOOKUP_DEPENDENT: &str = "demux-lookup dependent 1M";
    pub(crate) const LOOKUP_RANDOM_HASH: &str = "hash-lookup random 1M";
    pub(crate) const LOOKUP_DEPENDENT_HASH: &str = "hash-lookup dependent 1M";
}

/// A bound that a figure is to keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// The case.
    pub(crate) case: &'static str,
    /// The bound.
    pub(crate) bound: Bound,
}

/// All figures are over their baselines.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// At most this many times the figure of another case.
    Times(f64, &'static str),
    /// At most this many nanoseconds.
    Nanoseconds(f64),
    /// None: the figure is only to be seen beside that of another case.
    Beside(&'static str),
}

impl Target {
    /// The case that is compared with.
    pub(crate) fn reference(&self) -> Option<&'static str> {
        match self.bound {
            Bound::Times(_, reference) | Bound::Beside(reference) => Some(reference),
            Bound::Nanoseconds(_) => None,
        }
    }
}

/// All targets.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        case: name::TCP4,
        bound: Bound::Times(0.75, name::SKC_V4),
    },
    Target {
        case: name::TCP4,
        bound: Bound::Times(0.5, name::XDP_FILTER),
    },
    Target {
        case: name::TCP6,
        bound: Bound::Times(1.0, name::SKC_V6),
    },
    Target {
        case: name::TCP4,
        bound: Bound::Beside(name::XDP_FILTER_TCP),
    },
    Target {
        case: name::REJECTED_TCP4,
        bound: Bound::Beside(name::DROPPED),
    },
    Target {
        case: name::FLOOD,
        bound: Bound::Nanoseconds(120.0),
    },
    Target {
        case: name::LOOKUP_RANDOM,
        bound: Bound::Times(0.25, name::LOOKUP_RANDOM_HASH),
    },
    Target {
        case: name::LOOKUP_DEPENDENT,
        bound: Bound::Times(0.5, name::LOOKUP_DEPENDENT_HASH),
    },
    Target {
        case: name::RANDOM_1K,
        bound: Bound::Beside(name::RANDOM_1K_HASH),
    },
    Target {
        case: name::RANDOM_64K,
        bound: Bound::Beside(name::RANDOM_64K_HASH),
    },
    Target {
        case: name::RANDOM,
        bound: Bound::Beside(name::RANDOM_HASH),
    },
    Target {
        case: name::WAITING,
        bound: Bound::Beside(name::WAITING_HASH),
    },
];
