//! The command line itself: what is understood, and how what is not is told.

use super::*;

fn run_with(arguments: &[&str]) -> (u8, String, String) {
    let arguments: Vec<OsString> = ["demux"].iter().chain(arguments).map(Into::into).collect();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = run(&arguments, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status, text(out), text(err))
}

#[test]
fn the_definition_is_consistent() {
    command().debug_assert();
}

#[test]
fn every_command_has_examples_and_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let (status, out, _) = run_with(&["man", directory.path().to_str().unwrap()]);
    assert_eq!((status, out.as_str()), (0, ""));
    for subcommand in command().get_subcommands() {
        let name = subcommand.get_name();
        let help = subcommand.get_after_help().map(ToString::to_string);
        assert!(
            help.is_some_and(|help| help.starts_with("EXAMPLES:\n  ")),
            "{name}"
        );
        assert!(
            directory.path().join(format!("demux-{name}.1")).is_file(),
            "{name}"
        );
    }
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (status, out, err) = run_with(&["completions", shell]);
        assert_eq!((status, err.as_str()), (0, ""), "{shell}");
        assert!(out.contains("connections"), "{shell}");
    }
}

#[test]
fn global_options_stand_before_or_behind_the_command() {
    for arguments in [
        &["-j", "--netns", "blue", "-H", "status"][..],
        &["status", "-j", "--netns", "blue", "-H"],
        &["-jH", "status", "-Nblue"],
    ] {
        let arguments = ["demux"].iter().chain(arguments);
        let cli = Cli::try_parse_from(arguments).unwrap();
        assert!(cli.global.json && cli.global.no_header);
        assert_eq!(cli.global.netns.as_deref(), Some("blue"));
    }
}

#[test]
fn help_is_no_error() {
    let (status, out, err) = run_with(&["load", "--help"]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert!(out.contains("EXAMPLES:") && out.contains("demux confirm"));
    assert_eq!(run_with(&["--version"]).0, 0);
    let (status, out, err) = run_with(&[]);
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("Usage:"));
}

#[test]
fn wrong_usage_is_one_line_and_a_hint() {
    for (arguments, message) in [
        (&["bogus"][..], "unrecognized subcommand 'bogus'"),
        (&["stauts"], "unrecognized subcommand 'stauts'"),
        (&["load"], "required arguments were not provided"),
        (&["unload"], "required arguments were not provided"),
        (&["unload", "eth0", "--all"], "cannot be used with"),
        (
            &["load", "eth0", "--mode", "fast"],
            "unknown mode \"fast\"; available: auto, native, generic",
        ),
        (
            &["load", "eth0", "--default", "deny"],
            "unknown default \"deny\"; available: pass, drop, reject",
        ),
        (
            &["bind", "tcp", ":80", "--to", "cpu:x"],
            "a list of CPUs is numbers and ranges such as 0-3,8",
        ),
        (
            &["bind", "tcp", ":80", "--to", "moon"],
            "a target is stack, drop, reject, cpu:LIST or xsk:NAME",
        ),
        (
            &["bind", "sctp", ":80"],
            "unknown protocol \"sctp\"; available: tcp, udp",
        ),
        (&["bind", "tcp", ":65536"], "is not a port"),
        (&["bind", "tcp", "-1"], "-1"),
        (&["bind", "tcp", ":-1"], "is not a port"),
        (&["bind", "tcp", ":80-79"], "ends before it starts"),
        (&["bind", "tcp", ":abc"], "is not a port"),
        (&["bind", "tcp", "10.0.0.0/33:80"], "0 to 32 bits"),
        (&["bind", "tcp", "localhost:80"], "names are not resolved"),
        (
            &["bind", "tcp", ":80", "--fallback", "drop"],
            "the target stack takes every packet",
        ),
        (&["unbind", "tcp"], "comes the local endpoint"),
        (&["unbind", "http", ":80"], "a protocol is tcp or udp"),
        (&["explain"], "required arguments were not provided"),
        (&["explain", "tcp", "10.0.0.1:1"], "write: tcp|udp from"),
        (
            &["explain", "tcp", "from", "a:1", "to", "10.0.0.1:1"],
            "names are not resolved",
        ),
        (
            &["explain", "tcp", "from", "[::1]:1", "to", "10.0.0.1:1"],
            "both are IPv4",
        ),
        (
            &[
                "explain",
                "udp",
                "from",
                "10.0.0.1:1",
                "to",
                "10.0.0.1:1",
                "up",
            ],
            "it is in or out",
        ),
        (
            &[
                "explain",
                "tcp",
                "from",
                "10.0.0.1:1",
                "to",
                "10.0.0.1:1",
                "--flags",
                "x",
            ],
            "a flag is one of",
        ),
        (&["explain", "tcp", "--pcap", "file"], "cannot be used with"),
        (&["connections", "port", "80"], "expected one of"),
        (&["set"], "required arguments were not provided"),
        (&["set", "colour=blue"], "the keys are"),
        (&["counters", "--interval", "0"], "an interval is"),
        (
            &["counters", "--count", "2"],
            "required arguments were not provided",
        ),
        (&["status", "-q", "-v"], "cannot be used with"),
    ] {
        let (status, out, err) = run_with(arguments);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {err}");
        let lines: Vec<_> = err.lines().collect();
        assert!(lines[0].starts_with("demux: "), "{arguments:?}: {err}");
        assert!(lines[0].contains(message), "{arguments:?}: {err}");
        assert!(lines.len() <= 2, "{arguments:?}: {err}");
        assert!(
            lines.get(1).is_none_or(|line| line.starts_with("hint: ")),
            "{arguments:?}: {err}"
        );
    }
}

#[test]
fn wrong_usage_is_json_where_json_is_wanted() {
    for arguments in [&["-j", "bogus"][..], &["load", "--jsonl"], &["-j"]] {
        let (status, out, err) = run_with(arguments);
        assert_eq!(status, 2, "{arguments:?}");
        assert!(err.starts_with("demux: "));
        let document: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(document["error"]["code"], "usage");
        assert!(document["error"]["hint"].is_string());
    }
}

#[test]
fn errors_end_with_their_status() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let (status, out, err) = run_with(&["--bpffs", path, "status", "-j"]);
    assert_eq!(status, 3);
    assert!(err.contains("not loaded"), "{err}");
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["error"]["code"], "not_loaded");
    let (status, _, err) = run_with(&["-N", "no-such-namespace", "status"]);
    assert_eq!(status, 3, "{err}");
}

#[test]
fn a_capture_is_checked_before_anything_is_looked_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for (content, reason) in [
        (&b""[..], "empty"),
        (
            b"hello, this is not a capture at all",
            "neither pcap nor pcapng",
        ),
        (&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0], "neither pcap nor pcapng"),
    ] {
        std::fs::write(&path, content).unwrap();
        let (status, out, err) = run_with(&["explain", "--pcap", path.to_str().unwrap()]);
        assert_eq!((status, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(reason), "{err}");
    }
    let (status, _, err) = run_with(&["explain", "--pcap", "/no/such/file"]);
    assert_eq!(status, 1, "{err}");
}
