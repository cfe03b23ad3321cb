//! Two simulated endpoints, a channel that loses, reorders and doubles, and the observer at one
//! of them: whenever nothing is under way, the observer must know the state of that endpoint.
//!
//! The endpoints follow RFC 9293, section 3.10, and Linux where it differs, and share no code with
//! the machine: they know every byte's fate, where the observer only has four numbers.

use demux_common::{
    connection::State,
    tcp::{Flags, Marks, Side},
};

use super::common::{Observer, Random, Segment, cases};

/// What each endpoint offers, always.
const WINDOW: u32 = 1 << 20;

/// How many worlds are simulated, if the environment does not ask for fewer.
const MOST: usize = 20_000;

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[derive(Clone, Debug)]
struct Packet {
    segment: Segment,
    /// Ranges that arrived out of order (RFC 2018).
    sacks: Vec<(u32, u32)>,
    /// Timestamps are newer than those of the connection before.
    is_newer: bool,
}

/// What was sent and is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct Unacknowledged {
    flags: u32,
    sequence: u32,
    length: u32,
    is_sacked: bool,
}

impl Unacknowledged {
    fn end(self) -> u32 {
        Segment::new("", self.sequence, 0, self.length)
            .end()
            .wrapping_add(Flags(self.flags).sequence_space())
    }
}

#[derive(Clone, Debug)]
struct Endpoint {
    /// `None` is CLOSED.
    state: Option<State>,
    /// A listener takes what finds no connection.
    listens: bool,
    opened_by_listener: bool,
    una: u32,
    next: u32,
    received: u32,
    remote_initial: u32,
    unacknowledged: Vec<Unacknowledged>,
    /// Start, end, and whether a FIN is the last of it.
    waiting: Vec<(u32, u32, bool)>,
    owes_ack: bool,
    out: Vec<Packet>,
    /// Connections so far.
    attempts: usize,
}

impl Endpoint {
    fn new(listens: bool) -> Self {
        Self {
            state: None,
            listens,
            opened_by_listener: false,
            una: 0,
            next: 0,
            received: 0,
            remote_initial: 0,
            unacknowledged: vec![],
            waiting: vec![],
            owes_ack: false,
            out: vec![],
            attempts: 0,
        }
    }

    /// The first one may be near the end of the numbers; others are far from it, as real ones are.
    fn choose_initial(&self, random: &mut Random) -> u32 {
        if self.attempts == 0 {
            random.initial()
        } else {
            random.number()
        }
    }

    fn is(&self, states: &[State]) -> bool {
        self.state.is_some_and(|state| states.contains(&state))
    }

    fn emit(&mut self, flags: &str, sequence: u32, acknowledgement: u32, length: u32) {
        self.out.push(Packet {
            segment: Segment::new(flags, sequence, acknowledgement, length),
            sacks: self.waiting.iter().map(|&(a, b, _)| (a, b)).collect(),
            is_newer: false,
        });
        self.owes_ack = false;
    }

    fn acknowledge(&mut self) {
        self.emit("A", self.next, self.received, 0);
    }

    fn send_again(&mut self, sent: Unacknowledged) {
        let mut flags = sent.flags;
        if self.state == Some(State::SynReceived) && flags & Flags::SYN != 0 {
            flags |= Flags::ACK;
        }
        let text: String = [(Flags::SYN, 'S'), (Flags::FIN, 'F'), (Flags::ACK, 'A')]
            .iter()
            .filter(|(bit, _)| flags & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        let acknowledgement = if flags & Flags::ACK != 0 {
            self.received
        } else {
            0
        };
        self.emit(&text, sent.sequence, acknowledgement, sent.length);
    }

    fn send_new(&mut self, flags: u32, length: u32) {
        let sent = Unacknowledged {
            flags,
            sequence: self.next,
            length,
            is_sacked: false,
        };
        self.next = sent.end();
        self.unacknowledged.push(sent);
        self.send_again(sent);
    }

    fn begin(&mut self, initial: u32, state: State) {
        *self = Self {
            state: Some(state),
            una: initial,
            next: initial,
            out: std::mem::take(&mut self.out),
            attempts: self.attempts + 1,
            ..Self::new(self.listens)
        };
    }

    fn connect(&mut self, initial: u32) {
        self.begin(initial, State::SynSent);
        self.send_new(Flags::SYN, 0);
    }

    fn accept(&mut self, initial: u32, syn: Segment) {
        self.begin(initial, State::SynReceived);
        self.opened_by_listener = true;
        self.remote_initial = syn.sequence;
        self.received = syn.sequence.wrapping_add(1);
        self.send_new(Flags::SYN, 0);
    }

    fn send(&mut self, length: u32) {
        if self.is(&[State::Established, State::CloseWait])
            && self.next.wrapping_sub(self.una) + length < WINDOW / 2
        {
            self.send_new(Flags::ACK, length);
        }
    }

    fn close(&mut self, length: u32) {
        self.state = match self.state {
            Some(State::Established) => Some(State::FinWait1),
            Some(State::CloseWait) => Some(State::LastAck),
            _ => return,
        };
        self.send_new(Flags::ACK | Flags::FIN, length);
    }

    fn abort(&mut self) {
        if self.is(&[
            State::Established,
            State::CloseWait,
            State::FinWait1,
            State::FinWait2,
        ]) {
            self.emit("RA", self.next, self.received, 0);
            self.end();
        }
    }

    fn end(&mut self) {
        self.state = None;
        self.unacknowledged.clear();
        self.waiting.clear();
        self.owes_ack = false;
    }

    /// Everything that a timer would send.
    fn timer(&mut self) {
        if self.owes_ack {
            self.acknowledge();
        }
        for sent in self.unacknowledged.clone() {
            if !sent.is_sacked {
                self.send_again(sent);
            }
        }
    }

    fn refuse(&mut self, segment: Segment) {
        if segment.has(Flags::RST) {
        } else if segment.has(Flags::ACK) {
            self.emit("R", segment.acknowledgement, 0, 0);
        } else {
            self.emit("RA", 0, segment.end(), 0);
        }
    }

    fn receive(&mut self, packet: &Packet, random: &mut Random) {
        let segment = packet.segment;
        match self.state {
            None if self.listens
                && segment.has(Flags::SYN)
                && !segment.has(Flags::ACK | Flags::RST) =>
            {
                self.accept(self.choose_initial(random), segment);
            }
            None => self.refuse(segment),
            Some(State::SynSent) => self.receive_in_syn_sent(segment),
            Some(State::SynReceived) if self.opened_by_listener => {
                self.receive_of_request(packet, random);
            }
            Some(_) => self.receive_in_order(packet, random),
        }
    }

    fn receive_in_syn_sent(&mut self, segment: Segment) {
        let acknowledges = segment.has(Flags::ACK);
        let is_acceptable = before(self.una, segment.acknowledgement)
            && !before(self.next, segment.acknowledgement);
        if acknowledges && !is_acceptable {
            return self.refuse(segment);
        }
        if segment.has(Flags::RST) {
            if acknowledges {
                self.end();
            }
        } else if segment.has(Flags::SYN) {
            self.remote_initial = segment.sequence;
            self.received = segment.sequence.wrapping_add(1);
            if acknowledges {
                self.una = segment.acknowledgement;
                self.unacknowledged.clear();
                self.state = Some(State::Established);
                self.acknowledge();
            } else {
                self.state = Some(State::SynReceived);
                self.unacknowledged[0].flags = Flags::SYN;
                self.send_again(self.unacknowledged[0]);
            }
        }
    }

    /// tcp_check_req.
    fn receive_of_request(&mut self, packet: &Packet, random: &mut Random) {
        let segment = packet.segment;
        let kind = segment.flags & (Flags::SYN | Flags::ACK | Flags::RST | Flags::FIN);
        if segment.sequence == self.remote_initial && kind == Flags::SYN {
            return self.send_again(self.unacknowledged[0]);
        }
        if segment.has(Flags::ACK) && segment.acknowledgement != self.next {
            return self.refuse(segment);
        }
        if !self.is_in_window(segment) {
            if !segment.has(Flags::RST) {
                self.acknowledge();
            }
            return;
        }
        let is_syn = segment.has(Flags::SYN) && segment.sequence != self.remote_initial;
        if segment.has(Flags::RST) || is_syn {
            self.refuse(segment);
            self.end();
        } else if segment.has(Flags::ACK) {
            self.opened_by_listener = false;
            self.state = Some(State::Established);
            self.una = segment.acknowledgement;
            self.unacknowledged.clear();
            self.receive_in_order(packet, random);
        }
    }

    fn is_in_window(&self, segment: Segment) -> bool {
        !before(segment.end(), self.received)
            && !before(self.received.wrapping_add(WINDOW), segment.sequence)
    }

    fn receive_in_order(&mut self, packet: &Packet, random: &mut Random) {
        let segment = packet.segment;
        if self.state == Some(State::TimeWait) && self.receive_in_time_wait(packet) {
            return;
        }
        let completes_simultaneous = self.state == Some(State::SynReceived)
            && segment.has(Flags::SYN)
            && segment.has(Flags::ACK)
            && segment.end() == self.received
            && segment.acknowledgement == self.next;
        if segment.has(Flags::RST) {
            // RFC 5961, section 3.2, and tcp_reset_check with SACK.
            let furthest = self.waiting.iter().map(|&(_, end, _)| end);
            let furthest = furthest.max_by_key(|end| end.wrapping_sub(self.received));
            if segment.sequence == self.received || Some(segment.sequence) == furthest {
                self.end();
            } else if self.is_in_window(segment) {
                self.acknowledge();
            }
            return;
        }
        if !completes_simultaneous && (!self.is_in_window(segment) || segment.has(Flags::SYN)) {
            return self.acknowledge();
        }
        if !segment.has(Flags::ACK) {
            return;
        }
        if self.state == Some(State::SynReceived) {
            if segment.acknowledgement != self.next {
                return self.refuse(segment);
            }
            self.state = Some(State::Established);
        }
        if before(self.next, segment.acknowledgement) {
            return self.acknowledge();
        }
        self.take_acknowledgement(packet);
        if self.state.is_none() {
            return;
        }
        if segment.space() > 0 && !segment.has(Flags::SYN) {
            self.take_data(segment, random);
        }
    }

    /// tcp_timewait_state_process; whether that was all.
    fn receive_in_time_wait(&mut self, packet: &Packet) -> bool {
        let segment = packet.segment;
        if segment.has(Flags::SYN) && !segment.has(Flags::ACK | Flags::RST) {
            if self.listens && (before(self.received, segment.sequence) || packet.is_newer) {
                self.accept(self.next.wrapping_add(65_537), segment);
            } else {
                self.acknowledge();
            }
            return true;
        }
        if segment.has(Flags::RST) {
            if segment.sequence == self.received {
                self.end();
            }
            return true;
        }
        false
    }

    fn take_acknowledgement(&mut self, packet: &Packet) {
        let number = packet.segment.acknowledgement;
        if before(self.una, number) {
            self.una = number;
        }
        let una = self.una;
        self.unacknowledged.retain(|sent| before(una, sent.end()));
        for sent in &mut self.unacknowledged {
            sent.is_sacked |= packet
                .sacks
                .iter()
                .any(|&(a, b)| !before(sent.sequence, a) && !before(b, sent.end()));
        }
        let is_all = self.una == self.next;
        self.state = match self.state {
            Some(State::FinWait1) if is_all => Some(State::FinWait2),
            Some(State::Closing) if is_all => Some(State::TimeWait),
            Some(State::LastAck) if is_all => return self.end(),
            state => state,
        };
    }

    fn take_data(&mut self, segment: Segment, random: &mut Random) {
        let was = self.received;
        self.waiting
            .push((segment.sequence, segment.end(), segment.has(Flags::FIN)));
        let mut has_fin = false;
        loop {
            let received = self.received;
            let fits = |&(start, end, _): &(u32, u32, bool)| {
                !before(received, start) && before(received, end)
            };
            let Some(at) = self.waiting.iter().position(fits) else {
                break;
            };
            let (_, end, is_fin) = self.waiting.remove(at);
            self.received = end;
            has_fin |= is_fin;
        }
        let received = self.received;
        self.waiting.retain(|&(_, end, _)| before(received, end));
        if has_fin {
            self.state = match self.state {
                Some(State::Established) => Some(State::CloseWait),
                Some(State::FinWait1) => Some(State::Closing),
                Some(State::FinWait2) => Some(State::TimeWait),
                state => state,
            };
        }
        // Linux delays only what arrives in order.
        if has_fin || was == self.received || !random.one_in(3) {
            self.acknowledge();
        } else {
            self.owes_ack = true;
        }
    }
}

/// What happened, for the reader of a failure.
#[derive(Default)]
struct Story(Vec<String>);

struct World {
    local: Endpoint,
    remote: Endpoint,
    to_local: Vec<Packet>,
    to_remote: Vec<Packet>,
    observer: Observer,
    story: Story,
    random: Random,
    loses: bool,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let listens = random.one_in(2);
        Self {
            local: Endpoint::new(listens),
            remote: Endpoint::new(random.one_in(2)),
            to_local: vec![],
            to_remote: vec![],
            observer: Observer::new(),
            story: Story::default(),
            loses: random.one_in(2),
            random: Random(random.next()),
        }
    }

    fn tell(&mut self, text: &str) {
        let line = format!(
            "{text:<70} | {:?} {:?} | {:x?}",
            self.local.state, self.remote.state, self.observer.row
        );
        self.story.0.push(line);
    }

    /// What both have sent goes on its way.
    fn collect(&mut self) {
        for packet in std::mem::take(&mut self.local.out) {
            self.observer.sees(Side::Local, packet.segment);
            self.tell(&format!("leaves {:x?}", packet.segment));
            self.to_remote.push(packet);
        }
        self.to_local.append(&mut self.remote.out);
    }

    fn act(&mut self) {
        let length = self.random.pick(&[1, 100, 1000, 60_000]);
        let is_local = self.random.one_in(2);
        let name = match self.random.below(12) {
            0 | 1 => {
                self.side(is_local).close(0);
                "close"
            }
            2 => {
                self.side(is_local).close(length);
                "close with data"
            }
            3 if self.random.one_in(3) => {
                self.side(is_local).abort();
                "abort"
            }
            4 if self.observer.row.is_none() && self.local.state.is_none() => {
                let initial = self.local.choose_initial(&mut self.random);
                self.local.connect(initial);
                "connect"
            }
            5 if self.remote.state.is_none() && self.local.state.is_none() => {
                let initial = self.remote.choose_initial(&mut self.random);
                self.remote.connect(initial);
                "connect"
            }
            6 if self.remote.state.is_none()
                && self.local.state == Some(State::SynSent)
                && self.random.one_in(2) =>
            {
                let initial = self.remote.choose_initial(&mut self.random);
                self.remote.connect(initial);
                "connect simultaneously"
            }
            _ => {
                self.side(is_local).send(length);
                "send"
            }
        };
        let side = if is_local { "local" } else { "remote" };
        self.tell(&format!("{side}: {name}"));
        self.collect();
    }

    fn side(&mut self, is_local: bool) -> &mut Endpoint {
        if is_local {
            &mut self.local
        } else {
            &mut self.remote
        }
    }

    /// One of the packets to the local side arrives, or several at once: they are all seen before
    /// the first of them is taken.
    fn arrive(&mut self, loses: bool) {
        let mut batch = vec![];
        let mut has_reset = false;
        let count = self.random.pick(&[1, 1, 1, 2, 5]);
        for _ in 0..count {
            if let Some(packet) = take(&mut self.to_local, loses, &mut self.random) {
                // Whether a reset of what was acknowledged last comes before or behind a hole
                // shows only when all that came before is acknowledged.
                if packet.segment.has(Flags::RST) {
                    has_reset = true;
                    self.take_all(&mut batch);
                    if self.local.owes_ack {
                        self.local.acknowledge();
                        self.collect();
                    }
                }
                self.observer.sees(Side::Remote, packet.segment);
                self.tell(&format!("arrives {:x?}", packet.segment));
                // What completes a simultaneous open comes a round trip later.
                let opens = packet.segment.flags == Flags::SYN;
                batch.push(packet);
                if opens {
                    break;
                }
            }
        }
        self.take_all(&mut batch);
        // A reset behind a hole is challenged by Linux, and believed here at once; the same comes of
        // it if the challenge is not lost.
        if has_reset && self.observer.row.is_none() && self.local.state.is_some() {
            self.deliver();
        }
        if self.random.one_in(3) && self.local.owes_ack {
            self.local.acknowledge();
            self.collect();
        }
    }

    fn take_all(&mut self, batch: &mut Vec<Packet>) {
        for packet in batch.drain(..) {
            self.local.receive(&packet, &mut self.random);
            self.collect();
        }
    }

    fn arrive_at_remote(&mut self, loses: bool) {
        if let Some(packet) = take(&mut self.to_remote, loses, &mut self.random) {
            self.remote.receive(&packet, &mut self.random);
            if self.random.one_in(3) && self.remote.owes_ack {
                self.remote.acknowledge();
            }
            self.collect();
        }
    }

    fn timers(&mut self) {
        self.local.timer();
        self.remote.timer();
        self.collect();
    }

    /// Lets everything arrive that is under way.
    fn deliver(&mut self) {
        for _ in 0..10_000 {
            if self.to_local.is_empty() && self.to_remote.is_empty() {
                break;
            }
            self.arrive(false);
            self.arrive_at_remote(false);
        }
    }

    /// Lets everything arrive, and compares.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.deliver();
            self.timers();
            if self.to_local.is_empty() && self.to_remote.is_empty() {
                break;
            }
        }
        assert!(
            self.to_local.is_empty() && self.to_remote.is_empty(),
            "it does not come to rest:\n{}",
            self.story.0.join("\n")
        );
        assert_eq!(
            self.observer.state(),
            self.local.state,
            "at rest:\n{}",
            self.story.0.join("\n")
        );
        if let Some(row) = self.observer.row {
            assert!(
                row.state == State::SynSent
                    || !row.marks.has(Marks::LOCAL_SEEN)
                    || self.observer.is_confirmed,
                "not confirmed:\n{}",
                self.story.0.join("\n")
            );
        }
    }

    /// What only happens between connections.
    fn pause(&mut self) {
        match self.random.below(6) {
            // Both forget what waits out late segments.
            0 | 1 => {
                if self.local.state == Some(State::TimeWait) {
                    self.local.end();
                    self.observer.row = None;
                }
                if self.remote.state == Some(State::TimeWait) {
                    self.remote.end();
                }
            }
            2 if self
                .remote
                .is(&[State::TimeWait, State::Established, State::FinWait2]) =>
            {
                // A host that starts anew.
                self.remote.end();
                self.tell("remote: forgets");
            }
            // Reuse by sequence number, or by timestamps.
            3 | 4
                if self.local.state == Some(State::TimeWait)
                    && self.local.listens
                    && self.remote.state.is_none() =>
            {
                let is_newer = self.random.one_in(2);
                let distance = 1 + self.random.number() % (1 << 30);
                let initial = if is_newer {
                    self.local.received.wrapping_sub(distance)
                } else {
                    self.local.received.wrapping_add(distance)
                };
                self.remote.connect(initial);
                self.remote.out[0].is_newer = is_newer;
                self.tell(&format!("remote: connects again, newer: {is_newer}"));
            }
            5 if self.local.state == Some(State::TimeWait) && self.remote.state.is_none() => {
                let initial = self.local.next.wrapping_add(65_537);
                self.local.connect(initial);
                self.tell("local: connects again");
            }
            _ => {}
        }
        if self.remote.state.is_none() && self.random.one_in(3) {
            // A host that starts anew connects although the other knows of the connection before.
            if self
                .local
                .is(&[State::Established, State::FinWait2, State::CloseWait])
            {
                let initial = self.remote.choose_initial(&mut self.random);
                self.remote.connect(initial);
                self.tell("remote: connects over the old one");
            }
        }
        self.collect();
    }
}

fn take(from: &mut Vec<Packet>, loses: bool, random: &mut Random) -> Option<Packet> {
    if from.is_empty() {
        return None;
    }
    let at = if random.one_in(3) {
        random.below(from.len())
    } else {
        0
    };
    if loses && random.one_in(12) {
        return Some(from[at].clone());
    }
    let packet = from.remove(at);
    (!(loses && random.one_in(5))).then_some(packet)
}

#[test]
fn at_rest_the_observer_knows_the_state() {
    let mut seeds = Random::new();
    let mut reached = std::collections::BTreeMap::new();
    for case in 0..cases(MOST) {
        let mut world = World::new(&mut seeds);
        world.story.0.push(format!("case {case}"));
        for _ in 0..12 {
            for _ in 0..world.random.below(24) {
                match world.random.below(8) {
                    0 | 1 => world.act(),
                    2..=4 => world.arrive(world.loses),
                    5 | 6 => world.arrive_at_remote(world.loses),
                    _ => world.timers(),
                }
                *reached
                    .entry(format!("{:?}", world.local.state))
                    .or_insert(0) += 1;
            }
            world.settle();
            world.pause();
        }
    }
    // A simulation that goes nowhere proves nothing.
    println!("{reached:#?}");
    if cases(MOST) >= 1000 {
        assert_eq!(reached.len(), 10, "{reached:#?}");
    }
}
