//! Verdicts, and the numbered reasons for them.
//!
//! Reasons are append-only: a number, once given, keeps its meaning, because counters are stored
//! under it and scripts read its name.

/// What happens to a packet.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Verdict {
    /// It goes up the kernel's stack.
    Pass = 0,
    /// It ends at the driver.
    Drop = 1,
    /// It is answered with a refusal at the driver.
    Reject = 2,
    /// It goes to another CPU or to an AF_XDP socket.
    Redirect = 3,
}

impl Verdict {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Drop, Self::Reject, Self::Redirect];

    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Reject => "reject",
            Self::Redirect => "redirect",
        }
    }
}

/// The step of the packet's way that decided.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    zerocopy::TryFromBytes,
    zerocopy::IntoBytes,
    zerocopy::KnownLayout,
    zerocopy::Immutable,
)]
#[repr(u8)]
pub enum Stage {
    /// The parser: no four-tuple of this host was found.
    Parse = 0,
    /// The connection table.
    Connection = 1,
    /// A binding.
    Binding = 2,
    /// The kernel's own sockets.
    KernelSocket = 3,
    /// The default of the interface.
    Default = 4,
}

impl Stage {
    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Connection => "connection",
            Self::Binding => "binding",
            Self::KernelSocket => "kernel-socket",
            Self::Default => "default",
        }
    }
}

/// How many reasons the counters have room for.
pub const REASON_SLOTS: usize = 32;

macro_rules! reasons {
    ($($number:literal $variant:ident $field:ident $name:literal $doc:literal)*) => {
        /// Why a packet got its verdict.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[derive(zerocopy::TryFromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)]
        #[repr(u64)]
        pub enum Reason {
            $(#[doc = $doc] $variant = $number,)*
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name that users read.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for users.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }

        /// One [`Count`] for each reason, with the reasons as field names so that raw dumps can be read.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)]
        #[repr(C)]
        pub struct ReasonCounts {
            $(#[doc = $doc] pub $field: Count,)*
            /// Room for the reasons to come.
            pub reserved: [Count; REASON_SLOTS - Reason::ALL.len()],
        }
    };
}

/// Packets and the bytes of their frames.
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
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes, from the Ethernet header on.
    pub bytes: u64,
}

reasons! {
    0 NotIp not_ip "not-ip" "Neither IPv4 nor IPv6: ARP, LLDP and the like."
    1 OtherProtocol other_protocol "other-protocol" "IP, but neither TCP nor UDP."
    2 Truncated truncated "truncated" "The frame ends, or the reachable part of it ends, within its headers."
    3 VlanDepth vlan_depth "vlan-depth" "More than two VLAN tags."
    4 BadIpv4Header bad_ipv4_header "bad-ipv4-header" "An IPv4 header whose version or lengths contradict the frame."
    5 BadIpv6Header bad_ipv6_header "bad-ipv6-header" "An IPv6 header whose version or lengths contradict the frame, or with IPv4-mapped addresses."
    6 Fragment fragment "fragment" "A fragment. Only the kernel can put it together, unless its first part has told whose it is."
    7 Ipv6Extension ipv6_extension "ipv6-extension" "IPv6 extension headers that hide the transport header, or more than six of them."
    8 SourceRouted source_routed "source-routed" "A routing header with further stops: this host is not the destination."
    9 BadTcpHeader bad_tcp_header "bad-tcp-header" "A TCP header whose lengths contradict the packet."
    10 BadUdpHeader bad_udp_header "bad-udp-header" "A UDP header whose length contradicts the packet."
    11 Multicast multicast "multicast" "To a multicast group; only the kernel can deliver to every member."
    12 Broadcast broadcast "broadcast" "To a broadcast address."
    13 OtherHost other_host "other-host" "The frame is addressed to another station."
    14 Connection connection "connection" "A row of the connection table."
    15 Bound bound "bound" "A binding."
    16 KernelSocket kernel_socket "kernel-socket" "A socket of this host."
    17 NoSocket no_socket "no-socket" "No binding and no socket of this host: the default applies."
    18 Unbound unbound "unbound" "No binding, and the kernel was not asked: the default applies."
    19 NotLocal not_local "not-local" "Not addressed to this host: forwarded, or to an address it does not have."
    20 Probation probation "probation" "The probation of --try has run out: the default is pass again."
    21 Unconfigured unconfigured "unconfigured" "The interface has no entry in the instance's tables."
    22 Unanswerable unanswerable "unanswerable" "To be rejected, but a reset, or from an address that nobody may answer."
    23 BadChecksum bad_checksum "bad-checksum" "To be rejected, but damaged: a checksum is wrong."
    24 RateLimited rate_limited "rate-limited" "To be rejected, but too many were answered lately."
    25 NoReplyPath no_reply_path "no-reply-path" "To be rejected, but no reply can leave from the driver: the kernel refuses it; dropped where a socket would take it."
    26 NoTarget no_target "no-target" "The CPU or the socket that it is bound to is not there: the fallback of the binding applies."
    27 TooLong too_long "too-long" "Longer than the socket takes that it is bound to: the fallback of the binding applies."
    28 IcmpError icmp_error "icmp-error" "An ICMP or ICMPv6 error about a connection, which goes to the owner of the connection."
}
