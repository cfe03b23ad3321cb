//! The port allocator on the maps: [`demux_common::ports`], each step a function that the verifier
//! looks at once.

use core::intrinsics::{AtomicOrdering::SeqCst, atomic_and, atomic_or, atomic_xadd};

use demux_common::{
    ports::{self, Barred, Counter, Destination, Ephemeral, PortTables, Request},
    protocol::Protocol,
};

use crate::{maps, tables::Maps};

impl<C> PortTables for Maps<C, true> {
    #[inline(always)]
    fn ephemeral(&self) -> Option<&Ephemeral> {
        maps::EPHEMERAL.get(0)
    }

    #[inline(always)]
    fn ports_key(&self) -> [u64; 2] {
        match maps::SECRET.get(0) {
            Some(secret) => secret.ports,
            None => [0; 2],
        }
    }

    #[inline(always)]
    fn counter(&self, counter: Counter) -> u32 {
        match place(counter) {
            // SAFETY: a field of a map value, which stays for as long as the program runs.
            Some(counter) => unsafe { counter.read_volatile() },
            None => 0,
        }
    }

    #[inline(always)]
    fn advance(&self, counter: Counter, by: u32) {
        if let Some(counter) = place(counter) {
            // SAFETY: as in `counter`.
            unsafe { atomic_xadd::<u32, u32, { SeqCst }>(counter, by) };
        }
    }

    #[inline(always)]
    fn next_draw(&self) -> u64 {
        match maps::EPHEMERAL.get_ptr_mut(0) {
            // SAFETY: as in `counter`.
            Some(settings) => unsafe {
                atomic_xadd::<u64, u64, { SeqCst }>(&raw mut (*settings).draws, 1)
            },
            None => 0,
        }
    }

    #[inline(always)]
    fn barred(&self, why: Barred, protocol: Protocol, word: u32) -> u64 {
        match maps::BARRED_PORTS.get(why.offset(protocol) + word) {
            Some(ports) => *ports,
            None => !0,
        }
    }

    #[inline(always)]
    fn hints(&self, index: u32) -> u64 {
        match maps::PORT_HINTS.get_ptr(index) {
            // SAFETY: as in `counter`; volatile, because other CPUs write it.
            Some(ports) => unsafe { ports.read_volatile() },
            None => !0,
        }
    }

    #[inline(always)]
    fn set_hints(&self, index: u32, bits: u64) {
        if let Some(ports) = maps::PORT_HINTS.get_ptr_mut(index) {
            // SAFETY: as in `counter`.
            unsafe { atomic_or::<u64, u64, { SeqCst }>(ports, bits) };
        }
    }

    #[inline(always)]
    fn clear_hints(&self, index: u32, bits: u64) {
        if let Some(ports) = maps::PORT_HINTS.get_ptr_mut(index) {
            // SAFETY: as in `counter`.
            unsafe { atomic_and::<u64, u64, { SeqCst }>(ports, !bits) };
        }
    }

    #[inline(always)]
    fn put_hints(&self, index: u32, word: u64) {
        if let Some(ports) = maps::PORT_HINTS.get_ptr_mut(index) {
            // SAFETY: as in `counter`.
            unsafe { ports.write_volatile(word) };
        }
    }

    #[inline(always)]
    fn destination(&self, request: &Request) -> Destination {
        Destination(demux_destination(request))
    }

    #[inline(always)]
    fn draw(&self) -> u64 {
        demux_draw()
    }

    #[inline(always)]
    fn next_free(&self, set: u32, protocol: Protocol, from: u32, last: u32) -> u32 {
        demux_next_free(set, protocol as u32, from, last) as u32
    }

    #[inline(always)]
    fn next_free_in_span(&self, set: u32, protocol: Protocol, from: u32, last: u32) -> u32 {
        demux_next_free_in_span(set, protocol as u32, from, last) as u32
    }

    #[inline(always)]
    fn take(&self, request: &Request, set: u32, from: u32, last: u32) -> u64 {
        demux_take(request, set, from, last)
    }

    #[inline(always)]
    fn verify_from(&self, request: &Request, set: u32, from: u32, range: u32) -> u32 {
        demux_verify_from(request, set, from, range) as u32
    }

    #[inline(always)]
    fn verify_span(&self, request: &Request, set: u32, word: u32, range: u32) -> u32 {
        demux_verify_span(request, set, word, range) as u32
    }

    #[inline(always)]
    fn claim(&self, request: &Request, port: u32) -> u32 {
        demux_claim(request, port) as u32
    }

    #[inline(always)]
    fn with_unused(&self, unused: u64, request: &Request, usable: u64, port: u32) -> u64 {
        demux_with_unused(request, unused, usable, port)
    }

    #[inline(always)]
    fn verify_word(&self, request: &Request, set: u32, word: u32, range: u32) -> u64 {
        demux_verify_word(request, set, word, range)
    }

    #[inline(always)]
    fn open(&self, set: u32, protocol: Protocol, word: u32) -> u64 {
        demux_open(set, protocol as u32, word)
    }
}

/// Where a counter stands.
#[inline(always)]
fn place(counter: Counter) -> Option<*mut u32> {
    let settings = || maps::EPHEMERAL.get_ptr_mut(0);
    match counter {
        // SAFETY: fields of a map value.
        Counter::Next => settings().map(|settings| unsafe { &raw mut (*settings).next }),
        // SAFETY: as above.
        Counter::Position => settings().map(|settings| unsafe { &raw mut (*settings).position }),
        Counter::Perturbation(index) => maps::PERTURBATION.get_ptr_mut(index),
    }
}

macro_rules! step {
    ($(#[$doc:meta])* $name:ident($request:ident $(, $argument:ident: $type:ty)*) else $none:literal $body:block) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(crate) extern "C" fn $name($request: *const Request $(, $argument: $type)*) -> u64 {
            // SAFETY: the verifier holds callers to a readable request, or null.
            let Some($request) = (unsafe { $request.as_ref() }) else {
                return $none;
            };
            $body
        }
    };
}

const TABLES: Maps<(), true> = Maps::new(());

step! {
    /// [`ports::allocate`]; returns [`Answer::pack`].
    demux_allocate(request) else 0 {
        ports::allocate(&TABLES, request).pack()
    }
}

step! {
    /// [`ports::release`]; returns 1 if the port was reserved.
    demux_release(request) else 0 {
        let is_released = ports::release(&TABLES, &request.key);
        if is_released {
            ports::forget(&TABLES, request);
        }
        u64::from(is_released)
    }
}

step! {
    /// [`ports::keep`].
    demux_keep(request) else 0 {
        ports::keep(&TABLES, &request.key);
        0
    }
}

step! {
    /// [`Destination::new`].
    demux_destination(request) else 0 {
        Destination::new(&TABLES, request).0
    }
}

step! {
    /// [`ports::verify_word`].
    demux_verify_word(request, set: u32, word: u32, range: u32) else 0 {
        ports::verify_word(&TABLES, request, set, word, range)
    }
}

step! {
    /// [`ports::take`].
    demux_take(request, set: u32, from: u32, last: u32) else 0 {
        ports::take(&TABLES, request, set, from, last)
    }
}

step! {
    /// [`ports::verify_from`].
    demux_verify_from(request, set: u32, from: u32, range: u32) else 0 {
        u64::from(ports::verify_from(&TABLES, request, set, from, range))
    }
}

step! {
    /// [`ports::verify_span`].
    demux_verify_span(request, set: u32, word: u32, range: u32) else 0 {
        u64::from(ports::verify_span(&TABLES, request, set, word, range))
    }
}

step! {
    /// [`ports::with_unused`]; its result, which the verifier takes for any number, keeps the loop
    /// around it from branching into a tree.
    demux_with_unused(request, unused: u64, usable: u64, port: u32) else 0 {
        ports::with_unused(&TABLES, unused, request, usable, port)
    }
}

step! {
    /// [`ports::claim`].
    demux_claim(request, port: u32) else 1 {
        u64::from(ports::claim(&TABLES, request, port))
    }
}

/// [`ports::draw`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_draw() -> u64 {
    ports::draw(&TABLES)
}

/// [`ports::next_free`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_next_free(set: u32, protocol: u32, from: u32, last: u32) -> u64 {
    let protocol = protocol_of(protocol);
    u64::from(ports::next_free(&TABLES, set, protocol, from, last))
}

/// [`ports::next_free_in_span`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_next_free_in_span(
    set: u32,
    protocol: u32,
    from: u32,
    last: u32,
) -> u64 {
    let protocol = protocol_of(protocol);
    u64::from(ports::next_free_in_span(&TABLES, set, protocol, from, last))
}

/// [`ports::open`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn demux_open(set: u32, protocol: u32, word: u32) -> u64 {
    ports::open(&TABLES, set, protocol_of(protocol), word)
}

#[inline(always)]
fn protocol_of(number: u32) -> Protocol {
    if number == Protocol::Udp as u32 {
        Protocol::Udp
    } else {
        Protocol::Tcp
    }
}
