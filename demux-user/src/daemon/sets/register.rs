//! Sets whose sockets their owners hold, and only have published.

use std::os::fd::{AsFd as _, OwnedFd};

use super::{Sets, registered, wish::owner, worker::Close};
use crate::{
    Error, Result,
    bindings::SetName,
    daemon::{peer::Peer, protocol::Register},
    interface,
    xsk::{
        queue::{Place, QueueId, receive_queues},
        registry::{self, Claim, Wish},
    },
};

/// The largest frame that an owner of sockets of its own may say they take.
const LONGEST_FRAME: u32 = 1 << 16;

/// A set whose sockets its owner holds. It is given back when this is dropped.
#[derive(Debug)]
pub(in crate::daemon) struct RegisteredSet {
    claim: Claim,
    name: String,
    interface: String,
}

impl Sets {
    /// Publishes a socket of the owner's. The first one, when no set is known yet, claims the set, which is
    /// returned.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for what is no such socket, or not one of this set.
    pub(in crate::daemon) fn register(
        &mut self,
        peer: &Peer,
        wish: &Register,
        socket: OwnedFd,
        known: Option<&RegisteredSet>,
    ) -> Result<Option<RegisteredSet>> {
        let name: SetName = wish.set.parse()?;
        let interface = interface::by_name(&wish.interface)?;
        let queues = receive_queues(&interface);
        let place = Place {
            id: QueueId {
                ifindex: interface.index,
                queue: wish.queue,
            },
            interface: interface.name.clone(),
        };
        if wish.queue >= u32::from(queues) {
            return Err(Error::invalid(
                "receive queue",
                wish.queue.to_string(),
                format!("{} has {queues} of them, from 0 on", interface.name),
            ));
        }
        if wish.longest_frame == 0 || wish.longest_frame > LONGEST_FRAME {
            return Err(Error::invalid(
                "longest frame",
                wish.longest_frame.to_string(),
                format!("it has from 1 to {LONGEST_FRAME} bytes"),
            ));
        }
        let socket = registered::check(socket, &place)?;
        let new = match known {
            Some(known) if known.name == wish.set && known.interface == interface.name => None,
            Some(known) => {
                return Err(Error::invalid(
                    "set",
                    wish.set.clone(),
                    format!(
                        "this connection has registered the set {} on {}",
                        known.name, known.interface
                    ),
                ));
            }
            None => {
                let owner = owner(peer)?;
                let claim = registry::claim(
                    &self.bpffs()?,
                    &Wish {
                        name,
                        owner,
                        uid: peer.uid,
                        holder: owner,
                        interfaces: vec![(interface.index, queues)],
                        longest: wish.longest_frame,
                    },
                )?;
                Some(RegisteredSet {
                    claim,
                    name: wish.set.clone(),
                    interface: interface.name.clone(),
                })
            }
        };
        let is_zero_copy = socket.is_zero_copy()?;
        let QueueId { ifindex, queue } = place.id;
        if let Some(set) = new.as_ref().or(known) {
            // The owner's descriptor alone keeps it open from here on.
            set.claim
                .publish(ifindex, queue, socket.as_fd(), is_zero_copy)?;
        }
        Ok(new)
    }
}

impl Close for RegisteredSet {
    fn close(self, _sets: &mut Sets) {
        drop(self.claim);
    }
}
