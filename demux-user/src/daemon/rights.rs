//! From which endpoints the owner of a set may send: those whose arriving packets are the set's.
//!
//! It is the matcher of the datapath that answers, on tables compiled from the same bindings, so whoever
//! receives at an endpoint may send from it and nobody else.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use demux_common::{
    address::Address,
    binding::{AddressKey, Binding, PortProfile, PortSlot, PrefixKey, PrefixMatch, Target},
    group::MAX_MEMBERS,
    layout::LocalPrefix,
    matcher::{self, Endpoint},
    protocol::Protocol,
    tables::BindingTables,
};
use zerocopy::{Immutable, IntoBytes};

use crate::{
    Result,
    bindings::{Compiled, compile},
    tables::Tables,
};

/// How often this host's addresses are read again, if a frame has one that is not known.
const RENEWAL: Duration = Duration::from_secs(1);

/// The rights of all sets of an instance, as they are now.
#[derive(Debug)]
pub(super) struct Rights {
    tables: Tables,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    snapshot: Arc<Snapshot>,
    read: Instant,
}

/// The rights of one epoch of the configuration.
#[derive(Debug)]
pub(super) struct Snapshot {
    epoch: u32,
    compiled: Compiled,
    bindings: HashMap<u16, Binding>,
    locals: HashSet<Address>,
    local_prefixes: Vec<LocalPrefix>,
}

/// Whether the owner of a set may send from an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Right {
    /// Its packets are the set's.
    Granted,
    /// They are somebody else's.
    Denied,
    /// They would be, but the address is none of this host.
    Foreign,
}

impl Rights {
    /// Reads the rights of an instance.
    ///
    /// # Errors
    ///
    /// Where its maps cannot be read.
    pub(super) fn open(tables: Tables) -> Result<Self> {
        let known = Known {
            snapshot: Arc::new(Snapshot::read(&tables)?),
            read: Instant::now(),
        };
        Ok(Self {
            tables,
            known: Mutex::new(known),
        })
    }

    /// The rights as they are now: after a change of the bindings they are read again.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read.
    pub(super) fn now(&self) -> Result<Arc<Snapshot>> {
        let epoch = self.tables.config()?.epoch;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.snapshot.epoch != epoch {
            *known = self.read()?;
        }
        Ok(Arc::clone(&known.snapshot))
    }

    /// As [`Rights::now`], and reads this host's addresses again, if that was not done just now.
    ///
    /// # Errors
    ///
    /// Where the maps cannot be read.
    pub(super) fn renewed(&self) -> Result<Arc<Snapshot>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.read.elapsed() >= RENEWAL {
            *known = self.read()?;
        }
        Ok(Arc::clone(&known.snapshot))
    }

    fn read(&self) -> Result<Known> {
        Ok(Known {
            snapshot: Arc::new(Snapshot::read(&self.tables)?),
            read: Instant::now(),
        })
    }
}

impl Snapshot {
    /// The epoch comes first: if the bindings change meanwhile, it has changed when it is next looked at.
    fn read(tables: &Tables) -> Result<Self> {
        let epoch = tables.config()?.epoch;
        let bindings = tables.bindings()?;
        let mut snapshot = Self {
            epoch,
            compiled: compile(&bindings)?,
            bindings: bindings.into_iter().collect(),
            locals: tables.locals()?.into_iter().collect(),
            local_prefixes: tables.local_prefixes()?,
        };
        // What compiling would link anew is read as linked.
        for (index, binding) in std::mem::take(&mut snapshot.compiled.relinked) {
            snapshot.bindings.insert(index, binding);
        }
        Ok(snapshot)
    }

    /// The configuration's epoch.
    #[must_use]
    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether the owner of the set with this index may send from an endpoint.
    #[must_use]
    pub(super) fn of(&self, set: u16, endpoint: &Endpoint) -> Right {
        let winner = matcher::find(self, endpoint);
        let mut index = winner;
        for _ in 0..MAX_MEMBERS {
            let Some(binding) = self.bindings.get(&index) else {
                break;
            };
            if binding.target == Target::Xsk && binding.set == set {
                return self.right_to(binding, endpoint);
            }
            index = binding.next_member;
            if index == winner {
                break;
            }
        }
        Right::Denied
    }

    /// A single address is the binding's, whoever's it is besides. Of a wildcard or a prefix only those
    /// are meant that are this host's.
    fn right_to(&self, binding: &Binding, endpoint: &Endpoint) -> Right {
        let is_single = match binding.family {
            demux_common::address::Family::Ipv4 => binding.prefix_len == 32,
            demux_common::address::Family::Ipv6 => binding.prefix_len == 128,
        };
        if is_single || self.is_own(endpoint) {
            Right::Granted
        } else {
            Right::Foreign
        }
    }

    fn is_own(&self, endpoint: &Endpoint) -> bool {
        let address = &endpoint.address;
        let key = LocalPrefix {
            prefix_len: LocalPrefix::ALL_BITS,
            reserved: 0,
            address: *address,
        };
        address.is_v4_loopback(endpoint.family)
            || self.locals.contains(address)
            || self
                .local_prefixes
                .iter()
                .any(|prefix| covers(prefix.prefix_len, prefix, &key))
    }
}

impl BindingTables for Snapshot {
    fn port(&self, protocol: Protocol, port: u16) -> Option<PortSlot> {
        let index = PortSlot::index(protocol, port) as usize;
        self.compiled.ports.get(index).copied()
    }

    fn profile(&self, index: u16) -> Option<&PortProfile> {
        self.compiled.profiles.get(usize::from(index))
    }

    fn address(&self, key: &AddressKey) -> Option<u16> {
        self.compiled.addresses.get(key).copied()
    }

    fn prefix(&self, key: &PrefixKey) -> Option<PrefixMatch> {
        self.compiled
            .prefixes
            .iter()
            .filter(|(entry, _)| covers(entry.prefix_len, *entry, key))
            .max_by_key(|(entry, _)| entry.prefix_len)
            .map(|(_, found)| *found)
    }

    fn binding(&self, index: u16) -> Option<&Binding> {
        self.bindings.get(&index)
    }
}

/// Whether an entry of a trie covers a key, as the kernel compares them: bit by bit, behind the length.
fn covers<K: IntoBytes + Immutable>(prefix_len: u32, entry: &K, key: &K) -> bool {
    let (entry, key) = (&entry.as_bytes()[4..], &key.as_bytes()[4..]);
    let (bytes, bits) = ((prefix_len / 8) as usize, prefix_len % 8);
    if entry[..bytes] != key[..bytes] {
        return false;
    }
    bits == 0 || (entry[bytes] ^ key[bytes]) >> (8 - bits) == 0
}
