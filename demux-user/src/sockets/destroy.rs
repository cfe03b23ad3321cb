//! Ending a socket of the kernel from outside, as `ss -K` does (SOCK_DESTROY).

use std::io;

use demux_common::protocol::Protocol;

use super::{
    Socket,
    message::{Request, SOCK_DESTROY},
};
use crate::{
    Error, Result,
    capability::Capability,
    netlink::{Netlink, RawMessage},
};

/// What became of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// It is ended: its process reads ECONNABORTED, and the other side of a TCP connection gets a
    /// reset, unless the connection was opening or waiting out its time (`tcp_abort`, `udp_abort`).
    Done,
    /// It had ended by itself.
    Gone,
}

/// A way to end sockets of the current network namespace.
#[derive(Debug)]
pub struct Destroyer {
    netlink: Netlink,
}

impl Destroyer {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// Where netlink fails.
    pub fn open() -> Result<Self> {
        let netlink = Netlink::sock_diag()
            .map_err(|source| Error::io("ask the kernel to end sockets", source))?;
        Ok(Self { netlink })
    }

    /// Makes sure that the kernel can end sockets of a protocol.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it cannot (`CONFIG_INET_DIAG_DESTROY`).
    pub fn check(&mut self, protocol: Protocol) -> Result<()> {
        match self.send(&Request::of_nobody(protocol)) {
            Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(Error::Unsupported {
                    operation: format!("end {} sockets", protocol.name()),
                    reason: "the kernel was built without CONFIG_INET_DIAG_DESTROY".into(),
                })
            }
            // There is no such socket.
            _ => Ok(()),
        }
    }

    /// Ends exactly this socket. The kernel goes by its cookie too: where it has ended meanwhile, no
    /// other socket with its endpoints is hit, nor the listener that they would lead to.
    ///
    /// # Errors
    ///
    /// [`Error::MissingCapability`] without CAP_NET_ADMIN; [`Error::Unsupported`] for a state that
    /// this kernel cannot end, as TIME-WAIT was; what else the kernel answers.
    pub fn destroy(&mut self, socket: &Socket) -> Result<Destroyed> {
        let operation = || {
            format!(
                "end the {} socket {} {} in state {}",
                socket.protocol.name(),
                socket.local,
                socket.remote,
                socket.state.name()
            )
        };
        match self.send(&Request::exactly(socket)) {
            Ok(()) => Ok(Destroyed::Done),
            Err(source) => match source.raw_os_error() {
                Some(libc::ENOENT | libc::ESTALE) => Ok(Destroyed::Gone),
                Some(libc::EOPNOTSUPP) => Err(Error::Unsupported {
                    operation: operation(),
                    reason: "this kernel cannot end a socket in that state".into(),
                }),
                _ => Err(Error::privileged(operation(), source, Capability::NetAdmin)),
            },
        }
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        let message = RawMessage {
            message_type: SOCK_DESTROY,
            payload: request.bytes(),
        };
        self.netlink.request(message, 0).map(drop)
    }
}
