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
    pub(crate) const FLOOD: &str = "demux syn flood";
    pub(crate) const DROP: &str = "demux default drop";
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
}

impl Target {
    /// The case that is compared with.
    pub(crate) fn reference(&self) -> Option<&'static str> {
        match self.bound {
            Bound::Times(_, reference) => Some(reference),
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
        case: name::FLOOD,
        bound: Bound::Nanoseconds(120.0),
    },
];
