//! The form of the configuration file: its sections and their keys, as they are read and written.

use std::collections::BTreeMap;

use demux_common::config::{Policy as DefaultPolicy, Track as Tracking};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use super::schema;
use crate::{
    attach::{EgressChoice, Hook, ModeChoice},
    bindings,
};

/// The version of this form.
pub const VERSION: u32 = 1;

/// The configuration of demux, as `demux apply` reads it from /etc/demux/demux.toml.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The version of the form: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1))]
    pub version: Option<u32>,
    /// What is decided when the tables are made.
    #[serde(default, skip_serializing_if = "Instance::is_empty")]
    pub instance: Instance,
    /// Settings, by the keys of `demux set`. Those that are not here stay as they are.
    #[serde(default, skip_serializing_if = "Settings::is_empty")]
    pub settings: Settings,
    /// The interfaces that demux is to be attached to.
    #[serde(default)]
    pub interface: Vec<Interface>,
    /// The bindings. Of those that share their endpoints the last one wins.
    #[serde(default)]
    pub binding: Vec<Binding>,
    /// What the daemon does. Not looked at by `demux apply`, but to see whether it is right.
    #[serde(default, skip_serializing)]
    #[schemars(schema_with = "schema::daemon")]
    pub daemon: Option<IgnoredAny>,
    /// Who may own sets of AF_XDP sockets by way of the daemon.
    #[serde(default, skip_serializing)]
    #[schemars(schema_with = "schema::owners")]
    pub owner: Option<IgnoredAny>,
}

/// What is decided when the tables are made, and cannot be changed later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// How many rows the connection table has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16_777_216))]
    pub max_connections: Option<u32>,
    /// How many bindings there may be. Where it is not given, there is room for twice those of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub max_bindings: Option<u32>,
}

/// Settings, by the keys of `demux set`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where packets go that nothing claims, on interfaces of the file that do not say it themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Policy>,
    /// Which endpoints get rows in the connection table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<Track>,
    /// Whether the kernel's own sockets are asked before a default other than pass applies.
    #[serde(rename = "kernel-sockets", skip_serializing_if = "Option::is_none")]
    pub kernel_sockets: Option<bool>,
    /// How source ports are chosen.
    #[serde(default, skip_serializing_if = "Ephemeral::is_empty")]
    pub ephemeral: Ephemeral,
    /// Seconds after which a row expires, by its state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::timeouts")]
    pub timeout: BTreeMap<String, u32>,
}

/// How source ports are chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ephemeral {
    /// From which ports: FIRST-LAST, or kernel for what ip_local_port_range says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<String>,
    /// In which way: sequential, random, hash, double-hash or random-increments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::algorithm")]
    pub algorithm: Option<String>,
    /// Which ports are never chosen: such as 8080,9000-9010, or kernel, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved: Option<String>,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How to attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// How to see what leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Where packets go that nothing claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Policy>,
    /// Whether a default is set although it could drop wanted packets.
    #[serde(default, skip_serializing_if = "is_false")]
    pub force: bool,
}

/// A binding of local endpoints.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// What it is called, and by what apply knows it again; where there is none, by its endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 31))]
    pub name: Option<String>,
    /// The protocol.
    pub protocol: Protocol,
    /// The local endpoints: ADDRESS:PORT, such as `10.0.0.2:80`, `[::1]:80`, `:8000-8999` or `10.0.0.0/8:*`.
    pub local: String,
    /// Where their packets go: stack, drop, reject, cpu:LIST or xsk:NAME; stack unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What becomes of packets that the CPU or socket cannot take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// Only for packets that arrive on this interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Whether the endpoints are shared as SO_REUSEADDR does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reuse_addr: bool,
    /// Whether the endpoints are shared as SO_REUSEPORT does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reuse_port: bool,
    /// With `[::]`: only IPv6, as IPV6_V6ONLY does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub v6_only: bool,
    /// Whether its packets make no rows in the connection table.
    #[serde(default, skip_serializing_if = "is_false")]
    pub untracked: bool,
    /// Whether the address may be none of this host, as IP_FREEBIND allows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub freebind: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Instance {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Settings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Ephemeral {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Words of the file, and what each of them means.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident => $meaning:ty { $($(#[$help:meta])* $word:ident = $value:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum $name { $($(#[$help])* $word,)* }

        impl $name {
            /// What it means.
            #[must_use]
            pub fn meaning(self) -> $meaning {
                match self { $(Self::$word => $value,)* }
            }
        }
    };
}

words! {
    /// How to attach.
    Mode => ModeChoice {
        /// In the driver if it can, else generic.
        Auto = ModeChoice::Auto,
        /// In the driver.
        Native = ModeChoice::Native,
        /// Behind the driver, on socket buffers.
        Generic = ModeChoice::Generic,
    }
}

words! {
    /// How to see what leaves.
    Egress => EgressChoice {
        /// tcx where the kernel has it, else clsact.
        Auto = EgressChoice::Auto,
        /// By a link.
        Tcx = EgressChoice::Only(Hook::Tcx),
        /// By a filter of the qdisc clsact.
        Clsact = EgressChoice::Only(Hook::Clsact),
        /// Not at all.
        None = EgressChoice::Nothing,
    }
}

words! {
    /// Where packets go that nothing claims.
    Policy => DefaultPolicy {
        /// Up the stack.
        Pass = DefaultPolicy::Pass,
        /// Nowhere, where this host would have received them.
        Drop = DefaultPolicy::Drop,
        /// As drop, and the sender is told at once.
        Reject = DefaultPolicy::Reject,
    }
}

words! {
    /// Which endpoints get rows in the connection table.
    Track => Tracking {
        /// Every local endpoint.
        Local = Tracking::Local,
        /// Those with a binding.
        Bound = Tracking::Bound,
    }
}

words! {
    /// A protocol.
    Protocol => demux_common::protocol::Protocol {
        /// TCP.
        Tcp = demux_common::protocol::Protocol::Tcp,
        /// UDP.
        Udp = demux_common::protocol::Protocol::Udp,
    }
}

words! {
    /// What becomes of packets that a CPU or a socket cannot take.
    Fallback => bindings::Fallback {
        /// They are dropped.
        Drop = bindings::Fallback::Drop,
        /// They go up the kernel's stack.
        Stack = bindings::Fallback::Stack,
    }
}
