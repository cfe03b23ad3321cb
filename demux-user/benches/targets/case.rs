//! What is measured.

use demux_common::protocol::Protocol;

use crate::common::pair::{FAMILIES, Family};

/// Where packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Up the stack.
    Pass,
    /// Up the stack, by way of a CPU map.
    Cpu,
    /// To an AF_XDP socket.
    Xsk,
}

impl Target {
    pub(crate) const ALL: [Self; 3] = [Self::Pass, Self::Cpu, Self::Xsk];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Cpu => "cpu",
            Self::Xsk => "xsk",
        }
    }

    /// The port that demux sends there.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Pass => 7001,
            Self::Cpu => 7002,
            Self::Xsk => 7003,
        }
    }
}

/// Who sends packets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A program that does so with all of them.
    Plain,
    /// demux.
    Demux,
}

/// Packets of one kind and their target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) protocol: Protocol,
    pub(crate) family: Family,
}

impl Case {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Target::ALL.into_iter().flat_map(|target| {
            [Protocol::Udp, Protocol::Tcp]
                .into_iter()
                .flat_map(move |protocol| {
                    FAMILIES.into_iter().map(move |family| Self {
                        target,
                        protocol,
                        family,
                    })
                })
        })
    }

    /// Its name in the report.
    pub(crate) fn name(self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let family = match self.family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        format!("{} {protocol}{family}", self.target.name())
    }
}
