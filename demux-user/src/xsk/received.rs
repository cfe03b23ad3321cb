//! A frame that has arrived, and what can be told of it at once.

use demux_common::{connection::ConnectionKey, parse, wire::ethernet};

use super::queue::QueueId;

/// A frame that has arrived. Its memory is used again once the next one is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Received<'set> {
    frame: &'set [u8],
    queue: QueueId,
}

impl<'set> Received<'set> {
    pub(super) fn new(frame: &'set [u8], queue: QueueId) -> Self {
        Self { frame, queue }
    }

    /// The whole frame, beginning with its Ethernet header. VLAN tags that the network card has taken off
    /// are not in it.
    #[must_use]
    pub fn frame(&self) -> &'set [u8] {
        self.frame
    }

    /// The queue that it arrived on. An answer should leave by the same.
    #[must_use]
    pub fn queue(&self) -> QueueId {
        self.queue
    }

    /// The connection that it belongs to, local side first; `None` for what is no TCP segment or UDP
    /// datagram, and for later fragments.
    #[must_use]
    pub fn connection(&self) -> Option<ConnectionKey> {
        parse::parse(self.frame).ok().map(|parsed| parsed.key)
    }

    /// The IP packet in it, without what Ethernet has filled the frame up with; `None` for other protocols
    /// and behind more than two VLAN tags.
    #[must_use]
    pub fn packet(&self) -> Option<&'set [u8]> {
        let ethernet = ethernet::read(self.frame).ok()?;
        let packet = self.frame.get(ethernet.payload..)?;
        let word = |at: usize| -> Option<usize> {
            let bytes = packet.get(at..at + 2)?.try_into().ok()?;
            Some(usize::from(u16::from_be_bytes(bytes)))
        };
        let len = if ethernet.ether_type == (libc::ETH_P_IP as u16).to_be() {
            word(2)?
        } else if ethernet.ether_type == (libc::ETH_P_IPV6 as u16).to_be() {
            40 + word(4)?
        } else {
            return None;
        };
        // A packet that claims to be longer than its frame is for whoever reads it to judge.
        Some(packet.get(..len).unwrap_or(packet))
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const QUEUE: QueueId = QueueId {
        ifindex: 2,
        queue: 0,
    };

    #[test]
    fn the_packet_is_what_stands_between_the_headers_and_the_padding() {
        for tagged in [false, true] {
            for version in [4, 6] {
                let builder = PacketBuilder::ethernet2([1; 6], [2; 6]);
                let payload = b"four";
                let (mut frame, start) = if tagged {
                    let builder = builder.single_vlan(7.try_into().unwrap());
                    let builder = if version == 4 {
                        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                    } else {
                        builder.ipv6([1; 16], [2; 16], 64)
                    };
                    let mut frame = Vec::new();
                    builder.udp(1, 2).write(&mut frame, payload).unwrap();
                    (frame, 18)
                } else {
                    let builder = if version == 4 {
                        builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
                    } else {
                        builder.ipv6([1; 16], [2; 16], 64)
                    };
                    let mut frame = Vec::new();
                    builder.udp(1, 2).write(&mut frame, payload).unwrap();
                    (frame, 14)
                };
                let end = frame.len();
                frame.resize(end + 20, 0);
                let received = Received::new(&frame, QUEUE);
                assert_eq!(received.packet(), Some(&frame[start..end]));
                let key = received.connection().unwrap();
                assert_eq!((key.local_port, key.remote_port), (2, 1));
            }
        }
    }

    #[test]
    fn what_is_no_packet_has_none() {
        for frame in [&[][..], &[0; 14], &[0xff; 60]] {
            let received = Received::new(frame, QUEUE);
            assert_eq!(received.packet(), None);
            assert_eq!(received.connection(), None);
            assert_eq!((received.frame(), received.queue()), (frame, QUEUE));
        }
        let mut short = vec![0; 14];
        short[12] = 8;
        assert_eq!(Received::new(&short, QUEUE).packet(), None);
    }
}
