//! The heart of demux: one parser, one matcher and the map types, shared by the kernel and user space.
//!
//! Everything here is pure and `no_std`.
//! It is generic over the packet ([`packet::Packet`]) and over the tables ([`tables::Tables`]),
//! so the very same code runs in the BPF program, in the `explain` twin, and in host tests.
//!
//! The way of a packet is [`decide::decide`]: [`parse`] finds the four-tuple, the connection table
//! and [`matcher`] find its owner, and the kernel's own sockets are asked before a default drops anything.
//!
//! # Conventions
//!
//! - Addresses are 16 bytes in wire order; IPv4 addresses are IPv4-mapped (`::ffff:a.b.c.d`).
//! - Ports and every other integer are in host order.
//! - *Local* is this host's side of a conversation: on ingress the destination of the packet.
//! - Map types are `repr(C)` without implicit padding, and asserted so at compile time;
//!   a change to any of them changes [`layout::LAYOUT_VERSION`].

#![no_std]

pub mod address;
pub mod binding;
pub mod clock;
pub mod command;
pub mod config;
pub mod connection;
pub mod counters;
pub mod decide;
pub mod egress;
pub mod event;
pub mod explanation;
pub mod fast;
pub mod follow;
pub mod fragments;
pub mod group;
pub mod icmp;
pub mod layout;
pub mod listen;
pub mod matcher;
pub mod overlap;
pub mod owned;
pub mod packet;
pub mod parse;
pub mod plain;
pub mod ports;
pub mod protocol;
pub mod reason;
pub mod reject;
pub mod related;
mod rows;
pub mod sent;
pub mod steering;
pub mod table;
pub mod tables;
pub mod tcp;
pub mod trace;
pub mod udp;
pub mod wire;
