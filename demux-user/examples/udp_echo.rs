//! A UDP echo server straight on frames: what arrives at its port goes back to where it came from.
//!
//! demux gives it the datagrams of its port by AF_XDP. No stack is needed: an answer has the addresses of
//! the question the other way round, on the link as well, with the same VLAN tags. Frames of several buffers
//! (jumbo frames) are answered like any other. As root, with the name of an interface:
//!
//! ```text
//! demux load eth0
//! demux bind udp :7 --to xsk:echo
//! cargo run --example udp_echo -- --set echo --iface eth0
//! ```
//!
//! It waits with tokio, so it could do other things as well.

use std::{error::Error, path::PathBuf};

use clap::Parser;
use demux_common::{address::Family, parse, protocol::Protocol};
use demux_user::xsk::{
    Access, Options, QueueId, Sent, Set,
    checksum::{self, Checksum},
    link::reply_like,
};
use etherparse::PacketBuilder;
use tokio::signal;

/// The hops that an answer may take.
const TTL: u8 = 64;

/// How many frames are answered before the kernel is asked to send the answers.
const BURST: usize = 64;

/// Echoes UDP datagrams through AF_XDP.
#[derive(Parser)]
struct Args {
    /// The set of sockets to own: what bindings name as xsk:NAME
    #[arg(long, value_name = "NAME")]
    set: String,
    /// An interface that the datagrams arrive on; several may be given
    #[arg(long, value_name = "IFACE", required = true)]
    iface: Vec<String>,
    /// How to get at the frames: auto, direct (own sockets, as root), daemon, or the path of its socket
    #[arg(long, value_name = "WAY", default_value = "auto")]
    access: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut options = Options::new(&args.set, &args.iface[0]);
    options.interfaces.clone_from(&args.iface);
    options.access = match args.access.as_str() {
        "auto" => Access::Auto,
        "direct" => Access::Direct,
        "daemon" => Access::Daemon(None),
        path => Access::Daemon(Some(PathBuf::from(path))),
    };
    let mut set = Set::open(&options)?;
    println!("echoing on {} queues", set.queues().len());

    let mut echo = Echo::default();
    loop {
        while echo_some(&mut set, &mut echo)? {
            set.flush()?;
        }
        set.flush()?;
        tokio::select! {
            ready = set.ready() => ready?,
            _ = signal::ctrl_c() => break,
        }
    }
    println!(
        "{} echoed, {} not answered, {} lost",
        echo.echoed, echo.unanswered, echo.lost
    );
    Ok(())
}

/// The answer that is being made, and how many were.
#[derive(Default)]
struct Echo {
    packet: Vec<u8>,
    frame: Vec<u8>,
    echoed: u64,
    unanswered: u64,
    lost: u64,
}

/// Answers a few frames; `false` once there are no more.
fn echo_some(set: &mut Set, echo: &mut Echo) -> demux_user::Result<bool> {
    for _ in 0..BURST {
        let Some(received) = set.receive()? else {
            return Ok(false);
        };
        let queue: QueueId = received.queue();
        if !echo.answer(received.frame()) {
            echo.unanswered += 1;
            continue;
        }
        if set.send(queue, &echo.frame)? == Sent::Queued {
            echo.echoed += 1;
        } else {
            // The ring is full: datagrams may be lost.
            echo.lost += 1;
        }
    }
    Ok(true)
}

impl Echo {
    /// Makes the answer to a frame; `false` where it gets none.
    fn answer(&mut self, question: &[u8]) -> bool {
        let Ok(parsed) = parse::parse(question) else {
            return false;
        };
        let key = &parsed.key;
        // Two echo servers at the same port would never come to an end.
        if key.protocol != Protocol::Udp || key.local_port == key.remote_port {
            return false;
        }
        if matches!(
            checksum::check(question),
            Checksum::Wrong | Checksum::Unknown
        ) {
            return false;
        }
        let Some(data) = data(question, parsed.headers_len as usize) else {
            return false;
        };
        let builder = match parsed.family {
            Family::Ipv4 => {
                PacketBuilder::ipv4(key.local_address.v4(), key.remote_address.v4(), TTL)
            }
            Family::Ipv6 => {
                PacketBuilder::ipv6(key.local_address.bytes, key.remote_address.bytes, TTL)
            }
        };
        self.packet.clear();
        let builder = builder.udp(key.local_port, key.remote_port);
        builder.write(&mut self.packet, data).is_ok()
            && reply_like(question, &self.packet, &mut self.frame)
    }
}

/// What a datagram carries, given the length of all headers: as much as the UDP header says, since short
/// frames are padded.
fn data(frame: &[u8], headers: usize) -> Option<&[u8]> {
    let length = *frame.get(headers.checked_sub(4)?..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes(length)).checked_sub(8)?;
    frame.get(headers..headers + length)
}
