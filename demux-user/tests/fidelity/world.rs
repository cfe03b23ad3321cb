//! A host with demux, its peer, and what both the table and the kernel say of the connections between
//! them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd as _},
    thread,
    time::{Duration, Instant},
};

use demux_common::protocol::Protocol;
use demux_user::{
    netlink::{Netlink, RawMessage},
    sockets::{self, States},
};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use serde_json::Value;

use crate::common::{
    demux::Demux,
    netns::Netns,
    pair::{FAMILIES, Family, HOST, PEER, Pair},
};

/// How long the kernel may take to say again what a cut cable has swallowed: it waits for longer and
/// longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often both are asked whether they agree.
const INTERVAL: Duration = Duration::from_millis(10);

/// Which host has opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opener {
    Host,
    Peer,
}

impl Opener {
    pub(crate) const ALL: [Self; 2] = [Self::Host, Self::Peer];
}

/// A connection as the host sees it: its own endpoint and the other one.
pub(crate) type Tuple = (SocketAddr, SocketAddr);

/// The states of connections, by the names of RFC 9293.
pub(crate) type Picture = BTreeMap<Tuple, String>;

/// Both hosts, with demux loaded on one.
#[derive(Debug)]
pub(crate) struct World {
    /// Dropped first: it holds the file system that the programs are pinned in.
    demux: Demux<'static>,
    pub(crate) pair: &'static Pair,
}

impl World {
    /// Loads demux with these options more.
    pub(crate) fn load(options: &str) -> Self {
        // A test that has failed ends the process soon, and with it the namespaces.
        let pair: &'static Pair = Box::leak(Box::new(Pair::new()));
        for family in FAMILIES {
            add_neighbour(&pair.host, HOST, family.peer(), pair.peer.mac(PEER));
            add_neighbour(&pair.peer, PEER, family.host(), pair.host.mac(HOST));
            add_neighbour(&pair.host, HOST, nobody(family), pair.peer.mac(PEER));
        }
        let demux = Demux::new(&pair.host);
        demux.ok(&format!("load {HOST} {options}"));
        Self { demux, pair }
    }

    pub(crate) fn demux(&self) -> &Demux<'static> {
        &self.demux
    }

    /// Where a connection comes from, where it goes, and the address of its listener.
    pub(crate) fn route(
        &self,
        opener: Opener,
        family: Family,
        port: u16,
    ) -> (&Netns, &Netns, SocketAddr) {
        let Pair { host, peer } = self.pair;
        match opener {
            Opener::Host => (host, peer, family.at_peer(port)),
            Opener::Peer => (peer, host, family.at_host(port)),
        }
    }

    /// What demux shows.
    pub(crate) fn shown(&self) -> Picture {
        self.rows()
            .iter()
            .map(|row| (tuple_of(row), row["state"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// The TCP connections that demux shows, as JSON.
    pub(crate) fn rows(&self) -> Vec<Value> {
        let mut rows = self.demux.ok("connections --jsonl").json_lines();
        rows.retain(|row| row["protocol"] == "tcp");
        rows
    }

    /// What the kernel has.
    pub(crate) fn kernel(&self) -> Picture {
        kernel(&self.pair.host)
    }

    /// Waits until both say the same of every connection.
    #[track_caller]
    pub(crate) fn agrees(&self, context: &str) {
        self.agrees_while(context, || true);
    }

    /// As [`World::agrees`], doing some work before each look, which says whether all is quiet.
    #[track_caller]
    pub(crate) fn agrees_while(&self, context: &str, mut work: impl FnMut() -> bool) {
        let started = Instant::now();
        loop {
            let is_quiet = work();
            let kernel = self.kernel();
            let shown = self.shown();
            // What changes while it is looked at is at no rest.
            if is_quiet && kernel == shown && kernel == self.kernel() {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{context}: they never agree (quiet: {is_quiet}):\n{}",
                difference(&kernel, &shown)
            );
            thread::sleep(INTERVAL);
        }
    }

    /// Waits until a connection is in one state for demux and in another one for the kernel; `None` is
    /// no connection.
    #[track_caller]
    pub(crate) fn shows(&self, tuple: Tuple, demux: Option<&str>, kernel: Option<&str>) {
        let started = Instant::now();
        let expected = (demux.map(str::to_owned), kernel.map(str::to_owned));
        loop {
            let found = (
                self.shown().get(&tuple).cloned(),
                self.kernel().get(&tuple).cloned(),
            );
            if found == expected {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{tuple:?}: demux and the kernel were to say {expected:?}, and say {found:?}"
            );
            thread::sleep(INTERVAL);
        }
    }

    /// Waits until demux has counted what the sockets at both ends of a connection have. Where
    /// segments `arrive_one_by_one`, so many packets arrive.
    #[track_caller]
    pub(crate) fn counts(
        &self,
        host: &TcpStream,
        peer: &TcpStream,
        family: Family,
        arrive_one_by_one: bool,
    ) {
        let tuple = tuple(host);
        let started = Instant::now();
        loop {
            let counted = Counted {
                host: SocketInfo::of(host),
                peer: SocketInfo::of(peer),
                row: self
                    .rows()
                    .into_iter()
                    .find(|row| tuple_of(row) == tuple)
                    .unwrap_or_else(|| panic!("{tuple:?} has no row")),
            };
            let Err(problem) = counted.check(family, arrive_one_by_one) else {
                return;
            };
            assert!(started.elapsed() < PATIENCE, "{problem}: {counted:?}");
            thread::sleep(INTERVAL);
        }
    }

    /// Ends a socket of the host at once, as `ss -K` does.
    pub(crate) fn destroys(&self, (local, remote): Tuple) {
        const SOCK_DESTROY: u16 = 21;
        let octets = |address: IpAddr| {
            let mut bytes = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            bytes.resize(16, 0);
            bytes
        };
        let family = if local.is_ipv4() {
            libc::AF_INET
        } else {
            libc::AF_INET6
        };
        let mut payload = vec![family as u8, Protocol::Tcp.ip_number(), 0, 0];
        payload.extend(u32::MAX.to_ne_bytes());
        payload.extend(local.port().to_be_bytes());
        payload.extend(remote.port().to_be_bytes());
        payload.extend(octets(local.ip()));
        payload.extend(octets(remote.ip()));
        payload.extend(0_u32.to_ne_bytes());
        // Whatever its cookie is.
        payload.extend([0xff; 8]);
        let message = RawMessage {
            message_type: SOCK_DESTROY,
            payload,
        };
        self.pair
            .host
            .enter(|| Netlink::sock_diag()?.request(message, 0))
            .unwrap_or_else(|error| panic!("destroy {local} {remote}: {error}"));
    }
}

impl World {
    /// Makes the host forget where its peer is.
    pub(crate) fn forgets_peer(&self, family: Family) {
        let message = neighbour(&self.pair.host, HOST, family.peer(), None);
        self.pair
            .host
            .request(RouteNetlinkMessage::DelNeighbour(message), 0);
    }
}

/// An address that no host has, though the host believes that it is where the peer is.
pub(crate) fn nobody(family: Family) -> IpAddr {
    match family {
        Family::V4 => [10, 0, 0, 77].into(),
        Family::V6 => [0xfd00, 0, 0, 0, 0, 0, 0, 77].into(),
    }
}

/// A connection of the host, by its socket there.
pub(crate) fn tuple(host: &TcpStream) -> Tuple {
    (host.local_addr().unwrap(), host.peer_addr().unwrap())
}

fn tuple_of(row: &Value) -> Tuple {
    let end = |name: &str| row[name].as_str().unwrap().parse().unwrap();
    (end("local"), end("remote"))
}

/// The connections of a namespace as its kernel has them.
pub(crate) fn kernel(netns: &Netns) -> Picture {
    let sockets = netns.enter(|| sockets::all(Protocol::Tcp, States::CONNECTED).unwrap());
    sockets
        .into_iter()
        .map(|socket| {
            let state = socket.tcp_state().expect("a state").name();
            ((socket.local, socket.remote), state.to_owned())
        })
        .collect()
}

fn difference(kernel: &Picture, shown: &Picture) -> String {
    let mut text = String::new();
    for (tuple, state) in kernel {
        let other = shown.get(tuple);
        if other != Some(state) {
            writeln!(text, "{tuple:?}: the kernel has {state}, demux {other:?}").unwrap();
        }
    }
    for (tuple, state) in shown {
        if !kernel.contains_key(tuple) {
            writeln!(text, "{tuple:?}: the kernel has none, demux {state}").unwrap();
        }
    }
    text
}

/// What was counted of a connection.
#[derive(Debug)]
pub(crate) struct Counted {
    host: SocketInfo,
    peer: SocketInfo,
    row: Value,
}

/// What a socket has counted (`struct tcp_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketInfo {
    /// Segments.
    segments_in: u64,
    segments_out: u64,
    /// Bytes of data, those sent again included.
    sent: u64,
}

impl SocketInfo {
    fn of(stream: &TcpStream) -> Self {
        // Where the fields lie.
        const SEGMENTS_OUT: usize = 136;
        const SEGMENTS_IN: usize = 140;
        const BYTES_SENT: usize = 200;
        let mut info = [0_u8; 256];
        let mut length = info.len() as libc::socklen_t;
        // SAFETY: the buffer is as long as told.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
        assert!(length as usize >= BYTES_SENT + 8, "an old kernel");
        let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
        let short = |at: usize| {
            let word: [u8; 4] = info[at..at + 4].try_into().unwrap();
            u64::from(u32::from_ne_bytes(word))
        };
        Self {
            segments_in: short(SEGMENTS_IN),
            segments_out: short(SEGMENTS_OUT),
            sent: long(BYTES_SENT),
        }
    }
}

impl Counted {
    /// Compares what demux has counted with what the sockets have.
    fn check(&self, family: Family, arrive_one_by_one: bool) -> Result<(), &'static str> {
        let Self { host, peer, row } = self;
        let count = |name: &str| row[name].as_u64().unwrap();
        // A listener's socket does not know what was sent and received before there was one: a SYN,
        // or a SYN,ACK, and the acknowledgement of it.
        let is_close = |ours: u64, theirs: u64| ours.abs_diff(theirs) <= 2;
        let (rx, tx) = (count("rx_packets"), count("tx_packets"));
        if !is_close(tx, host.segments_out) || !is_close(tx, peer.segments_in) {
            return Err("other packets left");
        }
        if arrive_one_by_one {
            if !is_close(rx, host.segments_in) || !is_close(rx, peer.segments_out) {
                return Err("other packets arrived");
            }
        } else if !(1..=peer.segments_out + 2).contains(&rx) {
            return Err("more packets arrived than were sent");
        }
        // Ethernet, IP, TCP; and options, at most 40 bytes.
        let headers = match family {
            Family::V4 => 14 + 20 + 20,
            Family::V6 => 14 + 40 + 20,
        };
        for (packets, bytes, data) in [
            (rx, count("rx_bytes"), peer.sent),
            (tx, count("tx_bytes"), host.sent),
        ] {
            let least = data + packets * headers;
            if !(least..=least + packets * 40).contains(&bytes) {
                return Err("the bytes are not those of the data and of headers");
            }
        }
        if row["seen"] != "both" {
            return Err("not seen in both directions");
        }
        Ok(())
    }
}

/// Tells a host once and for all where an address is.
pub(crate) fn add_neighbour(netns: &Netns, interface: &str, address: IpAddr, mac: [u8; 6]) {
    let message = neighbour(netns, interface, address, Some(mac));
    netns.request(
        RouteNetlinkMessage::NewNeighbour(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    );
}

fn neighbour(
    netns: &Netns,
    interface: &str,
    address: IpAddr,
    mac: Option<[u8; 6]>,
) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = netns.index(interface);
    message.header.state = NeighbourState::Permanent;
    let (family, destination) = match address {
        IpAddr::V4(address) => (AddressFamily::Inet, NeighbourAddress::Inet(address)),
        IpAddr::V6(address) => (AddressFamily::Inet6, NeighbourAddress::Inet6(address)),
    };
    message.header.family = family;
    message.attributes = vec![NeighbourAttribute::Destination(destination)];
    if let Some(mac) = mac {
        let address = NeighbourAttribute::LinkLayerAddress(mac.to_vec());
        message.attributes.push(address);
    }
    message
}

/// Sets a number as an option of a socket.
pub(crate) fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) {
    // SAFETY: the value is as long as told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Makes closing a socket reset its connection.
pub(crate) fn reset_on_close(stream: &TcpStream) {
    rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
}
