//! The algorithms of RFC 6056, section 3.3, as the RFC writes them: one loop each, port by port, over
//! sets of ports. Nothing of the allocator is used.

use std::{
    collections::HashSet,
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

use siphasher::sip::SipHasher24;

/// The key of the hash, the range, the counters, and what is in use.
#[derive(Clone, Debug)]
pub struct Rfc6056 {
    pub key: [u64; 2],
    pub first: u16,
    pub last: u16,
    /// `next_ephemeral` of the third algorithm.
    pub next: u64,
    /// `table` of the fourth.
    pub table: Vec<u64>,
    /// `next_ephemeral` of the fifth.
    pub position: u64,
    /// How many random numbers were drawn.
    pub draws: u64,
    /// Local ports in use, and towards whom.
    pub used: HashSet<(Destination, u16)>,
    /// Ports that may not be used at all.
    pub barred: HashSet<u16>,
}

/// The protocol's number as demux counts, the local address and the remote endpoint.
pub type Destination = (u8, IpAddr, SocketAddr);

/// N of the fifth algorithm.
const STEPS: u64 = 500;

/// How often the second and the fifth algorithm draw before they go on port by port: the RFC draws as
/// often as there are ports, and may fail all the same.
const DRAWS: u32 = 16;

impl Rfc6056 {
    /// Nothing is in use.
    pub fn new(key: [u64; 2], first: u16, last: u16) -> Self {
        Self {
            key,
            first,
            last,
            next: 0,
            table: vec![0; 4096],
            position: 0,
            draws: 0,
            used: HashSet::new(),
            barred: HashSet::new(),
        }
    }

    /// Takes the port that an algorithm chooses; `None` where there is none.
    pub fn choose(&mut self, algorithm: &str, to: Destination) -> Option<u16> {
        let chosen = match algorithm {
            "sequential" => (self.first..=self.last).find(|port| self.is_suitable(to, *port)),
            "random" => self.random(to),
            "hash" => self.hash(to),
            "double-hash" => self.double_hash(to),
            "random-increments" => self.random_increments(to),
            other => panic!("no algorithm {other}"),
        };
        if let Some(port) = chosen {
            self.used.insert((to, port));
        }
        chosen
    }

    fn count(&self) -> u64 {
        u64::from(self.last - self.first) + 1
    }

    fn at(&self, number: u64) -> u16 {
        self.first + (number % self.count()) as u16
    }

    pub fn is_suitable(&self, to: Destination, port: u16) -> bool {
        !self.barred.contains(&port) && !self.used.contains(&(to, port))
    }

    fn random(&mut self, to: Destination) -> Option<u16> {
        let mut port = self.first;
        for _ in 0..DRAWS {
            let drawn = self.draw(self.count());
            port = self.at(drawn);
            if self.is_suitable(to, port) {
                return Some(port);
            }
        }
        self.onwards(to, port)
    }

    fn hash(&mut self, to: Destination) -> Option<u16> {
        let offset = self.keyed(to) & 0xffff_ffff;
        for _ in 0..self.count() {
            let port = self.at(self.next + offset);
            self.next += 1;
            if self.is_suitable(to, port) {
                return Some(port);
            }
        }
        None
    }

    fn double_hash(&mut self, to: Destination) -> Option<u16> {
        let offset = self.keyed(to) & 0xffff_ffff;
        let index = self.index(to);
        for _ in 0..self.count() {
            let port = self.at(self.table[index] + offset);
            self.table[index] += 1;
            if self.is_suitable(to, port) {
                return Some(port);
            }
        }
        None
    }

    fn random_increments(&mut self, to: Destination) -> Option<u16> {
        let mut port = self.first;
        for _ in 0..DRAWS {
            self.position += self.draw(STEPS) + 1;
            port = self.at(self.position);
            if self.is_suitable(to, port) {
                return Some(port);
            }
        }
        self.onwards(to, port)
    }

    fn onwards(&self, to: Destination, from: u16) -> Option<u16> {
        (from..=self.last)
            .chain(self.first..from)
            .find(|port| self.is_suitable(to, *port))
    }

    /// A random number below a limit.
    fn draw(&mut self, limit: u64) -> u64 {
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&self.draws.to_le_bytes());
        hasher.write(&(2_u64 << 32).to_le_bytes());
        self.draws += 1;
        ((hasher.finish() >> 32) * limit) >> 32
    }

    /// F in the lower half, G above.
    fn keyed(&self, (protocol, local, remote): Destination) -> u64 {
        let mapped = |address| match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut hasher = SipHasher24::new_with_keys(self.key[0], self.key[1]);
        hasher.write(&mapped(local));
        hasher.write(&mapped(remote.ip()));
        hasher.write(&remote.port().to_le_bytes());
        hasher.write(&[protocol, 0, 1, 0, 0, 0]);
        hasher.finish()
    }

    fn index(&self, to: Destination) -> usize {
        (self.keyed(to) >> 32) as usize % self.table.len()
    }

    /// Which destinations the allocator takes for alike where it notes what is in use.
    pub fn group(&self, to: Destination) -> u64 {
        self.keyed(to) >> 48 & 63
    }
}
