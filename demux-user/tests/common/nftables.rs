//! The few rules of nftables that tests need, written without `nft`.

use demux_user::netlink::{RawMessage, push_attribute};
use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

// Numbers from the kernel's `nfnetlink.h` and `nf_tables.h`.
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = 10 << 8;
const NEWCHAIN: u16 = 10 << 8 | 3;
const NEWRULE: u16 = 10 << 8 | 6;
const INET: u8 = 1;

/// Where a chain hooks into the way of a packet.
#[derive(Debug, Clone, Copy)]
pub enum Hook {
    Prerouting = 0,
    Postrouting = 4,
}

/// Adds to the present namespace the chain `inet TABLE CHAIN` of type nat, with one rule for each of
/// `expressions`, which is the kernel's name of an expression that needs no parameters.
pub fn add_nat_chain(table: &str, chain: &str, hook: Hook, expressions: &[&str]) {
    const AFTER_MANGLE: i32 = 100;
    let mut batch = vec![
        message(BATCH_BEGIN, 0, 10, &[]),
        message(NEWTABLE, INET, 0, &[(1, string(table))]),
        message(
            NEWCHAIN,
            INET,
            0,
            &[
                (1, string(table)),
                (3, string(chain)),
                (4, hook_attributes(hook, AFTER_MANGLE)),
                (7, string("nat")),
            ],
        ),
    ];
    for expression in expressions {
        let mut element = Vec::new();
        push_attribute(&mut element, 1, &string(expression));
        let mut list = Vec::new();
        push_attribute(&mut list, 1 | NESTED, &element);
        batch.push(message(
            NEWRULE,
            INET,
            0,
            &[(1, string(table)), (2, string(chain)), (4 | NESTED, list)],
        ));
    }
    batch.push(message(BATCH_END, 0, 10, &[]));
    send(&batch);
}

/// Drops all IP packets that arrive in the present namespace, before anything else looks at them: adds the
/// chain `inet TABLE drop`, whose policy that is.
pub fn drop_all(table: &str) {
    const FIRST: i32 = -300;
    const DROP: u32 = 0;
    send(&[
        message(BATCH_BEGIN, 0, 10, &[]),
        message(NEWTABLE, INET, 0, &[(1, string(table))]),
        message(
            NEWCHAIN,
            INET,
            0,
            &[
                (1, string(table)),
                (3, string("drop")),
                (4 | NESTED, hook_attributes(Hook::Prerouting, FIRST)),
                (5, DROP.to_be_bytes().to_vec()),
                (7, string("filter")),
            ],
        ),
        message(BATCH_END, 0, 10, &[]),
    ]);
}

const NESTED: u16 = 1 << 15;

fn hook_attributes(hook: Hook, priority: i32) -> Vec<u8> {
    let mut bytes = Vec::new();
    push_attribute(&mut bytes, 1, &(hook as u32).to_be_bytes());
    push_attribute(&mut bytes, 2, &priority.to_be_bytes());
    bytes
}

fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn message(
    message_type: u16,
    family: u8,
    resource: u16,
    attributes: &[(u16, Vec<u8>)],
) -> RawMessage {
    let mut payload = vec![family, 0];
    payload.extend(resource.to_be_bytes());
    for (kind, value) in attributes {
        push_attribute(&mut payload, *kind, value);
    }
    RawMessage {
        message_type,
        payload,
    }
}

/// Sends a batch, which is one transaction, and checks that the kernel accepted all of it.
fn send(batch: &[RawMessage]) {
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    let mut bytes = Vec::new();
    let mut expected = 0;
    for raw in batch {
        let mut message = NetlinkMessage::new(
            Default::default(),
            NetlinkPayload::InnerMessage(raw.clone()),
        );
        message.header.flags = NLM_F_REQUEST;
        if raw.message_type >= NEWTABLE {
            message.header.flags |= NLM_F_CREATE | NLM_F_ACK;
            expected += 1;
        }
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len(), 0);
        message.serialize(&mut bytes[start..]);
    }
    socket.send(&bytes, 0).unwrap();
    while expected > 0 {
        let (datagram, _) = socket.recv_from_full().unwrap();
        let answer = NetlinkMessage::<RawMessage>::deserialize(&datagram).unwrap();
        let NetlinkPayload::Error(error) = answer.payload else {
            panic!("an acknowledgement was due: {answer:?}");
        };
        assert_eq!(
            error.code,
            None,
            "the kernel refused the rules: {}",
            error.to_io()
        );
        expected -= 1;
    }
}
