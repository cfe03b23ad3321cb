//! The sockets of the server: some that listen at each address, and one for each connection.
//!
//! In smoltcp a socket that listens becomes the connection, so new ones have to listen in its place. One that
//! has closed first stays behind in TIME-WAIT for ten seconds; of those few are kept, and the oldest give way,
//! since a client that comes back at once must find somebody who listens.

use std::{collections::VecDeque, net::SocketAddr};

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time::Duration,
};

use crate::http::Exchange;

/// How many sockets listen at each address: connections that may begin between two looks at them.
pub(super) const BACKLOG: usize = 64;

/// How many sockets may be in TIME-WAIT.
const TIME_WAITS: usize = 64;

/// How many connections there may be.
const CONNECTIONS: usize = 1024;

/// Bytes that a connection may have sent and nobody has read, and the other way round.
const RECEIVE_BUFFER: usize = 4 << 10;
const SEND_BUFFER: usize = 64 << 10;

/// How soon an idle client is asked whether it is still there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(super) struct Server {
    pub(super) sockets: SocketSet<'static>,
    ports: Vec<Port>,
    connections: Vec<Connection>,
    /// The oldest first.
    time_waits: VecDeque<SocketHandle>,
}

/// An address that is served, with the sockets that listen there.
struct Port {
    address: SocketAddr,
    listeners: Vec<SocketHandle>,
}

struct Connection {
    socket: SocketHandle,
    exchange: Exchange,
}

impl Server {
    /// Listens at these addresses.
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        let port = |address: &SocketAddr| Port {
            address: *address,
            listeners: Vec::new(),
        };
        let mut server = Self {
            sockets: SocketSet::new(Vec::new()),
            ports: addresses.iter().map(port).collect(),
            connections: Vec::new(),
            time_waits: VecDeque::new(),
        };
        server.listen();
        server
    }

    /// Does what is to be done after packets came or left: takes new connections, answers requests, and lets
    /// go of what has ended.
    pub(super) fn serve(&mut self) {
        self.accept();
        self.answer();
        self.retire();
        self.listen();
    }

    fn accept(&mut self) {
        let sockets = &self.sockets;
        for port in &mut self.ports {
            port.listeners.retain(|&socket| {
                let is_listening = sockets.get::<Socket>(socket).is_listening();
                if !is_listening {
                    self.connections.push(Connection {
                        socket,
                        exchange: Exchange::default(),
                    });
                }
                is_listening
            });
        }
    }

    fn answer(&mut self) {
        let sockets = &mut self.sockets;
        self.connections.retain_mut(|connection| {
            let socket = sockets.get_mut::<Socket>(connection.socket);
            match socket.state() {
                // It listens again where the client has taken its SYN back.
                State::Closed | State::Listen => {
                    sockets.remove(connection.socket);
                    false
                }
                State::TimeWait => {
                    self.time_waits.push_back(connection.socket);
                    false
                }
                _ => {
                    connection.exchange.go_on(socket);
                    true
                }
            }
        });
    }

    fn retire(&mut self) {
        let sockets = &mut self.sockets;
        self.time_waits.retain(|&socket| {
            let is_over = sockets.get::<Socket>(socket).state() == State::Closed;
            if is_over {
                sockets.remove(socket);
            }
            !is_over
        });
        while self.time_waits.len() > TIME_WAITS {
            // Nothing is sent: the client is done with the connection already.
            self.time_waits
                .pop_front()
                .map(|socket| sockets.remove(socket));
        }
    }

    fn listen(&mut self) {
        for port in &mut self.ports {
            while port.listeners.len() < BACKLOG && self.connections.len() < CONNECTIONS {
                port.listeners
                    .push(self.sockets.add(listener(port.address)));
            }
        }
    }
}

fn listener(address: SocketAddr) -> Socket<'static> {
    let buffer = |size| SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
    // Answers are written whole, so nothing is gained by waiting for more.
    socket.set_nagle_enabled(false);
    socket.set_keep_alive(Some(KEEP_ALIVE));
    socket.set_timeout(Some(PATIENCE));
    // It fails for port 0 and for sockets in use.
    if let Err(error) = socket.listen(address) {
        eprintln!("cannot listen at {address}: {error}");
    }
    socket
}
