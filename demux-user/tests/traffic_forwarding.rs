//! A router with a default of drop: what is on its way to somebody else passes.

mod common;

use common::{
    demux::Demux,
    in_both_modes,
    netns::Netns,
    pair::quick_netns,
    sockets::{ask, connect, connect_result, listen, ping, start_connecting, talk, udp},
    wait::wait_for,
};

in_both_modes! {
    what_is_forwarded_passes_and_what_is_for_the_router_itself_is_judged
}

/// Two hosts and the router between them.
struct Network {
    left: Netns,
    router: Netns,
    right: Netns,
}

impl Network {
    fn new() -> Self {
        let [left, router, right] = [(); 3].map(|()| quick_netns());
        router.veth("r0", &left, "left0");
        router.veth("r1", &right, "right0");
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        for (interface, addresses) in [
            ("r0", ["10.1.0.254/24", "fd01::fe/64"]),
            ("r1", ["10.2.0.254/24", "fd02::fe/64"]),
        ] {
            for address in addresses {
                router.add_address(interface, address);
            }
        }
        for (host, interface, addresses, gateways) in [
            (
                &left,
                "left0",
                ["10.1.0.1/24", "fd01::1/64"],
                ["10.1.0.254", "fd01::fe"],
            ),
            (
                &right,
                "right0",
                ["10.2.0.1/24", "fd02::1/64"],
                ["10.2.0.254", "fd02::fe"],
            ),
        ] {
            for address in addresses {
                host.add_address(interface, address);
            }
            for gateway in gateways {
                host.add_default_route(gateway);
            }
        }
        Self {
            left,
            router,
            right,
        }
    }
}

fn what_is_forwarded_passes_and_what_is_for_the_router_itself_is_judged(mode: &str) {
    let network = Network::new();
    let demux = Demux::new(&network.router);
    demux.ok(&format!(
        "load r0 r1 --mode {mode} --default drop --max-connections 256"
    ));
    for right in ["10.2.0.1:80", "[fd02::1]:80"] {
        let right: std::net::SocketAddr = right.parse().unwrap();
        ping(&network.left, right.ip());
        let listener = listen(&network.right, right);
        let (mut client, mut server) = connect(&network.left, &listener, right);
        talk(&mut client, &mut server);
        let server = udp(&network.right, right);
        let any = if right.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let client = udp(&network.left, any.parse().unwrap());
        ask(&client, &server, right);
    }
    assert!(demux.count("pass", "not-local") > 0);
    assert_eq!(demux.count("drop", "no-socket"), 0);

    for (number, router) in (1..).zip(["10.1.0.254:80", "[fd01::fe]:80", "10.2.0.254:80"]) {
        let attempt = start_connecting(&network.left, router.parse().unwrap());
        wait_for("the SYN to the router itself to be dropped", || {
            demux.count("drop", "no-socket") >= number
        });
        assert!(connect_result(&attempt).is_none());
    }
    for address in ["10.1.0.254:81", "[fd01::fe]:81"] {
        let address = address.parse().unwrap();
        let listener = listen(&network.router, address);
        let (mut client, mut server) = connect(&network.left, &listener, address);
        talk(&mut client, &mut server);
    }
    // A binding to drop is for the router's own endpoints too.
    demux.ok("bind tcp :80 --to drop");
    let right = "10.2.0.1:80".parse().unwrap();
    let listener = listen(&network.right, right);
    let (mut client, mut server) = connect(&network.left, &listener, right);
    talk(&mut client, &mut server);
    assert_eq!(demux.count("drop", "bound"), 0);
}
