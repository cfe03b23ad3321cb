//! One question and all its answers over a netlink socket, without an event loop.
//!
//! A socket belongs to the network namespace of the thread that opened it, and stays there.

mod notifications;
mod raw;

use std::{io, num::NonZeroI32};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG},
};

pub use self::{
    notifications::{Notification, Notifications},
    raw::{RawMessage, attribute, attributes, push_attribute, text},
};

/// How often a dump is started anew that a change in the kernel has interrupted.
const ATTEMPTS: usize = 10;

/// The kernel fills datagrams as large as the reader has room for, up to this many bytes.
const DATAGRAM: usize = 32 << 10;

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

    /// To sock_diag: the sockets of the kernel.
    ///
    /// # Errors
    ///
    /// EPROTONOSUPPORT where the kernel has no sock_diag.
    pub fn sock_diag() -> io::Result<Self> {
        Self::open(NETLINK_SOCK_DIAG)
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
        let mut messages = Vec::new();
        self.exchange(message, flags | NLM_F_ACK, collect(&mut messages))?;
        Ok(messages)
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
            let mut messages = Vec::new();
            let end = self.exchange(message.clone(), NLM_F_DUMP, collect(&mut messages))?;
            if end == End::Complete {
                return Ok(messages);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// Asks for all objects that `question` describes, and calls `visit` with each as it is read, so that
    /// no more than a datagram of them is kept. Where they changed meanwhile, all are visited again.
    ///
    /// # Errors
    ///
    /// EINTR where they never ceased to change, else what the kernel answers, and what `visit` returns:
    /// then the dump is left unread, and the socket is of no more use.
    pub fn for_each<Q, A, E>(
        &mut self,
        question: &Q,
        mut visit: impl FnMut(A) -> Result<(), E>,
    ) -> Result<(), E>
    where
        Q: NetlinkSerializable + Clone,
        A: NetlinkDeserializable,
        E: From<io::Error>,
    {
        for _ in 0..ATTEMPTS {
            if self.exchange(question.clone(), NLM_F_DUMP, &mut visit)? == End::Complete {
                return Ok(());
            }
        }
        Err(io::Error::from(io::ErrorKind::Interrupted).into())
    }

    fn exchange<Q, A, E>(
        &mut self,
        question: Q,
        flags: u16,
        mut visit: impl FnMut(A) -> Result<(), E>,
    ) -> Result<End, E>
    where
        Q: NetlinkSerializable,
        A: NetlinkDeserializable,
        E: From<io::Error>,
    {
        self.sequence += 1;
        self.send(question, flags)?;
        let mut reader = Reader {
            sequence: self.sequence,
            is_interrupted: false,
        };
        let mut datagram = Vec::new();
        loop {
            self.receive(&mut datagram)?;
            if let Some(end) = reader.read(&datagram, &mut visit)? {
                return Ok(end);
            }
        }
    }

    fn send(&self, question: impl NetlinkSerializable, flags: u16) -> io::Result<()> {
        let mut request =
            NetlinkMessage::new(Default::default(), NetlinkPayload::InnerMessage(question));
        request.header.flags = NLM_F_REQUEST | flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Replaces what is in `datagram` by the next one, whole whatever its length.
    fn receive(&self, datagram: &mut Vec<u8>) -> io::Result<()> {
        let nothing: &mut [u8] = &mut [];
        let length = self
            .socket
            .recv(&mut &mut *nothing, libc::MSG_PEEK | libc::MSG_TRUNC)?;
        datagram.clear();
        datagram.reserve(length.max(DATAGRAM));
        self.socket.recv(datagram, 0)?;
        Ok(())
    }
}

/// A visitor that keeps everything.
fn collect<M>(messages: &mut Vec<M>) -> impl FnMut(M) -> io::Result<()> {
    |message| {
        messages.push(message);
        Ok(())
    }
}

/// How an exchange ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
}

/// What is known of an answer while its datagrams come in.
struct Reader {
    sequence: u32,
    is_interrupted: bool,
}

impl Reader {
    /// Visits the messages of a datagram; the end, after the last one.
    fn read<A, E>(
        &mut self,
        datagram: &[u8],
        visit: &mut impl FnMut(A) -> Result<(), E>,
    ) -> Result<Option<End>, E>
    where
        A: NetlinkDeserializable,
        E: From<io::Error>,
    {
        let mut rest = datagram;
        while !rest.is_empty() {
            let length = NetlinkBuffer::new_checked(rest)
                .map_err(io::Error::other)?
                .length() as usize;
            let message =
                NetlinkMessage::<A>::deserialize(&rest[..length]).map_err(io::Error::other)?;
            rest = &rest[length.next_multiple_of(4).min(rest.len())..];
            if message.header.sequence_number != self.sequence {
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => visit(message)?,
                NetlinkPayload::Done(done) => return Ok(self.end(NonZeroI32::new(done.code))?),
                NetlinkPayload::Error(error) => return Ok(self.end(error.code)?),
                NetlinkPayload::Overrun(_) => {
                    return Err(io::Error::from_raw_os_error(libc::ENOBUFS).into());
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn end(&self, code: Option<NonZeroI32>) -> io::Result<Option<End>> {
        match code {
            None if self.is_interrupted => Ok(Some(End::Interrupted)),
            None => Ok(Some(End::Complete)),
            Some(code) => Err(io::Error::from_raw_os_error(code.get().abs())),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NetlinkHeader};

    use super::*;

    const SEQUENCE: u32 = 7;

    fn bytes(sequence: u32, flags: u16, payload: NetlinkPayload<RawMessage>) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.sequence_number = sequence;
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn object(sequence: u32, flags: u16, payload: &[u8]) -> Vec<u8> {
        let message = RawMessage {
            message_type: 20,
            payload: payload.to_vec(),
        };
        bytes(sequence, flags, NetlinkPayload::InnerMessage(message))
    }

    fn done(code: i32) -> Vec<u8> {
        let mut done = DoneMessage::default();
        done.code = code;
        bytes(SEQUENCE, 0, NetlinkPayload::Done(done))
    }

    /// The payloads of the answer, and how it ended.
    fn read(datagrams: &[Vec<u8>]) -> (Vec<Vec<u8>>, io::Result<Option<End>>) {
        let mut reader = Reader {
            sequence: SEQUENCE,
            is_interrupted: false,
        };
        let mut messages: Vec<RawMessage> = Vec::new();
        let mut end = Ok(None);
        for datagram in datagrams {
            end = reader.read(datagram, &mut collect(&mut messages));
        }
        let payloads = messages
            .into_iter()
            .map(|message| message.payload)
            .collect();
        (payloads, end)
    }

    #[test]
    fn an_answer_is_read_over_datagrams_and_past_answers_to_others() {
        let first = [
            object(SEQUENCE, 0, b"one!"),
            object(SEQUENCE - 1, 0, b"late"),
        ]
        .concat();
        let (payloads, end) = read(std::slice::from_ref(&first));
        assert_eq!(payloads, [b"one!"]);
        assert_eq!(end.unwrap(), None);
        let (payloads, end) = read(&[first, object(SEQUENCE, 0, b"two!"), done(0)]);
        assert_eq!(payloads, [b"one!", b"two!"]);
        assert_eq!(end.unwrap(), Some(End::Complete));
    }

    #[test]
    fn one_message_with_the_flag_makes_a_dump_an_interrupted_one() {
        let (payloads, end) = read(&[
            object(SEQUENCE, NLM_F_DUMP_INTR, b"one!"),
            object(SEQUENCE, 0, b"two!"),
            done(0),
        ]);
        assert_eq!(payloads.len(), 2);
        assert_eq!(end.unwrap(), Some(End::Interrupted));
    }

    #[test]
    fn an_error_at_the_end_of_a_dump_is_an_error() {
        let (_, end) = read(&[done(-libc::ENOENT)]);
        assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }
}
