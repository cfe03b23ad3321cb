//! One question and all its answers over a netlink socket, without an event loop.
//!
//! A socket belongs to the network namespace of the thread that opened it, and stays there.

mod raw;

use std::{io, num::NonZeroI32};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE},
};

pub use self::raw::{RawMessage, attribute, attributes, push_attribute, text};

/// How often a dump is started anew that a change in the kernel has interrupted.
const ATTEMPTS: usize = 10;

/// A netlink socket on which one request at a time is made.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// To rtnetlink: interfaces, addresses, routes.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened.
    pub fn route() -> io::Result<Self> {
        let netlink = Self::open(NETLINK_ROUTE)?;
        // Else dumps of routes ignore what they are asked for and return every table.
        netlink.socket.set_netlink_get_strict_chk(true)?;
        Ok(netlink)
    }

    /// To nfnetlink: the packet filter.
    ///
    /// # Errors
    ///
    /// EPROTONOSUPPORT where the kernel has no netfilter.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(NETLINK_NETFILTER)
    }

    /// To the families of generic netlink.
    ///
    /// # Errors
    ///
    /// Where the socket cannot be opened.
    pub fn generic() -> io::Result<Self> {
        Self::open(NETLINK_GENERIC)
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes a request with `flags` (such as `NLM_F_CREATE`) and returns the answers, if it has any.
    ///
    /// # Errors
    ///
    /// What the kernel answers; EINVAL and the like for requests it does not understand.
    pub fn request<M>(&mut self, message: M, flags: u16) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.exchange(message, flags | NLM_F_ACK)
            .map(|answer| answer.messages)
    }

    /// Asks for all objects that `message` describes, again where they changed meanwhile.
    ///
    /// # Errors
    ///
    /// EINTR where they never ceased to change, else what the kernel answers.
    pub fn dump<M>(&mut self, message: &M) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable + Clone,
    {
        for _ in 0..ATTEMPTS {
            let answer = self.exchange(message.clone(), NLM_F_DUMP)?;
            if !answer.is_interrupted {
                return Ok(answer.messages);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    fn exchange<M>(&mut self, message: M, flags: u16) -> io::Result<Answer<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        self.sequence += 1;
        let mut request =
            NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(message));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;

        let mut answer = Answer {
            messages: Vec::new(),
            is_interrupted: false,
        };
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            if answer.take(&datagram, self.sequence)? {
                return Ok(answer);
            }
        }
    }
}

struct Answer<M> {
    messages: Vec<M>,
    is_interrupted: bool,
}

impl<M: NetlinkDeserializable> Answer<M> {
    /// Adds the messages of a datagram; `true` after the last one.
    fn take(&mut self, datagram: &[u8], sequence: u32) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest)
                .map_err(io::Error::other)?
                .length() as usize;
            let message =
                NetlinkMessage::<M>::deserialize(&rest[..length]).map_err(io::Error::other)?;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            if message.header.sequence_number != sequence {
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                NetlinkPayload::Done(done) => {
                    return result(NonZeroI32::new(done.code)).map(|()| true);
                }
                NetlinkPayload::Error(error) => return result(error.code).map(|()| true),
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

fn result(code: Option<NonZeroI32>) -> io::Result<()> {
    match code {
        None => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
    }
}
