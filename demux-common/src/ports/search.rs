//! The algorithms, and the search for a port that is free.

use super::{
    Algorithm, Answer, Barred, Counter, Ephemeral, HINT_SETS, LONGEST_STEP, PERTURBATIONS,
    PortTables, RANDOM_TRIES, Request, SEQUENTIAL, SET_WORDS, keyed::siphash,
};
use crate::{
    connection::{ConnectionKey, State},
    protocol::Protocol,
    rows,
    table::{self, Flags, Inserted, New, Probe},
    tables::TableEvent,
    tcp::Half,
};

/// What the search returns that has found no port. No port: 0 is none.
pub const NO_PORT: u32 = 0;

/// [`claim`] has reserved the port.
pub(super) const CLAIMED: u32 = 0;
/// [`claim`] has found the four-tuple in use.
pub(super) const IN_USE: u32 = 1;
/// [`claim`] has found no room in the table.
pub(super) const NO_ROOM: u32 = 2;

/// What the inputs of the keyed function are for, so that no two uses share one.
const FOR_DESTINATION: u64 = 1 << 32;
const FOR_DRAW: u64 = 2 << 32;

/// How many ports that look free are claimed before the hints are given up on, and how many that the
/// table has shown as free before the search is: somebody else was faster each time.
const CLAIMS: u32 = 64;

/// How many words are looked at by a function of its own: the verifier follows every turn of a loop,
/// and so has two short ones to follow instead of a long one.
const SPAN: u32 = 32;

/// What the search returns that has found no word.
const NO_WORD: u32 = u32::MAX;

/// How many words [`Algorithm::Sequential`] looks through anew for each port. Beyond them a port that
/// a packet has set free may be seen with a delay of one unit of the clock.
const EXACT_WORDS: u32 = 4;

/// What is computed of a destination: the two addresses, the remote port and the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination(pub u64);

impl Destination {
    /// That of a request.
    #[inline(always)]
    #[must_use]
    pub fn new<T: PortTables + ?Sized>(tables: &T, request: &Request) -> Self {
        let key = &request.key;
        let [a, b] = key.local_address.words();
        let [c, d] = key.remote_address.words();
        let rest = FOR_DESTINATION | (key.protocol as u64) << 16 | u64::from(key.remote_port);
        Self(siphash(tables.ports_key(), &[a, b, c, d, rest]))
    }

    /// F of RFC 6056: where in the range the ports for the destination begin.
    #[inline(always)]
    #[must_use]
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// G of RFC 6056: its counter in the perturbation table.
    #[inline(always)]
    #[must_use]
    pub const fn counter(self) -> u32 {
        (self.0 >> 32) as u32 & (PERTURBATIONS as u32 - 1)
    }

    /// Its set of hints.
    #[inline(always)]
    #[must_use]
    pub const fn set(self) -> u32 {
        (self.0 >> 48) as u32 & (HINT_SETS as u32 - 1)
    }
}

/// The next random number.
#[inline(always)]
pub fn draw<T: PortTables + ?Sized>(tables: &T) -> u64 {
    siphash(tables.ports_key(), &[tables.next_draw(), FOR_DRAW])
}

/// A range of ports in one word, the first in the lower half.
#[derive(Clone, Copy)]
struct Range(u32);

impl Range {
    #[inline(always)]
    const fn new(first: u16, last: u16) -> Self {
        Self(first as u32 | (last as u32) << 16)
    }

    #[inline(always)]
    const fn first(self) -> u32 {
        self.0 & 0xffff
    }

    #[inline(always)]
    const fn last(self) -> u32 {
        self.0 >> 16
    }

    /// How many ports; never 0, so that it can divide.
    #[inline(always)]
    const fn count(self) -> u32 {
        if self.last() < self.first() {
            1
        } else {
            self.last() - self.first() + 1
        }
    }

    /// The port that stands so far in the range, which is closed to a ring.
    #[inline(always)]
    const fn at(self, offset: u32) -> u32 {
        self.first() + offset % self.count()
    }

    /// The port at a random place.
    #[inline(always)]
    const fn random(self, draw: u64) -> u32 {
        self.first() + scaled(draw, self.count())
    }
}

/// A number below `limit` from the high half of a random one, each as likely as the other but for one
/// in 2^32 over the limit.
#[inline(always)]
const fn scaled(draw: u64, limit: u32) -> u32 {
    (((draw >> 32) * limit as u64) >> 32) as u32
}

/// Reserves a port for a connection to come.
#[inline(always)]
pub fn allocate<T: PortTables + ?Sized>(tables: &T, request: &Request) -> Answer {
    let Some(settings) = tables.ephemeral() else {
        return Answer::None;
    };
    let destination = tables.destination(request);
    let set = set_of(destination, request);
    if request.key.local_port != 0 {
        return match tables.claim(request, u32::from(request.key.local_port)) {
            CLAIMED => {
                mark(tables, set, u32::from(request.key.local_port));
                Answer::Port(request.key.local_port)
            }
            NO_ROOM => Answer::Full,
            _ => Answer::Taken,
        };
    }
    let algorithm = match Algorithm::from_number(request.algorithm) {
        Some(algorithm) => algorithm,
        None => settings.algorithm,
    };
    let range = range(settings, algorithm);
    let (start, counter) = match algorithm {
        Algorithm::Sequential => {
            verify_lowest(tables, request, set, range);
            (range.first(), None)
        }
        Algorithm::Hash => behind(tables, destination, range, Counter::Next),
        Algorithm::DoubleHash => {
            let counter = Counter::Perturbation(destination.counter());
            behind(tables, destination, range, counter)
        }
        Algorithm::Random | Algorithm::RandomIncrements => {
            let steps = matches!(algorithm, Algorithm::RandomIncrements);
            match at_random(tables, request, set, range, steps) {
                (CLAIMED, port) => return Answer::Port(port as u16),
                (_, port) => (port, None),
            }
        }
    };
    let port = match reserve(tables, request, set, start, range) {
        (CLAIMED, port) => port,
        (NO_ROOM, _) => return Answer::Full,
        _ => return Answer::Exhausted,
    };
    if let Some(counter) = counter {
        // On by each port that was looked at.
        let passed = if port >= start {
            port - start
        } else {
            port + range.count() - start
        };
        tables.advance(counter, passed + 1);
    }
    Answer::Port(port as u16)
}

/// In the number of a set of hints: ports that sockets of the kernel hold are not left out.
const SKIP_HELD: u32 = 1 << 16;

/// In the number of a set of hints: they do not count.
const NO_HINTS: u32 = 1 << 17;

/// The number of the set of hints of a destination, with what the request says of held ports.
#[inline(always)]
const fn set_of(destination: Destination, request: &Request) -> u32 {
    if request.flags & Request::SKIP_HELD != 0 {
        destination.set() | SKIP_HELD
    } else {
        destination.set()
    }
}

/// A word of the ports that may not be handed out.
#[inline(always)]
fn barred<T: PortTables + ?Sized>(tables: &T, set: u32, protocol: Protocol, word: u32) -> u64 {
    let reserved = tables.barred(Barred::Reserved, protocol, word)
        | tables.barred(Barred::Bound, protocol, word);
    if set & SKIP_HELD != 0 {
        reserved
    } else {
        reserved | tables.barred(Barred::Held, protocol, word)
    }
}

/// The range of an algorithm.
#[inline(always)]
const fn range(settings: &Ephemeral, algorithm: Algorithm) -> Range {
    if matches!(algorithm, Algorithm::Sequential) && settings.is_range_set == 0 {
        return Range::new(SEQUENTIAL.0, SEQUENTIAL.1);
    }
    Range::new(settings.first_port, settings.last_port)
}

/// RFC 6056, algorithms 3 and 4: the search begins where a counter stands behind the offset of the
/// destination.
#[inline(always)]
fn behind<T: PortTables + ?Sized>(
    tables: &T,
    destination: Destination,
    range: Range,
    counter: Counter,
) -> (u32, Option<Counter>) {
    let at = tables
        .counter(counter)
        .wrapping_add(destination.offset() % range.count());
    (range.at(at), Some(counter))
}

/// RFC 6056, algorithm 2, and in `steps` algorithm 5: some ports at random. Returns what became of
/// the last one.
#[inline(always)]
fn at_random<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    range: Range,
    steps: bool,
) -> (u32, u32) {
    let mut port = range.first();
    for _ in 0..RANDOM_TRIES {
        let draw = tables.draw();
        port = if steps {
            let step = scaled(draw, LONGEST_STEP) + 1;
            let position = tables.counter(Counter::Position).wrapping_add(step);
            tables.advance(Counter::Position, step);
            range.at(position)
        } else {
            range.random(draw)
        };
        // The table is asked, not the hints: once many of them are stale, the few ports that look free
        // stand side by side, and an observer could guess the next one.
        let usable = tables.open(set | NO_HINTS, request.key.protocol, port >> 6);
        if usable >> (port & 63) & 1 == 0 {
            continue;
        }
        mark(tables, set, port);
        let claimed = tables.claim(request, port);
        if claimed == CLAIMED {
            return (CLAIMED, port);
        }
        // Without room for this four-tuple there may be some for the next.
    }
    (IN_USE, port)
}

/// Reserves the first free port from `start` on, in the range as a ring.
#[inline(always)]
fn reserve<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    start: u32,
    range: Range,
) -> (u32, u32) {
    // What the hints show as free, from the start to the end, and then from the beginning on.
    let (mut from, mut last) = (start, range.last());
    let mut refusal = IN_USE;
    for _ in 0..CLAIMS {
        let taken = Taken(tables.take(request, set, from, last));
        if taken.port() == NO_PORT {
            if last < start || start == range.first() {
                break;
            }
            (from, last) = (range.first(), start - 1);
            continue;
        }
        if taken.claimed() == CLAIMED {
            return (CLAIMED, taken.port());
        }
        // Without room for this four-tuple there may be some for the next.
        refusal = max(refusal, taken.claimed());
        from = taken.port() + 1;
    }
    // Nothing: some of the hints may have been true once. The table knows, port by port.
    let mut step = 0;
    for _ in 0..CLAIMS {
        step = tables.verify_from(request, set, start >> 6 | step << 16, range.0);
        if step > SET_WORDS as u32 {
            break;
        }
        let word = ((start >> 6) + step) & (SET_WORDS as u32 - 1);
        let from = max(word << 6, range.first());
        let last = min(word << 6 | 63, range.last());
        let taken = Taken(tables.take(request, set, from, last));
        if taken.port() == NO_PORT {
            step += 1;
        } else if taken.claimed() == CLAIMED {
            return (CLAIMED, taken.port());
        } else if taken.claimed() == NO_ROOM {
            refusal = NO_ROOM;
            step += 1;
        }
        // Else somebody was faster; the word may have another one.
    }
    (refusal, NO_PORT)
}

/// A port, and what became of the claim for it, in one word.
struct Taken(u64);

impl Taken {
    #[inline(always)]
    const fn port(&self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn claimed(&self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Claims the lowest port from `from` to `last` that looks free. Returns the port, or [`NO_PORT`], and
/// in the upper half what became of the claim.
#[inline(always)]
pub fn take<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    from: u32,
    last: u32,
) -> u64 {
    let port = tables.next_free(set, request.key.protocol, from, last);
    if port == NO_PORT {
        return 0;
    }
    mark(tables, set, port);
    u64::from(port) | u64::from(tables.claim(request, port)) << 32
}

/// The first word from some steps behind the first one on, as a ring, that has a free port: how many
/// steps; more than there are words where none has. `from` is the first word and, from bit 16 on, the
/// steps.
#[inline(always)]
pub fn verify_from<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    from: u32,
    range: u32,
) -> u32 {
    let (first_word, mut step) = (from & 0xffff, from >> 16);
    // The first word comes again as the last one: its ports below the start.
    for _ in 0..=SET_WORDS as u32 / SPAN {
        if step > SET_WORDS as u32 {
            break;
        }
        let word = (first_word + step) & (SET_WORDS as u32 - 1);
        let found = tables.verify_span(request, set, word, range);
        if found < SPAN {
            return step + found;
        }
        step += SPAN;
    }
    NO_WORD
}

/// How many words behind the first one is the first of a span that has a free port; 32 or more
/// where none has.
#[inline(always)]
pub fn verify_span<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    first_word: u32,
    range: u32,
) -> u32 {
    for step in 0..SPAN {
        let word = (first_word + step) & (SET_WORDS as u32 - 1);
        if tables.verify_word(request, set, word, range) != 0 {
            return step;
        }
    }
    SPAN
}

/// Looks at the lowest ports anew, until one of them is free.
#[inline(always)]
fn verify_lowest<T: PortTables + ?Sized>(tables: &T, request: &Request, set: u32, range: Range) {
    let stamp_at = (HINT_SETS * SET_WORDS) as u32 + (set & (HINT_SETS as u32 - 1));
    let now = match tables.config() {
        Some(config) => u64::from(config.clock.at_ticks(tables.ticks())) + 1,
        None => 0,
    };
    let is_fresh = tables.hints(stamp_at) == now;
    let first = range.first() >> 6;
    let mut is_found = false;
    for step in 0..EXACT_WORDS {
        if tables.verify_word(request, set, first + step, range.0) != 0 {
            is_found = true;
            break;
        }
    }
    if is_found || is_fresh {
        return;
    }
    tables.verify_from(request, set, first | EXACT_WORDS << 16, range.0);
    tables.put_hints(stamp_at, now);
}

/// The lowest port from `from` to `last` that is neither barred nor hinted at; [`NO_PORT`] where
/// there is none.
#[inline(always)]
pub fn next_free<T: PortTables + ?Sized>(
    tables: &T,
    set: u32,
    protocol: Protocol,
    from: u32,
    last: u32,
) -> u32 {
    let mut from = from;
    for _ in 0..=SET_WORDS as u32 / SPAN {
        if from > last {
            break;
        }
        let port = tables.next_free_in_span(set, protocol, from, last);
        if port != NO_PORT {
            return port;
        }
        from = ((from >> 6) + SPAN) << 6;
    }
    NO_PORT
}

/// As [`next_free`], within the first words of what is left.
#[inline(always)]
pub fn next_free_in_span<T: PortTables + ?Sized>(
    tables: &T,
    set: u32,
    protocol: Protocol,
    from: u32,
    last: u32,
) -> u32 {
    let mut below = !0 << (from & 63);
    for step in 0..SPAN {
        let word = (from >> 6) + step;
        if word > last >> 6 {
            break;
        }
        let open = below & tables.open(set, protocol, word);
        if open != 0 {
            let port = word << 6 | open.trailing_zeros();
            return if port <= last { port } else { NO_PORT };
        }
        below = !0;
    }
    NO_PORT
}

/// The ports of a word that are neither barred nor hinted at.
#[inline(always)]
pub fn open<T: PortTables + ?Sized>(tables: &T, set: u32, protocol: Protocol, word: u32) -> u64 {
    let barred = barred(tables, set, protocol, word);
    if set & NO_HINTS != 0 {
        return !barred;
    }
    !(tables.hints(word_index(set, word)) | barred)
}

/// Looks up every port of a word that may be handed out, and brings the hints into line with what the
/// table says. Returns the ports that are free.
#[inline(always)]
pub fn verify_word<T: PortTables + ?Sized>(
    tables: &T,
    request: &Request,
    set: u32,
    word: u32,
    range: u32,
) -> u64 {
    let index = word_index(set, word);
    let usable = within(word, Range(range)) & !barred(tables, set, request.key.protocol, word);
    if usable == 0 {
        return 0;
    }
    let mut unused = 0;
    for bit in 0..64 {
        unused = tables.with_unused(unused, request, usable, word << 6 | bit);
    }
    tables.clear_hints(index, unused);
    tables.set_hints(index, usable & !unused);
    unused
}

/// The bits of a word that stand for ports of the range.
#[inline(always)]
const fn within(word: u32, range: Range) -> u64 {
    let base = word << 6;
    if base > range.last() || base + 63 < range.first() {
        return 0;
    }
    let mut bits = !0;
    if base < range.first() {
        bits &= !0 << ((range.first() - base) & 63);
    }
    if base + 63 > range.last() {
        bits &= !0 >> ((base + 63 - range.last()) & 63);
    }
    bits
}

/// `unused`, with the bit of a port added if that is usable and the table has no row for the request's
/// connection from it.
#[inline(always)]
pub fn with_unused<T: PortTables + ?Sized>(
    tables: &T,
    unused: u64,
    request: &Request,
    usable: u64,
    port: u32,
) -> u64 {
    if usable >> (port & 63) & 1 == 0 || is_used(tables, request, port) {
        unused
    } else {
        unused | 1 << (port & 63)
    }
}

/// Whether the table has a row that has not expired for the request's connection from a port.
#[inline(always)]
fn is_used<T: PortTables + ?Sized>(tables: &T, request: &Request, port: u32) -> bool {
    let Some(config) = tables.config() else {
        return true;
    };
    let mut key = request.key;
    key.local_port = port as u16;
    let probe = Probe::new(&key, tables, tables.homes());
    let now = config.clock.at_ticks(tables.ticks());
    match table::find(tables, &probe, &key) {
        Some(found) => !table::is_expired(tables, found.line, found.head, now, &config.lifetimes),
        None => false,
    }
}

/// Claims the four-tuple of a request from a port: enters its row, unless there is one.
#[inline(always)]
pub fn claim<T: PortTables + ?Sized>(tables: &T, request: &Request, port: u32) -> u32 {
    let Some(config) = tables.config() else {
        return NO_ROOM;
    };
    let mut key = request.key;
    key.local_port = port as u16;
    let probe = Probe::new(&key, tables, tables.homes());
    let now = config.clock.at_ticks(tables.ticks());
    let new = New {
        now,
        epoch: config.epoch,
        remote: Half::UNKNOWN,
        local: Half::UNKNOWN,
        rx_packets: 0,
        rx_bytes: 0,
        tx_packets: 0,
        tx_bytes: 0,
        binding: request.binding as u16,
        state: State::Reserved,
        // Confirmed, so that nobody takes the line.
        flags: Flags(Flags::OUT | Flags::CONFIRMED),
    };
    let found = match table::insert(tables, &probe, &key, &new, &config.lifetimes) {
        Inserted::Entered(found) => found,
        Inserted::OverExpired(found) => {
            tables.count_event(TableEvent::OverExpired);
            found
        }
        Inserted::OverUnconfirmed(found) => {
            tables.count_event(TableEvent::OverUnconfirmed);
            found
        }
        Inserted::Present(_) => return IN_USE,
        Inserted::Full => return NO_ROOM,
    };
    tables.count_event(TableEvent::Entered);
    // As if it had been seen so long before or after now that it expires when it shall.
    let expires = now.wrapping_add(request.lifetime);
    let seen = expires.wrapping_sub(config.lifetimes[State::Reserved as usize]);
    table::touch(tables, found.line, seen);
    CLAIMED
}

/// Lets a reservation last as long as its state says, from now on.
#[inline(always)]
pub fn keep<T: PortTables + ?Sized>(tables: &T, key: &ConnectionKey) {
    let probe = Probe::new(key, tables, tables.homes());
    if let (Some(config), Some(found)) = (tables.config(), table::find(tables, &probe, key)) {
        table::touch(tables, found.line, config.clock.at_ticks(tables.ticks()));
    }
}

/// Gives back a port that is still only reserved; returns whether it was.
#[inline(always)]
pub fn release<T: PortTables + ?Sized>(tables: &T, key: &ConnectionKey) -> bool {
    let probe = Probe::new(key, tables, tables.homes());
    let Some(found) = table::find(tables, &probe, key) else {
        return false;
    };
    if !matches!(found.head.state(), State::Reserved) {
        return false;
    }
    let Some(config) = tables.config() else {
        return false;
    };
    let now = config.clock.at_ticks(tables.ticks());
    let is_expired = table::is_expired(tables, found.line, found.head, now, &config.lifetimes);
    rows::end(tables, &found);
    !is_expired
}

/// Takes back the hint for the local port of a connection.
#[inline(always)]
pub fn forget<T: PortTables + ?Sized>(tables: &T, request: &Request) {
    let set = tables.destination(request).set();
    let port = u32::from(request.key.local_port);
    tables.clear_hints(word_index(set, port >> 6), 1 << (port & 63));
}

/// Notes that a port is in use towards a destination of a set. Before it is claimed, so that whoever
/// releases it finds the hint.
#[inline(always)]
fn mark<T: PortTables + ?Sized>(tables: &T, set: u32, port: u32) {
    tables.set_hints(word_index(set, port >> 6), 1 << (port & 63));
}

/// The index of a word of a set of hints.
#[inline(always)]
const fn word_index(set: u32, word: u32) -> u32 {
    (set & (HINT_SETS as u32 - 1)) * SET_WORDS as u32 + (word & (SET_WORDS as u32 - 1))
}

#[inline(always)]
const fn min(a: u32, b: u32) -> u32 {
    if a < b { a } else { b }
}

#[inline(always)]
const fn max(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}
