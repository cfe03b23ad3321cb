//! Bindings that share one pattern by `--reuse-port`, and new connections among themselves.
//!
//! The members of a group are linked in a ring by [`Binding::next_member`](crate::binding::Binding), in
//! the order in which they were bound; the tables name the latest, and any member leads to all others.
//! User space links and unlinks them one word at a time, so a walker meets live members only, but it may
//! meet one twice or not at all while the ring changes, and has to stop after [`MAX_MEMBERS`] steps.

/// How many bindings a group may have.
pub const MAX_MEMBERS: usize = 64;
