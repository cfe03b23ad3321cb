//! Doing something without being root.

use std::thread;

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// A user and a group without rights. The number stands for the group demux, since tests do not change
/// /etc/group.
pub const NOBODY: u32 = 65534;

/// Runs `work` on a thread without capabilities, as a user and member of the group with the same number.
pub fn as_user(id: u32, work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            work();
        });
    });
}
