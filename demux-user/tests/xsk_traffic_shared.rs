//! Two owners of AF_XDP sets and the kernel share one interface, one queue and one address by port alone. The
//! owners are processes without any right: the daemon holds their sockets.

mod common;

use std::{net::UdpSocket, thread};

use common::{
    daemon::Daemon,
    demux::Demux,
    owner::Owner,
    pair::{FAMILIES, Family, HOST, Pair},
    sockets::{ask, ping, udp, udp_to},
    user::NOBODY,
    wait::wait_for,
    web,
};

/// The port of the kernel's server.
const KERNEL: u16 = 80;
/// The port of the HTTP server in user space.
const STACK: u16 = 8080;
/// The port of the echo server in user space.
const ECHO: u16 = 7;

/// Who may own what.
const CONFIG: &str = "[[owner]]\nuser = 65534\nsets = [\"web\", \"echo\"]\n";

#[track_caller]
fn start_web(demux: &Demux<'_>, daemon: &Daemon) -> Owner {
    let [v4, v6] = FAMILIES.map(|family| family.at_host(STACK));
    let arguments = format!(
        "--set web --iface {HOST} --address {v4} --address {v6} --access {}",
        daemon.socket().display()
    );
    Owner::start_as(demux, NOBODY, "http_smoltcp", &arguments)
}

#[track_caller]
fn start_echo(demux: &Demux<'_>, daemon: &Daemon) -> Owner {
    let arguments = format!(
        "--set echo --iface {HOST} --access {}",
        daemon.socket().display()
    );
    Owner::start_as(demux, NOBODY, "udp_echo", &arguments)
}

#[track_caller]
fn echoes(client: &UdpSocket, word: &[u8]) {
    client.send(word).expect("sending");
    let mut buffer = [0; 2048];
    let length = client.recv(&mut buffer).expect("the echo");
    assert_eq!(&buffer[..length], word);
}

#[test]
fn two_owners_and_the_kernel_share_one_queue() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST}"));
    demux.ok("bind tcp :8080 --to xsk:web --name web");
    demux.ok("bind udp :7 --to xsk:echo --name echo");
    let daemon = Daemon::start(&demux, CONFIG);
    daemon.admit(NOBODY);
    let mut web_owner = start_web(&demux, &daemon);
    let mut echo_owner = start_echo(&demux, &daemon);
    for family in FAMILIES {
        web::serve(&pair.host, family.at_host(KERNEL));
    }

    // All three at once.
    pair.peer.enter(|| {
        thread::scope(|scope| {
            for family in FAMILIES {
                scope.spawn(move || {
                    for count in (0..100).map(|number| number * 97) {
                        assert_eq!(
                            web::get(family.at_host(STACK), count).unwrap(),
                            "demux-example"
                        );
                    }
                });
                scope.spawn(move || {
                    for count in (0..100).map(|number| number * 89) {
                        assert_eq!(web::get(family.at_host(KERNEL), count).unwrap(), "kernel");
                    }
                });
            }
        });
    });
    for family in FAMILIES {
        let client = udp_to(&pair.peer, family.at_peer(50_000), family.at_host(ECHO));
        for number in 0..100_u8 {
            echoes(&client, &vec![number; usize::from(number) * 10]);
        }
        ping(&pair.peer, family.host());
        let server = udp(&pair.host, family.at_host(53));
        ask(
            &udp(&pair.peer, family.at_peer(50_053)),
            &server,
            family.at_host(53),
        );
    }

    // Whose packets are whose stands in the table.
    let rows = demux.items("connections");
    for (port, target) in [(STACK, "xsk:web"), (ECHO, "xsk:echo"), (KERNEL, "stack")] {
        let mut of_port = rows
            .iter()
            .filter(|row| row["local_port"] == port)
            .peekable();
        assert!(of_port.peek().is_some(), "no row of port {port}: {rows:?}");
        assert!(
            of_port.all(|row| row["target"] == target),
            "{port}: {rows:?}"
        );
    }

    // One owner dies; the other two have not noticed. It comes back.
    web_owner.kill();
    daemon.says("set web: closed");
    let client = udp_to(
        &pair.peer,
        Family::V4.at_peer(50_001),
        Family::V4.at_host(ECHO),
    );
    echoes(&client, b"still here");
    pair.peer
        .enter(|| web::get(Family::V4.at_host(KERNEL), 1000).unwrap());
    echo_owner.assert_running();
    let _again = start_web(&demux, &daemon);
    wait_for("the new owner", || {
        pair.peer
            .enter(|| web::get(Family::V4.at_host(STACK), 1000).is_ok())
    });
    echo_owner.interrupt();
}
