//! Stands in for the allocator.

use demux_common::{
    command::{Command, Outcome},
    connection::{ConnectionKey, State},
    ports::Algorithm,
    table::Flags,
};

use crate::tables::demux_execute;

/// A stand-in.
#[repr(C, align(8))]
pub(crate) struct Request {
    pub(crate) key: ConnectionKey,
    pub(crate) algorithm: Algorithm,
}

#[inline(never)]
fn attempt(request: &Request, port: u16) -> u64 {
    let mut command = Command::enter(request.key, State::Reserved, Flags(0));
    command.key.local_port = port;
    demux_execute(&command)
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_allocate(request: *const Request) -> u64 {
    // SAFETY: stand-in.
    let Some(request) = (unsafe { request.as_ref() }) else {
        return 0;
    };
    for port in 1025..1089u16 {
        if attempt(request, port) == Outcome::Done as u64 {
            return u64::from(port);
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_release(key: *const ConnectionKey) -> u64 {
    // SAFETY: stand-in.
    match unsafe { key.as_ref() } {
        Some(key) => demux_execute(&Command::remove(*key)),
        None => 0,
    }
}
