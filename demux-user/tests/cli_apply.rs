//! `demux apply`, `export` and `schema`: what a file asks for becomes what runs, all of it or nothing.

mod common;

use std::{
    fs::{self, File},
    io::Write as _,
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use common::{
    demux::{Demux, Run, bare, finish},
    netns::Netns,
    pair::{Family, HOST, Pair},
    privileges::{PublicBinary, share_with},
    sockets::{ask, udp},
    user::NOBODY,
};
use serde_json::Value;

/// A file with a configuration.
struct Text {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Text {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // A user without any right reads it, too.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(directory.path(), all).unwrap();
        let path = directory.path().join("demux.toml");
        fs::write(&path, text).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn line(&self, options: &str) -> String {
        format!("apply {} {options}", self.path.display())
    }
}

/// Applies a text.
fn apply(demux: &Demux<'_>, text: &str, options: &str) -> Run {
    demux.run(&Text::new(text).line(options))
}

#[track_caller]
fn applied(demux: &Demux<'_>, text: &str, options: &str) -> Run {
    let run = apply(demux, text, options);
    assert_eq!(run.status, 0, "{run}");
    run
}

/// Names and targets of the bindings, as `NAME LOCAL TARGET`.
fn bindings(demux: &Demux<'_>) -> Vec<String> {
    let mut bindings: Vec<String> = demux
        .items("bindings")
        .iter()
        .map(|row| {
            let word = |key: &str| row[key].as_str().unwrap().to_owned();
            format!("{} {} {}", word("name"), word("local"), word("target"))
        })
        .collect();
    bindings.sort_unstable();
    bindings
}

fn setting(demux: &Demux<'_>, key: &str) -> String {
    let settings = demux.items("settings");
    let row = settings.iter().find(|row| row["key"] == key).expect(key);
    row["value"].as_str().unwrap().to_owned()
}

/// What exporting and applying again would change.
fn difference_to_itself(demux: &Demux<'_>, options: &str) -> Run {
    let export = demux.ok("export");
    with_input(demux, &format!("apply - --diff {options}"), &export.stdout)
}

/// Runs a command that reads this.
fn with_input(demux: &Demux<'_>, line: &str, input: &str) -> Run {
    let text = Text::new(input);
    demux.run_with(line, |command| {
        command.stdin(File::open(&text.path).unwrap());
    })
}

const WHOLE: &str = "
version = 1
[instance]
max_connections = 64
max_bindings = 100
[settings]
track = 'bound'
kernel-sockets = true
timeout.syn-sent = 7
ephemeral.range = '5000-5999'
[[interface]]
name = 'host0'
mode = 'generic'
default = 'drop'
[[binding]]
name = 'web'
protocol = 'tcp'
local = ':80'
[[binding]]
protocol = 'udp'
local = '10.0.0.0/24:53'
to = 'drop'
untracked = true
[[binding]]
name = 'six'
protocol = 'udp'
local = '[::]:5353'
v6_only = true
dev = 'host0'
to = 'xsk:six'
fallback = 'stack'
reuse_addr = true
";

#[test]
fn a_file_becomes_what_runs_and_a_second_time_nothing() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let run = apply(&demux, WHOLE, "--diff");
    assert_eq!(run.status, 7, "{run}");
    for line in [
        "+ interface host0: default drop",
        "~ setting timeout.syn-sent: 60 -> 7",
        "+ binding web: tcp *:80 to stack",
        "+ binding udp-53: udp 10.0.0.0/24:53 to drop untracked",
    ] {
        assert!(
            run.stdout.lines().any(|other| other == line),
            "{line}: {run}"
        );
    }
    assert_eq!(demux.run("status").status, 3, "--diff has loaded something");

    applied(&demux, WHOLE, "");
    let interface = demux.interface(HOST).expect("attached");
    assert_eq!(interface["mode"], "generic");
    assert_eq!(interface["default"], "drop");
    let status = demux.item("status");
    assert_eq!(status["track"], "bound");
    assert_eq!(status["max_connections"], 64);
    assert_eq!(setting(&demux, "timeout.syn-sent"), "7");
    assert_eq!(setting(&demux, "ephemeral.range"), "5000-5999");
    assert_eq!(
        bindings(&demux),
        [
            "six [::]:5353 xsk:six",
            "udp-53 10.0.0.0/24:53 drop",
            "web *:80 stack"
        ]
    );

    let before = demux.snapshot();
    let again = applied(&demux, WHOLE, "");
    assert!(again.stderr.contains("no change"), "{again}");
    let diff = apply(&demux, WHOLE, "--diff --prune");
    assert_eq!((diff.status, diff.stdout.as_str()), (0, ""), "{diff}");
    assert_eq!(
        demux.snapshot(),
        before,
        "the second time has changed something"
    );
}

#[test]
fn only_what_differs_is_changed() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    applied(&demux, WHOLE, "");
    demux.ok("bind tcp :443 --name other");
    let changed = WHOLE
        .replace("':80'", "':8080'")
        .replace("'drop'\nuntracked = true", "'reject'")
        .replace("'bound'", "'local'")
        .replace("default = 'drop'", "default = 'pass'");
    let run = applied(&demux, &changed, "-j");
    let items = run.json()["items"].as_array().unwrap().clone();
    let names: Vec<&str> = items.iter().map(|i| i["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["host0", "track", "web", "udp-53"], "{run}");
    assert!(items.iter().all(|item| item["action"] == "change"), "{run}");
    assert_eq!(
        bindings(&demux),
        [
            "other *:443 stack",
            "six [::]:5353 xsk:six",
            "udp-53 10.0.0.0/24:53 reject",
            "web *:8080 stack"
        ]
    );
    assert_eq!(demux.interface(HOST).unwrap()["default"], "pass");

    // A setting that is not named stays, and so does a binding, unless it is to be pruned.
    let less = "[[interface]]\nname = 'host0'\n[[binding]]\nprotocol = 'tcp'\nlocal = ':443'\n";
    assert!(applied(&demux, less, "").stderr.contains("no change"));
    let pruned = applied(&demux, less, "--prune");
    assert!(pruned.stderr.contains("3 removed"), "{pruned}");
    assert_eq!(bindings(&demux), ["other *:443 stack"]);
    assert_eq!(setting(&demux, "timeout.syn-sent"), "7");
    assert!(demux.interface(HOST).is_some());
    applied(&demux, "version = 1", "--prune");
    assert!(demux.interface(HOST).is_none());
}

#[test]
fn what_is_exported_is_what_runs() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 64"));
    demux.ok("set timeout.established=99 ephemeral.reserved=8080,9000-9010");
    demux.ok("bind tcp :80 --reuse-port --name a");
    demux.ok("bind tcp :80 --reuse-port --name b --to drop");
    demux.ok("bind udp 192.0.2.1:53 --freebind --to cpu:0");
    demux.ok("bind udp [2001:db8::/32]:8000-8999 --dev host0 --to xsk:set --fallback stack");
    demux.ok("bind tcp 0.0.0.0:* --untracked");
    for options in ["", "--prune"] {
        let run = difference_to_itself(&demux, options);
        assert_eq!(run.status, 0, "{run}");
        assert!(run.stderr.contains("no change"), "{run}");
    }
    let item = demux.item("export");
    assert_eq!(item["binding"].as_array().unwrap().len(), 5);
    assert_eq!(item["binding"][0]["name"], "a");
    assert_eq!(item["interface"][0]["name"], HOST);
    assert_eq!(item["settings"]["timeout"]["established"], 99);

    // From nothing it is the same again, the order of those that share included.
    let export = demux.ok("export");
    demux.ok("unload --all");
    let run = with_input(&demux, "apply -", &export.stdout);
    assert_eq!(run.status, 0, "{run}");
    let again = demux.ok("export");
    assert_eq!(again.stdout, export.stdout);
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_column() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    for (text, place, status, code, words) in [
        (
            "[[binding]]\nprotocol = 'tcp'\nlocal = ':80'\nnmae = 'web'\n",
            "demux.toml:4:1: ",
            1,
            "bad_configuration",
            ["unknown field `nmae`", "4 | nmae = 'web'"],
        ),
        (
            "[[binding]]\nname = 'a'\nprotocol = 'tcp'\nlocal = ':80'\n\
             [[binding]]\nname = 'a'\nprotocol = 'tcp'\nlocal = ':81'\n",
            "demux.toml:6:8: ",
            1,
            "bad_configuration",
            ["named \"a\" already", "6 | name = 'a'"],
        ),
        (
            "[[binding]]\nname = 'a'\nprotocol = 'tcp'\nlocal = ':80'\n\
             [[binding]]\nprotocol = 'tcp'\nlocal = '10.0.0.1:80'\n",
            "demux.toml:7:9: ",
            5,
            "address_in_use",
            ["in use by binding \"a\"", "  |         ^^^^^^^^^^^^^"],
        ),
        (
            "[[binding]]\nprotocol = 'tcp'\nlocal = '10.0.0.1:http'\n",
            "demux.toml:3:9: ",
            1,
            "bad_configuration",
            ["not a port", "3 | local"],
        ),
        (
            "[settings]\ntimeout.naptime = 3\n",
            "demux.toml:2:9: ",
            1,
            "bad_configuration",
            ["unknown state \"naptime\"", "2 | timeout.naptime"],
        ),
    ] {
        let run = apply(&demux, text, "--check");
        assert_eq!(run.status, 7, "{run}");
        for word in [place].iter().chain(&words) {
            assert!(run.stdout.contains(word), "{word:?}: {run}");
        }
        let json = apply(&demux, text, "--check -j").json();
        let item = &json["items"][0];
        assert!(item["line"].is_u64() && item["text"].is_string(), "{json}");

        let run = apply(&demux, text, "");
        assert_eq!(run.status, status, "{run}");
        for word in [place].iter().chain(&words) {
            assert!(run.stderr.contains(word), "{word:?}: {run}");
        }
        let json = apply(&demux, text, "-j").json();
        assert_eq!(json["error"]["code"], code, "{json}");
    }
    assert_eq!(apply(&demux, "version = 1\n", "--check").status, 0);
}

#[test]
fn a_check_needs_nothing_but_the_file() {
    let netns = Netns::new();
    let public = PublicBinary::new();
    let text = Text::new(WHOLE);
    let line = text.line("--check --bpffs /nowhere");
    let mut command = bare(&line);
    public.run_as(&mut command, NOBODY);
    let run = netns.enter(|| finish(&mut command, &line));
    assert_eq!(run.status, 0, "{run}");
    assert!(run.stderr.contains("1 interface, 3 bindings"), "{run}");
}

#[test]
fn the_parts_of_a_directory_are_one_configuration() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    fs::create_dir(directory.path().join("demux.d")).unwrap();
    write(
        "demux.toml",
        "[instance]\nmax_connections = 64\n[[interface]]\nname = 'host0'\n[daemon]\n",
    );
    write("demux.d/b.toml", "[settings]\ntrack = 'bound'\n");
    write(
        "demux.d/a.toml",
        "[settings]\ntrack = 'local'\n[[binding]]\nname = 'a'\nprotocol = 'tcp'\nlocal = ':1000'\n",
    );
    let line = format!("apply {}", directory.path().display());
    demux.ok(&line);
    assert_eq!(bindings(&demux), ["a *:1000 stack"]);
    assert_eq!(setting(&demux, "track"), "bound");

    write(
        "demux.d/c.toml",
        "[[binding]]\nname = 'a'\nprotocol = 'udp'\nlocal = ':1'\n",
    );
    let run = demux.run(&line);
    assert_eq!(run.status, 1, "{run}");
    assert!(run.stderr.contains("demux.d/c.toml:2:8"), "{run}");
}

#[test]
fn a_file_that_is_being_written_is_refused() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    // Long enough for somebody to write while it is read.
    let text = Text::new(&"# a comment\n".repeat(2_000_000));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&text.path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"#\n").unwrap();
                thread::yield_now();
            }
        });
        let run = (0..50)
            .map(|_| demux.run(&text.line("--check")))
            .find(|run| run.status != 0);
        stop.store(true, Ordering::Relaxed);
        let run = run.expect("nobody has noticed");
        assert_eq!(run.status, 5, "{run}");
        assert!(
            run.stderr.contains("has changed while it was read"),
            "{run}"
        );
    });
    assert_eq!(demux.run(&text.line("--check")).status, 0);
}

#[test]
fn where_nothing_is_loaded_an_interface_is_needed() {
    let netns = Netns::new();
    let demux = Demux::new(&netns);
    let text = "[[binding]]\nprotocol = 'tcp'\nlocal = ':80'\n";
    for options in ["", "--diff"] {
        let run = apply(&demux, text, options);
        assert_eq!(run.status, 3, "{run}");
        assert!(run.stderr.contains("not loaded"), "{run}");
    }
    demux.refused("export", 3, "not_loaded");
    let missing = "[[interface]]\nname = 'nosuch0'\n";
    let run = apply(&demux, missing, "");
    assert_eq!(run.status, 3, "{run}");
    assert!(run.stderr.contains("nosuch0"), "{run}");
    demux.refused("apply /nowhere/demux.toml", 1, "io_error");
}

#[test]
fn without_rights_nothing_is_changed_and_the_right_is_named() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let public = PublicBinary::new();
    let as_nobody = |command: &mut Command| public.run_as(command, NOBODY);
    let text = Text::new(WHOLE);
    demux
        .refused_with(&text.line(""), 4, "permission_denied", as_nobody)
        .says(&["CAP_BPF"]);
    applied(&demux, WHOLE, "");
    share_with(&demux, NOBODY);
    // Members of the group may look.
    let same = demux.run_with(&text.line("--diff"), as_nobody);
    assert_eq!(same.status, 0, "{same}");
    let export = demux.run_with("export", as_nobody);
    assert_eq!(export.status, 0, "{export}");
    let other = Text::new(&WHOLE.replace("':80'", "':81'"));
    let diff = demux.run_with(&other.line("--diff"), as_nobody);
    assert_eq!(diff.status, 7, "{diff}");
    demux.refused_with(&other.line(""), 4, "permission_denied", as_nobody);
}

#[test]
fn all_of_it_or_nothing() {
    let pair = Pair::new();
    pair.host.veth("v0", &pair.host, "v1");
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux.ok("bind tcp :80 --name web");
    let socket = pair.host.enter(|| UdpSocket::bind("0.0.0.0:5353").unwrap());
    let rest = "[settings]\ntrack = 'bound'\nephemeral.range = '5000-5999'\n\
                [[binding]]\nname = 'web'\nprotocol = 'tcp'\nlocal = ':80'\nto = 'reject'\n\
                [[binding]]\nname = 'new'\nprotocol = 'udp'\nlocal = ':99'\n";
    let with = |more: &str| format!("{rest}{more}\n");
    for (more, status, word) in [
        (
            "[[binding]]\nprotocol = 'udp'\nlocal = ':5353'\nto = 'drop'",
            5,
            "address in use by process",
        ),
        (
            "[[binding]]\nprotocol = 'udp'\nlocal = '192.0.2.9:7'",
            1,
            "no address of this host",
        ),
        (
            "[[binding]]\nprotocol = 'udp'\nlocal = ':7'\nto = 'cpu:4000'",
            2,
            "no CPU 4000",
        ),
        (
            "[[binding]]\nprotocol = 'udp'\nlocal = ':7'\ndev = 'nosuch0'",
            3,
            "nosuch0",
        ),
        (
            "[[interface]]\nname = 'host0'\nmode = 'generic'",
            5,
            "mode of host0 is native",
        ),
        (
            "[instance]\nmax_bindings = 9",
            5,
            "max_bindings is 4095, not 9",
        ),
        ("[[interface]]\nname = 'lo'\nmode = 'native'", 6, "undone"),
    ] {
        let text = Text::new(&with(more));
        let before = demux.snapshot();
        let run = demux.run(&text.line(""));
        assert_eq!(run.status, status, "{more}: {run}");
        assert!(run.stderr.contains(word), "{more}: {run}");
        assert_eq!(demux.snapshot(), before, "{run}");
    }
    drop(socket);
    applied(&demux, &with("[[interface]]\nname = 'v0'"), "");
    assert!(demux.interface("v0").is_some());
}

#[test]
fn what_was_done_before_a_failure_is_undone() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --max-connections 64"));
    demux.ok("bind tcp :80 --name web");
    // Two interfaces whose driver cannot do it, behind one that can.
    pair.host.veth("v0", &pair.host, "v1");
    let text = "[settings]\nephemeral.range = '5000-5999'\n\
                [[binding]]\nname = 'web'\nprotocol = 'tcp'\nlocal = ':80'\nto = 'reject'\n\
                [[interface]]\nname = 'v0'\n[[interface]]\nname = 'lo'\nmode = 'native'\n";
    let before = demux.snapshot();
    let run = apply(&demux, text, "");
    assert_ne!(run.status, 0, "{run}");
    assert!(run.stderr.contains("undone"), "{run}");
    assert_eq!(demux.snapshot(), before, "{run}");

    // The same where nothing was loaded.
    demux.ok("unload --all");
    let before = demux.snapshot();
    let run = apply(&demux, text, "");
    assert_ne!(run.status, 0, "{run}");
    assert_eq!(demux.snapshot(), before, "{run}");
}

#[test]
fn the_last_of_those_that_share_stays_the_last() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let text = |a: &str, c: &str| {
        let one = |name: &str, to: &str| {
            format!(
                "[[binding]]\nname='{name}'\nprotocol='tcp'\nlocal=':80'\nreuse_addr=true\nto='{to}'\n"
            )
        };
        format!(
            "[[interface]]\nname='host0'\n[instance]\nmax_connections=64\n{}{}{}",
            one("a", a),
            one("b", "stack"),
            one("c", c)
        )
    };
    let winner = || {
        let line = "explain tcp from 10.0.0.1:4000 to 10.0.0.2:80";
        demux.item(line)["binding"].as_str().unwrap().to_owned()
    };
    applied(&demux, &text("stack", "stack"), "");
    assert_eq!(winner(), "c");
    applied(&demux, &text("drop", "stack"), "");
    assert_eq!(winner(), "c");
    applied(&demux, &text("stack", "drop"), "");
    assert_eq!(winner(), "c");
    assert_eq!(demux.items("bindings").len(), 3);
    let names: Vec<Value> = demux.item("export")["binding"].as_array().unwrap().clone();
    let names: Vec<&str> = names
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[test]
fn replacing_needs_room_and_says_so() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let text = |to: &str| {
        let mut text = "[[interface]]\nname='host0'\n[instance]\nmax_bindings=5\n".to_owned();
        for port in 1..=3 {
            text.push_str(&format!(
                "[[binding]]\nprotocol='udp'\nlocal=':{port}'\nto='{to}'\n"
            ));
        }
        text
    };
    applied(&demux, &text("stack"), "");
    let before = demux.snapshot();
    let run = apply(&demux, &text("drop"), "");
    assert_eq!(run.status, 1, "{run}");
    assert!(
        run.stderr.contains("3 free entries") && run.stderr.contains("has 2"),
        "{run}"
    );
    assert_eq!(demux.snapshot(), before);
}

/// While the kernel's sockets are not asked, only the binding lets packets in.
#[test]
fn no_default_acts_without_the_bindings() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let at = Family::V4.at_host(7000);
    let server = udp(&pair.host, at);
    let client = udp(&pair.peer, Family::V4.at_peer(7001));
    let text = "[instance]\nmax_connections = 64\n[settings]\nkernel-sockets = false\n\
                [[interface]]\nname = 'host0'\ndefault = 'drop'\nmode = 'generic'\n\
                [[binding]]\nprotocol = 'udp'\nlocal = ':7000'\n";
    let text = Text::new(text);
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut asked = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                ask(&client, &server, at);
                asked += 1;
            }
            asked
        });
        for _ in 0..2 {
            demux.ok(&text.line(""));
            demux.ok("unload --all");
        }
        stop.store(true, Ordering::Relaxed);
        asking.join().expect("an answer to every question")
    });
    assert!(asked > 0);
    // An instance that runs gets a second interface.
    demux.ok(&text.line(""));
    pair.host.veth("v0", &pair.host, "v1");
    applied(&demux, "[[interface]]\nname = 'v0'\ndefault = 'drop'\n", "");
    assert_eq!(demux.interface("v0").unwrap()["default"], "drop");
}

#[test]
fn the_schema_describes_the_file() {
    let netns = Netns::new();
    let run = Demux::new(&netns).ok("schema");
    let schema = run.json();
    assert_eq!(schema["additionalProperties"], false);
    for section in [
        "version",
        "instance",
        "settings",
        "interface",
        "binding",
        "daemon",
        "owner",
    ] {
        assert!(schema["properties"][section].is_object(), "{section}");
    }
    let required = &schema["$defs"]["Binding"]["required"];
    assert_eq!(required, &serde_json::json!(["protocol", "local"]));
}

/// What is written has the keys that its schema has, and all that it must have.
#[test]
fn the_schema_of_a_noun_describes_its_output() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    applied(&demux, WHOLE, "");
    let explain = "explain tcp from 10.0.0.1:4000 to 10.0.0.2:80";
    for line in [
        "status", "bindings", "settings", "counters", "maps", "ports", "export", explain,
    ] {
        let noun = line.split(' ').next().unwrap();
        let schema = demux.ok(&format!("schema {noun}")).json();
        let title = format!("demux.v1.{noun}");
        assert_eq!(schema["properties"]["schema"]["const"], title);
        let item = &schema["properties"]["items"]["items"]["anyOf"][0];
        let mut resolved = item;
        while let Some(reference) = resolved["$ref"].as_str() {
            resolved = schema
                .pointer(reference.trim_start_matches('#'))
                .expect(reference);
        }
        let properties = resolved["properties"].as_object().expect(noun);
        let items = demux.items(line);
        // Nothing is counted where no packet has come.
        let Some(row) = items.first().and_then(Value::as_object) else {
            continue;
        };
        for key in row.keys() {
            assert!(
                properties.contains_key(key),
                "{noun}: {key} is missing in {resolved}"
            );
        }
        for key in resolved["required"].as_array().into_iter().flatten() {
            assert!(
                row.contains_key(key.as_str().unwrap()),
                "{noun}: {key}: {row:?}"
            );
        }
    }
    let error = demux.ok("schema error").json();
    assert!(error["properties"]["error"].is_object(), "{error}");
    demux
        .refused("schema nonsense", 2, "invalid_argument")
        .says(&["bindings", "status"]);
}

/// Many bindings: each its own port, to the stack.
fn many(count: u16, more: &str) -> String {
    let mut text = format!("[[interface]]\nname = 'host0'\n{more}\n");
    for port in 0..count {
        let port = 10_000 + port;
        text.push_str(&format!(
            "[[binding]]\nname = 'b{port}'\nprotocol = 'tcp'\nlocal = ':{port}'\nto = 'drop'\n"
        ));
    }
    text
}

#[test]
fn ten_thousand_bindings_at_once() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let text = Text::new(&many(10_000, ""));
    let started = std::time::Instant::now();
    let run = demux.ok(&text.line(""));
    let first = started.elapsed();
    assert!(
        !run.stderr.contains("bindings 1/"),
        "a bar without a terminal: {run}"
    );
    let started = std::time::Instant::now();
    assert!(demux.ok(&text.line("")).stderr.contains("no change"));
    println!("10,000 bindings: {first:?}, then {:?}", started.elapsed());
    assert_eq!(demux.items("bindings").len(), 10_000);
    assert_eq!(demux.item("status")["bind_hooks"], "attached");
}

#[test]
fn a_file_from_a_pipe_is_read_to_its_end() {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    let run = demux.run_with("apply /dev/stdin", |command| {
        let mut echo = Command::new("printf")
            .arg("[[interface]]\\nname = 'host0'\\n[instance]\\nmax_connections = 64\\n")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        command.stdin(echo.stdout.take().unwrap());
        echo.wait().unwrap();
    });
    assert_eq!(run.status, 0, "{run}");
    assert!(Path::new(demux.bpffs()).exists());
    assert!(demux.interface(HOST).is_some());
}
