//! What packets cannot show: each case in which the table and the kernel disagree though nothing is on
//! its way, what either says, and how it ends.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use crate::{
    common::{
        flood::Cut,
        pair::{Family, HOST, PEER},
        sockets::{bind, connect, connect_result, listen, socket, start_connecting, talk},
        wait::wait_for,
    },
    world::{Opener, Tuple, World, nobody, set_option, tuple},
};

const V4: Family = Family::V4;

/// A connection that the peer has opened to the host: the host's end, and the peer's.
fn accepted(world: &World) -> (TcpStream, TcpStream, TcpListener) {
    let (from, to, at) = world.route(Opener::Peer, V4, 80);
    let listener = listen(to, at);
    let (peer, host) = connect(from, &listener, at);
    world.agrees("connected");
    (host, peer, listener)
}

/// The connection of a client at the peer, as the host sees it.
fn of_client(client: &OwnedFd) -> Tuple {
    let stream = TcpStream::from(client.try_clone().unwrap());
    (V4.at_host(80), stream.local_addr().unwrap())
}

#[test]
fn a_fin_that_a_closed_window_holds_back_is_not_seen() {
    let world = World::load("");
    let (mut host, mut peer, _listener) = accepted(&world);
    let key = tuple(&host);
    // Until the peer's buffer is full, and the host's.
    host.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let stuck = [0x11; 1 << 16];
    let mut rounds = 0;
    while rounds < 100 {
        match host.write(&stuck) {
            Ok(length) => {
                sent += length;
                rounds = 0;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                rounds += 1;
                std::thread::yield_now();
            }
        }
    }
    drop(host);
    world.shows(key, Some("ESTABLISHED"), Some("FIN-WAIT-1"));
    // Once the peer reads, the FIN goes out.
    let mut received = Vec::new();
    peer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
    world.shows(key, Some("FIN-WAIT-2"), Some("FIN-WAIT-2"));
    drop(peer);
    world.shows(key, Some("TIME-WAIT"), Some("TIME-WAIT"));
}

#[test]
fn a_fin_behind_data_that_nobody_acknowledges_is_not_seen() {
    let world = World::load("");
    let (mut host, _peer, _listener) = accepted(&world);
    let key = tuple(&host);
    let _cut = Cut::both_ways(world.pair);
    // More than the congestion window lets out at first.
    host.set_nonblocking(true).unwrap();
    assert!(host.write(&[0x22; 1 << 20]).unwrap() > 1 << 16);
    drop(host);
    world.shows(key, Some("ESTABLISHED"), Some("FIN-WAIT-1"));
}

#[test]
fn a_listener_that_defers_keeps_what_is_established_in_its_handshake() {
    let world = World::load("");
    let listener = listen(&world.pair.host, V4.at_host(80));
    set_option(&listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 30);
    let client = start_connecting(&world.pair.peer, V4.at_host(80));
    let key = of_client(&client);
    wait_for("the handshake", || connect_result(&client).is_some());
    world.shows(key, Some("ESTABLISHED"), Some("SYN-RECEIVED"));
    // The first data wakes it.
    TcpStream::from(client.try_clone().unwrap())
        .write_all(b"data")
        .unwrap();
    world.shows(key, Some("ESTABLISHED"), Some("ESTABLISHED"));
    drop(client);
    world.shows(key, Some("CLOSE-WAIT"), Some("CLOSE-WAIT"));
}

#[test]
fn a_full_accept_queue_leaves_handshakes_unfinished_and_syns_unanswered() {
    let world = World::load("");
    let listener = world.pair.host.enter(|| {
        let listener = socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        bind(&listener, V4.at_host(80));
        // The queue takes one more than told.
        // SAFETY: the call takes no addresses.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        listener
    });
    world.pair.host.sysctl("net/ipv4/tcp_syncookies", "0");
    let first = start_connecting(&world.pair.peer, V4.at_host(80));
    let key = of_client(&first);
    world.shows(key, Some("ESTABLISHED"), Some("ESTABLISHED"));
    // Two handshakes begin, and finish while there is room for one more.
    let cut = Cut::to_peer(world.pair);
    let clients = [(); 2].map(|()| start_connecting(&world.pair.peer, V4.at_host(80)));
    let keys = [of_client(&clients[0]), of_client(&clients[1])];
    for key in keys {
        world.shows(key, Some("SYN-RECEIVED"), Some("SYN-RECEIVED"));
    }
    drop(cut);
    wait_for("both handshakes", || {
        clients
            .iter()
            .all(|client| connect_result(client).is_some())
    });
    wait_for("one in the queue, and one left over", || {
        let states = |picture: crate::world::Picture| {
            let mut states = keys.map(|key| picture.get(&key).cloned().unwrap_or_default());
            states.sort_unstable();
            states
        };
        states(world.shown()) == ["ESTABLISHED", "ESTABLISHED"]
            && states(world.kernel()) == ["ESTABLISHED", "SYN-RECEIVED"]
    });
    // One more is not even answered: to demux, the host has not said anything yet.
    let late = start_connecting(&world.pair.peer, V4.at_host(80));
    world.shows(of_client(&late), Some("LISTEN"), None);

    // With room again, all is as it seems.
    let accept = || {
        // SAFETY: no address is asked for.
        let fd = unsafe {
            libc::accept(
                listener.as_raw_fd(),
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        assert!(fd >= 0);
        // SAFETY: the kernel has just made this descriptor for us.
        unsafe { OwnedFd::from_raw_fd(fd) }
    };
    let _accepted = [accept(), accept()];
    // The one left over is finished by its next segment.
    for client in &clients {
        TcpStream::from(client.try_clone().unwrap())
            .write_all(b"data")
            .unwrap();
    }
    let _more = [accept(), accept()];
    wait_for("the late one", || connect_result(&late).is_some());
    world.agrees("with room");
}

#[test]
fn a_syn_cookie_leaves_no_trace_in_the_kernel() {
    let world = World::load("");
    world.pair.host.sysctl("net/ipv4/tcp_syncookies", "2");
    let listener = listen(&world.pair.host, V4.at_host(80));
    let cut = Cut::to_peer(world.pair);
    let client = start_connecting(&world.pair.peer, V4.at_host(80));
    let key = of_client(&client);
    world.shows(key, Some("SYN-RECEIVED"), None);
    drop(cut);
    let (_server, _) = listener.accept().unwrap();
    world.shows(key, Some("ESTABLISHED"), Some("ESTABLISHED"));
}

#[test]
fn a_connection_that_is_aborted_resets_its_remote_and_so_ends() {
    let world = World::load("");
    let (host, peer, _listener) = accepted(&world);
    world.destroys(tuple(&host));
    world.shows(tuple_of_peer(&peer), None, None);
}

/// The host's end of a connection, by that of the peer.
fn tuple_of_peer(peer: &TcpStream) -> Tuple {
    (V4.at_host(80), peer.local_addr().unwrap())
}

#[test]
fn a_time_wait_that_is_destroyed_dies_silently() {
    let world = World::load("");
    let (host, peer, _listener) = accepted(&world);
    let key = tuple(&host);
    drop(host);
    world.shows(key, Some("FIN-WAIT-2"), Some("FIN-WAIT-2"));
    drop(peer);
    world.shows(key, Some("TIME-WAIT"), Some("TIME-WAIT"));
    world.destroys(key);
    world.shows(key, Some("TIME-WAIT"), None);
}

#[test]
fn a_time_wait_that_finds_no_room_is_none() {
    let world = World::load("");
    world.pair.host.sysctl("net/ipv4/tcp_max_tw_buckets", "0");
    let (host, peer, _listener) = accepted(&world);
    let key = tuple(&host);
    host.shutdown(Shutdown::Write).unwrap();
    world.shows(key, Some("FIN-WAIT-2"), Some("FIN-WAIT-2"));
    drop(peer);
    world.shows(key, Some("TIME-WAIT"), None);
    drop(host);
}

#[test]
fn an_attempt_that_is_given_up_dies_silently() {
    let world = World::load("");
    let at = SocketAddr::new(nobody(V4), 80);
    let attempt = start_connecting(&world.pair.host, at);
    let local = TcpStream::from(attempt.try_clone().unwrap())
        .local_addr()
        .unwrap();
    world.shows((local, at), Some("SYN-SENT"), Some("SYN-SENT"));
    drop(attempt);
    world.shows((local, at), Some("SYN-SENT"), None);
}

#[test]
fn an_orphan_that_is_given_up_dies_silently() {
    let world = World::load("");
    world.pair.host.sysctl("net/ipv4/tcp_orphan_retries", "1");
    let (host, _peer, _listener) = accepted(&world);
    let key = tuple(&host);
    let _cut = Cut::both_ways(world.pair);
    drop(host);
    world.shows(key, Some("FIN-WAIT-1"), Some("FIN-WAIT-1"));
    world.shows(key, Some("FIN-WAIT-1"), None);
}

#[test]
fn a_connection_whose_user_timeout_is_over_dies_silently() {
    let world = World::load("");
    let (mut host, _peer, _listener) = accepted(&world);
    let key = tuple(&host);
    set_option(&host, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 500);
    let _cut = Cut::both_ways(world.pair);
    host.write_all(b"nobody hears this").unwrap();
    world.shows(key, Some("ESTABLISHED"), None);
}

#[test]
fn a_connection_that_keepalive_gives_up_resets_its_remote_and_so_ends() {
    let world = World::load("");
    let (host, _peer, _listener) = accepted(&world);
    let key = tuple(&host);
    set_option(&host, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
    for option in [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT] {
        set_option(&host, libc::IPPROTO_TCP, option, 1);
    }
    let _cut = Cut::both_ways(world.pair);
    world.shows(key, None, None);
}

#[test]
fn half_closed_and_idle_for_longer_than_the_timeout_is_absent() {
    let world = World::load("");
    let (mut host, mut peer, _listener) = accepted(&world);
    let key = tuple(&host);
    world.demux().ok("set timeout.fin-wait-2=1");
    host.shutdown(Shutdown::Write).unwrap();
    world.shows(key, Some("FIN-WAIT-2"), Some("FIN-WAIT-2"));
    world.shows(key, None, Some("FIN-WAIT-2"));
    // What comes then is taken for the middle of a stream: who has finished is not known any more.
    peer.write_all(b"late").unwrap();
    host.read_exact(&mut [0; 4]).unwrap();
    world.shows(key, Some("ESTABLISHED"), Some("FIN-WAIT-2"));
    drop(peer);
    world.shows(key, Some("CLOSE-WAIT"), Some("TIME-WAIT"));
}

#[test]
fn what_waits_for_the_address_of_a_neighbour_is_not_seen() {
    let world = World::load("");
    let (mut host, mut peer, _listener) = accepted(&world);
    let key = tuple(&host);
    talk(&mut host, &mut peer);
    // Without its neighbour's Ethernet address nothing leaves the host; it asks, and nobody answers.
    world.forgets_peer(V4);
    let _cut = Cut::both_ways(world.pair);
    drop(host);
    world.shows(key, Some("ESTABLISHED"), Some("FIN-WAIT-1"));
}

#[test]
fn a_peer_whose_link_went_down_changes_nothing() {
    let world = World::load("");
    let (host, peer, _listener) = accepted(&world);
    let key = tuple(&host);
    world.pair.peer.set_down(PEER);
    drop(peer);
    world.shows(key, Some("ESTABLISHED"), Some("ESTABLISHED"));
    // The host knows where its neighbour is, and goes on sending: demux sees what is lost behind it.
    drop(host);
    world.shows(key, Some("FIN-WAIT-1"), Some("FIN-WAIT-1"));
    assert!(world.pair.host.interface(HOST).is_up);
}
