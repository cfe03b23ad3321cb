//! Metrics, by the command and over HTTP: that they parse, that they are right, and that nobody waits for a
//! slow client.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use common::{
    daemon::Daemon,
    demux::{Demux, finish, refusal},
    netns::Netns,
    pair::{Family, HOST, Pair},
    sockets::{ask as ask_dns, connect, listen, talk, udp},
    wait::wait_for,
};
use nix::sys::signal::Signal;
use openmetrics_parser::openmetrics::parse_openmetrics;

const ADDRESS: &str = "127.0.0.1:9478";

/// The values of all series that have these labels and more, by the values of other labels.
fn values(text: &str, name: &str, labels: &[&str]) -> BTreeMap<Vec<String>, u64> {
    let exposition = parse_openmetrics(text).unwrap_or_else(|error| panic!("{error:?}: {text}"));
    // The parser calls counters without their ending.
    let (family, _) = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .find(|(family, kind)| match *kind {
            "counter" => format!("{family}_total") == name,
            "info" => format!("{family}_info") == name,
            _ => *family == name,
        })
        .unwrap_or_else(|| panic!("no {name} in: {text}"));
    assert!(exposition.families.contains_key(family), "{name}");
    text.lines()
        .filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, inner) = series.split_once('{').unwrap_or((series, "}"));
            if found != name {
                return None;
            }
            let values = labels
                .iter()
                .map(|label| {
                    let start = inner.find(&format!("{label}=\"")).unwrap() + label.len() + 2;
                    inner[start..].split('"').next().unwrap().to_owned()
                })
                .collect();
            Some((values, value.parse::<f64>().unwrap() as u64))
        })
        .collect()
}

/// What a client is told: the status, the headers and the body.
fn ask(netns: &Netns, to: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = netns.enter(|| TcpStream::connect(to)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

fn get(netns: &Netns, path: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: demux\r\n\r\n");
    ask(netns, ADDRESS.parse().unwrap(), &request)
}

#[test]
fn the_command_says_what_the_other_commands_say() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 256"));
    demux.ok("bind tcp 10.0.0.2:80 --name web");
    demux.ok("bind udp :5000-5999 --to drop");
    let listener = listen(&pair.host, Family::V4.at_host(80));
    let (mut client, mut server) = connect(&pair.peer, &listener, Family::V4.at_host(80));
    talk(&mut client, &mut server);
    let server = udp(&pair.host, Family::V6.at_host(53));
    let client = udp(&pair.peer, Family::V6.any(0));
    ask_dns(&client, &server, Family::V6.at_host(53));
    for port in [5000, 9] {
        client
            .send_to(b"anybody?", Family::V6.at_host(port))
            .unwrap();
    }
    wait_for("drops", || {
        demux.count("drop", "bound") == 1 && demux.count("drop", "no-socket") == 1
    });
    let text = demux.ok("metrics").stdout;
    assert!(text.ends_with("# EOF\n"), "{text}");

    let by = ["interface", "verdict", "reason"];
    let (packets, bytes) = (
        values(&text, "demux_packets_total", &by),
        values(&text, "demux_bytes_total", &by),
    );
    let text_of = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
    let counters: BTreeMap<_, _> = demux
        .items("counters")
        .iter()
        .filter(|row| !row["verdict"].is_null())
        .map(|row| {
            let key = ["iface", "verdict", "reason"].map(|key| text_of(&row[key]));
            let counts = (
                row["packets"].as_u64().unwrap(),
                row["bytes"].as_u64().unwrap(),
            );
            (key.to_vec(), counts)
        })
        .collect();
    assert!(!counters.is_empty());
    let counted: BTreeMap<_, _> = packets
        .into_iter()
        .map(|(key, packets)| (key.clone(), (packets, bytes[&key])))
        .collect();
    assert_eq!(counted, counters);

    let mut states = BTreeMap::new();
    for row in demux.items("connections") {
        let key = ["protocol", "state"].map(|key| text_of(&row[key])).to_vec();
        *states.entry(key).or_insert(0) += 1;
    }
    assert_eq!(
        values(&text, "demux_connections", &["protocol", "state"]),
        states
    );
    let status = demux.item("status");
    let number = |name: &str| values(&text, name, &[])[&Vec::new()];
    assert_eq!(
        Some(number("demux_connections_confirmed")),
        status["confirmed"].as_u64()
    );
    assert_eq!(
        Some(number("demux_connections_max")),
        status["max_connections"].as_u64()
    );
    assert_eq!(Some(number("demux_bindings")), status["bindings"].as_u64());
    assert_eq!(number("demux_loaded"), 1);
    assert_eq!(number("demux_scrape_errors_total"), 0);
    let events = values(&text, "demux_table_events_total", &["event"]);
    assert!(events[&vec!["entered".to_owned()]] >= 2, "{events:?}");

    for (key, name) in [
        ("packets", "demux_binding_packets_total"),
        ("bytes", "demux_binding_bytes_total"),
        ("connections", "demux_binding_connections"),
    ] {
        let told = values(&text, name, &["binding"]);
        let bindings: BTreeMap<_, _> = demux
            .items("bindings")
            .iter()
            .map(|row| (vec![text_of(&row["name"])], row[key].as_u64().unwrap()))
            .collect();
        assert_eq!(told, bindings, "{key}");
    }
    let attached = values(&text, "demux_attached", &["interface", "hook", "mode"]);
    let interface = demux.interface(HOST).unwrap();
    for (hook, mode) in [("ingress", "mode"), ("egress", "egress")] {
        let key = [HOST.to_owned(), hook.to_owned(), text_of(&interface[mode])];
        assert_eq!(attached.get(&key[..]), Some(&1), "{attached:?}");
    }
    let fill = values(&text, "demux_map_entries", &["map"]);
    let room = values(&text, "demux_map_max_entries", &["map"]);
    for row in demux.items("maps") {
        let key = vec![text_of(&row["name"])];
        assert_eq!(
            room.get(&key).copied(),
            row["max_entries"].as_u64(),
            "{row}"
        );
        if !key[0].starts_with("CONNECTION") {
            assert_eq!(fill.get(&key).copied(), row["entries"].as_u64(), "{row}");
        }
    }

    let without = demux.ok("metrics --no-bindings").stdout;
    assert!(!without.contains("demux_binding_"), "{without}");
    assert!(without.contains("demux_bindings 2"), "{without}");
}

#[test]
fn a_file_is_written_all_at_once() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.refused("metrics", 3, "not_loaded");
    demux.ok(&format!("load {HOST} --max-connections 64"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("demux.prom");
    for _ in 0..2 {
        let run = demux.ok(&format!("metrics --output {}", path.display()));
        assert_eq!(run.stdout, "");
        let text = fs::read_to_string(&path).unwrap();
        parse_openmetrics(&text).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let nowhere = directory.path().join("no/such");
    demux.refused(
        &format!("metrics --output {}", nowhere.display()),
        1,
        "io_error",
    );
}

#[test]
fn the_daemon_serves_them_where_the_configuration_says() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let daemon = Daemon::start(&demux, &format!("[daemon]\nmetrics = '{ADDRESS}'\n"));
    daemon.says(&format!("http://{ADDRESS}/metrics"));
    let (status, head, text) = get(&pair.host, "/metrics");
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert_eq!(values(&text, "demux_loaded", &[])[&Vec::new()], 0);

    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    demux.ok("bind tcp :80");
    let of_instance = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.contains("demux_daemon"));
        lines.map(str::to_owned).collect()
    };
    // Hosts that look for each other make packets between one reading and the next.
    wait_for("the text of the command", || {
        let (_, _, text) = get(&pair.host, "/metrics");
        of_instance(&text) == of_instance(&demux.ok("metrics").stdout)
    });

    assert_eq!(get(&pair.host, "/").0, 200);
    assert_eq!(get(&pair.host, "/else").0, 404);
    let ask = |request: &str| ask(&pair.host, ADDRESS.parse().unwrap(), request);
    assert_eq!(ask("POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").0, 405);
    let (status, _, body) = ask("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((status, body.as_str()), (200, ""));
    assert_eq!(ask("nonsense\r\n\r\n").0, 400);
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(7000));
    assert_eq!(ask(&long).0, 200);

    let set = daemon.open("web", HOST).unwrap();
    let (_, _, text) = get(&pair.host, "/metrics");
    let label = vec!["web".to_owned()];
    let sockets = values(&text, "demux_xsk_sockets", &["set"]);
    let published = set.queues.len() as u64;
    assert_eq!(sockets.get(&label), Some(&published), "{text}");
    let by = ["set", "interface", "queue"];
    for name in ["demux_xsk_fill_frames", "demux_xsk_rx_dropped_total"] {
        assert_eq!(values(&text, name, &by).len(), set.queues.len(), "{text}");
    }
    drop(set);

    // Elsewhere, without bindings, and not at all.
    fs::write(
        daemon.config(),
        "[daemon]\nmetrics = '[::1]:9479'\nmetrics_bindings = false\n",
    )
    .unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.says("http://[::1]:9479/metrics");
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, _, text) = self::ask(&pair.host, "[::1]:9479".parse().unwrap(), request);
    assert!(!text.contains("demux_binding_"), "{text}");
    let is_served = |to: &str| {
        let to: SocketAddr = to.parse().unwrap();
        pair.host.enter(|| TcpStream::connect(to)).is_ok()
    };
    assert!(!is_served(ADDRESS));
    fs::write(daemon.config(), "").unwrap();
    daemon.signal(Signal::SIGHUP);
    wait_for("the end of the listener", || !is_served("[::1]:9479"));
}

#[test]
fn an_address_that_others_reach_is_refused_unless_it_is_meant() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let directory = tempfile::tempdir().unwrap();
    fs::write(
        directory.path().join("demux.toml"),
        "[daemon]\nmetrics = '0.0.0.0:9478'\n",
    )
    .unwrap();
    let run = |format: Option<&str>| {
        let mut command = Daemon::command(&demux, directory.path());
        command.args(format).stdout(std::process::Stdio::piped());
        pair.host.enter(|| finish(&mut command, "daemon"))
    };
    refusal(&run(None), &run(Some("-j")), 1, "bad_configuration")
        .says(&["demux.toml:2:11", "metrics_public"]);

    let config = "[daemon]\nmetrics = '10.0.0.2:9478'\nmetrics_public = true\n";
    let _daemon = Daemon::start(&demux, config);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(
        ask(&pair.peer, "10.0.0.2:9478".parse().unwrap(), request).0,
        200
    );

    // The port is in use already.
    let other = Netns::new();
    let other = demux.in_netns(&other);
    let _first = other
        .netns()
        .enter(|| std::net::TcpListener::bind(ADDRESS))
        .unwrap();
    fs::write(
        directory.path().join("demux.toml"),
        format!("[daemon]\nmetrics = '{ADDRESS}'\n"),
    )
    .unwrap();
    let mut command = Daemon::command(&other, directory.path());
    let run = other.netns().enter(|| finish(&mut command, "daemon"));
    assert_eq!(run.status, 1, "{run}");
    assert!(run.stderr.contains(ADDRESS), "{run}");
}

#[test]
fn nobody_waits_for_slow_clients() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux.ok("bind udp :7000 --to xsk:web");
    let daemon = Daemon::start(&demux, &format!("[daemon]\nmetrics = '{ADDRESS}'\n"));
    let set = daemon.open("web", HOST).unwrap();
    let address: SocketAddr = ADDRESS.parse().unwrap();
    // More than are served at once: some say nothing, some half of it, some read nothing of the answer.
    let mut slow = Vec::new();
    for number in 0..48 {
        let mut stream = pair.host.enter(|| TcpStream::connect(address)).unwrap();
        match number % 3 {
            0 => {}
            1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap(),
            _ => stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                .unwrap(),
        }
        slow.push(stream);
    }
    for _ in 0..3 {
        let (status, _, text) = get(&pair.host, "/metrics");
        assert_eq!(status, 200);
        assert_eq!(values(&text, "demux_daemon_sets", &[])[&Vec::new()], 1);
        set.connection.statistics().unwrap();
    }
    // Those that say nothing are turned out by themselves.
    let mut silent = slow.remove(45);
    silent
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}
