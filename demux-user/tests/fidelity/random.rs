//! Random connections: opened, used, half-closed, closed, reset and abandoned in a random order.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    mem,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Instant,
};

use crate::{
    common::{
        chance::{Random, cases},
        flood::Cut,
        frames::FrameSocket,
        inside::{SYN, Stations},
        pair::{FAMILIES, Family, HOST, PEER},
        sockets::{listen, start_connecting},
    },
    world::{Opener, World, nobody, reset_on_close},
};

/// How many steps there are, and how many between two comparisons.
const STEPS: usize = 900;
const STEPS_AT_ONCE: usize = 15;

const PORTS: [u16; 3] = [22, 443, 8080];

/// One connection, as the test holds its ends.
struct Conversation {
    /// The host's, and the peer's.
    ends: [Option<TcpStream>; 2],
    family: Family,
    /// Packets were lost on purpose.
    is_damaged: bool,
    /// Which end has sent data since the cable was cut: what it sends then, it might hold back.
    is_waiting: [bool; 2],
}

struct Listeners(Vec<(Opener, Family, u16, TcpListener)>);

/// A random run, with connections that were left alone kept to the end.
struct Run<'w> {
    world: &'w World,
    random: Random,
    listeners: Listeners,
    conversations: Vec<Conversation>,
    unanswered: Vec<OwnedFd>,
    frames: FrameSocket,
    cut: Option<Cut>,
    opened: usize,
}

pub(crate) fn run(world: &World) {
    for host in [&world.pair.host, &world.pair.peer] {
        // Nothing is to be given up while the test looks at it.
        host.sysctl("net/ipv4/tcp_synack_retries", "20");
        host.sysctl("net/ipv4/tcp_syn_retries", "20");
        // Those that are to be refused are not to find a port of another test.
        host.sysctl("net/ipv4/ip_local_port_range", "20000 60000");
    }
    // That what is half-open or half-closed ends earlier in the table is an exception of its own.
    for state in ["syn-sent", "syn-received", "fin-wait-2"] {
        world.demux().ok(&format!("set timeout.{state}=8000"));
    }
    let mut run = Run {
        world,
        random: Random::new(),
        listeners: Listeners::open(world),
        conversations: Vec::new(),
        unanswered: Vec::new(),
        frames: FrameSocket::new(&world.pair.peer, PEER),
        cut: None,
        opened: 0,
    };
    let started = Instant::now();
    let steps = cases(STEPS);
    for step in (0..steps).step_by(STEPS_AT_ONCE) {
        for _ in 0..STEPS_AT_ONCE {
            run.step();
        }
        run.agrees(&format!("step {step}"));
        // Now and then the cable loses everything for a while.
        match run.random.below(15) {
            0 if run.cut.is_none() => run.cut = Some(Cut::both_ways(world.pair)),
            0..12 => run.mend(),
            _ => {}
        }
    }
    run.mend();
    run.agrees("the end");
    run.counts();
    println!(
        "{} connections opened, {} in the end, {:?}",
        run.opened,
        world.kernel().len(),
        started.elapsed()
    );
    assert_eq!(world.demux().run("connections --verify").status, 0);

    // The peer goes away for good.
    world.pair.peer.set_down(PEER);
    run.cut = Some(Cut::both_ways(world.pair));
    let mut left = mem::take(&mut run.conversations);
    for conversation in &mut left {
        run.ends_at_host(conversation);
    }
    run.conversations = left;
    run.agrees("abandoned");
    println!("abandoned: {:?}", tally(world));
}

/// How many connections are in which state.
fn tally(world: &World) -> std::collections::BTreeMap<String, usize> {
    let mut tally = std::collections::BTreeMap::new();
    for state in world.kernel().into_values() {
        *tally.entry(state).or_default() += 1;
    }
    tally
}

impl Run<'_> {
    fn step(&mut self) {
        let choice = self.random.below(100);
        let is_cut = self.cut.is_some();
        match choice {
            0..25 if !is_cut => self.open(),
            25..28 if !is_cut => self.is_refused(),
            28..30 => self.calls_nobody(),
            30..32 if !is_cut => self.is_called_by_nobody(),
            _ if self.conversations.is_empty() => {}
            32..65 => self.with_one(|random, conversation| {
                let from = random.below(2);
                let length = match random.below(4) {
                    0 => 1 + random.below(10),
                    1 => 1 + random.below(2_000),
                    _ => 1 + random.below(100_000),
                };
                if !is_cut {
                    conversation.sends(from, length);
                } else if !mem::replace(&mut conversation.is_waiting[from], true) {
                    conversation.sends(from, length.min(1_000));
                }
            }),
            65..78 => self.with_one(|random, conversation| {
                conversation.finishes(random.below(2));
            }),
            78..90 => self.with_one(|random, conversation| {
                conversation.ends[random.below(2)] = None;
            }),
            90..93 => self.with_one(|random, conversation| {
                let first = random.below(2);
                conversation.ends[first] = None;
                conversation.ends[1 - first] = None;
            }),
            93..96 => self.with_one(|random, conversation| {
                // Both at once, as far as one process can.
                let first = random.below(2);
                conversation.finishes(first);
                conversation.finishes(1 - first);
            }),
            96..98 => self.with_one(|random, conversation| {
                // What nobody has read makes a reset of the end.
                let from = random.below(2);
                if let Some(end) = &mut conversation.ends[from] {
                    let _ = end.write(b"unread");
                    conversation.ends[1 - from] = None;
                }
            }),
            _ => self.with_one(|random, conversation| {
                let who = random.below(2);
                if let Some(end) = conversation.ends[who].take()
                    && !dies_silently(&end)
                {
                    reset_on_close(&end);
                }
            }),
        }
    }

    fn with_one(&mut self, work: impl FnOnce(&mut Random, &mut Conversation)) {
        if self.conversations.is_empty() {
            return;
        }
        let index = self.random.below(self.conversations.len());
        let conversation = &mut self.conversations[index];
        work(&mut self.random, conversation);
        conversation.is_damaged |= self.cut.is_some();
        if conversation.ends.iter().all(Option::is_none) {
            self.conversations.swap_remove(index);
        }
    }

    fn open(&mut self) {
        let opener = self.random.pick(&Opener::ALL);
        let family = self.random.pick(&FAMILIES);
        let port = self.random.pick(&PORTS);
        let (from, _, at) = self.world.route(opener, family, port);
        let client = from.enter(|| TcpStream::connect(at).expect("connecting"));
        let server = self.listeners.accept(opener, family, port, &client);
        for end in [&client, &server] {
            end.set_nonblocking(true).unwrap();
            end.set_nodelay(true).unwrap();
        }
        self.conversations.push(Conversation {
            ends: match opener {
                Opener::Host => [Some(client), Some(server)],
                Opener::Peer => [Some(server), Some(client)],
            },
            family,
            is_damaged: false,
            is_waiting: [false; 2],
        });
        self.opened += 1;
    }

    /// A SYN that is answered by a reset.
    fn is_refused(&mut self) {
        let opener = self.random.pick(&Opener::ALL);
        let family = self.random.pick(&FAMILIES);
        let (from, _, at) = self.world.route(opener, family, 9);
        let result = from.enter(|| TcpStream::connect(at));
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }

    /// A SYN that is not answered.
    fn calls_nobody(&mut self) {
        let family = self.random.pick(&FAMILIES);
        let at = SocketAddr::new(nobody(family), 80);
        let socket = start_connecting(&self.world.pair.host, at);
        self.unanswered.push(socket);
    }

    /// A SYN of somebody who is not there.
    fn is_called_by_nobody(&mut self) {
        let family = self.random.pick(&FAMILIES);
        let stations = Stations {
            from: self.world.pair.peer.mac(PEER),
            to: self.world.pair.host.mac(HOST),
        };
        let from = SocketAddr::new(nobody(family), 1024 + self.random.below(60_000) as u16);
        let at = family.at_host(self.random.pick(&PORTS));
        let sequence = self.random.next() as u32;
        self.frames
            .send(&stations.segment(from, at, SYN, [sequence, 0]));
    }

    /// Lets the cable carry packets again.
    fn mend(&mut self) {
        self.cut = None;
        for conversation in &mut self.conversations {
            conversation.is_waiting = [false; 2];
        }
    }

    /// What a process of the host may do when its peer is gone.
    fn ends_at_host(&mut self, conversation: &mut Conversation) {
        match self.random.below(6) {
            0 => {}
            1 => conversation.finishes(0),
            2 => conversation.sends(0, 1000),
            3 => {
                if let Some(end) = conversation.ends[0].take() {
                    reset_on_close(&end);
                }
            }
            _ => conversation.ends[0] = None,
        }
    }

    /// Waits until demux and the kernel agree, while whatever arrives is read.
    #[track_caller]
    fn agrees(&self, context: &str) {
        self.world.agrees_while(context, || {
            let mut is_quiet = true;
            for conversation in &self.conversations {
                for end in conversation.ends.iter().flatten() {
                    drain(end);
                }
                // What an end has sent that is gone will never be acknowledged.
                if let [Some(one), Some(other)] = &conversation.ends {
                    is_quiet &= unacknowledged(one) == 0 && unacknowledged(other) == 0;
                }
            }
            is_quiet || self.cut.is_some()
        });
    }

    /// Compares the counters of connections that have seen no trouble.
    fn counts(&self) {
        let sound = self
            .conversations
            .iter()
            .filter(|conversation| !conversation.is_damaged)
            .filter_map(|conversation| match &conversation.ends {
                [Some(host), Some(peer)] => Some((conversation.family, host, peer)),
                _ => None,
            });
        // Those that have ended have no peer any more, nor a row.
        let alive = sound.filter(|(_, host, peer)| host.peer_addr().and(peer.peer_addr()).is_ok());
        for (family, host, peer) in alive.take(20) {
            self.world.counts(host, peer, family, false);
        }
    }
}

impl Conversation {
    /// Sends as much of this as the other end takes.
    fn sends(&mut self, from: usize, mut length: usize) {
        let data = vec![0x5a; length];
        while length > 0 {
            let Some(end) = &mut self.ends[from] else {
                return;
            };
            match end.write(&data[..length]) {
                Ok(sent) => length -= sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The other end may be gone; what it reads makes room.
                    match &self.ends[1 - from] {
                        Some(other) if drain(other) => {}
                        _ => return,
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn finishes(&self, who: usize) {
        if let Some(end) = &self.ends[who] {
            // After a reset there is nothing to finish.
            let _ = end.shutdown(Shutdown::Write);
        }
    }
}

/// Whether the kernel would end a connection without a word that is closed with SO_LINGER and a time
/// of 0, because both sides have finished already (tcp_need_reset): one of the exceptions.
fn dies_silently(end: &TcpStream) -> bool {
    const LAST_ACK: u8 = 9;
    const CLOSING: u8 = 11;
    let mut state = 0_u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the kernel writes as many bytes of the structure as there is room for; the first one
    // is the state.
    let result = unsafe {
        libc::getsockopt(
            end.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    matches!(state, LAST_ACK | CLOSING)
}

/// How much an end has yet to get rid of.
fn unacknowledged(end: &TcpStream) -> i32 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the call writes one number.
    let result = unsafe { libc::ioctl(end.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    bytes
}

/// Reads what has arrived; returns whether there was anything.
fn drain(mut end: &TcpStream) -> bool {
    let mut buffer = [0; 1 << 16];
    let mut has_read = false;
    while let Ok(length) = end.read(&mut buffer) {
        if length == 0 {
            break;
        }
        has_read = true;
    }
    has_read
}

impl Listeners {
    fn open(world: &World) -> Self {
        let mut listeners = Vec::new();
        for opener in Opener::ALL {
            for family in FAMILIES {
                for port in PORTS {
                    let (_, to, at) = world.route(opener, family, port);
                    listeners.push((opener, family, port, listen(to, at)));
                }
            }
        }
        Self(listeners)
    }

    fn accept(&self, opener: Opener, family: Family, port: u16, client: &TcpStream) -> TcpStream {
        let (.., listener) = self
            .0
            .iter()
            .find(|(a, b, c, _)| (*a, *b, *c) == (opener, family, port))
            .expect("a listener");
        let wanted = client.local_addr().unwrap();
        loop {
            let (server, from) = listener.accept().expect("a connection");
            // Another may be one whose client was gone by then.
            if from == wanted {
                return server;
            }
        }
    }
}
