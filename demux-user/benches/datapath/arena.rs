//! Two hosts with a cable between them, and idle interfaces that keep programs attached.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

use crate::{
    common::{
        bpf::{GENERIC, attach_xdp},
        netns::Netns,
        pair::{Family, HOST, PEER, Pair},
        sockets,
    },
    frames::Numbers,
};

/// The hosts of a group of cases.
pub(crate) struct Arena<'a> {
    pair: &'a Pair,
    idle: RefCell<Vec<OwnedFd>>,
    interfaces: Cell<u32>,
}

impl Arena<'_> {
    /// Does the work on a thread in the namespace of the host.
    pub(crate) fn run<T: Send>(work: impl FnOnce(&Arena<'_>) -> T + Send) -> T {
        let pair = Pair::new();
        pair.host.enter(|| {
            work(&Arena {
                pair: &pair,
                idle: RefCell::default(),
                interfaces: Cell::new(0),
            })
        })
    }

    pub(crate) fn host(&self) -> &Netns {
        &self.pair.host
    }

    /// The index of the interface that frames arrive on.
    pub(crate) fn ifindex(&self) -> u32 {
        self.host().index(HOST)
    }

    /// The stations of the host and of its peer.
    pub(crate) fn stations(&self) -> [[u8; 6]; 2] {
        [self.host().mac(HOST), self.pair.peer.mac(PEER)]
    }

    /// A new interface of the host that nothing arrives on.
    pub(crate) fn idle_interface(&self) -> String {
        let number = self.interfaces.replace(self.interfaces.get() + 1);
        let name = format!("idle{number}");
        let [host, peer] = [&self.pair.host, &self.pair.peer];
        host.veth(&name, peer, &name);
        // Down, or the kernel would greet its neighbours there.
        host.set_down(&name);
        peer.set_down(&name);
        name
    }

    /// Attaches a program for as long as the arena lives: test runs of others are slow.
    pub(crate) fn attach(&self, program: BorrowedFd<'_>) {
        let index = self.host().index(&self.idle_interface());
        let link = self.host().enter(|| attach_xdp(program, index, GENERIC));
        self.idle.borrow_mut().push(link);
    }

    /// Lets the peer ask a UDP port of the host, which answers, so often that nobody doubts either.
    pub(crate) fn converse(&self, family: Family, remote_port: u16, port: u16) -> [UdpSocket; 2] {
        let server = sockets::udp(self.host(), family.at_host(port));
        let client = sockets::udp(&self.pair.peer, family.at_peer(remote_port));
        for _ in 0..4 {
            sockets::ask(&client, &server, family.at_host(port));
        }
        [client, server]
    }

    /// A TCP connection from the peer to a port of the host.
    pub(crate) fn connect(&self, family: Family, port: u16) -> Connection {
        let at = family.at_host(port);
        let listener = sockets::listen(self.host(), at);
        let (client, server) = sockets::connect(&self.pair.peer, &listener, at);
        Connection {
            client,
            _server: server,
            _listener: listener,
        }
    }
}

/// An established connection.
pub(crate) struct Connection {
    client: TcpStream,
    _server: TcpStream,
    _listener: TcpListener,
}

impl Connection {
    /// The port of the peer.
    pub(crate) fn remote_port(&self) -> u16 {
        self.client.local_addr().expect("an address").port()
    }

    /// The numbers of the next segment of the peer.
    pub(crate) fn numbers(&self) -> Numbers {
        // From <linux/tcp.h>.
        const OFF_WITHOUT_PROBE: i32 = -1;
        const RECEIVE: i32 = 1;
        const SEND: i32 = 2;
        self.set(libc::TCP_REPAIR, 1);
        let [acknowledgement, sequence] = [RECEIVE, SEND].map(|queue| {
            self.set(libc::TCP_REPAIR_QUEUE, queue);
            self.get(libc::TCP_QUEUE_SEQ) as u32
        });
        self.set(libc::TCP_REPAIR, OFF_WITHOUT_PROBE);
        Numbers {
            sequence,
            acknowledgement,
        }
    }

    fn set(&self, option: i32, value: i32) {
        // SAFETY: the value is as long as told.
        let result = unsafe {
            libc::setsockopt(
                self.client.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw const value).cast(),
                size_of_val(&value) as u32,
            )
        };
        let error = io::Error::last_os_error();
        assert!(result == 0, "TCP option {option}: {error}");
    }

    fn get(&self, option: i32) -> i32 {
        let mut value = 0_i32;
        let mut length = size_of_val(&value) as u32;
        // SAFETY: the value is as long as told.
        let result = unsafe {
            libc::getsockopt(
                self.client.as_raw_fd(),
                libc::IPPROTO_TCP,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        let error = io::Error::last_os_error();
        assert!(result == 0, "TCP option {option}: {error}");
        value
    }
}
