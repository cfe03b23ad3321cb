//! Two hosts with a cable between them, and idle interfaces that keep programs attached.

use std::{
    cell::{Cell, RefCell},
    net::{TcpListener, TcpStream},
    os::fd::{BorrowedFd, OwnedFd},
};

use crate::common::{
    bpf::{GENERIC, attach_xdp},
    netns::Netns,
    pair::{Family, HOST, PEER, Pair},
    sockets,
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
}
