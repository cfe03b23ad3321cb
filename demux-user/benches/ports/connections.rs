//! Connections of the kernel from one address to one listener, and what another one takes.
//!
//! They go over the loopback interface of a namespace of their own. The kernel chose the port of each
//! in `connect()`, as it does for sockets that are not bound: it would pass over ports that were bound
//! by hand without a look at the connection. The server closes its end at once, so that a connection
//! takes one descriptor; the clients', in CLOSE-WAIT, keep their ports. They end with a reset, so that
//! nothing waits in TIME-WAIT.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt::Linger};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    common::{netns::Netns, sockets},
    usage::{COUNT, FIRST, InUse, LAST},
};

/// Where all connect to, and from where.
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 2), 80);
const CLIENT: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// The ports below the range that sockets are bound to, in turn.
const BOUND: std::ops::Range<u16> = 10_000..20_000;

/// How many connections end and begin before it is measured.
const CHANGES: usize = 4096;

/// The connections.
pub(crate) struct Connections {
    /// Where they are; `None` for the namespace of this process.
    netns: Option<Netns>,
    listener: TcpListener,
    in_use: InUse<OwnedFd>,
    next_bound: u16,
}

/// The nanoseconds that `connect()` took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connect {
    /// Of a socket without an address, for which the kernel looks for a port.
    pub(crate) searching: f64,
    /// Of a socket that was bound to a free port.
    pub(crate) bound: f64,
}

impl Connections {
    /// None yet, in a namespace of their own.
    pub(crate) fn new() -> Self {
        let netns = Netns::new();
        netns.sysctl("net/ipv4/ip_local_port_range", &format!("{FIRST} {LAST}"));
        let listener = sockets::listen(&netns, SERVER.into());
        Self::of(Some(netns), listener)
    }

    /// None yet, in the namespace of this process.
    pub(crate) fn here() -> Self {
        let listener = TcpListener::bind(SERVER).expect("the server's port");
        Self::of(None, listener)
    }

    fn of(netns: Option<Netns>, listener: TcpListener) -> Self {
        let files = COUNT as u64 + 1024;
        let maximum = getrlimit(Resource::Nofile).maximum;
        let maximum = maximum.map(|maximum| maximum.max(files));
        let limit = Rlimit {
            current: Some(files),
            maximum,
        };
        setrlimit(Resource::Nofile, limit).expect("a file for each port");
        Self {
            netns,
            listener,
            in_use: InUse::new(),
            next_bound: BOUND.start,
        }
    }

    /// Makes connections until there are so many, more than before, and lets the ports that are free be
    /// those that `connect()` leaves free: it takes all of one parity before it takes the others.
    pub(crate) fn raise_use(&mut self, count: usize) {
        let Self {
            netns,
            listener,
            in_use,
            ..
        } = self;
        within(netns.as_ref(), || {
            while in_use.len() < count {
                let (port, end, _time) = connect(listener, client(None));
                in_use.insert(port, end);
            }
            for _ in 0..CHANGES {
                let (port, end, _time) = connect(listener, client(None));
                in_use.insert(port, end);
                drop(in_use.shrink(count));
            }
        });
    }

    /// Connects so often, and ends another connection each time.
    pub(crate) fn measure(&mut self, times: usize) -> Vec<Connect> {
        let Self {
            netns,
            listener,
            in_use,
            next_bound,
        } = self;
        within(netns.as_ref(), || {
            let mut figures = Vec::with_capacity(times);
            let count = in_use.len();
            for _ in 0..times {
                let (_, end, bound) = connect(listener, client(Some(*next_bound)));
                drop(end);
                *next_bound += 1;
                if *next_bound == BOUND.end {
                    *next_bound = BOUND.start;
                }
                let (port, end, searching) = connect(listener, client(None));
                in_use.insert(port, end);
                drop(in_use.shrink(count));
                figures.push(Connect {
                    searching: searching.as_nanos() as f64,
                    bound: bound.as_nanos() as f64,
                });
            }
            figures
        })
    }
}

/// Does something in a namespace, or where this process is.
fn within<T: Send>(netns: Option<&Netns>, body: impl FnOnce() -> T + Send) -> T {
    match netns {
        Some(netns) => netns.enter(body),
        None => body(),
    }
}

/// A socket whose connection ends with a reset.
fn client(port: Option<u16>) -> OwnedFd {
    let socket = sockets::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, Linger, &linger).expect("an option");
    if let Some(port) = port {
        sockets::bind(&socket, (CLIENT, port).into());
    }
    socket
}

/// Connects it. Returns its port, its end, and how long `connect()` took.
fn connect(listener: &TcpListener, client: OwnedFd) -> (u16, OwnedFd, Duration) {
    let start = Instant::now();
    sockets::connect_to(&client, SERVER.into());
    let time = start.elapsed();
    let (_server, from) = listener.accept().expect("the connection");
    (from.port(), client, time)
}
