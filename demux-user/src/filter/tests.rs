//! Filters against rows.

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
};

use super::*;
use crate::connections::Seen;

fn row(protocol: Protocol, local: &str, remote: &str, state: State) -> Row {
    Row {
        protocol,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        state,
        direction: Direction::In,
        is_confirmed: true,
        binding: (local.ends_with(":80")).then(|| "web".into()),
        target: "stack".into(),
        rx_packets: 1,
        rx_bytes: 60,
        tx_packets: 0,
        tx_bytes: 0,
        age_ms: 0,
        idle_ms: 0,
        expires_ms: 0,
        seen: Seen::Both,
    }
}

/// The numbers of the rows that a filter wants.
fn wanted(filter: &str) -> Vec<usize> {
    let rows = [
        row(
            Protocol::Tcp,
            "10.0.0.2:80",
            "10.0.0.9:40000",
            State::Established,
        ),
        row(
            Protocol::Tcp,
            "10.0.0.2:80",
            "192.0.2.7:40001",
            State::SynReceived,
        ),
        row(
            Protocol::Tcp,
            "[2001:db8::2]:22",
            "[2001:db8::9]:50000",
            State::TimeWait,
        ),
        row(
            Protocol::Udp,
            "10.0.0.2:53",
            "10.0.0.9:1024",
            State::Unreplied,
        ),
    ];
    let filter = Filter::parse(&[filter]).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let matching = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| filter.matches(row));
    matching.map(|(number, _)| number).collect()
}

#[test]
fn nothing_wants_everything() {
    assert_eq!(wanted(""), [0, 1, 2, 3]);
    assert_eq!(wanted("state all"), [0, 1, 2, 3]);
}

#[test]
fn filters_of_ss_mean_what_they_mean_there() {
    for (filter, expected) in [
        ("state established", &[0][..]),
        ("state established state time-wait", &[0, 2]),
        ("state connected exclude time-wait", &[0, 1, 3]),
        ("exclude established", &[1, 2, 3]),
        ("state bucket", &[1, 2]),
        ("state established dport = :40000", &[0]),
        ("state established and sport = :53", &[]),
        ("sport = :80", &[0, 1]),
        ("sport eq 80", &[0, 1]),
        ("sport :80", &[0, 1]),
        ("sport != :80", &[2, 3]),
        ("dport gt :40000", &[1, 2]),
        ("dport >= 40000", &[0, 1, 2]),
        ("dport lt 1025", &[3]),
        ("dport <= :1024", &[3]),
        ("dst 10.0.0.0/8", &[0, 3]),
        ("dst != 10.0.0.0/8", &[1, 2]),
        ("src 10.0.0.2:80", &[0, 1]),
        ("src [2001:db8::/32]:22", &[2]),
        ("dst 192.0.2.7 or dst 10.0.0.9:1024", &[1, 3]),
        ("( sport = :22 or sport = :53 )", &[2, 3]),
        ("( sport = :22 or sport = :53 ) and dst 10.0.0.9", &[3]),
        ("sport = :22 or sport = :53 and dst 10.0.0.9", &[2, 3]),
        ("not sport = :80", &[2, 3]),
        ("! ( sport = :80 or sport = :53 )", &[2]),
        ("sport=:80&&dst=10.0.0.9", &[0]),
    ] {
        assert_eq!(wanted(filter), expected, "{filter}");
    }
}

#[test]
fn the_words_of_demux_are_understood() {
    for (filter, expected) in [
        ("local 10.0.0.2", &[0, 1, 3][..]),
        ("remote :50000", &[2]),
        ("lport 22-80", &[0, 1, 2, 3]),
        ("lport != 22-53", &[0, 1]),
        ("rport = 40000-40001", &[0, 1]),
        ("proto udp", &[3]),
        ("proto != UDP", &[0, 1, 2]),
        ("binding web", &[0, 1]),
        ("binding ne web", &[2, 3]),
        ("dir in", &[0, 1, 2, 3]),
        ("dir out", &[]),
        ("state = SYN-RECEIVED", &[1]),
        ("state != ESTABLISHED", &[1, 2, 3]),
        ("state time-wait,unreplied", &[2, 3]),
        ("state established or state unreplied", &[0, 3]),
        ("proto tcp state established", &[0]),
        ("proto tcp exclude established", &[1, 2]),
    ] {
        assert_eq!(wanted(filter), expected, "{filter}");
    }
}

#[test]
fn words_may_come_one_by_one() {
    let filter = Filter::parse(&["state", "established", "(", "dport", "=", ":80", ")"]);
    assert!(filter.is_ok());
}

#[test]
fn a_wrong_word_is_named() {
    for (filter, value, reason) in [
        ("port 80", "port", "expected one of"),
        ("sport", "(end of the filter)", "value is missing"),
        ("sport = :http", ":http", "not a port"),
        ("sport = :65536", ":65536", "not a port"),
        ("sport gt :1-2", ":1-2", "range"),
        ("src gt 10.0.0.1", "10.0.0.1", "only ports"),
        ("src example.org", "example.org", "not resolved"),
        ("state open", "open", "not a state"),
        ("state listening", "listening", "no rows"),
        ("state", "(end of the filter)", "missing"),
        ("( sport = :80", "(end of the filter)", ") is missing"),
        ("sport = :80 )", ")", "( is missing"),
        ("sport = :80 and", "(end of the filter)", "expected one of"),
        ("proto sctp", "sctp", "tcp or udp"),
        ("dir up", "up", "in or out"),
        ("=", "=", "expected one of"),
    ] {
        let error = Filter::parse(&[filter]).expect_err(filter);
        assert_eq!(error.exit_status(), 2);
        let text = error.to_string();
        assert!(
            text.contains(reason) && text.contains(value),
            "{filter}: {text}"
        );
    }
}

#[test]
fn depth_is_bounded() {
    let deep = "( ".repeat(100_000);
    assert!(Filter::parse(&[deep]).is_err());
    assert!(Filter::parse(&["! ".repeat(100_000)]).is_err());
}
