//! The transport protocols that have ports.

use network_types::ip::IpProto;

/// A transport protocol whose packets demux assigns to sockets.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u32)]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp = 0,
    /// UDP (RFC 768).
    Udp = 1,
}

impl Protocol {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Tcp, Self::Udp];

    /// The name that users write: `tcp` or `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// The number in the IP header.
    #[must_use]
    pub const fn ip_number(self) -> u8 {
        match self {
            Self::Tcp => IpProto::Tcp as u8,
            Self::Udp => IpProto::Udp as u8,
        }
    }
}
