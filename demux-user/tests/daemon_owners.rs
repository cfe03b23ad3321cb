//! Owners of sets by way of the daemon: who may, what they may say, and how they end.

mod common;

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    daemon::{Daemon, receive, send, try_receive, wish},
    demux::Demux,
    inside::Stations,
    netns::{Netns, Queues},
    pair::{Family, HOST, PEER, Pair, quick_netns},
    sockets::{is_silent, udp},
    user::{NOBODY, as_user},
    wait::{wait_for, wait_for_some},
};
use demux_user::{
    Result,
    daemon::{
        protocol::{Open, Opened, Register, Reply, Request, decode, encode},
        transport::{self, Received},
    },
    xsk::{
        area::Area,
        mapping::Mapping,
        queue::{Place, QueueId},
        region::Shape,
        remote::{Connection, Remote},
        socket::{Binding, CopyMode, Socket},
    },
};
use nix::sys::signal::Signal;

const PORT: u16 = 7000;

/// Another user without rights than [`NOBODY`].
const STRANGER: u32 = 65_533;

fn loaded(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 256"));
    demux.ok(&format!("bind udp :{PORT} --to xsk:web"));
    demux
}

/// What came of something that a user without rights did.
fn by<T: Send>(user: u32, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut result = None;
    as_user(user, || result = Some(work()));
    result.unwrap()
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T>, status: u8, code: &str, words: &[&str]) {
    let error = result.expect_err("a refusal");
    assert_eq!(
        (error.exit_status(), error.code()),
        (status, code),
        "{error}"
    );
    let text = format!("{error}; {}", error.hint().unwrap());
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

#[test]
fn who_may_own_what_is_said_by_the_configuration() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let config = format!(
        "[[owner]]\nuser = {NOBODY}\nsets = ['web', 'dns']\n\
         [[owner]]\ngroup = {STRANGER}\nsets = ['mail']\n"
    );
    let daemon = Daemon::start(&demux, &config);
    let open = |set: &str| daemon.open(set, HOST).map(drop);

    // The socket file itself keeps out who is not in its group.
    let error = by(NOBODY, || open("web")).unwrap_err();
    assert_eq!(error.exit_status(), 4, "{error}");
    daemon.admit(NOBODY);
    by(NOBODY, || open("web")).unwrap();
    by(NOBODY, || open("dns")).unwrap();
    let file = daemon.config();
    let file = file.to_str().unwrap();
    for (user, set) in [(NOBODY, "mail"), (NOBODY, "webs")] {
        assert_refused(
            by(user, || open(set)),
            4,
            "permission_denied",
            &[set, &user.to_string(), "root", file, "SIGHUP"],
        );
    }
    daemon.admit(STRANGER);
    by(STRANGER, || open("mail")).unwrap();
    assert_refused(
        by(STRANGER, || open("web")),
        4,
        "permission_denied",
        &["web"],
    );
    for set in ["web", "mail", "anything"] {
        open(set).unwrap();
    }
}

#[test]
fn a_user_has_no_more_than_is_allowed() {
    let (host, peer) = (quick_netns(), quick_netns());
    let queues = Queues { rx: 4, tx: 4 };
    host.veth_with_queues(HOST, queues, &peer, PEER, queues);
    let pair = Pair { host, peer };
    let demux = loaded(&pair);
    let config = format!(
        "[[owner]]\nuser = {NOBODY}\nsets = ['*']\nmax_queues = 8\nmax_memory_mib = 8\n\
         [[owner]]\nuser = {STRANGER}\nsets = ['*']\n"
    );
    let daemon = Daemon::start(&demux, &config);
    daemon.admit(NOBODY);
    let open = |set: &str, ring_size| {
        let wish = Open {
            ring_size,
            ..wish(set, HOST)
        };
        by(NOBODY, || Remote::open(&daemon.socket(), wish))
    };
    let a = open("a", 64).unwrap();
    let b = open("b", 64).unwrap();
    assert_refused(open("c", 64), 4, "permission_denied", &["8 queues"]);
    drop(a);
    daemon.says("set a: closed");
    assert_refused(open("c", 512), 4, "permission_denied", &["8 MiB"]);
    let c = open("c", 64).unwrap();
    drop((b, c));

    // Connections cost something too.
    let connections: Vec<Connection> = (0..65)
        .map(|_| by(NOBODY, || daemon.connect()).unwrap())
        .collect();
    wait_for("the last to be refused", || {
        connections[64].check().is_err()
    });
    assert!(connections[..64].iter().all(|one| one.check().is_ok()));
    daemon.admit(STRANGER);
    by(STRANGER, || daemon.open("d", HOST)).unwrap();
    drop(connections);
    daemon.admit(NOBODY);
    wait_for_some("room", || open("a", 64).ok());
}

#[test]
fn wishes_that_cannot_be_are_refused_and_the_connection_goes_on() {
    let pair = Pair::new();
    pair.host.veth("idle0", &pair.peer, "idle1");
    let demux = loaded(&pair);
    let daemon = Daemon::start(&demux, "");
    let good = wish("web", HOST);
    let talk = Raw::connect(&daemon);
    for (wish, status, code) in [
        (
            Open {
                set: String::new(),
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                set: "a b".into(),
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                set: "n".repeat(32),
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                interfaces: vec![],
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                interfaces: vec![HOST.into(); 2],
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                interfaces: vec!["x".into(); 5],
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                interfaces: vec!["nosuch0".into()],
                ..good.clone()
            },
            3,
            "unknown_interface",
        ),
        (
            Open {
                interfaces: vec!["idle0".into()],
                ..good.clone()
            },
            3,
            "not_attached",
        ),
        (
            Open {
                ring_size: 0,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                ring_size: 65,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                ring_size: 1 << 16,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                ring_size: u32::MAX,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                chunk_size: 1024,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
        (
            Open {
                chunk_size: 8192,
                ..good.clone()
            },
            2,
            "invalid_argument",
        ),
    ] {
        let text = format!("{wish:?}");
        match talk.ask(&encode(&Request::Open(wish)).unwrap(), &[]) {
            Some((Reply::Error(refusal), _)) => {
                assert_eq!(
                    (refusal.status, refusal.code.as_str()),
                    (status, code),
                    "{text}: {refusal:?}"
                );
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let (reply, fds) = talk
        .ask(&encode(&Request::Open(good.clone())).unwrap(), &[])
        .unwrap();
    assert!(matches!(reply, Reply::Opened(_)), "{reply:?}");
    assert_eq!(fds.len(), 2);
    // One set for one connection, and one owner for one set.
    let again = Open {
        set: "more".into(),
        ..good
    };
    assert!(talk.refuses(&encode(&Request::Open(again)).unwrap(), "one set"));
    assert_refused(
        daemon.open("web", HOST),
        5,
        "socket_set_taken",
        &["web", &std::process::id().to_string()],
    );
    drop(talk);
    wait_for_some("the set", || daemon.open("web", HOST).ok());
}

#[test]
fn messages_that_are_none_harm_nobody() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let daemon = Daemon::start(&demux, "");
    let witness = daemon.open("web", HOST).unwrap();
    let deep = format!("{{\"version\":1,\"request\":{}", "[".repeat(60_000));
    let talk = Raw::connect(&daemon);
    for (bytes, word) in [
        (&b"\0\0\0\0"[..], "JSON"),
        (b"{}", "version"),
        (b"{\"version\":7,\"request\":\"statistics\"}", "version 7"),
        (b"{\"version\":1,\"request\":\"statistics\"}", "not opened"),
        (b"{\"version\":1,\"request\":\"destroy\"}", "destroy"),
        (b"{\"version\":1,\"request\":\"open\",\"set\":7}", "7"),
        (&[0xff; 1000], "JSON"),
        (deep.as_bytes(), "JSON"),
    ] {
        assert!(talk.refuses(bytes, word));
    }
    // What is too long, or has too many descriptors, ends the connection.
    let null = fs::File::open("/dev/null").unwrap();
    let many = vec![null.as_fd(); 200];
    for (bytes, fds) in [
        (vec![b' '; transport::MAX_MESSAGE + 1], vec![]),
        (b"{}".to_vec(), many.clone()),
    ] {
        let talk = Raw::connect(&daemon);
        match talk.ask(&bytes, &fds) {
            Some((Reply::Error(refusal), _)) => assert!(refusal.message.contains("longer")),
            other => panic!("{other:?}"),
        }
        assert!(talk.hear().is_none());
    }
    // Descriptors that nobody asked for are closed.
    let open_files = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .count()
    };
    let before = open_files();
    let statistics = encode(&Request::Statistics).unwrap();
    for _ in 0..10 {
        match talk.ask(&statistics, &many[..100]) {
            Some((Reply::Error(refusal), _)) => assert!(refusal.message.contains("descriptors")),
            other => panic!("{other:?}"),
        }
    }
    wait_for("the descriptors to be closed", || open_files() <= before);
    // Who sends and never reads is left.
    let deaf = Raw::connect(&daemon);
    let end = wait_for_some("the end", || {
        transport::send(deaf.0.as_fd(), &statistics, &[]).err()
    });
    assert_eq!(end.raw_os_error(), Some(libc::EPIPE), "{end}");
    assert!(witness.connection.statistics().is_ok());
}

#[test]
fn sockets_of_the_owners_own_are_published_if_they_are_what_is_said() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind udp :7001 --to xsk:other");
    let config = format!("[[owner]]\nuser = {NOBODY}\nsets = ['web']\n");
    let daemon = Daemon::start(&demux, &config);
    daemon.admit(NOBODY);
    let register = |set: &str, interface: &str, queue| Register {
        set: set.into(),
        interface: interface.into(),
        queue,
        longest_frame: 3840,
    };
    let place = |queue| Place {
        id: QueueId {
            ifindex: pair.host.index(HOST),
            queue,
        },
        interface: HOST.into(),
    };
    let xsk = |bound: bool| {
        let area = Area::new(4096, 64).unwrap();
        let socket = Socket::new().unwrap();
        socket.register(&area).unwrap();
        let mut fill = socket.fill(64).unwrap();
        let completion = socket.completion(64).unwrap();
        let rx = socket.rx(64).unwrap();
        for chunk in 0..64 {
            assert!(fill.push(area.address_of(chunk)));
        }
        fill.submit();
        if bound {
            let how = Binding {
                copy: CopyMode::Auto,
                multi_buffer: false,
            };
            socket.bind(&place(0), how).unwrap();
        }
        (socket, rx, (fill, completion, area))
    };

    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let other = Netns::new();
    let elsewhere = other.enter(|| Socket::new().unwrap());
    let (unbound, ..) = pair.host.enter(|| xsk(false));
    let connection = daemon.connect().unwrap();
    for (fd, word) in [
        (null.as_fd(), "no socket"),
        (tcp.as_fd(), "another family"),
        (elsewhere.as_fd(), "another network namespace"),
        (unbound.as_fd(), "not bound"),
    ] {
        let result = connection.register(register("web", HOST, 0), fd);
        assert_refused(result, 2, "invalid_argument", &[word]);
    }
    let (socket, mut rx, _kept) = pair.host.enter(|| xsk(true));
    let refused = |wish, word: &str| {
        let result = connection.register(wish, socket.as_fd());
        assert_refused(result, 2, "invalid_argument", &[word]);
    };
    refused(register("web", HOST, 99), "99");
    refused(register("a b", HOST, 0), "a b");
    refused(
        Register {
            longest_frame: 0,
            ..register("web", HOST, 0)
        },
        "longest frame",
    );
    let by_nobody = |set: &'static str| {
        by(NOBODY, || {
            let connection = daemon.connect()?;
            connection.register(register(set, HOST, 0), socket.as_fd())?;
            Ok(connection)
        })
    };
    assert_refused(by_nobody("other"), 4, "permission_denied", &["other"]);
    let owner = by_nobody("web").unwrap();

    let client = udp(&pair.peer, Family::V4.at_peer(0));
    let mut arrives = || {
        client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
        let deadline = Instant::now() + Duration::from_millis(500);
        while Instant::now() < deadline {
            if rx.pop().is_some() {
                rx.release();
                return true;
            }
        }
        false
    };
    assert!(arrives());
    // The connection is the owner's life here, too.
    drop(owner);
    daemon.says("set web: closed");
    assert!(!arrives());
    assert_eq!(demux.count("drop", "no-target"), 1);
}

/// Not a test: what the process does that other tests start as an owner.
#[test]
fn as_an_owner() {
    let Some(socket) = env::var_os("DEMUX_TEST_OWNER").map(PathBuf::from) else {
        return;
    };
    let mut set = Remote::open(&socket, wish("web", HOST)).unwrap();
    println!("\nopen");
    loop {
        try_receive(&mut set, 0, Duration::from_secs(60));
    }
}

/// A process that owns the set `web`.
fn owner(daemon: &Daemon) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["as_an_owner", "--exact", "--nocapture"])
        .env("DEMUX_TEST_OWNER", daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines
            .map_while(std::io::Result::ok)
            .any(|line| line == "open")
    );
    child
}

#[test]
fn the_set_of_an_owner_that_is_killed_is_free_at_once() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind udp :7001 --to xsk:other");
    let daemon = Daemon::start(&demux, "");
    let mut other = daemon.open("other", HOST).unwrap();
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    for _ in 0..3 {
        let mut child = owner(&daemon);
        assert_refused(
            daemon.open("web", HOST),
            5,
            "socket_set_taken",
            &[&child.id().to_string()],
        );
        client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
        child.kill().unwrap();
        let killed = Instant::now();
        // Nobody has waited for it yet.
        let set = wait_for_some("the set", || daemon.open("web", HOST).ok());
        assert!(
            killed.elapsed() < Duration::from_secs(1),
            "{:?}",
            killed.elapsed()
        );
        child.wait().unwrap();
        drop(set);
        client.send_to(b"hello", Family::V4.at_host(7001)).unwrap();
        receive(&mut other, 0);
    }
    wait_for("the fallback", || {
        client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
        demux.count("drop", "no-target") > 0
    });
}

#[test]
fn a_killed_daemon_leaves_nothing_behind() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let mut daemon = Daemon::start(&demux, "");
    let mut set = daemon.open("web", HOST).unwrap();
    let client = udp(&pair.peer, Family::V4.at_peer(0));
    client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
    receive(&mut set, 0);
    assert_eq!(demux.count("drop", "no-target"), 0);
    daemon.signal(Signal::SIGKILL);
    assert_eq!(daemon.wait(), -9);
    // Its owner hears of it at once, and packets go to the fallback.
    let error = wait_for_some("the end", || set.connection.check().err());
    assert_eq!(error.code(), "no_daemon");
    client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
    wait_for("the fallback", || demux.count("drop", "no-target") == 1);

    let next = Daemon::start_in(&demux, daemon.directory());
    let mut set = wait_for_some("the queue", || next.open("web", HOST).ok());
    client.send_to(b"hello", Family::V4.at_host(PORT)).unwrap();
    receive(&mut set, 0);
    drop(set);
    drop(next);
}

#[test]
fn the_end_of_the_daemon_is_the_end_of_its_sets() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    let mut daemon = Daemon::start(&demux, "");
    let set = daemon.open("web", HOST).unwrap();
    assert_eq!(daemon.stop(), 0);
    // What it said last is read a moment later.
    daemon.says("set web: closed");
    assert_eq!(set.connection.check().unwrap_err().code(), "no_daemon");
    let sets = demux.items("bindings");
    assert_eq!(sets[0]["target"], "xsk:web");
}

#[test]
fn a_hostile_owner_harms_nobody_but_itself() {
    let pair = Pair::new();
    let demux = loaded(&pair);
    demux.ok("bind udp :7001 --to xsk:honest");
    let config = format!("[[owner]]\nuser = {NOBODY}\nsets = ['web']\n");
    let daemon = Daemon::start(&demux, &config);
    daemon.admit(NOBODY);
    let mut honest = daemon.open("honest", HOST).unwrap();
    let talk = by(NOBODY, || Ok(Raw::connect(&daemon))).unwrap();
    let request = encode(&Request::Open(wish("web", HOST))).unwrap();
    let Some((Reply::Opened(opened), fds)) = talk.ask(&request, &[]) else {
        panic!("the set is opened");
    };
    let ours = Stations {
        from: pair.host.mac(HOST),
        to: pair.peer.mac(PEER),
    };
    let forged = ours.datagram(
        Family::V4.at_host(7001),
        Family::V4.at_peer(9000),
        b"forged",
    );
    let victim = udp(&pair.peer, Family::V4.at_peer(9000));

    let is_over = AtomicBool::new(false);
    let memory = Hostile::new(&opened, &fds[0], &forged);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..50 {
                    memory.scribble(&mut chance);
                }
                // The socket's other end cannot be made to wait.
                // SAFETY: the bytes outlive the call.
                unsafe {
                    let flags = libc::fcntl(fds[1].as_raw_fd(), libc::F_GETFL);
                    libc::fcntl(fds[1].as_raw_fd(), libc::F_SETFL, flags ^ libc::O_NONBLOCK);
                    libc::send(
                        fds[1].as_raw_fd(),
                        [1_u8; 64].as_ptr().cast(),
                        64,
                        libc::MSG_DONTWAIT,
                    );
                }
            }
        });
        let client = udp(&pair.peer, Family::V4.at_peer(0));
        let deadline = Instant::now() + Duration::from_secs(3);
        let mut rounds = 0_u32;
        while Instant::now() < deadline {
            for _ in 0..10 {
                client.send_to(b"bait", Family::V4.at_host(PORT)).unwrap();
            }
            client
                .send_to(&rounds.to_ne_bytes(), Family::V4.at_host(7001))
                .unwrap();
            let frame = receive(&mut honest, 0);
            assert!(frame.ends_with(&rounds.to_ne_bytes()));
            let from = client.local_addr().unwrap();
            send(
                &mut honest,
                0,
                &ours.datagram(Family::V4.at_host(7001), from, &rounds.to_ne_bytes()),
            );
            let mut answer = [0; 16];
            assert_eq!(client.recv(&mut answer).unwrap(), 4);
            rounds += 1;
        }
        is_over.store(true, Ordering::Relaxed);
        assert!(rounds > 100, "{rounds}");
    });
    assert!(is_silent(&victim));
    let Some((Reply::Statistics { queues }, _)) =
        talk.ask(&encode(&Request::Statistics).unwrap(), &[])
    else {
        panic!("statistics");
    };
    assert_eq!(queues[0].tx_packets, 0);
    for count in [
        queues[0].tx_invalid,
        queues[0].rx_invalid,
        queues[0].tx_refused,
    ] {
        assert!(count > 0, "{queues:?}");
    }
    assert_eq!(demux.items("connections lport 7001").len() as u64, 1);
}

/// Memory that is shared with the daemon, and written without rules.
struct Hostile {
    words: std::ptr::NonNull<AtomicU64>,
    count: usize,
    rings: usize,
    chunks: u64,
    _mapping: Arc<Mapping>,
}

// SAFETY: all access is by atomic operations on memory that the value keeps alive.
unsafe impl Sync for Hostile {}

impl Hostile {
    /// Fills all chunks with a frame.
    fn new(opened: &Opened, fd: &OwnedFd, frame: &[u8]) -> Self {
        let shape = Shape {
            chunk_size: opened.chunk_size,
            chunks: opened.chunks,
            ring_size: opened.ring_size,
        };
        let len = shape.len() as usize;
        let mapping = Arc::new(Mapping::of(fd.as_fd(), 0, len).unwrap());
        let mut area = Area::within(&mapping, 0, shape.chunk_size, shape.chunks).unwrap();
        for chunk in 0..shape.chunks {
            assert!(area.copy_in(area.address_of(chunk), frame));
        }
        Self {
            words: mapping.slice(0, len / 8).unwrap(),
            count: len / 8,
            rings: area.len() / 8,
            chunks: u64::from(shape.chunks),
            _mapping: mapping,
        }
    }

    /// Writes something to somewhere in the rings.
    fn scribble(&self, chance: &mut u64) {
        let mut next = || {
            *chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *chance >> 20
        };
        let place = self.rings + (next() as usize) % (self.count - self.rings);
        let value = match next() % 5 {
            // An address, or a descriptor's length, that could be.
            0 => (next() % self.chunks) << 12,
            1 => 48,
            2 => 48 | 1 << 32,
            3 => next() % 100,
            _ => next() << 20 | next(),
        };
        // SAFETY: the word lies within the mapping.
        unsafe { self.words.add(place).as_ref() }.store(value, Ordering::Relaxed);
        // The indices are few among many words. Mostly they are what they should be, or nearly, since all
        // the rest is not looked at otherwise.
        let ring = (next() % 4) as usize;
        let (other, own) = (self.index(ring, OTHERS[ring]), self.index(ring, OWN[ring]));
        let now = other.load(Ordering::Relaxed);
        match next() % 8 {
            0 => own.store(next() as u32, Ordering::Relaxed),
            // For a moment: the daemon does not read it.
            1 => {
                other.store(next() as u32, Ordering::Relaxed);
                other.store(now, Ordering::Relaxed);
            }
            2 => self.index(ring, 2).store(next() as u32, Ordering::Relaxed),
            // Of fill and tx the owner is the producer.
            _ if ring.is_multiple_of(2) => {
                own.store(now.wrapping_add((next() % 65) as u32), Ordering::Relaxed);
            }
            _ => own.store(now, Ordering::Relaxed),
        }
    }

    /// The producer's index of a ring (0), the consumer's (1), or its flags (2).
    fn index(&self, ring: usize, number: usize) -> &AtomicU32 {
        let size = (self.count - self.rings) / 4;
        let word = self.rings + ring * size + 16 * number;
        // SAFETY: the word lies within the mapping; the index is its first half.
        unsafe { self.words.add(word).cast().as_ref() }
    }
}

/// Which indices of fill, rx, tx and completion the owner writes, and which the daemon.
const OWN: [usize; 4] = [0, 1, 0, 1];
const OTHERS: [usize; 4] = [1, 0, 1, 0];

/// A connection on which anything can be said.
#[derive(Debug)]
struct Raw(OwnedFd);

impl Raw {
    fn connect(daemon: &Daemon) -> Self {
        Self(transport::connect_to(&daemon.socket()).unwrap())
    }

    /// Says something, and returns the answer; `None` at the end of the connection.
    fn ask(
        &self,
        bytes: &[u8],
        fds: &[std::os::fd::BorrowedFd<'_>],
    ) -> Option<(Reply, Vec<OwnedFd>)> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let bytes = std::io::IoSlice::new(bytes);
        sendmsg(&self.0, &[bytes], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
        self.hear()
    }

    fn hear(&self) -> Option<(Reply, Vec<OwnedFd>)> {
        match transport::receive(self.0.as_fd()).unwrap() {
            Received::Message(bytes, fds) => Some((decode(&bytes).unwrap(), fds)),
            Received::End => None,
            Received::TooLarge => panic!("a long answer"),
        }
    }

    /// Whether something is refused with this word, and the connection goes on.
    fn refuses(&self, bytes: &[u8], word: &str) -> bool {
        match self.ask(bytes, &[]) {
            Some((Reply::Error(refusal), _)) if refusal.message.contains(word) => true,
            other => panic!("{word}: {other:?}"),
        }
    }
}
