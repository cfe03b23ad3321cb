//! An HTTP/1.1 server on smoltcp, a TCP/IP stack in user space, beside the kernel's own servers.
//!
//! demux gives it the packets of its ports by AF_XDP; everything else on the interface, ARP and ICMP
//! included, stays with the kernel. As root, with the name of an interface and one of its addresses:
//!
//! ```text
//! demux load eth0
//! demux bind tcp 10.0.0.2:8080 --to xsk:web
//! cargo run --example http_smoltcp -- --set web --iface eth0 --address 10.0.0.2:8080
//! curl http://10.0.0.2:8080/
//! ```
//!
//! - `wire.rs` is the interface between the stack and the frames, and the part to copy for another stack;
//! - `server.rs` keeps the sockets: listeners, connections, and what comes after them;
//! - `http.rs` answers requests: `/` says hello, `/bytes/N` is N bytes that a client can check.

mod http;
mod server;
mod wire;

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use demux_user::xsk::{Access, Options, Set, link::Link};
use smoltcp::{
    iface::{Config, Interface, PollResult},
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

use self::{server::Server, wire::Wire};

/// How many frames are taken in before anything else is done: fewer than there are listeners, so that each
/// may be the first of a connection.
const BURST: usize = server::BACKLOG;

/// Serves HTTP through AF_XDP, on smoltcp.
#[derive(Parser)]
struct Args {
    /// The set of sockets to own: what bindings name as xsk:NAME
    #[arg(long, value_name = "NAME")]
    set: String,
    /// An interface that the packets arrive on; several may be given
    #[arg(long, value_name = "IFACE", required = true)]
    iface: Vec<String>,
    /// Where to serve, such as 10.0.0.2:8080 or [fd00::2]:8080; several may be given
    #[arg(long, value_name = "ADDRESS:PORT", required = true)]
    address: Vec<SocketAddr>,
    /// How to get at the frames: auto, direct (own sockets, as root), daemon, or the path of its socket
    #[arg(long, value_name = "WAY", default_value = "auto")]
    access: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut options = Options::new(&args.set, &args.iface[0]);
    options.interfaces.clone_from(&args.iface);
    options.access = match args.access.as_str() {
        "auto" => Access::Auto,
        "direct" => Access::Direct,
        "daemon" => Access::Daemon(None),
        path => Access::Daemon(Some(PathBuf::from(path))),
    };
    let set = Set::open(&options)?;
    let mut wire = Wire::new(set, Link::open(&args.iface)?, &args.iface)?;

    let mut config = Config::new(HardwareAddress::Ip);
    // Sequence numbers begin where nobody can guess.
    config.random_seed = random()?;
    let mut interface = Interface::new(config, &mut wire, Instant::now());
    set_addresses(&mut interface, &args.address)?;
    let mut server = Server::new(&args.address);

    for address in &args.address {
        println!("serving http://{address}/ on {}", wire.describe());
    }
    loop {
        let now = Instant::now();
        let mut taken = 0;
        while taken < BURST && wire.receive()? {
            interface.poll_ingress_single(now, &mut wire, &mut server.sockets);
            taken += 1;
        }
        server.serve();
        while interface.poll_egress(now, &mut wire, &mut server.sockets)
            == PollResult::SocketStateChanged
        {
            server.serve();
        }
        let timeout = match interface.poll_delay(Instant::now(), &server.sockets) {
            // There may be more.
            _ if taken == BURST => Some(Duration::ZERO),
            delay => delay.map(Duration::from),
        };
        wire.flush_and_wait(timeout)?;
    }
}

/// Tells the stack which addresses are its own. Routes are the kernel's business: the stack sends everything
/// to the wire, which asks the kernel.
fn set_addresses(
    interface: &mut Interface,
    addresses: &[SocketAddr],
) -> Result<(), Box<dyn Error>> {
    for ip in addresses.iter().map(SocketAddr::ip) {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let mut is_full = false;
        interface.update_ip_addrs(|own| {
            if !own.iter().any(|cidr| IpAddr::from(cidr.address()) == ip) {
                is_full = own.push(IpCidr::new(ip.into(), bits)).is_err();
            }
        });
        if is_full {
            return Err("too many addresses: smoltcp is built for 8".into());
        }
        match ip {
            IpAddr::V4(ip) => interface.routes_mut().add_default_ipv4_route(ip)?,
            IpAddr::V6(ip) => interface.routes_mut().add_default_ipv6_route(ip)?,
        };
    }
    Ok(())
}

fn random() -> Result<u64, Box<dyn Error>> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}
