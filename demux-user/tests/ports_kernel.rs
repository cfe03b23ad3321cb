//! The port allocator in the kernel: against the algorithms as RFC 6056 writes them, under many
//! processes, and beside real sockets and connections.

mod common;
mod ports;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    process::Stdio,
};

use common::{
    demux::Demux,
    inside::{Inside, key},
    netns::Netns,
    pair::{Family, HOST, Pair},
    sockets::{bind, connect_to, listen, socket, talk, udp},
    wait::wait_for,
};
use demux_common::{
    layout::map,
    ports::{Algorithm, Answer, PERTURBATIONS, Request},
    protocol::Protocol,
    table::Secret,
};
use demux_user::{
    bpf,
    bpffs::BpfFs,
    ports::{AllocateRequest, Allocator},
};
use ports::{
    rfc6056::{Destination, Rfc6056},
    uniform::assert_uniform,
};
use zerocopy::IntoBytes as _;

/// Loads an instance with so much room that no window of its table is full by chance.
fn loaded(netns: &Netns) -> Demux<'_> {
    let demux = Demux::new(netns);
    demux.ok("load lo --max-connections 400000");
    demux
}

/// The model with the key, the range and the counters that the kernel's maps have now.
fn rfc_of(demux: &Demux<'_>, inside: &Inside) -> Rfc6056 {
    let secret = bpf::object_get(&demux.directory().join(map::SECRET), false).unwrap();
    let mut key = Secret::ZERO;
    bpf::map_lookup(secret.as_fd(), 0_u32.as_bytes(), key.as_mut_bytes()).unwrap();
    assert_ne!(key.ports, [0; 2]);
    let settings = inside.tables.ephemeral().unwrap();
    let mut table = vec![0_u32; PERTURBATIONS];
    let perturbation = inside.tables.map_fd(map::PERTURBATION).unwrap();
    bpf::array_read(perturbation, 0, 4, table.as_mut_bytes()).unwrap();
    Rfc6056 {
        next: settings.next.into(),
        position: settings.position.into(),
        draws: settings.draws,
        table: table.into_iter().map(u64::from).collect(),
        ..Rfc6056::new(key.ports, settings.first_port, settings.last_port)
    }
}

#[test]
fn the_first_choices_of_the_kernel_are_those_of_the_rfc() {
    const COUNT: u32 = 10_000;
    let netns = Netns::new();
    let demux = loaded(&netns);
    // Also where counters are about to pass the end of the range.
    demux.ok("set ephemeral.range=20000-40000 ephemeral.reserved=20000-20100,33333");
    let inside = Inside::of(&demux);
    let mut groups = HashSet::new();
    for algorithm in Algorithm::ALL {
        for address in ["127.0.0.1", "::1"] {
            let mut rfc = rfc_of(&demux, &inside);
            rfc.barred.extend((20_000..=20_100).chain([33_333]));
            let address: IpAddr = address.parse().unwrap();
            let to = (1..1000)
                .map(|port| (Protocol::Tcp as u8, address, (address, port).into()))
                // One that shares no hints with those before.
                .find(|to: &Destination| groups.insert(rfc.group(*to)))
                .expect("another group");
            let ports: Vec<u16> = netns.enter(|| {
                let bpffs = BpfFs::find_or_mount(Some(demux.bpffs())).unwrap();
                let request = AllocateRequest {
                    algorithm: Some(algorithm),
                    ..AllocateRequest::new(Protocol::Tcp, to.2)
                };
                let allocator = Allocator::open(&bpffs).unwrap();
                let allocations = allocator.allocate_many(&request, COUNT).unwrap();
                allocations
                    .iter()
                    .map(|allocation| {
                        assert_eq!(allocation.local.ip(), address);
                        allocation.local.port()
                    })
                    .collect()
            });
            for (number, port) in ports.iter().enumerate() {
                let expected = rfc.choose(algorithm.name(), to);
                assert_eq!(Some(*port), expected, "{}, port {number}", algorithm.name());
            }
        }
    }
    assert!(inside.damage().is_empty());
}

#[test]
fn first_ports_are_spread_evenly_and_tell_nothing_of_each_other() {
    const RANGE: u64 = 60_000;
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("set ephemeral.range=1024-61023");
    let inside = Inside::of(&demux);
    for (index, algorithm) in [Algorithm::Random, Algorithm::Hash, Algorithm::DoubleHash]
        .into_iter()
        .enumerate()
    {
        let requests: Vec<Request> = (1..=10_000)
            .map(|port| {
                let remote = SocketAddr::from(([10, 0, index as u8, 1], port));
                let local = SocketAddr::from(([10, 0, 0, 2], 0));
                Request {
                    algorithm: algorithm as u32,
                    lifetime: 1_000_000,
                    ..Request::of(key(Protocol::Udp, local, remote))
                }
            })
            .collect();
        let answers = inside.control.allocate(&requests).unwrap();
        let offsets: Vec<u64> = answers
            .iter()
            .map(|answer| match answer {
                Answer::Port(port) => u64::from(port - 1024),
                other => panic!("{other:?}"),
            })
            .collect();
        let name = algorithm.name();
        assert_uniform(name, offsets.iter().copied(), RANGE);
        let steps = offsets
            .windows(2)
            .map(|pair| (pair[1] + RANGE - pair[0]) % RANGE);
        assert_uniform(&format!("{name}, step to the next"), steps, RANGE);
    }
}

#[test]
fn sixteen_processes_never_get_the_same_port() {
    const SHARE: usize = 3750;
    for (algorithm, protocol) in [("double-hash", "tcp"), ("random", "udp")] {
        let netns = Netns::new();
        let demux = loaded(&netns);
        demux.ok("set ephemeral.range=1024-61023");
        // With the address, which nobody then needs a socket to find.
        let line = format!(
            "allocate {protocol} 127.0.0.1:443 --from 127.0.0.1 --algorithm {algorithm} --ttl 3600"
        );
        let processes: Vec<_> = netns.enter(|| {
            (0..16)
                .map(|_| {
                    let mut command = demux.command(&format!("{line} --count {SHARE}"));
                    command.stdout(Stdio::piped()).stderr(Stdio::piped());
                    command.spawn().unwrap()
                })
                .collect()
        });
        let mut met = HashSet::new();
        for process in processes {
            let output = process.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{stderr}");
            let stdout = String::from_utf8(output.stdout).unwrap();
            assert_eq!(stdout.lines().count(), SHARE);
            for local in stdout.lines() {
                let local: SocketAddr = local.parse().unwrap();
                assert!((1024..=61_023).contains(&local.port()));
                assert!(met.insert(local), "{local} was handed out twice");
            }
        }
        assert_eq!(met.len(), 60_000);
        let refused = demux.run(&format!("-j {line}"));
        assert_eq!(refused.status, 1, "{refused}");
        assert_eq!(
            refused.json()["error"]["code"],
            "address_not_available",
            "{refused}"
        );
        // One port serves another remote.
        demux.ok(&line.replace(":443", ":444"));
    }
}

/// The ports that so many allocations take.
#[track_caller]
fn taken(demux: &Demux<'_>, line: &str) -> Vec<u16> {
    let mut ports: Vec<u16> = demux
        .ok(line)
        .stdout
        .lines()
        .map(|local| local.parse::<SocketAddr>().unwrap().port())
        .collect();
    ports.sort_unstable();
    ports
}

#[test]
fn ports_that_sockets_and_bindings_hold_are_not_handed_out() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 1024"));
    demux.ok("set ephemeral.range=5000-5009");
    let stream = || {
        pair.host
            .enter(|| socket(libc::AF_INET, libc::SOCK_STREAM, 0))
    };
    let _listening = listen(&pair.host, Family::V4.at_host(5001));
    let bound: OwnedFd = stream();
    bind(&bound, Family::V4.any(5002));
    let server = listen(&pair.peer, Family::V4.at_peer(443));
    let connected = stream();
    bind(&connected, Family::V4.at_host(5003));
    connect_to(&connected, Family::V4.at_peer(443));
    let _accepted = server.accept().unwrap();
    let _v6 = listen(&pair.host, Family::V6.any(5004));
    // Nothing to TCP.
    let _datagrams = udp(&pair.host, Family::V4.any(5005));
    demux.ok("bind tcp :5006");
    demux.ok("bind udp :5007");
    assert_eq!(
        taken(&demux, "allocate tcp 10.0.0.1:443 --count 5"),
        [5000, 5005, 5007, 5008, 5009]
    );
    demux
        .refused("allocate tcp 10.0.0.1:443", 1, "address_not_available")
        .says(&["5000-5009"]);
    assert_eq!(
        taken(&demux, "allocate udp 10.0.0.1:443 --count 8"),
        [5000, 5001, 5002, 5003, 5004, 5006, 5008, 5009]
    );
    for port in [5001, 5002, 5003, 5004, 5006] {
        demux.refused(
            &format!("allocate tcp 10.0.0.1:444 --from 10.0.0.2:{port}"),
            5,
            "address_in_use",
        );
    }
    // As soon as they are free again.
    drop(bound);
    demux.ok("unbind tcp :5006");
    assert_eq!(
        taken(&demux, "allocate tcp 10.0.0.1:443 --count 2"),
        [5002, 5006]
    );
}

#[test]
fn the_settings_of_the_kernel_are_followed() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    let set = |name: &str, value: &str| netns.sysctl(&format!("net/ipv4/{name}"), value);
    let line = "allocate tcp 127.0.0.1:443 --count";
    set("ip_local_port_range", "5000 5009");
    set("ip_local_reserved_ports", "5000-5004,5009");
    assert_eq!(
        taken(&demux, &format!("{line} 4")),
        [5005, 5006, 5007, 5008]
    );
    demux.refused("allocate tcp 127.0.0.1:443", 1, "address_not_available");
    set("ip_local_reserved_ports", "5001-5009");
    assert_eq!(taken(&demux, &format!("{line} 1")), [5000]);
    set("ip_local_port_range", "6000 6001");
    assert_eq!(taken(&demux, &format!("{line} 2")), [6000, 6001]);
    // The historical algorithm has a range of its own.
    set("ip_local_reserved_ports", "1025-1030,1032");
    let sequential = "allocate tcp 127.0.0.1:443 --algorithm sequential --count 2";
    assert_eq!(taken(&demux, sequential), [1031, 1033]);
    // What is set stays, whatever the kernel's are.
    demux.ok("set ephemeral.range=7000-7003 ephemeral.reserved=7001");
    set("ip_local_port_range", "8000 8001");
    set("ip_local_reserved_ports", "7000-7003");
    assert_eq!(taken(&demux, &format!("{line} 3")), [7000, 7002, 7003]);
    demux.ok("set ephemeral.range=kernel ephemeral.reserved=kernel");
    assert_eq!(taken(&demux, &format!("{line} 2")), [8000, 8001]);
}

#[test]
fn the_first_packet_makes_a_connection_of_a_reservation() {
    for family in [Family::V4, Family::V6] {
        let pair = Pair::new();
        let demux = Demux::new(&pair.host);
        demux.ok(&format!(
            "load {HOST} --default drop --max-connections 1024"
        ));
        let at = family.at_peer(443);
        let other = family.at_peer(444);
        let local: SocketAddr = demux
            .ok(&format!("allocate tcp {at}"))
            .stdout
            .trim()
            .parse()
            .unwrap();
        assert_eq!(local.ip(), family.host());
        let row = || demux.item("connections");
        assert_eq!(
            (&row()["state"], &row()["direction"]),
            (&"RESERVED".into(), &"out".into())
        );
        let domain = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        let client = pair.host.enter(|| socket(domain, libc::SOCK_STREAM, 0));
        bind(&client, local);
        let listener = listen(&pair.peer, at);
        connect_to(&client, at);
        let mut client = std::net::TcpStream::from(client);
        let (mut server, _) = listener.accept().unwrap();
        talk(&mut client, &mut server);
        let established = row();
        assert_eq!(established["state"], "ESTABLISHED", "{established}");
        assert_eq!(established["confirmed"], true, "{established}");
        assert_eq!(established["local_port"], local.port());
        demux.refused(&format!("release tcp {local} {at}"), 3, "not_reserved");

        // This side closes first, and keeps the four-tuple.
        drop(client);
        wait_for("the end of the connection", || {
            row()["state"] == "FIN-WAIT-2"
        });
        drop(server);
        wait_for("TIME-WAIT", || row()["state"] == "TIME-WAIT");
        let port = local.port();
        demux.ok(&format!("set ephemeral.range={port}-{port}"));
        demux.refused(&format!("allocate tcp {at}"), 1, "address_not_available");
        let from = match family {
            Family::V4 => format!("{}:{port}", family.host()),
            Family::V6 => format!("[{}]:{port}", family.host()),
        };
        demux.refused(
            &format!("allocate tcp {at} --from {from}"),
            5,
            "address_in_use",
        );
        assert_eq!(taken(&demux, &format!("allocate tcp {other}")), [port]);
    }
}

#[test]
fn reservations_expire() {
    let netns = Netns::new();
    let demux = loaded(&netns);
    demux.ok("set ephemeral.range=5000-5000");
    assert_eq!(taken(&demux, "allocate udp 127.0.0.1:53 --ttl 1"), [5000]);
    assert_eq!(demux.items("connections state reserved").len(), 1);
    wait_for("the end of a reservation", || {
        demux.items("connections").is_empty()
    });
    assert_eq!(
        taken(&demux, "allocate udp 127.0.0.1:53 --ttl 3600"),
        [5000]
    );
    demux.refused("allocate udp 127.0.0.1:53", 1, "address_not_available");
    demux.ok("release udp 127.0.0.1:5000 127.0.0.1:53");
    demux.refused("release udp 127.0.0.1:5000 127.0.0.1:53", 3, "not_reserved");
    assert_eq!(taken(&demux, "allocate udp 127.0.0.1:53"), [5000]);
}
