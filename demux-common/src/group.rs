//! Bindings that share one pattern by `--reuse-port`, and new connections among themselves.
//!
//! The members of a group are linked in a ring by [`Binding::next_member`](crate::binding::Binding), in
//! the order in which they were bound; the tables name the latest, and any member leads to all others.
//! User space links and unlinks them one word at a time, so a walker meets live members only, but it may
//! meet one twice or not at all while the ring changes, and has to stop after [`MAX_MEMBERS`] steps.

//!
//! Which member a new connection goes to is decided by rendezvous hashing (Thaler and Ravishankar,
//! 1998): each member draws a weight from the four-tuple and its own index, and the highest wins. So a
//! member that leaves gives its connections to all others alike, and a new one takes some of each; all
//! other four-tuples keep theirs. The row of a connection remembers the member as long as it is one.

use crate::tables::BindingTables;

/// How many bindings a group may have.
pub const MAX_MEMBERS: usize = 64;

/// The member of a group that a connection goes to: `current` if it is one, else the one with the
/// highest weight for the hash of the four-tuple. `leader` is any member.
#[inline(always)]
pub fn member<T: BindingTables + ?Sized>(tables: &T, leader: u16, hash: u64, current: u16) -> u16 {
    let mut best = 0;
    let mut best_weight = 0;
    let mut at = leader;
    for _ in 0..MAX_MEMBERS {
        if at == current && current != 0 {
            return current;
        }
        let weight = weight(hash, at);
        if weight > best_weight {
            best_weight = weight;
            best = at;
        }
        at = match tables.binding(at) {
            Some(binding) => binding.next_member,
            None => 0,
        };
        if at == leader || at == 0 {
            break;
        }
    }
    best
}

/// The weight of a member for a four-tuple; never 0.
#[inline(always)]
const fn weight(hash: u64, member: u16) -> u64 {
    // The finalizer of MurmurHash3, which lets every bit of the sum change every bit of the weight.
    let mut weight = hash.wrapping_add((member as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    weight = (weight ^ weight >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    weight = (weight ^ weight >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    weight ^ weight >> 33 | 1
}
