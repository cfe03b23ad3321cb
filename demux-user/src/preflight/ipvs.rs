//! Services of the IP virtual server, which takes packets for addresses of this host before its sockets do.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
};

use super::{Risk, forbidden};
use crate::Result;

const SERVICES: &str = "/proc/thread-self/net/ip_vs";

pub(super) fn risks() -> Result<Vec<Risk>> {
    match fs::read_to_string(SERVICES) {
        Ok(table) => Ok(parse(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(source) => Err(forbidden(&format!("read {SERVICES}"), source)),
    }
}

/// The services of the table; the servers behind them are on lines that begin with an arrow.
fn parse(table: &str) -> Vec<Risk> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let protocol = fields.next()?;
            let service = fields.next()?;
            match protocol {
                "TCP" | "UDP" | "SCTP" => {
                    Some(Risk::Ipvs(format!("{protocol} {}", endpoint(service)?)))
                }
                "FWM" => Some(Risk::Ipvs(format!("for packets marked 0x{service}"))),
                _ => None,
            }
        })
        .collect()
}

/// Reads `C0A80001:0050` or `[fd00:0000:…:0001]:0050`; the first line of the table has another form.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(address) => address.strip_suffix(']')?.parse().ok()?,
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_named_as_they_are_reached() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\n\
                     Prot LocalAddress:Port Scheduler Flags\n  \
                     -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
                     TCP  C0A80001:0050 rr  \n  \
                     -> 0A000002:0050      Masq    1      0          0         \n\
                     UDP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0035 wlc  \n\
                     FWM  00000007 rr  \n";
        let lines: Vec<_> = parse(table).iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "the IPVS service TCP 192.168.0.1:80",
                "the IPVS service UDP [fd00::1]:53",
                "the IPVS service for packets marked 0x00000007",
            ]
        );
    }
}
