//! A host with bindings, and with connections of every kind.

use std::net::{TcpStream, UdpSocket};

use super::{
    demux::Demux,
    pair::{Family, HOST, Pair},
    sockets::{ask, connect, listen, talk, udp},
};

/// A host with bindings, and with connections of every kind.
#[derive(Debug, Default)]
pub struct Scene {
    pair: Pair,
    _streams: Vec<(TcpStream, TcpStream)>,
    _sockets: Vec<UdpSocket>,
}

impl Scene {
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads the host with a default of drop, makes bindings, and opens connections.
    pub fn load(&mut self) -> Demux<'_> {
        let demux = Demux::new(&self.pair.host);
        demux.ok(&format!("load {HOST} --default drop --max-connections 256"));
        demux.ok("bind tcp 10.0.0.2:80 --name web");
        demux.ok(&format!("bind udp :5000-5999 --to drop --dev {HOST}"));
        let Pair { host, peer } = &self.pair;
        for (from, to, at) in [
            (peer, host, Family::V4.at_host(80)),
            (peer, host, Family::V6.at_host(22)),
            (host, peer, Family::V4.at_peer(443)),
        ] {
            let listener = listen(to, at);
            let mut ends = connect(from, &listener, at);
            talk(&mut ends.0, &mut ends.1);
            self._streams.push(ends);
        }
        let server = udp(host, Family::V6.at_host(53));
        let client = udp(peer, Family::V6.at_peer(40_053));
        ask(&client, &server, Family::V6.at_host(53));
        self._sockets.extend([server, client]);
        demux
    }
}
