//! Clients and servers, made in a namespace and used from anywhere.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

use super::{netns::Netns, wait::wait_for_some};

/// Longer than any answer takes: only what never comes takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP listener. The address may be in use for a moment longer than whoever had it: a child that another
/// thread has forked has all descriptors until it executes its program.
#[track_caller]
pub fn listen(netns: &Netns, address: SocketAddr) -> TcpListener {
    let bind = || match netns.enter(|| TcpListener::bind(address)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        other => Some(other),
    };
    wait_for_some(&format!("{address} to be free"), bind)
        .unwrap_or_else(|error| panic!("listen on {address}: {error}"))
}

/// A connection to a listener: its client's end and its server's end.
#[track_caller]
pub fn connect(netns: &Netns, listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream) {
    let client = netns
        .enter(|| TcpStream::connect_timeout(&to, PATIENCE))
        .unwrap_or_else(|error| panic!("connect to {to}: {error}"));
    let (server, _) = listener.accept().expect("a connection");
    for end in [&client, &server] {
        end.set_read_timeout(Some(PATIENCE)).unwrap();
        end.set_nodelay(true).unwrap();
    }
    (client, server)
}

/// Sends data both ways over a connection.
#[track_caller]
pub fn talk(client: &mut TcpStream, server: &mut TcpStream) {
    let mut word = [0; 4];
    client.write_all(b"ping").expect("sending");
    server.read_exact(&mut word).expect("what the client sent");
    assert_eq!(&word, b"ping");
    server.write_all(b"pong").expect("answering");
    client.read_exact(&mut word).expect("the answer");
    assert_eq!(&word, b"pong");
}

/// A connection that is being made: nobody waits for it.
pub fn start_connecting(netns: &Netns, to: SocketAddr) -> OwnedFd {
    let socket = netns.enter(|| socket(family(to), libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0));
    let (address, length) = raw_address(to);
    // SAFETY: the address is as long as told.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    let error = io::Error::last_os_error();
    assert!(
        result < 0 && error.raw_os_error() == Some(libc::EINPROGRESS),
        "{error}"
    );
    socket
}

/// Gives a socket its own address.
#[track_caller]
pub fn bind(socket: &OwnedFd, address: SocketAddr) {
    let (raw, length) = raw_address(address);
    // SAFETY: the address is as long as told.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const raw).cast(), length) };
    assert_eq!(result, 0, "bind {address}: {}", io::Error::last_os_error());
}

/// Connects a socket that waits for it.
#[track_caller]
pub fn connect_to(socket: &OwnedFd, address: SocketAddr) {
    let (raw, length) = raw_address(address);
    // SAFETY: the address is as long as told.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const raw).cast(), length) };
    assert_eq!(
        result,
        0,
        "connect to {address}: {}",
        io::Error::last_os_error()
    );
}

/// What has become of a connection: `None` while nobody has answered.
pub fn connect_result(socket: &OwnedFd) -> Option<io::Result<()>> {
    let mut poll = libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one entry is given, and one is counted.
    if unsafe { libc::poll(&raw mut poll, 1, 0) } == 0 {
        return None;
    }
    // SAFETY: the descriptor is a socket, and TcpStream only borrows the copy.
    let stream = TcpStream::from(socket.try_clone().unwrap());
    Some(match stream.take_error().unwrap() {
        None => Ok(()),
        Some(error) => Err(error),
    })
}

/// A UDP socket.
#[track_caller]
pub fn udp(netns: &Netns, address: SocketAddr) -> UdpSocket {
    let socket = netns
        .enter(|| UdpSocket::bind(address))
        .unwrap_or_else(|error| panic!("bind {address}: {error}"));
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A UDP socket that talks to one address and hears of errors from it.
#[track_caller]
pub fn udp_to(netns: &Netns, from: SocketAddr, to: SocketAddr) -> UdpSocket {
    let socket = udp(netns, from);
    socket.connect(to).expect("connecting");
    socket
}

/// A question and its answer, as with DNS.
#[track_caller]
pub fn ask(client: &UdpSocket, server: &UdpSocket, at: SocketAddr) {
    let mut buffer = [0; 64];
    client.send_to(b"question", at).expect("asking");
    let (length, from) = server.recv_from(&mut buffer).expect("the question");
    assert_eq!(&buffer[..length], b"question");
    server.send_to(b"answer", from).expect("answering");
    let (length, from) = client.recv_from(&mut buffer).expect("the answer");
    assert_eq!((&buffer[..length], from), (&b"answer"[..], at));
}

/// Sends an echo request and waits for the reply.
#[track_caller]
pub fn ping(netns: &Netns, to: IpAddr) {
    const IDENTIFIER: u16 = 0x6d78;
    let to = SocketAddr::new(to, 0);
    let (protocol, request, reply, header) = match to {
        SocketAddr::V4(_) => (libc::IPPROTO_ICMP, 8, 0, 20),
        // The kernel takes the header off, and fills in the checksum.
        SocketAddr::V6(_) => (libc::IPPROTO_ICMPV6, 128, 129, 0),
    };
    let socket = netns.enter(|| socket(family(to), libc::SOCK_RAW, protocol));
    let mut message = vec![request, 0, 0, 0];
    message.extend(IDENTIFIER.to_be_bytes());
    message.extend([0, 1, b'd', b'e', b'm', b'u', b'x', 0]);
    let checksum = internet_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());

    // The calls of UDP sockets are those of raw ones.
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&message, to).expect("sending a ping");
    let mut buffer = [0; 256];
    loop {
        let length = socket.recv(&mut buffer).expect("a reply to the ping");
        let answer = &buffer[header.min(length)..length];
        if answer.first() == Some(&reply) && answer[4..] == message[4..] {
            return;
        }
    }
}

/// Whether nothing has arrived at a socket.
pub fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let result = socket.recv(&mut [0; 64]);
    socket.set_nonblocking(false).unwrap();
    matches!(result, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A socket of the present namespace.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> OwnedFd {
    // SAFETY: the call takes no addresses.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    assert!(fd >= 0, "a socket: {}", io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn family(address: SocketAddr) -> i32 {
    if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    }
}

fn raw_address(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: the structure holds only integers and arrays of them, for which zero is a value.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match address {
        SocketAddr::V4(address) => {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(address.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is large enough for every kind of address.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(v4) };
            size_of_val(&v4)
        }
        SocketAddr::V6(address) => {
            let v6 = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: address.ip().octets(),
                },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(v6) };
            size_of_val(&v6)
        }
    };
    (storage, length as libc::socklen_t)
}
