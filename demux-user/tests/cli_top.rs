//! `top`, on a terminal that is read back, and without one.

mod common;

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use common::{
    demux::{Demux, bare},
    netns::Netns,
    pair::{Family, HOST, Pair},
    privileges::{PublicBinary, share_with},
    sockets::{connect, listen, talk, udp},
    terminal::{Terminal, has},
    user::NOBODY,
    wait::wait_for,
};
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::LocalModes,
};

/// What shells expect.
const TERM: &str = "xterm-256color";

/// Fast, so that nobody waits.
const QUICK: &str = "--interval 0.2";

/// A host with bindings: a connection to `web` that is always busy, one to port 22 that is idle, and
/// datagrams that are dropped.
fn with_traffic(work: impl FnOnce(&Demux<'_>, &Pair)) {
    let pair = Pair::new();
    let demux = Demux::new(&pair.host);
    demux.ok(&format!("load {HOST} --default drop --max-connections 256"));
    demux.ok("bind tcp 10.0.0.2:80 --name web");
    demux.ok("bind udp :5000-5999 --to drop --name hole");
    let (web, ssh) = (Family::V4.at_host(80), Family::V6.at_host(22));
    let listeners = [listen(&pair.host, web), listen(&pair.host, ssh)];
    let mut busy = connect(&pair.peer, &listeners[0], web);
    let mut idle = connect(&pair.peer, &listeners[1], ssh);
    talk(&mut idle.0, &mut idle.1);
    let noise = udp(&pair.peer, Family::V4.at_peer(40_053));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                talk(&mut busy.0, &mut busy.1);
                noise.send_to(b"noise", Family::V4.at_host(5053)).unwrap();
                // So that others get to run; nothing depends on how long it is.
                thread::sleep(Duration::from_millis(2));
            }
        });
        let over = Over(&is_over);
        work(&demux, &pair);
        drop(over);
    });
}

/// Ends the traffic, also where a test has failed.
struct Over<'f>(&'f AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn start_with(
    demux: &Demux<'_>,
    line: &str,
    size: (u16, u16),
    change: impl FnOnce(&mut Command),
) -> Terminal {
    let mut command = demux.command(&format!("top {line}"));
    command.env("TERM", TERM);
    change(&mut command);
    demux
        .netns()
        .enter(|| Terminal::start(command, size.0, size.1))
}

fn start(demux: &Demux<'_>, line: &str) -> Terminal {
    start_with(demux, &format!("{QUICK} {line}"), (80, 24), |_command| {})
}

/// The words of a line, with blanks as they come.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The place of the first line that has these words.
fn place(lines: &[String], words: &[&str]) -> Option<usize> {
    lines.iter().position(|line| has(line, words))
}

const WEB: &[&str] = &["10.0.0.2:80", "10.0.0.1:", "ESTABLISHED", "web"];
const SSH: &[&str] = &["[fd00::2]:22", "[fd00::1]:", "ESTABLISHED"];

/// A rate above zero stands in this column of the words of a line.
fn moves(line: &str, column: usize) -> bool {
    let word = words(line).get(column).copied().unwrap_or_default();
    word.starts_with(|first: char| first.is_ascii_digit()) && word != "0"
}

#[test]
fn eighty_columns_show_connections_the_busiest_first() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        let lines = top.wait("rates", |lines| {
            let web = lines.iter().find(|line| has(line, WEB));
            web.is_some_and(|line| moves(line, 4)) && place(lines, SSH).is_some()
        });
        let title = words(&lines[0]);
        assert_eq!((title[0], title.last()), ("demux", Some(&"0.20s")));
        let modes = ["native", "generic"];
        let is_loaded = |title: &[&str]| {
            title
                .windows(3)
                .any(|words| words[0] == HOST && modes.contains(&words[1]) && words[2] == "drop")
        };
        assert!(is_loaded(&title), "{title:?}");
        assert!(
            has(
                &lines[1],
                &["connections [|", "] 2 of 256 (0%)", "2 confirmed"]
            ),
            "{}",
            lines[1]
        );
        assert!(
            has(
                &lines[2],
                &["packets/s", "pass", "drop", "reject 0", "redirect 0"]
            ),
            "{}",
            lines[2]
        );
        assert_eq!(lines[3], "states  ESTABLISHED 2");
        assert!(
            has(
                &lines[4],
                &["1 connections", "2 bindings", "3 counters", "1 of 2"]
            ),
            "{}",
            lines[4]
        );
        assert_eq!(
            words(&lines[5]),
            [
                "LOCAL", "REMOTE", "STATE", "BINDING", "PKT/S▼", "IN/S", "OUT/S", "AGE"
            ]
        );
        // Whoever is busy comes first.
        assert_eq!((place(&lines, WEB), place(&lines, SSH)), (Some(6), Some(7)));
        assert!(has(&lines[23], &["q quit", "s sort", "/ filter"]));
        assert!(top.screen(vt100::Screen::hide_cursor));
        assert!(top.screen(vt100::Screen::alternate_screen));
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn keys_order_and_turn_around() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        top.line(SSH);
        top.press("r");
        top.wait("the idle one first", |lines| {
            has(&lines[5], &["PKT/S▲"]) && place(lines, SSH) < place(lines, WEB)
        });
        // To the left are the target, the binding, the state and the remote.
        top.press("<<<<");
        top.wait("by remote", |lines| {
            has(&lines[5], &["REMOTE▲"]) && place(lines, WEB) < place(lines, SSH)
        });
        top.press("s");
        top.wait("by state", |lines| has(&lines[5], &["STATE▲"]));
        top.press(">>>>");
        top.wait("by bytes that arrive", |lines| {
            has(&lines[5], &["IN/S▼"]) && place(lines, WEB) < place(lines, SSH)
        });
        top.press("\x1b");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn tabs_show_bindings_and_counters() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        top.press("\t");
        let lines = top.wait("bindings with rates", |lines| {
            let hole = lines.iter().find(|line| has(line, &["hole", "udp"]));
            hole.is_some_and(|line| moves(line, 5))
        });
        assert_eq!(
            words(&lines[5]),
            [
                "NAME", "PROTO", "LOCAL", "DEV", "TARGET", "PKT/S▼", "BYTES/S", "CONNS", "PACKETS",
                "BYTES"
            ]
        );
        let line = |name: &str| {
            let line = lines.iter().find(|line| line.starts_with(name));
            words(line.unwrap_or_else(|| panic!("{lines:#?}"))).clone()
        };
        assert_eq!(
            line("hole")[..5],
            ["hole", "udp", "*:5000-5999", "-", "drop"]
        );
        let web = line("web");
        assert_eq!(web[..5], ["web", "tcp", "10.0.0.2:80", "-", "stack"]);
        assert_eq!(web[7], "1", "{web:?}");
        top.press("3");
        top.wait("counters", |lines| {
            words(&lines[5])[..3] == ["IFACE", "VERDICT", "REASON"]
                && place(lines, &[HOST, "drop"]).is_some()
        });
        top.press("1");
        top.line(WEB);
        top.press("\x03");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn a_filter_is_edited_and_told_what_is_wrong_with_it() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "lport 80");
        top.line(&["filter: lport 80"]);
        top.line(WEB);
        top.gone(SSH);
        top.press("/");
        top.wait("the filter", |lines| lines[23] == "filter: lport 80");
        assert!(!top.screen(vt100::Screen::hide_cursor));
        assert_eq!(top.screen(vt100::Screen::cursor_position), (23, 16));
        top.press(" and nonsense\r");
        top.wait("an error", |lines| {
            // It may take more than one line.
            lines[20..23]
                .iter()
                .any(|line| has(line, &["filter", "nonsense"]))
                && lines[23] == "filter: lport 80 and nonsense"
        });
        // As it was.
        top.press("\x1b");
        top.wait("the keys", |lines| has(&lines[23], &["q quit"]));
        top.line(&["filter: lport 80"]);
        top.press("/\x15remote fd00::/16\r");
        top.line(SSH);
        top.gone(WEB);
        top.press("/\x15\r");
        top.line(WEB);
        top.line(SSH);
        top.press("/\x15state time-wait\r");
        top.line(&["no connection matches the filter"]);
        // These are letters now, and do nothing else.
        top.press("/qp");
        top.wait("letters", |lines| lines[23] == "filter: state time-waitqp");
        top.press("\x03");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn a_pause_keeps_what_is_there() {
    with_traffic(|demux, pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        top.press(" ");
        top.line(&["PAUSED"]);
        let at = Family::V4.at_host(443);
        let listener = listen(&pair.host, at);
        let _ends = connect(&pair.peer, &listener, at);
        let new = &["10.0.0.2:443", "10.0.0.1:"];
        wait_for("the connection", || {
            !demux.items("connections lport 443").is_empty()
        });
        // Keys work meanwhile, and bring nothing new.
        top.press("r");
        let lines = top.wait("another order", |lines| has(&lines[5], &["PKT/S▲"]));
        assert_eq!(place(&lines, new), None);
        top.press("p");
        top.line(new);
        top.gone(&["PAUSED"]);
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn intervals_are_changed_by_keys() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        for (key, interval) in [("+", "0.50s"), ("+", "1s"), ("-", "0.50s"), ("--", "0.10s")] {
            top.press(key);
            top.wait(interval, |lines| lines[0].ends_with(interval));
        }
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn enter_shows_everything_about_a_connection() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "--sort local");
        let is_selected = |row: u16, top: &Terminal| {
            top.screen(|screen| screen.cell(row, 0).is_some_and(vt100::Cell::inverse))
        };
        top.wait("both", |lines| {
            (place(lines, WEB), place(lines, SSH)) == (Some(6), Some(7))
        });
        assert!(is_selected(6, &top));
        top.press("\x1b[B");
        wait_for("the second", || is_selected(7, &top));
        top.press("\r");
        for words in [
            ["local", "[fd00::2]:22"],
            ["remote", "[fd00::1]:"],
            ["state", "ESTABLISHED"],
            ["direction", "in"],
            ["confirmed", "yes"],
            ["binding", "-"],
            ["target", "stack"],
            ["arrived", "packets"],
            ["seen", "both"],
            ["expires", "in 2h"],
        ] {
            top.line(&words);
        }
        top.press("q");
        top.line(WEB);
        top.press("?");
        top.line(&["p or Space", "pause"]);
        top.press("\x1b");
        top.line(WEB);
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn other_sizes_show_more_or_less() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        top.resize(40, 10);
        let lines = top.wait("a small screen", |lines| {
            lines.len() == 10
                && has(&lines[9], &["q quit"])
                && place(lines, &["10.0.0.2:80"]).is_some()
        });
        assert!(has(&lines[3], &["LOCAL", "REMOTE", "PKT/S▼"]), "{lines:#?}");
        top.resize(200, 50);
        top.wait("a large screen", |lines| {
            let titles = [
                "PROTO", "DIR", "LOCAL", "TARGET", "PACKETS", "IDLE", "EXPIRES",
            ];
            lines.len() == 50 && has(&lines[5], &titles)
        });
        let line = top.line(WEB);
        assert!(has(&line, &["tcp", "in", "10.0.0.2:80", "stack"]), "{line}");
        top.resize(1, 1);
        top.resize(80, 24);
        top.wait("the usual size", |lines| {
            place(lines, WEB).is_some() && has(&lines[23], &["q quit"])
        });
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

/// Starts a shell that controls jobs, as users have it.
fn shell(demux: &Demux<'_>, script: &str) -> Terminal {
    let mut command = Command::new("sh");
    command
        .args(["-mc", script])
        .env("DEMUX_BPFFS", demux.bpffs())
        .env("TERM", TERM)
        .env("DEMUX", common::demux::BINARY);
    demux.netns().enter(|| Terminal::start(command, 80, 24))
}

#[test]
fn quitting_leaves_the_terminal_as_it_was() {
    with_traffic(|demux, _pair| {
        let mut shell = shell(demux, "echo before; $DEMUX top; echo after: $?");
        let before = shell.modes();
        shell.line(WEB);
        assert_ne!(shell.modes().local_modes, before.local_modes);
        shell.press("q");
        assert_eq!(shell.end(), 0);
        let lines = shell.wait("the end", |lines| lines[1] == "after: 0");
        assert_eq!(lines[0], "before");
        assert!(!shell.screen(vt100::Screen::alternate_screen));
        assert!(!shell.screen(vt100::Screen::hide_cursor));
        let after = shell.modes();
        assert_eq!(after.local_modes, before.local_modes);
        assert_eq!(after.input_modes, before.input_modes);
        assert_eq!(after.output_modes, before.output_modes);
    });
}

#[test]
fn a_suspended_view_gives_the_terminal_back_until_it_goes_on() {
    with_traffic(|demux, _pair| {
        let script = "echo before; $DEMUX top; echo stopped; read line; fg; echo after: $?";
        let mut shell = shell(demux, script);
        let before = shell.modes();
        shell.line(WEB);
        shell.press("\x1a");
        shell.line(&["stopped"]);
        let lines = shell.lines();
        assert_eq!(lines[0], "before");
        assert!(!shell.screen(vt100::Screen::alternate_screen));
        assert!(!shell.screen(vt100::Screen::hide_cursor));
        assert_eq!(shell.modes().local_modes, before.local_modes);
        shell.press("\n");
        shell.line(WEB);
        assert!(shell.screen(vt100::Screen::alternate_screen));
        assert_ne!(shell.modes().local_modes, before.local_modes);
        shell.press("q");
        shell.line(&["after: 0"]);
        assert_eq!(shell.end(), 0);
    });
}

#[test]
fn signals_end_it_and_leave_the_terminal_as_it_was() {
    with_traffic(|demux, _pair| {
        for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut top = start(demux, "");
            top.line(WEB);
            assert!(!top.modes().local_modes.contains(LocalModes::ICANON));
            let pid = Pid::from_raw(top.pid() as i32).unwrap();
            kill_process(pid, signal).unwrap();
            assert_eq!(top.end(), status);
            wait_for("the screen of before", || {
                !top.screen(vt100::Screen::alternate_screen)
            });
            assert!(!top.screen(vt100::Screen::hide_cursor));
            let usual = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            assert!(top.modes().local_modes.contains(usual));
        }
    });
}

#[test]
fn an_instance_that_goes_is_waited_for() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "");
        top.line(WEB);
        demux.ok("unload --all");
        top.line(&["demux is not loaded", "waiting for demux load"]);
        top.gone(&["10.0.0.2:80"]);
        demux.ok(&format!("load {HOST} --max-connections 256"));
        top.line(&["10.0.0.2:80", "ESTABLISHED"]);
        top.press("q");
        assert_eq!(top.end(), 0);
    });
}

#[test]
fn so_many_samples_end_it() {
    with_traffic(|demux, _pair| {
        let mut top = start(demux, "--count 3");
        assert_eq!(top.end(), 0);
        let lines = top.wait("the screen of before", |lines| {
            lines.iter().all(String::is_empty)
        });
        assert_eq!(lines.len(), 24);
    });
}

/// Whether anything on the screen has a colour.
fn is_coloured(top: &Terminal) -> bool {
    top.screen(|screen| {
        let (rows, columns) = screen.size();
        let mut cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells.any(|(row, column)| {
            screen
                .cell(row, column)
                .is_some_and(|cell| cell.fgcolor() != vt100::Color::Default)
        })
    })
}

#[test]
fn colours_are_for_those_who_want_them() {
    with_traffic(|demux, _pair| {
        let size = (80, 24);
        let line = format!("{QUICK} ");
        let plain = start_with(demux, &line, size, |command| {
            command.env("NO_COLOR", "1");
        });
        let never = start_with(demux, &format!("{line} --color never"), size, |_command| {});
        let coloured = start_with(demux, &line, size, |_command| {});
        for (mut top, expected) in [(plain, false), (never, false), (coloured, true)] {
            top.line(WEB);
            top.line(SSH);
            assert_eq!(is_coloured(&top), expected);
            top.press("q");
            assert_eq!(top.end(), 0);
        }
    });
}

#[test]
fn any_terminal_will_do_but_one_that_cannot_move() {
    with_traffic(|demux, _pair| {
        let mut unknown = start_with(demux, QUICK, (80, 24), |command| {
            command.env("TERM", "nobody-knows-me");
        });
        unknown.line(WEB);
        assert!(unknown.screen(vt100::Screen::alternate_screen));
        unknown.press("q");
        assert_eq!(unknown.end(), 0);

        for term in [Some("dumb"), Some(""), None] {
            let line = format!("{QUICK} --count 1");
            let mut dumb = start_with(demux, &line, (200, 24), |command| {
                match term {
                    Some(term) => command.env("TERM", term),
                    None => command.env_remove("TERM"),
                };
            });
            dumb.line(WEB);
            assert_eq!(dumb.end(), 0);
            assert!(!dumb.screen(vt100::Screen::alternate_screen));
        }
    });
}

#[test]
fn without_a_terminal_it_is_text() {
    with_traffic(|demux, _pair| {
        let run = demux.ok(&format!("top {QUICK} --count 2"));
        let samples: Vec<&str> = run.stdout.split("demux  ").skip(1).collect();
        assert_eq!(samples.len(), 2, "{run}");
        for sample in samples {
            let lines: Vec<String> = sample.lines().map(str::to_owned).collect();
            assert_eq!(
                words(&lines[5]),
                [
                    "PROTO", "DIR", "LOCAL", "REMOTE", "STATE", "BINDING", "TARGET", "PKT/S",
                    "IN/S", "OUT/S", "PACKETS", "IN", "OUT", "AGE", "IDLE", "EXPIRES"
                ]
            );
            assert!(moves(&lines[6], 7), "{sample}");
            assert_eq!((place(&lines, WEB), place(&lines, SSH)), (Some(6), Some(7)));
        }
        let run = demux.ok(&format!(
            "top {QUICK} --once -H --view bindings --sort binding"
        ));
        let lines: Vec<Vec<&str>> = run.stdout.lines().map(words).collect();
        assert_eq!(
            lines.iter().map(|line| line[0]).collect::<Vec<_>>(),
            ["hole", "web"]
        );
        let run = demux.ok(&format!(
            "top {QUICK} --once --limit 1 --sort age --reverse"
        ));
        assert!(run.stdout.contains("the first 1 of 2"), "{run}");
    });
}

#[test]
fn programs_read_a_document_for_each_sample() {
    with_traffic(|demux, _pair| {
        let run = demux.ok(&format!("top {QUICK} --count 2 -j"));
        let documents = run.json_lines();
        assert_eq!(documents.len(), 2, "{run}");
        for document in &documents {
            assert_eq!(document["schema"], "demux.v1.top");
            let item = &document["items"][0];
            assert!(item["interval_ms"].as_u64().unwrap() >= 200, "{run}");
            let time = item["time"].as_str().unwrap();
            assert!(time.ends_with('Z') && time.len() <= 24, "{time}");
            let instance = &item["instance"];
            assert_eq!(instance["connections"], 2);
            assert_eq!(instance["interfaces"][0]["name"], HOST);
            assert_eq!(instance["states"][0]["state"], "ESTABLISHED");
            assert_eq!(instance["verdicts"].as_array().unwrap().len(), 4);
            assert_eq!(item["matching"], 2);
            let web = &item["connections"][0];
            assert_eq!(web["local"], "10.0.0.2:80");
            assert_eq!(web["binding"], "web");
            assert!(web["rx_packets_per_s"].as_f64().unwrap() > 0.0, "{web}");
            let ssh = &item["connections"][1];
            assert_eq!(ssh["local_port"], 22);
            assert_eq!(ssh["rx_packets_per_s"], 0.0);
            let bindings = item["bindings"].as_array().unwrap();
            let hole = bindings.iter().find(|binding| binding["name"] == "hole");
            assert!(hole.unwrap()["packets_per_s"].as_f64().unwrap() > 0.0);
            let counters = item["counters"].as_array().unwrap();
            assert!(counters.iter().any(|row| row["verdict"] == "drop"
                && row["iface"] == HOST
                && row["packets_per_s"].as_f64().unwrap() > 0.0));
        }
        let run = demux.ok(&format!("top lport 22 {QUICK} --once --jsonl"));
        let items = run.json_lines();
        assert_eq!(items.len(), 1, "{run}");
        assert_eq!(items[0]["matching"], 1);
        assert_eq!(items[0]["instance"]["connections"], 2);
    });
}

#[test]
fn a_reader_that_has_read_enough_ends_it() {
    with_traffic(|demux, _pair| {
        let mut command = demux.command("top --interval 0.05 --jsonl");
        command.stdout(Stdio::piped());
        let mut child = demux.netns().enter(|| command.spawn().unwrap());
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn an_instance_that_goes_ends_the_stream() {
    with_traffic(|demux, _pair| {
        let mut command = demux.command("top --interval 0.05 --jsonl");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = demux.netns().enter(|| command.spawn().unwrap());
        demux.ok("unload --all");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn members_of_the_group_need_no_capability() {
    with_traffic(|demux, _pair| {
        share_with(demux, NOBODY);
        let public = PublicBinary::new();
        let run = demux.run_with(&format!("top {QUICK} --once"), |command| {
            public.run_as(command, NOBODY);
        });
        assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{run}");
        let lines: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        assert!(place(&lines, WEB).is_some(), "{run}");
    });
}

#[test]
fn bad_arguments_are_refused_before_anything_is_drawn() {
    let netns = Netns::new();
    netns.veth("v0", &netns, "v1");
    let demux = Demux::new(&netns);
    demux
        .refused("top --once", 3, "not_loaded")
        .hints(&["demux load"]);
    demux.ok("load v0 --max-connections 64");
    demux
        .refused("top lport nonsense", 2, "invalid_argument")
        .says(&["nonsense"]);
    demux
        .refused("top --sort nonsense", 2, "invalid_argument")
        .says(&["nonsense", "pps", "local"]);
    demux
        .refused("top --view counters --sort state", 2, "invalid_argument")
        .says(&["state", "reason"]);
    for line in [
        "top --interval 0",
        "top --interval -1",
        "top --interval nan",
        "top --count 0",
        "top --limit 0",
        "top --view nonsense",
        "top --once --count 2",
    ] {
        demux.refused(line, 2, "usage");
    }
    // Also on a terminal.
    demux.ok("unload --all");
    let mut top = start(&demux, "");
    assert_eq!(top.end(), 3);
    top.line(&["demux: demux is not loaded in this network namespace"]);
    assert!(!top.screen(vt100::Screen::alternate_screen));
}

#[test]
fn its_help_has_examples() {
    let run = common::demux::finish(&mut bare("top --help"), "top --help");
    assert_eq!(run.status, 0, "{run}");
    for word in ["EXAMPLES:", "--interval", "--once", "--sort", "--view"] {
        assert!(run.stdout.contains(word), "{word}: {run}");
    }
}
