//! The network of the demo: three namespaces, and a veth pair from each client to the server.

use std::{
    collections::BTreeSet,
    fs,
    io::{Error, ErrorKind, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt as _,
        unix::{net, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    actors::enter,
    demux::{Demux, as_root},
};
use crate::{process, setup};

/// The namespace of the server.
pub(super) const SERVER: &str = "demux-demo-server";
/// The namespace of one client.
pub(super) const ALICE: &str = "demux-demo-alice";
/// The namespace of the other.
pub(super) const BOB: &str = "demux-demo-bob";

const NAMESPACES: [&str; 3] = [SERVER, ALICE, BOB];

/// What the network looks like.
pub(super) const PICTURE: &str = "     demux-demo-alice                     demux-demo-server
    +----------------+                   +----------------------------+
    |  alice    eth0 +-------------------+ alice0          10.0.0.1   |
    |       10.0.0.2 |                   |                            |
    +----------------+                   |   ssh server on port 22    |
     demux-demo-bob                      |   web server on port 80    |
    +----------------+                   |                            |
    |  bob      eth0 +-------------------+ bob0                       |
    |       10.0.0.3 |                   |                            |
    +----------------+                   +----------------------------+";

/// An endpoint of the server.
pub(super) fn server(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), port)
}

/// Where the file is that stands for a named namespace.
pub(super) fn path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// The network, which is removed with the value.
pub(super) struct Network<'a> {
    demux: &'a Demux,
    ip: PathBuf,
    lock: net::UnixDatagram,
    is_up: bool,
}

impl<'a> Network<'a> {
    /// Makes the network, after removing what a killed run left behind.
    ///
    /// # Errors
    /// When another demo runs or is kept, or `ip` fails.
    pub(super) fn create(demux: &'a Demux) -> Result<Self> {
        let network = Self {
            lock: lock(demux)?,
            demux,
            ip: ip()?,
            is_up: true,
        };
        network
            .take_down()
            .context("cannot remove an earlier demo")?;
        network.build()?;
        Ok(network)
    }

    /// Removes the network.
    ///
    /// # Errors
    /// When something is left of it.
    pub(super) fn remove(mut self) -> Result<()> {
        self.is_up = false;
        self.take_down()
    }

    /// Leaves the network up.
    pub(super) fn keep(mut self) {
        self.is_up = false;
    }

    /// What keeps other demos from replacing the network, for as long as any process has it open.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(super) fn lock(&self) -> Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }

    fn build(&self) -> Result<()> {
        for namespace in NAMESPACES {
            self.ip(&["netns", "add", namespace])?;
            self.ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        self.connect(ALICE, "10.0.0.2", "alice0")?;
        self.connect(BOB, "10.0.0.3", "bob0")
    }

    /// Connects a client to the server, whose end of the cable is called `device`.
    fn connect(&self, client: &str, address: &str, device: &str) -> Result<()> {
        self.ip(&[
            "-n", SERVER, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns",
            client,
        ])?;
        let ends = [
            (SERVER, device, "10.0.0.1", address),
            (client, "eth0", address, "10.0.0.1"),
        ];
        for (namespace, device, address, peer) in ends {
            let ip = |words: &[&str]| self.ip(&[&["-n", namespace], words].concat());
            // Neighbour discovery would only add packets that nobody asked for.
            ip(&["link", "set", device, "addrgenmode", "none"])?;
            ip(&["address", "add", address, "peer", peer, "dev", device])?;
            ip(&["link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// Detaches demux and deletes the namespaces; what is not there needs no deleting.
    fn take_down(&self) -> Result<()> {
        let unloaded = if path(SERVER).exists() {
            self.demux.unload()
        } else {
            Ok(())
        };
        let left = NAMESPACES.iter().filter(|name| path(name).exists());
        // Every one is tried; the first failure is told.
        left.map(|name| self.ip(&["netns", "del", name]))
            .fold(unloaded, Result::and)
    }

    fn ip(&self, words: &[&str]) -> Result<()> {
        let mut ip = Command::new(&self.ip);
        // A Ctrl-C must not stop the removal.
        ip.args(words).process_group(0).stdin(Stdio::null());
        process::output(&mut ip).map(drop)
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        if self.is_up
            && let Err(error) = self.take_down()
        {
            // Possibly on the way out of a panic about a closed terminal.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
        }
    }
}

/// The `ip` command.
///
/// # Errors
/// When there is none and none can be fetched.
pub(super) fn ip() -> Result<PathBuf> {
    program("ip")
}

/// A program of those that setup provides where the system lacks them.
///
/// # Errors
/// When it is neither there nor can be fetched.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    match process::find(name) {
        Some(path) => Ok(path),
        None => Ok(setup::tools()?.path.join(name)),
    }
}

/// Sends what the server has for addresses that nobody has by bob's cable.
///
/// # Errors
/// When `ip` fails.
pub(super) fn route_everything_else_to_bob() -> Result<()> {
    let mut command = Command::new(ip()?);
    command.args(["-n", SERVER, "route", "add", "default"]);
    command.args(["via", "10.0.0.3", "dev", "bob0"]);
    process::output(&mut command).map(drop)
}

/// Lets the server send an answer to a SYN once more only: it forgets after 3 seconds, and not after
/// a minute, what nobody answers.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn give_up_handshakes_early() -> Result<()> {
    enter(SERVER, || {
        let path = "/proc/sys/net/ipv4/tcp_synack_retries";
        fs::write(path, "1").with_context(|| format!("cannot write {path}"))
    })
}

/// What `ss` would say of the state of a connection of the server: the kernel's own word, and not
/// that of demux. `None` where the kernel has no such connection.
///
/// # Errors
/// When the kernel's list cannot be read.
pub(super) fn kernel_state(port: u16, remote: SocketAddr) -> Result<Option<&'static str>> {
    let wanted = [in_proc(server(port)), in_proc(remote)];
    let sockets = kernel_sockets()?;
    let mut states = sockets.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        let [_, local, remote, state] = words[..] else {
            return None;
        };
        (wanted == [local, remote]).then(|| STATES.get(usize::from_str_radix(state, 16).ok()?))?
    });
    Ok(states.next().copied())
}

/// How many handshakes of clients the server's kernel has begun and not finished.
///
/// # Errors
/// When the kernel's list cannot be read.
pub(super) fn half_open() -> Result<usize> {
    let sockets = kernel_sockets()?;
    let is_half_open = |line: &&str| line.split_whitespace().nth(3) == Some("03");
    Ok(sockets.lines().filter(is_half_open).count())
}

/// The local ports of all IPv4 TCP sockets of the server's kernel.
///
/// # Errors
/// When the kernel's list cannot be read.
pub(super) fn kernel_ports() -> Result<BTreeSet<u16>> {
    let sockets = kernel_sockets()?;
    let port = |line: &str| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()
    };
    Ok(sockets.lines().skip(1).filter_map(port).collect())
}

/// How many resets the server's kernel has sent: its own count, and not that of demux.
///
/// # Errors
/// When the kernel's counters cannot be read.
pub(super) fn resets_sent() -> Result<u64> {
    let path = "/proc/thread-self/net/snmp";
    let counters = enter(SERVER, || {
        fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
    })?;
    // A line of names and one of values.
    let mut lines = counters.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = lines.next().zip(lines.next()).unwrap_or_default();
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    let value = pairs.find_map(|(name, value)| (name == "OutRsts").then(|| value.parse().ok())?);
    value.with_context(|| format!("{path} has no Tcp OutRsts"))
}

/// The kernel's states by their numbers (include/net/tcp_states.h).
const STATES: [&str; 12] = [
    "",
    "ESTABLISHED",
    "SYN-SENT",
    "SYN-RECEIVED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "TIME-WAIT",
    "CLOSED",
    "CLOSE-WAIT",
    "LAST-ACK",
    "LISTEN",
    "CLOSING",
];

fn kernel_sockets() -> Result<String> {
    enter(SERVER, || {
        let path = "/proc/thread-self/net/tcp";
        fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
    })
}

/// An IPv4 endpoint as the kernel writes it there.
fn in_proc(endpoint: SocketAddr) -> String {
    let address = match endpoint.ip() {
        IpAddr::V4(address) => u32::from_ne_bytes(address.octets()),
        IpAddr::V6(_) => 0,
    };
    format!("{address:08X}:{:04X}", endpoint.port())
}

/// How to remove a kept demo, without xtask.
pub(super) fn removal(demux: &Demux) -> String {
    let mut lines = vec![format!("  {}", demux.pasteable(&["unload", "--all"]))];
    lines.extend(NAMESPACES.map(|name| format!("  {}", as_root(&format!("ip netns del {name}")))));
    lines.join("\n")
}

/// A name that one process at a time can have, and that is free again whatever ends that process.
fn lock(demux: &Demux) -> Result<net::UnixDatagram> {
    let name = net::SocketAddr::from_abstract_name("demux-demo")?;
    // Kept actors take a moment to notice that their network is gone.
    let patience = Instant::now() + Duration::from_secs(2);
    loop {
        match net::UnixDatagram::bind_addr(&name) {
            Ok(lock) => return Ok(lock),
            Err(error) if error.kind() != ErrorKind::AddrInUse => return Err(cannot_lock(error)),
            Err(_) if path(SERVER).exists() || Instant::now() > patience => bail!(
                "a demo is running, or was kept; end it, or remove it with\n{}",
                removal(demux)
            ),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn cannot_lock(error: Error) -> anyhow::Error {
    anyhow::Error::new(error).context("cannot make sure that no other demo runs")
}
