//! `bind` beside the running kernel: every pair of addresses with every pair of flags, between two
//! bindings as between two sockets, and beside a socket in each state.

mod common;

use std::{collections::BTreeMap, net::SocketAddr, os::fd::OwnedFd, time::Instant};

use common::{demux::Demux, netns::Netns};
use demux_common::{binding::Binding, protocol::Protocol};
use demux_user::{
    Error,
    bindings::{self, BindRequest, Destination, Pattern, Selector},
    bpffs::BpfFs,
};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt},
};

/// Eight addresses that stand for all: as sockets have them, and whether IPv6 alone.
const ADDRESSES: [(&str, bool); 8] = [
    ("0.0.0.0", false),
    ("127.0.0.1", false),
    ("127.0.0.2", false),
    ("::", false),
    ("::", true),
    ("::1", false),
    ("::ffff:127.0.0.1", false),
    ("::ffff:0.0.0.0", false),
];

/// No flag, SO_REUSEADDR, SO_REUSEPORT, both.
const FLAGS: [u8; 4] = [
    0,
    Binding::REUSE_ADDR,
    Binding::REUSE_PORT,
    Binding::REUSE_ADDR | Binding::REUSE_PORT,
];

/// What the first socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum First {
    BoundTcp,
    ListeningTcp,
    Udp,
}

impl First {
    const ALL: [Self; 3] = [Self::BoundTcp, Self::ListeningTcp, Self::Udp];

    const fn protocol(self) -> Protocol {
        match self {
            Self::BoundTcp | Self::ListeningTcp => Protocol::Tcp,
            Self::Udp => Protocol::Udp,
        }
    }
}

type Address = (&'static str, bool);

const PORT: u16 = 20_000;

fn socket(protocol: Protocol, (address, v6_only): Address, flags: u8) -> Result<OwnedFd, Errno> {
    let address = SocketAddr::new(address.parse().unwrap(), PORT);
    let (family, kind) = (
        match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        },
        match protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        },
    );
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, v6_only).unwrap();
    }
    sockopt::set_socket_reuseaddr(&socket, flags & Binding::REUSE_ADDR != 0).unwrap();
    sockopt::set_socket_reuseport(&socket, flags & Binding::REUSE_PORT != 0).unwrap();
    bind(&socket, &address)?;
    Ok(socket)
}

fn first_socket(first: First, address: Address, flags: u8) -> OwnedFd {
    let socket = socket(first.protocol(), address, flags).expect("the port is free");
    if first == First::ListeningTcp {
        listen(&socket, 1).unwrap();
    }
    socket
}

/// Whether the kernel refuses a second socket.
fn kernel_refuses(protocol: Protocol, address: Address, flags: u8) -> bool {
    match socket(protocol, address, flags) {
        Ok(_) => false,
        Err(Errno::ADDRINUSE) => true,
        Err(other) => panic!("{address:?}: {other}"),
    }
}

fn request(
    protocol: Protocol,
    (address, v6_only): Address,
    flags: u8,
    target: Destination,
    name: &str,
) -> BindRequest {
    let local = if address.contains(':') {
        format!("[{address}]:{PORT}")
    } else {
        format!("{address}:{PORT}")
    };
    BindRequest {
        pattern: Pattern::parse(protocol, &local, v6_only).unwrap(),
        target,
        fallback: None,
        name: Some(name.to_owned()),
        ifindex: 0,
        flags,
        freebind: false,
    }
}

fn unbind(bpffs: &BpfFs, name: &str) {
    bindings::unbind(bpffs, &Selector::Name(name.to_owned())).unwrap();
}

/// Two sockets, or two bindings: the first address and its flags, and the second's.
fn cases() -> impl Iterator<Item = (Address, u8, Address, u8)> {
    ADDRESSES.into_iter().flat_map(|one| {
        FLAGS.into_iter().flat_map(move |flags| {
            ADDRESSES.into_iter().flat_map(move |other| {
                FLAGS
                    .into_iter()
                    .map(move |others| (one, flags, other, others))
            })
        })
    })
}

/// Runs `work` in a namespace with an instance.
fn loaded(work: impl FnOnce(&BpfFs) + Send) {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    demux.ok("load v0 --max-connections 64 --max-bindings 8");
    netns.enter(|| work(&BpfFs::find(Some(demux.bpffs())).unwrap()));
}

#[test]
fn bindings_conflict_as_bound_sockets_do() {
    loaded(|bpffs| {
        let (mut wrong, mut count) = (Vec::new(), 0);
        let begun = Instant::now();
        for protocol in Protocol::ALL {
            for case @ (one, flags, other, others) in cases() {
                let first = match protocol {
                    Protocol::Tcp => First::BoundTcp,
                    Protocol::Udp => First::Udp,
                };
                let kernel = {
                    let _first = first_socket(first, one, flags);
                    kernel_refuses(protocol, other, others)
                };
                let ask = |address, flags, name| {
                    let request = request(protocol, address, flags, Destination::Stack, name);
                    bindings::bind(bpffs, &request)
                };
                ask(one, flags, "first").unwrap();
                let ours = match ask(other, others, "second") {
                    Ok(_) => {
                        unbind(bpffs, "second");
                        false
                    }
                    Err(Error::AddressInUse { holder, .. }) => {
                        assert_eq!(holder, "binding \"first\"");
                        true
                    }
                    Err(error) => panic!("{case:?}: {error}"),
                };
                unbind(bpffs, "first");
                if ours != kernel {
                    wrong.push(format!("{} {case:?}: refused {ours}", protocol.name()));
                }
                count += 1;
            }
        }
        println!("{count} pairs in {:?}", begun.elapsed());
        assert_eq!((count, wrong), (2 * 1024, Vec::<String>::new()));
    });
}

/// A binding that drops takes the packets of every socket that it overlaps, so it is refused where the
/// kernel refuses a second socket without flags. With flags the kernel allows some of those, which is
/// of no use here: the kernel does not tell the flags of the first, and the two could not share.
#[test]
fn a_binding_that_drops_is_refused_beside_a_socket() {
    loaded(|bpffs| {
        let mut wrong = Vec::new();
        let mut stricter: BTreeMap<(First, u8, u8), usize> = BTreeMap::new();
        let mut count = 0;
        let begun = Instant::now();
        for first in First::ALL {
            let protocol = first.protocol();
            for case @ (one, flags, other, others) in cases() {
                let _first = first_socket(first, one, flags);
                let plain = kernel_refuses(protocol, other, 0);
                let with_flags = kernel_refuses(protocol, other, others);
                assert!(plain || !with_flags, "{case:?}");
                let request = request(protocol, other, others, Destination::Drop, "drop");
                let ours = match bindings::bind(bpffs, &request) {
                    Ok(_) => {
                        unbind(bpffs, "drop");
                        false
                    }
                    Err(Error::SocketInUse { holder, .. }) => {
                        let pid = std::process::id();
                        assert!(holder.starts_with(&format!("process {pid} (")), "{holder}");
                        true
                    }
                    Err(error) => panic!("{case:?}: {error}"),
                };
                if ours != plain {
                    wrong.push(format!("{first:?} {case:?}: refused {ours}"));
                }
                if ours && !with_flags {
                    *stricter.entry((first, flags, others)).or_default() += 1;
                }
                count += 1;
            }
        }
        println!("{count} pairs in {:?}", begun.elapsed());
        assert_eq!((count, wrong), (3 * 1024, Vec::<String>::new()));
        // Stricter than the kernel just where it lets sockets share: in all 40 overlapping pairs.
        let shared = |first, flags: u8, others: u8| {
            let both = flags & others;
            both & Binding::REUSE_PORT != 0
                || (both & Binding::REUSE_ADDR != 0 && first != First::ListeningTcp)
        };
        let expected: BTreeMap<_, _> = First::ALL
            .into_iter()
            .flat_map(|first| FLAGS.map(|flags| FLAGS.map(|others| (first, flags, others))))
            .flatten()
            .filter(|(first, flags, others)| shared(*first, *flags, *others))
            .map(|case| (case, 40))
            .collect();
        assert_eq!(stricter, expected);
    });
}
