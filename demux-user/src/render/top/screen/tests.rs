//! Screens of several sizes, line by line.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::top::{
    Key,
    samples::{connection, model, snapshot},
};

fn terminal(
    model: &mut Model,
    width: u16,
    height: u16,
    is_coloured: bool,
) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw_top(frame, model, is_coloured))
        .unwrap();
    terminal
}

/// What is drawn, without blanks at the ends of lines.
fn drawn(model: &mut Model, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(model, width, height, false);
    let buffer = terminal.backend().buffer();
    (0..height)
        .map(|y| {
            let line: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

#[test]
fn the_usual_screen() {
    let lines = drawn(&mut model(), 80, 24);
    assert_eq!(
        lines[..9],
        [
            "demux  blue  eth0 native drop                                                 1s",
            "connections [|                   ] 3 of 1000 (0%)  1 confirmed",
            "packets/s  pass 0  drop 1500  reject 3000  redirect 4500",
            "states  ESTABLISHED 2  TIME-WAIT 1",
            " 1 connections  2 bindings  3 counters   1 of 3",
            "LOCAL         REMOTE           STATE        BINDING PKT/S▼   IN/S  OUT/S    AGE",
            "10.0.0.2:80   192.0.2.2:40000  ESTABLISHED  web         90   9000      0  1m01s",
            "10.0.0.2:80   192.0.2.1:40000  ESTABLISHED  web          5    500      0  1m01s",
            "10.0.0.2:80   192.0.2.3:40000  TIME-WAIT    web          0      0      0  1m01s",
        ]
    );
    assert!(lines[9..23].iter().all(String::is_empty));
    assert_eq!(
        lines[23],
        "q quit  Tab view  s sort  r reverse  / filter  p pause  +- interval  Enter more"
    );
}

#[test]
fn a_small_screen() {
    assert_eq!(
        drawn(&mut model(), 40, 10),
        [
            "demux  blue  eth0 native drop         1s",
            "connections [|                   ] 3 of",
            " 1 connections  2  3   1 of 3",
            "LOCAL         REMOTE           PKT/S▼",
            "10.0.0.2:80   192.0.2.2:40000      90",
            "10.0.0.2:80   192.0.2.1:40000       5",
            "10.0.0.2:80   192.0.2.3:40000       0",
            "",
            "",
            "q quit  Tab view  s sort  r reverse  / f",
        ]
    );
}

#[test]
fn a_large_screen_has_every_column() {
    let lines = drawn(&mut model(), 200, 50);
    let words: Vec<&str> = lines[5].split_whitespace().collect();
    assert_eq!(
        words,
        [
            "PROTO", "DIR", "LOCAL", "REMOTE", "STATE", "BINDING", "TARGET", "PKT/S▼", "IN/S",
            "OUT/S", "PACKETS", "IN", "OUT", "AGE", "IDLE", "EXPIRES"
        ]
    );
    let words: Vec<&str> = lines[6].split_whitespace().collect();
    assert_eq!(
        words,
        [
            "tcp",
            "in",
            "10.0.0.2:80",
            "192.0.2.2:40000",
            "ESTABLISHED",
            "web",
            "stack",
            "90",
            "9000",
            "0",
            "15",
            "2048",
            "100",
            "1m01s",
            "5ms",
            "2h13m"
        ]
    );
}

#[test]
fn the_other_views() {
    let mut model = model();
    model.press(Key::Tab);
    assert_eq!(
        drawn(&mut model, 80, 24)[5..7],
        [
            "NAME       PROTO LOCAL        DEV   TARGET PKT/S▼ BYTES/S  CONNS PACKETS  BYTES",
            "web        tcp   10.0.0.2:80  -     stack       7     700      3  123.5k   2048",
        ]
    );
    model.press(Key::Tab);
    assert_eq!(
        drawn(&mut model, 80, 24)[5..7],
        [
            "IFACE  VERDICT  REASON       PKT/S▼ BYTES/S PACKETS  BYTES",
            "eth0   drop     default           -       -       9    540",
        ]
    );
}

#[test]
fn every_size_can_be_drawn_in_every_state() {
    let keys: [&[Key]; 6] = [
        &[],
        &[Key::Char('?')],
        &[Key::Enter],
        &[Key::Char('/'), Key::Char('x'), Key::Enter],
        &[Key::Tab],
        &[Key::Char('3'), Key::Char('p')],
    ];
    for keys in keys {
        let mut model = model();
        for &key in keys {
            model.press(key);
        }
        for width in [0, 1, 2, 7, 39, 80, 300] {
            for height in [0, 1, 2, 3, 4, 5, 8, 12, 16, 60] {
                terminal(&mut model, width, height, true);
            }
        }
    }
}

#[test]
fn pressure_is_shown_once_there_was_any() {
    let mut sample = snapshot(vec![connection(1, 1.0)]);
    sample.facts.untracked = 12_345;
    sample.facts.untracked_rate = Some(7.0);
    let mut model = model();
    model.take(Ok(sample)).unwrap();
    assert_eq!(
        drawn(&mut model, 80, 24)[2],
        "pressure  12.3k packets untracked (7/s)  0 rows displaced (0/s)"
    );
}

#[test]
fn the_selected_row_is_reversed_and_colours_are_only_drawn_where_wanted() {
    let mut model = model();
    model.press(Key::Down);
    let is_reversed = |terminal: &Terminal<TestBackend>, y| {
        let cell = &terminal.backend().buffer()[(0, y)];
        cell.modifier.contains(Modifier::REVERSED)
    };
    let plain = terminal(&mut model, 80, 24, false);
    assert_eq!(
        [5, 6, 7, 8].map(|y| is_reversed(&plain, y)),
        [true, false, true, false]
    );
    let cells = plain.backend().buffer().content();
    assert!(
        cells
            .iter()
            .all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset)
    );
    let coloured = terminal(&mut model, 80, 24, true);
    let cells = coloured.backend().buffer().content();
    assert!(cells.iter().any(|cell| cell.fg == Color::Green));
}

#[test]
fn an_error_of_the_filter_stands_above_it() {
    let mut model = model();
    model.press(Key::Char('/'));
    for character in "lport x".chars() {
        model.press(Key::Char(character));
    }
    model.press(Key::Enter);
    let lines = drawn(&mut model, 80, 24);
    assert_eq!(lines[23], "filter: lport x");
    assert!(lines[22].contains("\"x\""), "{lines:#?}");
    let mut terminal = terminal(&mut model, 80, 24, false);
    terminal.backend_mut().assert_cursor_position((15, 23));
}

#[test]
fn long_texts_are_broken_at_blanks_where_there_are_any() {
    assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
    assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
    assert_eq!(wrap("ab cdefgh", 4), ["ab", "cdef", "gh"]);
    assert_eq!(wrap("", 4), [""]);
}
