//! What a notification of rtnetlink means for what demux knows of this host.

use crate::netlink::Notification;

/// `RTNLGRP_LINK`, and those of IPv4 and IPv6 addresses, routes and rules.
pub(super) const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];

/// What is to be brought up to date.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Interfaces.
    pub(super) links: bool,
    /// The addresses of this host.
    pub(super) locals: bool,
    /// From which of them it sends to where.
    pub(super) sources: bool,
}

impl Changes {
    /// Everything.
    pub(super) const ALL: Self = Self {
        links: true,
        locals: true,
        sources: true,
    };

    pub(super) fn is_any(self) -> bool {
        self != Self::default()
    }

    /// Adds what a notification means. What it says is asked for anew; only that it came counts.
    pub(super) fn add(&mut self, notification: &Notification) {
        let Notification::Change(message) = notification else {
            // Some were lost: whatever is known may be wrong.
            *self = Self::ALL;
            return;
        };
        match message.message_type {
            // Routes that go with their interface go without a word.
            libc::RTM_NEWLINK | libc::RTM_DELLINK => *self = Self::ALL,
            libc::RTM_NEWADDR | libc::RTM_DELADDR => {
                self.locals = true;
                self.sources = true;
            }
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => {
                // A `struct rtmsg`: the table is its fifth byte, and flags are its last four.
                let payload = &message.payload;
                let flags = payload.get(8..12).and_then(|bytes| bytes.try_into().ok());
                if flags.is_some_and(|flags| u32::from_ne_bytes(flags) & RTM_F_CLONED != 0) {
                    // An entry of the cache.
                    return;
                }
                self.locals |= payload.get(4) == Some(&libc::RT_TABLE_LOCAL);
                self.sources = true;
            }
            // Rules.
            _ => self.sources = true,
        }
    }
}

/// From `linux/rtnetlink.h`.
const RTM_F_CLONED: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::RawMessage;

    fn of(message_type: u16, payload: &[u8]) -> Changes {
        let mut changes = Changes::default();
        changes.add(&Notification::Change(RawMessage {
            message_type,
            payload: payload.to_vec(),
        }));
        changes
    }

    #[test]
    fn only_what_may_have_changed_is_looked_at() {
        let route = |table, flags: u32| {
            let mut message = vec![2, 32, 0, 0, table, 2, 254, 2];
            message.extend(flags.to_ne_bytes());
            of(libc::RTM_NEWROUTE, &message)
        };
        let sources = Changes {
            sources: true,
            ..Changes::default()
        };
        assert_eq!(route(libc::RT_TABLE_MAIN, 0), sources);
        assert_eq!(
            route(libc::RT_TABLE_LOCAL, 0),
            Changes {
                locals: true,
                ..sources
            }
        );
        assert!(!route(libc::RT_TABLE_MAIN, RTM_F_CLONED).is_any());
        assert_eq!(of(libc::RTM_NEWRULE, &[]), sources);
        assert!(of(libc::RTM_DELLINK, &[]).links);
        assert!(of(libc::RTM_DELADDR, &[]).locals);
        let mut changes = Changes::default();
        changes.add(&Notification::Lost);
        assert_eq!(changes, Changes::ALL);
    }
}
