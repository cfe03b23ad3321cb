//! A TCP stack in user space beside the kernel's: the example of an HTTP server on smoltcp has port 8080, a
//! server with the kernel's sockets has port 80 of the same addresses and interface, and clients with real
//! sockets get the right bytes from both.

mod common;

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{
    demux::Demux,
    netns::{Netns, Queues},
    owner::Owner,
    pair::{FAMILIES, Family, HOST, PEER, Pair, quick_netns},
    sockets::ping,
    wait::wait_for,
    web::{self, Client},
};

/// The port of the kernel's server.
const KERNEL: u16 = 80;
/// The port of the example.
const STACK: u16 = 8080;

/// The binding that the example serves.
const BIND: &str = "bind tcp :8080 --to xsk:web --name web";

/// The two hosts with a cable of so many queues each way.
fn pair(queues: u32) -> Pair {
    let pair = Pair {
        host: quick_netns(),
        peer: quick_netns(),
    };
    let queues = Queues {
        rx: queues,
        tx: queues,
    };
    pair.host
        .veth_with_queues(HOST, queues, &pair.peer, PEER, queues);
    for family in FAMILIES {
        let bits = if family == Family::V4 { 24 } else { 64 };
        pair.host
            .add_address(HOST, &format!("{}/{bits}", family.host()));
        pair.peer
            .add_address(PEER, &format!("{}/{bits}", family.peer()));
    }
    pair
}

/// Loads demux, binds the port, and starts both servers.
#[track_caller]
fn serve<'p>(pair: &'p Pair, mode: &str) -> (Demux<'p>, Owner) {
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --mode {mode}"));
    demux.ok(BIND);
    let owner = start(&demux);
    for family in FAMILIES {
        web::serve(&pair.host, family.at_host(KERNEL));
    }
    (demux, owner)
}

#[track_caller]
fn start(demux: &Demux<'_>) -> Owner {
    let [v4, v6] = FAMILIES.map(|family| family.at_host(STACK));
    let arguments =
        format!("--set web --iface {HOST} --address {v4} --address {v6} --access direct");
    Owner::start(demux, "http_smoltcp", &arguments)
}

/// Requests of several sizes to both servers, over one connection and over several.
#[track_caller]
fn both_answer(peer: &Netns) {
    peer.enter(|| {
        for family in FAMILIES {
            let (stack, kernel) = (family.at_host(STACK), family.at_host(KERNEL));
            for count in [0, 1, 1000, 100_000] {
                assert_eq!(web::get(stack, count).unwrap(), "demux-example");
                assert_eq!(web::get(kernel, count).unwrap(), "kernel");
            }
            let mut client = Client::connect(stack).unwrap();
            for count in [5, 0, 70_000, 1] {
                client.get(count, false).unwrap();
            }
            client.get(7, true).unwrap();
            assert!(client.is_at_end().unwrap());
        }
    });
}

fn two_stacks_share_an_interface(mode: &str) {
    for queues in [1, 4] {
        let pair = pair(queues);
        let (demux, mut owner) = serve(&pair, mode);
        both_answer(&pair.peer);

        // ARP, neighbour discovery and ICMP are the kernel's.
        for family in FAMILIES {
            ping(&pair.peer, family.host());
        }

        // One connection of each, side by side in the table.
        let (mut stack, mut kernel) = pair.peer.enter(|| {
            let connect = |port| Client::connect(Family::V4.at_host(port)).unwrap();
            (connect(STACK), connect(KERNEL))
        });
        stack.get(10, false).unwrap();
        for (client, port, target) in [(&stack, STACK, "xsk:web"), (&kernel, KERNEL, "stack")] {
            let remote = client.address().to_string();
            wait_for(&format!("the connection to port {port}"), || {
                let rows = demux.items("connections state established");
                rows.iter().any(|row| {
                    row["remote"] == remote.as_str()
                        && row["local_port"] == port
                        && row["target"] == target
                })
            });
        }
        kernel.get(10, true).unwrap();
        stack.get(10, true).unwrap();
        owner.assert_running();
    }
}

common::in_both_modes! {
    two_stacks_share_an_interface
}

/// All queues have flows, so all sockets of the set are used.
#[test]
fn every_queue_has_its_socket() {
    const QUEUES: u32 = 4;
    let pair = pair(QUEUES);
    let (demux, _owner) = serve(&pair, "native");
    pair.peer.enter(|| {
        for count in 0..64 {
            web::get(Family::V4.at_host(STACK), count).unwrap();
        }
    });
    assert_eq!(demux.count("drop", "no-target"), 0);
    let queues: Vec<_> = demux
        .items("xsks")
        .iter()
        .map(|row| (row["queue"].as_u64(), row["published"].as_bool()))
        .collect();
    let expected: Vec<_> = (0..u64::from(QUEUES))
        .map(|queue| (Some(queue), Some(true)))
        .collect();
    assert_eq!(queues, expected);
}

/// A server that idles uses no processor: it sleeps until something is to be done.
#[test]
fn an_idle_server_sleeps() {
    let pair = pair(1);
    let (_demux, owner) = serve(&pair, "native");
    let mut client = pair
        .peer
        .enter(|| Client::connect(Family::V4.at_host(STACK)).unwrap());
    client.get(1000, false).unwrap();
    // Once what follows an answer is done, such as a delayed acknowledgement.
    wait_for("the server to settle", || {
        let before = owner.ticks();
        thread::sleep(Duration::from_millis(100));
        owner.ticks() == before
    });
    let before = owner.ticks();
    thread::sleep(Duration::from_secs(2));
    assert!(owner.ticks() - before <= 1, "{}", owner.ticks() - before);
    client.get(1000, true).unwrap();
}

/// Ten thousand connections, one after the other and a hundred at a time, while iperf3 moves what it can
/// through the kernel.
#[test]
fn ten_thousand_requests_beside_a_bulk_transfer() {
    const SEQUENTIAL: usize = 10_000;
    const CONCURRENT: usize = 100;
    let pair = pair(1);
    let (demux, mut owner) = serve(&pair, "native");
    let bulk = Bulk::start(&pair);
    let started = Instant::now();
    pair.peer.enter(|| {
        for number in 0..SEQUENTIAL {
            let family = FAMILIES[number % 2];
            if let Err(error) = web::get(family.at_host(STACK), number % 3000) {
                panic!("request {number}: {error}");
            }
        }
    });
    println!("{SEQUENTIAL} requests took {:?}", started.elapsed());
    owner.assert_running();

    let failures = pair.peer.enter(|| {
        let at_once: Vec<_> = (0..CONCURRENT)
            .map(|number| {
                let family = FAMILIES[number % 2];
                // They belong to the namespace of the thread that made them.
                let mut client = Client::connect(family.at_host(STACK)).unwrap();
                thread::spawn(move || {
                    client.get(20_000, false)?;
                    client.get(1000 + number, true)
                })
            })
            .collect();
        let results = at_once
            .into_iter()
            .map(|thread| thread.join().expect("a client"));
        results.filter_map(Result::err).collect::<Vec<_>>()
    });
    assert!(failures.is_empty(), "{failures:?}");
    owner.assert_running();
    let moved = bulk.stop();
    println!("{} MB went through the kernel meanwhile", moved / 1_000_000);
    assert!(moved > 0);
    assert!(demux.count("redirect", "bound") + demux.count("redirect", "connection") > 0);
}

/// iperf3 from the peer to the host, again and again.
struct Bulk<'p> {
    server: Child,
    stop: std::sync::Arc<AtomicBool>,
    moved: std::sync::Arc<AtomicU64>,
    client: Option<thread::JoinHandle<()>>,
    _pair: &'p Pair,
}

impl<'p> Bulk<'p> {
    fn start(pair: &'p Pair) -> Self {
        let at: SocketAddr = Family::V4.at_host(5201);
        let address = at.ip().to_string();
        let iperf3 = |arguments: &[&str]| {
            let mut command = Command::new("iperf3");
            command
                .args(arguments)
                .args(["--port", "5201"])
                .stdin(Stdio::null());
            command
        };
        let mut server = iperf3(&["--server", "--bind", &address]);
        server.stdout(Stdio::null());
        let server = pair.host.enter(|| server.spawn()).unwrap_or_else(|error| {
            panic!("iperf3: {error} (`cargo xtask setup --tests` provides it, `cargo xtask test` finds it)")
        });
        let moved = std::sync::Arc::new(AtomicU64::new(0));
        let stop = std::sync::Arc::new(AtomicBool::new(false));
        let mut client = iperf3(&["--client", &address, "--time", "1", "--json"]);
        let mut once = {
            let moved = std::sync::Arc::clone(&moved);
            move || {
                let output = client.output().expect("iperf3");
                let report: serde_json::Value =
                    serde_json::from_slice(&output.stdout).expect("a report of iperf3");
                let bytes = report["end"]["sum_received"]["bytes"].as_u64();
                moved.fetch_add(bytes.unwrap_or(0), Ordering::Relaxed);
                bytes.is_some()
            }
        };
        // Processes that a thread starts are where it is.
        pair.peer.enter(|| wait_for("iperf3 to listen", &mut once));
        let client = pair.peer.enter(|| {
            let stop = std::sync::Arc::clone(&stop);
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert!(once(), "iperf3 failed");
                }
            })
        });
        moved.store(0, Ordering::Relaxed);
        Self {
            server,
            stop,
            moved,
            client: Some(client),
            _pair: pair,
        }
    }

    /// Ends it; returns how many bytes it has moved.
    fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let client = self.client.take().expect("it runs once");
        client.join().expect("iperf3");
        self.moved.load(Ordering::Relaxed)
    }
}

impl Drop for Bulk<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Says that it is over when it is dropped, so that nobody goes on for ever where a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The owner dies under traffic: its clients hear nothing within a second, the kernel's are not disturbed, and a
/// new owner is served again.
#[test]
fn a_killed_owner_falls_silent_and_a_new_one_resumes() {
    let pair = pair(1);
    let (demux, mut owner) = serve(&pair, "native");
    both_answer(&pair.peer);
    let is_over = AtomicBool::new(false);
    let served = AtomicU64::new(0);
    pair.peer.enter(|| {
        thread::scope(|scope| {
            let over = Over(&is_over);
            // Ends with an error, once nobody answers it.
            let of_stack = scope.spawn(|| {
                let mut client = Client::connect(Family::V4.at_host(STACK))?;
                client.give_up_after(Duration::from_secs(1));
                loop {
                    client.get(50_000, false)?;
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            let of_kernel = scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    web::get(Family::V4.at_host(KERNEL), 50_000)?;
                }
                Ok(())
            });
            wait_for("traffic", || served.load(Ordering::Relaxed) > 10);
            owner.kill();
            let killed = Instant::now();
            // Nobody answers for the dead. Its SYN comes at once; the client under way may be waiting.
            let attempt = scope.spawn(|| {
                TcpStream::connect_timeout(&Family::V4.at_host(STACK), Duration::from_millis(500))
            });
            wait_for("the fallback", || demux.count("drop", "no-target") > 0);
            assert!(
                killed.elapsed() < Duration::from_secs(1),
                "{:?}",
                killed.elapsed()
            );
            let attempt = attempt.join().expect("an attempt");
            assert_eq!(attempt.unwrap_err().kind(), ErrorKind::TimedOut);
            let error: io::Result<()> = of_stack.join().expect("a client");
            assert_eq!(error.unwrap_err().kind(), ErrorKind::WouldBlock);
            drop(over);
            let undisturbed: io::Result<()> = of_kernel.join().expect("a client");
            undisturbed.expect("the kernel's clients are served");
        });
    });
    let _owner = start(&demux);
    both_answer(&pair.peer);
}

/// With the other fallback the kernel gets what a dead owner does not take, and refuses it.
#[test]
fn the_kernel_may_answer_for_a_killed_owner() {
    let pair = pair(1);
    let (demux, mut owner) = serve(&pair, "native");
    demux.ok("unbind web");
    demux.ok(&format!("{BIND} --fallback stack"));
    both_answer(&pair.peer);
    owner.kill();
    let killed = Instant::now();
    for family in FAMILIES {
        let attempt = pair
            .peer
            .enter(|| TcpStream::connect(family.at_host(STACK)));
        assert_eq!(attempt.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    assert!(
        killed.elapsed() < Duration::from_secs(1),
        "{:?}",
        killed.elapsed()
    );
    assert_eq!(demux.count("drop", "no-target"), 0);
    let _owner = start(&demux);
    both_answer(&pair.peer);
}

/// curl is somebody else's idea of HTTP.
#[test]
fn curl_gets_what_it_asks_for() {
    let pair = pair(1);
    let (_demux, _owner) = serve(&pair, "native");
    for family in FAMILIES {
        for port in [STACK, KERNEL] {
            let url = format!("http://{}/bytes/300000", family.at_host(port));
            let mut curl = Command::new("curl");
            curl.args([
                "--silent",
                "--show-error",
                "--fail",
                "--globoff",
                "--max-time",
                "30",
                &url,
            ]);
            let output = pair.peer.enter(|| curl.output());
            let output = output.expect("curl (`cargo xtask setup --tests` provides it)");
            assert!(output.status.success(), "{url}: {output:?}");
            assert!(output.stdout == web::bytes(300_000), "{url}: other bytes");
        }
    }
}
