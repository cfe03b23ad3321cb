//! `demux allocate`: reserve a source port for an outgoing connection.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use demux_common::{ports::Algorithm, protocol::Protocol};

use super::{
    Outcome,
    bind::PROTOCOLS,
    context::{Context, cannot_write},
};
use crate::{
    Error, Result,
    ports::{AllocateRequest, Allocation, Allocator, parse_algorithm},
    render::{AllocationRow, List, Row as _},
};

/// Reserve a source port for a new outgoing connection
///
/// Prints the local endpoint: an address of this host, and a port from which nothing else is
/// connected to REMOTE. The port stays reserved until the first packet of the connection, or for as
/// long as --ttl says. One port serves many remotes.
///
/// Ports that are reserved, bound, or held by a socket of the kernel are never chosen.
///
/// It needs CAP_DAC_OVERRIDE where another user, such as root, has loaded.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// tcp or udp
    #[arg(value_name = "PROTO", value_parser = PROTOCOLS)]
    protocol: Protocol,
    /// The other end of the connection: ADDRESS:PORT
    #[arg(value_name = "REMOTE", value_parser = parse_endpoint)]
    remote: SocketAddr,
    /// Connect from this address, and with a port from this one only; IPv6 with a port in brackets
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = parse_from)]
    from: Option<From>,
    /// Where the packets of the connection go; only stack is available yet
    #[arg(long, value_name = "TARGET", value_parser = ["stack"])]
    to: Option<String>,
    /// Seconds for which the port stays reserved without a packet
    #[arg(long, value_name = "S", default_value_t = 60)]
    ttl: u32,
    /// Choose the port by this algorithm, and not by that of the settings
    #[arg(long, value_name = "NAME", value_parser = parse_algorithm)]
    algorithm: Option<Algorithm>,
    /// Reserve so many ports, or none
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    count: u32,
}

const EXAMPLES: &str = "\
EXAMPLES:
  demux allocate tcp 192.0.2.7:443
  demux allocate tcp 192.0.2.7:443 --from 10.0.0.2 --ttl 5
  demux allocate udp [2001:db8::7]:53 --algorithm random -j
  demux allocate tcp 192.0.2.7:80 --from 10.0.0.2:40000

ALGORITHMS (RFC 6056):
  sequential         the lowest free port from 1025 on
  random             any free port
  hash               counting up from a secret place for each remote
  double-hash        the same with many counters; the default
  random-increments  on by random steps";

/// Where a connection is to come from.
#[derive(Clone, Copy, Debug)]
struct From {
    address: IpAddr,
    port: Option<u16>,
}

impl Args {
    pub(super) fn run(&self, context: &mut Context<'_>) -> Result<Outcome> {
        let request = AllocateRequest {
            address: self.from.map(|from| from.address),
            port: self.from.and_then(|from| from.port),
            algorithm: self.algorithm,
            lifetime: Duration::from_secs(self.ttl.into()),
            ..AllocateRequest::new(self.protocol, self.remote)
        };
        if request.port.is_some() && self.count > 1 {
            return Err(Error::invalid(
                "option",
                "--count",
                "one port cannot be reserved for a remote twice",
            ));
        }
        let allocator = Allocator::open(&context.bpffs()?)?;
        let allocations = allocator.allocate_many(&request, self.count)?;
        print(context, "allocate", &allocations)?;
        Ok(Outcome::Done)
    }
}

/// Prints allocations: the local endpoint alone on its line where people read it.
pub(super) fn print(
    context: &mut Context<'_>,
    noun: &str,
    allocations: &[Allocation],
) -> Result<()> {
    if !context.is_json() {
        for allocation in allocations {
            writeln!(context.out(), "{}", allocation.local).map_err(cannot_write)?;
        }
        return Ok(());
    }
    let format = context.format();
    let mut list = List::new(context.out(), format, noun, AllocationRow::COLUMNS);
    for allocation in allocations {
        list.push(&AllocationRow::new(allocation))
            .map_err(cannot_write)?;
    }
    list.finish().map_err(cannot_write)
}

/// Reads an endpoint of one host.
pub(super) fn parse_endpoint(text: &str) -> Result<SocketAddr, String> {
    let endpoint: SocketAddr = text
        .parse()
        .map_err(|_| "write ADDRESS:PORT, such as 192.0.2.7:443 or [2001:db8::7]:443".to_owned())?;
    Ok(unmapped(endpoint))
}

fn parse_from(text: &str) -> Result<From, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(From {
            address: address.to_canonical(),
            port: None,
        });
    }
    let endpoint = parse_endpoint(text)
        .map_err(|_| "write ADDRESS, or ADDRESS:PORT with IPv6 in brackets".to_owned())?;
    if endpoint.port() == 0 {
        return Err("leave the port out, and one is chosen".to_owned());
    }
    Ok(From {
        address: endpoint.ip(),
        port: Some(endpoint.port()),
    })
}

/// IPv4 where the address is IPv4-mapped.
fn unmapped(endpoint: SocketAddr) -> SocketAddr {
    SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port())
}
