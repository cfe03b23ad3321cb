//! The sender of SYNs from addresses that are not its own.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::{
    io::Errno,
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto},
};

use crate::demo::actors::enter;

/// An IPv4 header and a TCP header, both without options.
const LENGTH: usize = 40;
/// The addresses that are used up to their last 17 bits; 198.18.0.0/15 is for such tests.
const SOURCES: [u8; 4] = [198, 18, 0, 0];

/// How many threads send, where there are as many processors.
const MOST_THREADS: usize = 2;

/// The sender, which ends with the value.
pub(super) struct Flood {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<u64>>>,
}

impl Flood {
    /// Sends from `namespace` to an endpoint, as fast as it can.
    pub(super) fn start(namespace: &'static str, to: SocketAddr) -> Result<Self> {
        let SocketAddr::V4(to) = to else {
            bail!("{to} is not an IPv4 endpoint");
        };
        let is_over = Arc::new(AtomicBool::new(false));
        let mut flood = Self {
            is_over: Arc::clone(&is_over),
            threads: Vec::new(),
        };
        let processors = thread::available_parallelism()?.get();
        for _ in 0..processors.min(MOST_THREADS) {
            let socket = enter(namespace, || raw_socket(to))?;
            let is_over = Arc::clone(&is_over);
            let thread = thread::spawn(move || send(&socket, to, &is_over));
            flood.threads.push(thread);
        }
        Ok(flood)
    }

    /// Ends it and returns how many SYNs were sent.
    pub(super) fn end(mut self) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        let mut sent = 0;
        for thread in self.threads.drain(..) {
            sent += thread.join().map_err(|_| anyhow!("the flood panicked"))??;
        }
        Ok(sent)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn raw_socket(to: SocketAddrV4) -> Result<OwnedFd> {
    // Sends IPv4 headers as they are given.
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(ipproto::RAW),
    )
    .context("cannot make a raw socket")?;
    rustix::net::connect(&socket, &to).with_context(|| format!("no way to {to}"))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, to: SocketAddrV4, is_over: &AtomicBool) -> Result<u64> {
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty())
        .context("no random numbers")?;
    let mut random = u64::from_ne_bytes(seed) | 1;
    let mut sent = 0;
    while !is_over.load(Ordering::Relaxed) {
        random = next(random);
        let from = source(random as u32, (random >> 32) as u16);
        let packet = syn(from, to, (random >> 24) as u32);
        match rustix::net::send(socket, &packet, SendFlags::empty()) {
            Ok(_) => sent += 1,
            // The cable is full.
            Err(Errno::NOBUFS | Errno::INTR) => {}
            Err(error) => return Err(error).context("the flood cannot send"),
        }
    }
    Ok(sent)
}

/// The next number of a xorshift generator.
const fn next(mut number: u64) -> u64 {
    number ^= number << 13;
    number ^= number >> 7;
    number ^ number << 17
}

fn source(address: u32, port: u16) -> SocketAddrV4 {
    let address = u32::from_be_bytes(SOURCES) | address & 0x1_ffff;
    SocketAddrV4::new(Ipv4Addr::from(address), port | 1024)
}

fn syn(from: SocketAddrV4, to: SocketAddrV4, sequence: u32) -> [u8; LENGTH] {
    let mut packet = [0; LENGTH];
    // Version 4, five words. The kernel puts in the total length and the checksum.
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = ipproto::TCP.as_raw().get() as u8;
    packet[12..16].copy_from_slice(&from.ip().octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    packet[20..22].copy_from_slice(&from.port().to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..28].copy_from_slice(&sequence.to_be_bytes());
    // Five words, SYN, and a window.
    packet[32..36].copy_from_slice(&[0x50, 0x02, 0xff, 0xff]);
    let checksum = checksum(&packet);
    packet[36..38].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The TCP checksum of a packet, over its addresses, its protocol and length, and its TCP header.
fn checksum(packet: &[u8; LENGTH]) -> u16 {
    let protocol_and_length = u32::from(packet[9]) + (LENGTH as u32 - 20);
    let words = packet[12..].chunks_exact(2);
    let sum = words.fold(protocol_and_length, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_nothing() {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80);
        for random in [1, 0xffff_ffff, 0x1234_5678] {
            let packet = syn(source(random, random as u16), to, random);
            assert_eq!(checksum(&packet), 0);
        }
    }

    #[test]
    fn sources_are_of_the_network_that_is_for_tests() {
        assert_eq!(source(u32::MAX, 0), "198.19.255.255:1024".parse().unwrap());
        assert_eq!(source(0, u16::MAX), "198.18.0.0:65535".parse().unwrap());
    }
}
