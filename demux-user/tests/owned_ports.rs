//! Ports that bindings own, and processes that ask for them by bind(2).

mod common;

use std::{
    fs,
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use common::{
    demux::Demux,
    netns::Netns,
    pair::{HOST, PEER, Pair},
    privileges::{CAP_SYS_ADMIN, CAP_SYS_PTRACE, without_capability, without_control_groups},
    sockets::{connect, listen, talk},
    wait::wait_for,
};
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt,
};

/// What a process asks bind(2) for.
#[derive(Clone, Debug)]
struct Ask {
    kind: SocketType,
    address: SocketAddr,
    shares: bool,
    v6_only: bool,
    device: Option<&'static str>,
}

fn ask(kind: SocketType, address: &str) -> Ask {
    Ask {
        kind,
        address: address.parse().unwrap(),
        shares: false,
        v6_only: false,
        device: None,
    }
}

fn tcp(address: &str) -> Ask {
    ask(SocketType::STREAM, address)
}

fn udp(address: &str) -> Ask {
    ask(SocketType::DGRAM, address)
}

impl Ask {
    fn sharing(self) -> Self {
        Self {
            shares: true,
            ..self
        }
    }

    fn v6_only(self) -> Self {
        Self {
            v6_only: true,
            ..self
        }
    }

    fn on(self, device: &'static str) -> Self {
        Self {
            device: Some(device),
            ..self
        }
    }

    fn socket(&self) -> OwnedFd {
        let family = if self.address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = socket_with(family, self.kind, SocketFlags::CLOEXEC, None).unwrap();
        if self.shares {
            sockopt::set_socket_reuseaddr(&socket, true).unwrap();
            sockopt::set_socket_reuseport(&socket, true).unwrap();
        }
        if self.address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, self.v6_only).unwrap();
        }
        if let Some(device) = self.device {
            setsockopt(&socket, BindToDevice, &device.into()).unwrap();
        }
        socket
    }

    fn make(&self, netns: &Netns) -> io::Result<OwnedFd> {
        netns.enter(|| {
            let socket = self.socket();
            bind(&socket, &self.address)?;
            Ok(socket)
        })
    }
}

/// Commands that other tests start have every socket open for a moment, so that one that was closed
/// here may still have its port.
#[track_caller]
fn granted(netns: &Netns, asks: &[Ask]) {
    for ask in asks {
        wait_for(&format!("{ask:?}"), || ask.make(netns).is_ok());
    }
}

#[track_caller]
fn refused(netns: &Netns, asks: &[Ask]) {
    for ask in asks {
        let result = ask.make(netns);
        let error = result.expect_err(&format!("{ask:?} is owned"));
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{ask:?}: {error}");
    }
}

fn load(pair: &Pair) -> Demux<'_> {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux
}

/// Every way to write port 8080 of the host.
fn all() -> Vec<Ask> {
    [
        "0.0.0.0:8080",
        "127.0.0.1:8080",
        "10.0.0.2:8080",
        "[::]:8080",
        "[::1]:8080",
        "[fd00::2]:8080",
        "[::ffff:10.0.0.2]:8080",
        "[::ffff:0.0.0.0]:8080",
    ]
    .map(tcp)
    .into()
}

#[test]
fn a_port_that_a_binding_drops_cannot_be_had() {
    let pair = Pair::new();
    let demux = load(&pair);
    granted(&pair.host, &all());
    assert_eq!(demux.item("status")["bind_hooks"], "unneeded");

    // The command has ended, and nobody is left but the kernel.
    let run = demux.ok("bind tcp :8080 --to drop --name closed");
    assert_eq!(run.stderr, "");
    refused(&pair.host, &all());
    refused(
        &pair.host,
        &all().into_iter().map(Ask::sharing).collect::<Vec<_>>(),
    );
    refused(
        &pair.host,
        &[tcp("[::]:8080").v6_only(), tcp("0.0.0.0:8080").on(HOST)],
    );
    assert_eq!(demux.item("status")["bind_hooks"], "attached");
    let entry = demux.item("dump OWNED_PORTS");
    assert_eq!(
        (&entry["protocol"], &entry["port"], &entry["address"]),
        (&"tcp".into(), &8080.into(), &"::".into())
    );
    granted(
        &pair.host,
        &[udp("0.0.0.0:8080"), udp("[::]:8080"), tcp("0.0.0.0:8081")],
    );
    granted(
        &pair.peer,
        &[tcp("0.0.0.0:8080"), tcp("10.0.0.1:8080"), tcp("[::]:8080")],
    );

    // A refused socket is as good as new.
    pair.host.enter(|| {
        let socket = tcp("0.0.0.0:8080").socket();
        bind(&socket, &SocketAddr::from(([0; 4], 8080))).unwrap_err();
        bind(&socket, &SocketAddr::from(([0; 4], 8081))).unwrap();
    });

    demux.ok("unbind closed");
    granted(&pair.host, &all());
    assert_eq!(demux.item("status")["bind_hooks"], "unneeded");
    assert!(bind_links(&demux).is_empty());
    assert_eq!(demux.items("dump OWNED_PORTS"), [0; 0]);
}

#[test]
fn only_what_overlaps_is_owned() {
    let pair = Pair::new();
    let demux = load(&pair);
    demux.ok("bind udp 10.0.0.2:8080 --to drop --name v4");
    refused(
        &pair.host,
        &[
            "10.0.0.2:8080",
            "0.0.0.0:8080",
            "[::]:8080",
            "[::ffff:10.0.0.2]:8080",
        ]
        .map(udp),
    );
    granted(
        &pair.host,
        &[
            "127.0.0.1:8080",
            "[::1]:8080",
            "[fd00::2]:8080",
            "[::ffff:127.0.0.1]:8080",
        ]
        .map(udp),
    );
    granted(&pair.host, &all());

    demux.ok("bind udp [fd00::2]:8080 --to drop --name v6");
    refused(&pair.host, &["10.0.0.2:8080", "[fd00::2]:8080"].map(udp));
    demux.ok("unbind v4");
    refused(
        &pair.host,
        &[
            udp("[fd00::2]:8080"),
            udp("[::]:8080"),
            udp("[::]:8080").v6_only(),
        ],
    );
    granted(
        &pair.host,
        &["10.0.0.2:8080", "0.0.0.0:8080", "[::1]:8080"].map(udp),
    );
    demux.ok("unbind v6");

    demux.ok("bind udp 0.0.0.0:8080 --to drop --name v4");
    refused(
        &pair.host,
        &["127.0.0.1:8080", "0.0.0.0:8080", "[::]:8080"].map(udp),
    );
    granted(&pair.host, &["[::1]:8080", "[fd00::2]:8080"].map(udp));
    demux.ok("unbind v4");

    demux.ok("bind udp [::]:8080 --v6-only --to drop --name v6");
    refused(
        &pair.host,
        &[
            udp("[::1]:8080"),
            udp("[::]:8080"),
            udp("[::]:8080").v6_only(),
        ],
    );
    granted(
        &pair.host,
        &["127.0.0.1:8080", "0.0.0.0:8080", "[::ffff:0.0.0.0]:8080"].map(udp),
    );
}

#[test]
fn what_goes_up_the_stack_or_is_more_than_one_endpoint_is_not_owned() {
    let pair = Pair::new();
    let demux = load(&pair);
    for line in [
        "bind tcp :8080",
        "bind tcp :8080-8081 --to drop",
        "bind tcp 10.0.0.0/8:8080 --to drop",
        "bind tcp :* --to drop",
    ] {
        demux.ok(&format!("{line} --name it"));
        granted(&pair.host, &all());
        assert_eq!(demux.item("status")["bind_hooks"], "unneeded");
        demux.ok("unbind it");
    }
}

#[test]
fn what_is_owned_on_a_device_is_free_on_another() {
    let pair = Pair::new();
    pair.host.veth("other0", &pair.peer, "other1");
    let demux = load(&pair);
    demux.ok(&format!("bind tcp :8080 --dev {HOST} --to drop"));
    refused(
        &pair.host,
        &[tcp("0.0.0.0:8080"), tcp("0.0.0.0:8080").on(HOST)],
    );
    refused(
        &pair.host,
        &[tcp("[::]:8080").on(HOST), tcp("10.0.0.2:8080")],
    );
    granted(
        &pair.host,
        &[
            tcp("0.0.0.0:8080").on("other0"),
            tcp("[::]:8080").on("other0"),
        ],
    );
}

#[test]
fn each_namespace_owns_its_own_ports() {
    let pair = Pair::new();
    let demux = load(&pair);
    let other = demux.in_netns(&pair.peer);
    other.ok(&format!("load {PEER} --max-connections 64"));
    demux.ok("bind tcp :8080 --to drop");
    other.ok("bind tcp :9090 --to drop");
    refused(&pair.host, &[tcp("0.0.0.0:8080")]);
    granted(&pair.host, &[tcp("0.0.0.0:9090")]);
    refused(&pair.peer, &[tcp("0.0.0.0:9090")]);
    granted(&pair.peer, &[tcp("0.0.0.0:8080")]);
    demux.ok("unload --all");
    granted(&pair.host, &all());
    refused(&pair.peer, &[tcp("0.0.0.0:9090")]);
}

#[test]
fn unloading_frees_every_port_and_loading_takes_them_again() {
    let pair = Pair::new();
    let demux = load(&pair);
    demux.ok("bind tcp :8080 --to drop");
    refused(&pair.host, &all());
    demux.ok(&format!("unload {HOST}"));
    granted(&pair.host, &all());
    demux.ok(&format!("load {HOST}"));
    refused(&pair.host, &all());
    demux.ok("unload --all");
    granted(&pair.host, &all());
}

#[test]
fn removing_the_pins_frees_every_port() {
    let pair = Pair::new();
    let demux = load(&pair);
    demux.ok("bind tcp :8080 --to drop");
    refused(&pair.host, &all());
    fs::remove_dir_all(demux.directory()).unwrap();
    // The kernel detaches in its own time.
    wait_for("the port", || tcp("0.0.0.0:8080").make(&pair.host).is_ok());
    granted(&pair.host, &all());
}

#[test]
fn the_ports_of_a_namespace_that_is_gone_are_cleaned_up() {
    let keeper = Pair::new();
    let demux = Demux::new(&keeper.host);
    let gone = Pair::new();
    let other = demux.in_netns(&gone.host);
    other.ok(&format!("load {HOST} --max-connections 64"));
    other.ok("bind tcp :8080 --to drop");
    let links = bind_links(&demux);
    assert_eq!(links.len(), 4);
    drop(gone);
    wait_for("the namespace to be gone", || {
        demux.ok("clean");
        links.iter().all(|link| fs::symlink_metadata(link).is_err())
    });
}

#[test]
fn a_command_that_is_killed_leaves_no_port_that_nothing_owns() {
    const KILLS: u32 = 24;
    let pair = Pair::new();
    let demux = load(&pair);
    let started = Instant::now();
    demux.ok("bind tcp :8080 --to drop --name it");
    let duration = started.elapsed();
    demux.ok("unbind it");
    let (mut with, mut without) = (0, 0);
    for number in 0..KILLS {
        let mut command = demux.command("bind tcp :8080 --to drop --name it");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = pair.host.enter(|| command.spawn().unwrap());
        if number % 2 == 0 {
            thread::sleep(duration * number / (KILLS - 4));
        } else {
            // Amid attaching.
            let enough = (number / 2 % 4) as usize;
            while bind_links(&demux).len() < enough && child.try_wait().unwrap().is_none() {}
        }
        let _ = child.kill();
        let mut told = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        child.wait().unwrap();
        if demux.items("bindings").is_empty() {
            without += 1;
            granted(&pair.host, &all());
        } else {
            with += 1;
            demux.ok("unbind it");
            granted(&pair.host, &all());
            assert_eq!(demux.items("dump OWNED_PORTS"), [0; 0], "{told}");
        }
        // Whatever was left of it is made whole by the next one.
        demux.ok("bind tcp :8080 --to drop --name it");
        refused(&pair.host, &all());
        assert_eq!(demux.item("status")["bind_hooks"], "attached");
        demux.ok("unbind it");
        assert!(bind_links(&demux).is_empty());
    }
    println!("{with} with a binding, {without} without");
}

#[test]
fn sockets_from_before_go_on() {
    let pair = Pair::new();
    let demux = load(&pair);
    let listener = listen(&pair.host, "10.0.0.2:8080".parse().unwrap());
    demux.ok("bind tcp 127.0.0.1:8080 --to drop");
    refused(&pair.host, &[tcp("127.0.0.1:8080"), tcp("0.0.0.0:8080")]);
    let (mut client, mut server) = connect(&pair.peer, &listener, "10.0.0.2:8080".parse().unwrap());
    talk(&mut client, &mut server);
}

/// Whether the kernel gives a socket a port: the port, or `None` for EADDRINUSE.
fn any_port(ask: &Ask, socket: &OwnedFd) -> Option<u16> {
    match bind(socket, &ask.address) {
        Ok(()) => {
            let name = getsockname(socket).unwrap();
            Some(SocketAddr::try_from(name).unwrap().port())
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{ask:?}: {error}");
            None
        }
    }
}

#[test]
fn the_kernel_gives_no_owned_port_to_who_binds_port_0() {
    const ROUNDS: u32 = 64;
    let pair = Pair::new();
    let demux = load(&pair);
    pair.host
        .sysctl("net/ipv4/ip_local_port_range", "40000 40007");
    // Some of either half and of either parity are left, since the kernel looks there first.
    const OWNED: [u16; 4] = [40001, 40002, 40004, 40007];
    for port in OWNED {
        for protocol in ["tcp", "udp"] {
            let run = demux.ok(&format!("bind {protocol} :{port} --to drop"));
            let told = "ip_local_reserved_ports";
            assert!(run.stderr.contains(told), "{run}");
        }
    }
    let asks = [
        tcp("0.0.0.0:0"),
        tcp("[::]:0"),
        tcp("[::ffff:0.0.0.0]:0"),
        tcp("0.0.0.0:0").sharing(),
        udp("0.0.0.0:0"),
        udp("[::]:0"),
        udp("127.0.0.1:0"),
        udp("[fd00::2]:0"),
        udp("[::ffff:10.0.0.2]:0"),
    ];
    let mut refusals = 0;
    pair.host.enter(|| {
        for ask in &asks {
            for _ in 0..ROUNDS {
                // A socket that is refused may ask again until it has a port.
                let socket = ask.socket();
                let attempts = (0..1000).map(|_| any_port(ask, &socket));
                let mut refused = attempts.inspect(|port| refusals += u32::from(port.is_none()));
                let port = refused.find_map(|port| port).expect("a port");
                assert!(!OWNED.contains(&port), "{ask:?} got {port}");
            }
        }
    });
    println!(
        "{refusals} refusals for {} ports",
        ROUNDS as usize * asks.len()
    );
    assert!(refusals > 0, "the kernel has never chosen an owned port");

    pair.host.sysctl(
        "net/ipv4/ip_local_reserved_ports",
        "40001-40002,40004,40007",
    );
    pair.host.enter(|| {
        for ask in &asks {
            assert!(any_port(ask, &ask.socket()).is_some());
        }
    });
    demux.ok("unbind tcp-40001");
    assert_eq!(
        demux.ok("bind tcp :40001 --to drop --name again").stderr,
        ""
    );
}

#[test]
fn many_endpoints_of_one_port() {
    let pair = Pair::new();
    let demux = load(&pair);
    let address = |last: u8| IpAddr::from(Ipv4Addr::new(127, 0, 0, last));
    let at = |last: u8| tcp(&SocketAddr::new(address(last), 8080).to_string());
    for last in 1..=16 {
        demux.ok(&format!(
            "bind tcp 127.0.0.{last}:8080 --to drop --name b{last}"
        ));
    }
    refused(&pair.host, &(1..=16).map(at).collect::<Vec<_>>());
    granted(&pair.host, &[at(17), at(18)]);

    // More than there are places: nobody gets any of it.
    demux.ok("bind tcp 127.0.0.17:8080 --to drop --name b17");
    refused(&pair.host, &(1..=18).map(at).collect::<Vec<_>>());
    demux.ok("unbind b3");
    refused(&pair.host, &[at(1), at(2), at(4), at(16), at(17)]);
    granted(&pair.host, &[at(3), at(18)]);

    for last in [1, 16, 8, 2, 17] {
        demux.ok(&format!("unbind b{last}"));
        granted(&pair.host, &[at(last)]);
        refused(&pair.host, &[at(4), at(5), at(15)]);
    }
}

#[test]
fn a_link_that_was_lost_is_told_and_restored() {
    let pair = Pair::new();
    let demux = load(&pair);
    demux.ok("bind tcp :8080 --to drop");
    let lost = bind_links(&demux)
        .into_iter()
        .find(|link| link.ends_with("bind_demux_bind4"));
    fs::remove_file(lost.unwrap()).unwrap();
    let status = demux.item("status");
    assert_eq!(status["bind_hooks"], "missing");
    let warning = status["warnings"][0].as_str().unwrap();
    assert!(warning.contains("processes"), "{warning}");
    demux.ok(&format!("load {HOST}"));
    assert_eq!(demux.item("status")["bind_hooks"], "attached");
    refused(&pair.host, &all());
}

#[test]
fn without_control_groups_bindings_work_and_say_what_they_lack() {
    let pair = Pair::new();
    let demux = load(&pair);
    let run = demux.run_with("bind tcp :8080 --to drop", |command| {
        without_control_groups(command);
        without_capability(command, CAP_SYS_PTRACE);
        without_capability(command, CAP_SYS_ADMIN);
    });
    assert_eq!(run.status, 0, "{run}");
    assert!(run.stderr.contains("not kept from binding"), "{run}");
    assert_eq!(demux.items("bindings").len(), 1);
    assert_eq!(demux.item("status")["bind_hooks"], "missing");
    granted(&pair.host, &all());
    // The next one does what this one could not.
    demux.ok("bind tcp :9090 --to drop");
    refused(&pair.host, &all());
}

#[test]
fn what_a_bind_costs() {
    const BINDS: u32 = 20_000;
    let pair = Pair::new();
    let demux = load(&pair);
    let measure = |ask: &Ask| -> Duration {
        pair.host.enter(|| {
            let mut spent: Vec<Duration> = (0..BINDS)
                .map(|_| {
                    let socket = ask.socket();
                    let start = Instant::now();
                    let _ = bind(&socket, &ask.address);
                    start.elapsed()
                })
                .collect();
            spent.sort_unstable();
            spent[spent.len() / 2]
        })
    };
    let free = udp("127.0.0.1:8081");
    let plain = measure(&free);
    demux.ok("bind udp :8080 --to drop");
    let (hooked, refusal) = (measure(&free), measure(&udp("127.0.0.1:8080")));
    for last in 1..=15 {
        demux.ok(&format!("bind udp 127.0.0.{}:8081 --to drop", 100 + last));
    }
    let crowded = measure(&free);
    println!(
        "bind(2), median: {plain:?} without hooks, {hooked:?} with them, {crowded:?} beside 15 endpoints of \
         the port, {refusal:?} where refused"
    );
}

/// The pins of links to bind(2), of all instances.
fn bind_links(demux: &Demux<'_>) -> Vec<PathBuf> {
    let instances = common::snapshot::Snapshot::instances(demux.bpffs());
    instances
        .iter()
        .filter_map(|instance| instance.join("links").read_dir().ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap().as_encoded_bytes();
            name.starts_with(b"bind_")
        })
        .collect()
}
