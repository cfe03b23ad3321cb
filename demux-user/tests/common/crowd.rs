//! More real connections than a process may have descriptors for: held by threads that have tables of
//! descriptors of their own, which count as processes there.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::{RwLock, mpsc},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use rustix::{
    net::sockopt::{Timeout, set_socket_timeout},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::{netns::Netns, sockets::listen};

/// How many connections a thread holds: below any usual limit.
const SHARE: usize = 9_000;

/// Runs `work` while there are `count` connections from `client` to a listener at `at` in `server`.
pub fn with_crowd<T>(
    server: &Netns,
    client: &Netns,
    at: SocketAddr,
    count: usize,
    work: impl FnOnce() -> T,
) -> T {
    raise_limit();
    client.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    let listener = listen(server, at);
    // Whoever waits in vain is to say so.
    set_socket_timeout(&listener, Timeout::Recv, Some(Duration::from_secs(60))).unwrap();
    // Whoever has it keeps everybody waiting; a panic gives it back.
    let gate = RwLock::new(());
    let held = gate.write().unwrap();
    thread::scope(|scope| {
        let held = held;
        let (is_ready, ready) = mpsc::channel();
        let shares = (0..count)
            .step_by(SHARE)
            .map(|first| SHARE.min(count - first));
        let shares: Vec<usize> = shares.collect();
        for &share in &shares {
            let (listener, gate, accepted) = (&listener, &gate, is_ready.clone());
            scope.spawn(move || {
                keep_only(listener);
                let streams: Vec<TcpStream> = (0..share)
                    .map(|_| listener.accept().expect("a connection").0)
                    .collect();
                accepted.send(()).unwrap();
                drop(gate.read());
                drop(streams);
            });
            let connected = is_ready.clone();
            scope.spawn(move || {
                client.enter(|| {
                    keep_only(listener);
                    let streams: Vec<TcpStream> = (0..share)
                        .map(|number| {
                            TcpStream::connect(at)
                                .unwrap_or_else(|error| panic!("{number} to {at}: {error}"))
                        })
                        .collect();
                    connected.send(()).unwrap();
                    drop(gate.read());
                    drop(streams);
                });
            });
        }
        drop(is_ready);
        for _ in 0..2 * shares.len() {
            ready.recv().expect("all connections");
        }
        let result = work();
        drop(held);
        result
    })
}

/// As many descriptors as the machine grants.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).unwrap();
}

/// Gives this thread a table of descriptors of its own, with nothing in it that other tests wait to see
/// closed.
fn keep_only(listener: &TcpListener) {
    unshare(CloneFlags::CLONE_FILES).unwrap();
    let kept = listener.as_raw_fd() as libc::c_uint;
    for (first, last) in [(3, kept - 1), (kept + 1, libc::c_uint::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: this thread owns none of the descriptors that it closes in its own table.
        let result = unsafe { libc::close_range(first, last, 0) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}
