//! demux, with a binding for each target and protocol, and with connections that are under way.

use std::os::fd::AsFd as _;

use demux_common::{
    address::{self, Address},
    connection::ConnectionKey,
    layout::map,
    protocol::Protocol,
    reason::{Reason, Verdict},
    sent::Sent,
    tcp::Flags,
};
use demux_user::{
    bindings::{BindRequest, Destination, Pattern, bind},
    load::{LoadOptions, load},
    netns::NetworkNamespace,
    process::Process,
    state::{Instance, Lock},
    tables::{Access, Sender, Tables},
    xsk::{
        port::Port,
        registry::{Claim, Wish, claim},
    },
};

use crate::{
    case::{Case, Target},
    common::{bpffs::TemporaryBpfFs, pair::Family},
    consumer,
    flows::{FIRST_PORT, FLOWS},
    frames::{OWN_SEQUENCE, SEQUENCE},
    plain,
    stage::DEMUX,
    threads::Thread,
};

/// The set of sockets that bindings name.
const SET: &str = "bench";

/// An instance on the host of a stage.
pub(crate) struct Steered {
    tables: Tables,
    sender: Sender,
    ifindex: u32,
    cpu: usize,
    claim: Claim,
    _bpffs: TemporaryBpfFs,
}

impl Steered {
    /// Loads it. The present namespace is the host's.
    pub(crate) fn load(ifindex: u32, cpu: usize) -> Self {
        let bpffs = TemporaryBpfFs::new();
        let options = LoadOptions {
            force: true,
            ..LoadOptions::default()
        };
        load(bpffs.bpffs(), &[DEMUX.to_owned()], &options).expect("demux loads");
        for target in Target::ALL {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let pattern = format!("*:{}", target.port());
                let request = BindRequest {
                    pattern: Pattern::parse(protocol, &pattern, false).expect("a pattern"),
                    target: destination(target, cpu),
                    fallback: None,
                    name: None,
                    ifindex: 0,
                    flags: 0,
                    freebind: true,
                };
                bind(bpffs.bpffs(), &request).expect("a binding");
            }
        }
        let process = Process::current().expect("this process");
        let wish = Wish {
            name: SET.parse().expect("a name"),
            owner: process,
            uid: 0,
            holder: process,
            interfaces: vec![(ifindex, 1)],
            longest: 1500,
        };
        let claim = claim(bpffs.bpffs(), &wish).expect("a set of sockets");
        let cookie = NetworkNamespace::current().expect("a namespace").cookie();
        let instance = Instance::open(bpffs.bpffs(), cookie, Lock::Shared).expect("an instance");
        Self {
            tables: Tables::open(&instance, Access::ReadWrite).expect("its tables"),
            sender: Sender::open(instance.paths()).expect("its program for what is sent"),
            ifindex,
            cpu,
            claim,
            _bpffs: bpffs,
        }
    }

    /// Gives the socket of a port what is bound to sockets. The present namespace is the host's.
    pub(crate) fn publish(&self, port: &Port) {
        let socket = consumer::socket(port).as_fd();
        let published = self.claim.publish(self.ifindex, 0, socket, false);
        published.expect("a place for the socket");
    }

    /// The threads of its CPU map.
    pub(crate) fn threads(&self) -> Vec<Thread> {
        let map = self.tables.map_fd(map::CPUS).expect("the CPU map");
        plain::threads_of(map, self.cpu)
    }

    /// Enters this host's answer to the first packet of all flows.
    pub(crate) fn answer(&mut self, case: Case) {
        let answers: Vec<Sent> = (0..FLOWS)
            .map(|flow| answer(case, FIRST_PORT + flow as u16, self.ifindex))
            .collect();
        self.sender.report(&answers).expect("answers are entered");
    }

    /// How many packets of connections with a row have gone to their target.
    pub(crate) fn followed(&self, target: Target) -> u64 {
        let verdict = match target {
            Target::Pass => Verdict::Pass,
            Target::Cpu | Target::Xsk => Verdict::Redirect,
        };
        let counters = self.tables.counters().expect("the counters");
        counters
            .iter()
            .map(|(_, counters)| counters.get(verdict, Reason::Connection).packets)
            .sum()
    }
}

fn destination(target: Target, cpu: usize) -> Destination {
    let text = match target {
        Target::Pass => "stack".to_owned(),
        Target::Cpu => format!("cpu:{cpu}"),
        Target::Xsk => format!("xsk:{SET}"),
    };
    text.parse().expect("a target")
}

fn answer(case: Case, remote_port: u16, ifindex: u32) -> Sent {
    const ETHERNET: u32 = 14;
    let (family, ip_header) = match case.family {
        Family::V4 => (address::Family::Ipv4, 20),
        Family::V6 => (address::Family::Ipv6, 40),
    };
    let is_tcp = matches!(case.protocol, Protocol::Tcp);
    let headers_len = ETHERNET + ip_header + if is_tcp { 20 } else { 8 };
    let of_tcp = |number| if is_tcp { number } else { 0 };
    Sent {
        key: ConnectionKey {
            local_address: of(case.family.host()),
            remote_address: of(case.family.peer()),
            local_port: case.target.port(),
            remote_port,
            protocol: case.protocol,
        },
        ifindex,
        family,
        frame_len: headers_len,
        headers_len,
        sequence: of_tcp(OWN_SEQUENCE),
        acknowledgement: of_tcp(SEQUENCE + 1),
        length: of_tcp(1),
        flags: of_tcp(Flags::SYN | Flags::ACK),
    }
}

fn of(address: std::net::IpAddr) -> Address {
    match address {
        std::net::IpAddr::V4(address) => Address::from_v4(address.octets()),
        std::net::IpAddr::V6(address) => Address::from_v6(address.octets()),
    }
}
