//! Every schedule of two and three threads, with each thread stopping for ever at every step.

use std::{cell::RefCell, collections::HashMap};

use demux_common::table::{self, Flags, Head, Inserted, Line, Occupancy, Recorded, WINDOW, sweep};

use super::{
    board::{Board, Event, Port as _, Recorder, hot, reached},
    explore::{Checks, End, Script, Seen, Stores, explore},
    names::{BYTES, Kind, LONG, NOW, Names, is_of_one, new},
    world::World,
};

/// A table, what is done to it at the same time, and what must hold.
struct Scenario<'a> {
    names: &'a Names,
    board: Board,
    /// Connections that are there all the time.
    standing: Vec<u32>,
    /// Connections whose packets are all counted in their row, or as untracked.
    exact: Vec<u32>,
    /// Connections, for each home one, that nobody has entered yet.
    spare: Vec<u32>,
    /// How often each connection was counted in the beginning.
    counted: HashMap<u32, u64>,
    /// What a stopped writer had left before.
    is_littered: bool,
}

impl<'a> Scenario<'a> {
    /// `goes` are the connections that stand in the table and may leave it.
    fn new(names: &'a Names, board: Board, goes: &[u32], spare: &[u32]) -> Self {
        let rows: Vec<u32> = (0..names.lines())
            .filter_map(|index| board.reached(index))
            .map(|(key, row)| is_of_one(&key, &row).expect("a row"))
            .collect();
        Self {
            names,
            standing: rows
                .iter()
                .copied()
                .filter(|name| !goes.contains(name))
                .collect(),
            exact: Vec::new(),
            spare: spare.to_vec(),
            counted: rows.iter().map(|&name| (name, 1)).collect(),
            board,
            is_littered: false,
        }
    }

    fn exact(mut self, names: &[u32]) -> Self {
        self.exact = names.to_vec();
        self
    }

    fn run(&self, scripts: Vec<Script<'_>>) -> Seen {
        let cells = self.board.cells.borrow().clone();
        explore(self.names.lines(), &cells, scripts, Stores::Buffered, self)
    }

    /// As [`Scenario::run`], on a machine without store buffers: for what is too much otherwise.
    fn run_simply(&self, scripts: Vec<Script<'_>>) -> Seen {
        let cells = self.board.cells.borrow().clone();
        explore(self.names.lines(), &cells, scripts, Stores::Immediate, self)
    }

    /// By name, in which line and with how many packets.
    fn rows(&self, cells: &[u32]) -> Result<HashMap<u32, (u32, u64)>, String> {
        let mut rows = HashMap::new();
        for index in 0..self.names.lines() {
            if let Some((key, row)) = reached(cells, self.names.lines(), index)? {
                let name = is_of_one(&key, &row)?;
                let packets = row.rx_packets + row.tx_packets;
                if row.rx_bytes + row.tx_bytes != packets * u64::from(BYTES) {
                    return Err(format!("bytes of {name}: {row:?}"));
                }
                if let Some((other, _)) = rows.insert(name, (index, packets)) {
                    return Err(format!("{name} stands in lines {other} and {index}"));
                }
            }
        }
        Ok(rows)
    }

    /// Whether every line is empty or a reached connection's, and every hop names such a one.
    fn is_tidy(&self, cells: &[u32]) -> Result<(), String> {
        let lines = self.names.lines();
        for index in 0..lines {
            let line = hot(cells, index);
            let is_reached = reached(cells, lines, index)?.is_some();
            if line.occupancy != Occupancy::Empty && !is_reached {
                return Err(format!("line {index} is lost: {line:?}"));
            }
            for hop in (0..WINDOW).filter(|hop| line.hops >> hop & 1 != 0) {
                if index + hop >= lines {
                    return Err(format!("a hop of line {index} leads nowhere"));
                }
                let named = hot(cells, index + hop);
                if named.occupancy != Occupancy::Live || u32::from(named.hop) != hop {
                    return Err(format!("hop {hop} of line {index} leads to {named:?}"));
                }
            }
        }
        Ok(())
    }

    fn counts(&self, end: &End, rows: &HashMap<u32, (u32, u64)>) -> Result<(), String> {
        let events = || end.events.iter().enumerate();
        let sent = |name: u32, stopped: bool| {
            let by = events().filter(|(thread, _)| !stopped || Some(*thread) == end.stopped);
            by.flat_map(|(_, events)| events.iter())
                .filter(|&event| *event == Event::Sent { name })
                .count() as u64
        };
        let untracked = events()
            .flat_map(|(_, events)| events.iter())
            .filter(|event| **event == Event::Untracked)
            .count() as u64;
        for (&name, &(_, packets)) in rows {
            let most = self.counted.get(&name).copied().unwrap_or(0) + sent(name, false);
            if packets > most {
                return Err(format!("{packets} packets of {name} instead of {most}"));
            }
        }
        for &name in &self.exact {
            let packets = rows.get(&name).map_or(0, |row| row.1) + untracked;
            let most = self.counted.get(&name).copied().unwrap_or(0) + sent(name, false);
            if packets > most || packets + sent(name, true) < most {
                return Err(format!("{packets} packets of {name} instead of {most}"));
            }
        }
        Ok(())
    }

    fn is_usable(&self, cells: &[u32]) -> Result<(), String> {
        for (home, &name) in self.spare.iter().enumerate() {
            let board = Board::of(self.names.lines(), cells.to_vec());
            let home = home as u32;
            let has_room =
                (home..home + WINDOW).any(|index| hot(cells, index).occupancy == Occupancy::Empty);
            let inserted = self.names.insert(&board, name, &new(name));
            if has_room && !matches!(inserted, Inserted::Entered(_)) {
                return Err(format!("no room for {name}: {inserted:?}"));
            }
            if has_room && self.names.find(&board, name).is_none() {
                return Err(format!("{name} was entered and is not found"));
            }
            self.rows(&board.cells.borrow())?;
        }
        Ok(())
    }
}

impl Checks for Scenario<'_> {
    fn state(&self, cells: &[u32]) -> Result<(), String> {
        let rows = self.rows(cells)?;
        match self.standing.iter().find(|name| !rows.contains_key(name)) {
            Some(name) => Err(format!("{name} was lost")),
            None => Ok(()),
        }
    }

    fn end(&self, end: &End) -> Result<(), String> {
        self.state(&end.cells)?;
        let rows = self.rows(&end.cells)?;
        self.counts(end, &rows)?;
        let events = || end.events.iter().flat_map(|events| events.iter());
        for event in events() {
            match event {
                Event::Read { row } => {
                    is_of_one(&row.0, &row.1)?;
                }
                Event::Missed { name } => return Err(format!("{name} was not found")),
                Event::Confirmed { name }
                    if !rows.contains_key(name)
                        && !events().any(|event| *event == Event::Removed { name: *name }) =>
                {
                    return Err(format!("{name} was confirmed and is lost"));
                }
                _ => {}
            }
        }
        if end.stopped.is_none() && !self.is_littered {
            self.is_tidy(&end.cells)?;
        }
        self.is_usable(&end.cells)?;
        let board = Board::of(self.names.lines(), end.cells.clone());
        give_back(
            &board,
            &visit(self.names, &board, NOW, 0..self.names.lines()),
        );
        let cells = board.cells.borrow();
        self.is_tidy(&cells)
            .map_err(|what| format!("after the sweep: {what}"))?;
        self.state(&cells)?;
        self.is_usable(&cells)
    }
}

/// Looks at lines, and returns those that a writer may have left.
fn visit<M: table::Memory>(
    names: &Names,
    memory: &M,
    now: u32,
    lines: impl Iterator<Item = u32>,
) -> Vec<(u32, Head)> {
    lines
        .filter_map(
            |index| match sweep::visit(memory, index, now, &names.lifetimes) {
                sweep::Finding::Unreached(head) => Some((index, head)),
                _ => None,
            },
        )
        .collect()
}

fn give_back<M: table::Memory>(memory: &M, lines: &[(u32, Head)]) {
    for &(index, head) in lines {
        sweep::give_back(memory, index, head);
    }
}

/// What threads do.
impl Names {
    /// A packet, by the functions of the table alone: found and counted, or entered.
    fn packet(&self, memory: &Recorder, name: u32) {
        memory.note(Event::Sent { name });
        if let Some(found) = self.find(memory, name)
            && self.count(memory, &found)
        {
            return;
        }
        match self.insert(memory, name, &new(name)) {
            Inserted::Present(found) if self.count(memory, &found) => {}
            Inserted::Present(_) => memory.note(Event::Untracked),
            Inserted::Full => {
                memory.note(Event::Untracked);
                memory.note(Event::Full { name });
            }
            _ => {}
        }
    }

    fn count(&self, memory: &Recorder, found: &table::Found<u32>) -> bool {
        table::count::<{ Line::RX }, _>(memory, found, 1, BYTES) == Recorded::Yes
    }

    fn confirm(&self, memory: &Recorder, name: u32) {
        if let Some(found) = self.find(memory, name) {
            let next = found
                .head
                .with_flags(Flags(found.head.flags().0 | Flags::CONFIRMED));
            if table::change_head(memory, found.line, found.head, next) {
                memory.note(Event::Confirmed { name });
            }
        }
    }

    fn remove(&self, memory: &Recorder, name: u32) {
        if let Some(found) = self.find(memory, name) {
            memory.note(Event::Removed { name });
            table::remove(memory, &found);
        }
    }

    fn look(&self, memory: &Recorder, name: u32) {
        if self.find(memory, name).is_none() {
            memory.note(Event::Missed { name });
        }
    }

    fn read(&self, memory: &Recorder, index: u32) {
        if let Some(row) = memory.copy(index) {
            memory.note(Event::Read { row: Box::new(row) });
        }
    }

    /// One connection of each home.
    fn spares(&mut self) -> Vec<u32> {
        (0..self.homes)
            .map(|home| self.at(home, Kind::Unconfirmed))
            .collect()
    }
}

fn report(what: &str, seen: Seen) {
    println!(
        "{what}: {} states, {} histories",
        seen.states, seen.histories
    );
}

const KINDS: [Kind; 4] = [
    Kind::Confirmed,
    Kind::Unconfirmed,
    Kind::Confirmed6,
    Kind::Unconfirmed6,
];

#[test]
fn one_key_is_entered_once() {
    for free in [&[3][..], &[3, 9]] {
        for kind in KINDS {
            let mut names = Names::new(1);
            let spare = names.spares();
            let board = names.filled_but(free);
            let name = names.at(0, kind);
            let names = &names;
            let mut scenario = Scenario::new(names, board, &[], &spare);
            // In the only line an unconfirmed connection may be displaced by its own second packet.
            if free.len() > 1 || new(name).flags.has(Flags::CONFIRMED) {
                scenario = scenario.exact(&[name]);
            }
            let packet = || -> Script<'_> { Box::new(move |memory| names.packet(memory, name)) };
            let seen = scenario.run(vec![packet(), packet()]);
            report(&format!("same key, {kind:?}, free {free:?}"), seen);
        }
    }
}

#[test]
fn keys_of_one_home_and_of_neighbours_get_lines_of_their_own() {
    for (homes, free) in [
        ([0, 0], &[2, 5][..]),
        ([0, 0], &[2]),
        ([0, 1], &[1, 2]),
        ([0, 1], &[2]),
        ([1, 0], &[0, 16]),
        ([0, 1], &[15, 16]),
    ] {
        for kinds in [
            [Kind::Unconfirmed; 2],
            [Kind::Confirmed6, Kind::Unconfirmed],
        ] {
            let mut names = Names::new(2);
            let spare = names.spares();
            let board = names.filled_but(free);
            let [a, b] = [0, 1].map(|at| names.at(homes[at], kinds[at]));
            let names = &names;
            let scenario = Scenario::new(names, board, &[], &spare);
            let seen = scenario.run(vec![
                Box::new(move |memory| names.packet(memory, a)),
                Box::new(move |memory| names.packet(memory, b)),
            ]);
            report(&format!("homes {homes:?}, {kinds:?}, free {free:?}"), seen);
        }
    }
}

#[test]
fn removing_and_entering_meet() {
    for kind in KINDS {
        for free in [&[2][..], &[2, 5]] {
            let mut names = Names::new(2);
            let spare = names.spares();
            let board = names.filled_but(free);
            let (old, new) = (names.at(0, kind), names.at(1, Kind::Confirmed6));
            let names = &names;
            names.enter(&board, old, 0);
            for other in [old, new] {
                let scenario = Scenario::new(names, board.clone(), &[old], &spare);
                let seen = scenario.run(vec![
                    Box::new(move |memory| names.packet(memory, other)),
                    Box::new(move |memory| names.remove(memory, old)),
                ]);
                report(&format!("remove {kind:?}, free {free:?}"), seen);
            }
        }
    }
}

#[test]
fn what_is_confirmed_is_not_displaced() {
    for [kind, over] in [
        [Kind::Unconfirmed, Kind::Unconfirmed],
        [Kind::Unconfirmed, Kind::Unconfirmed6],
        [Kind::Unconfirmed6, Kind::Confirmed6],
    ] {
        for home in [0, 1] {
            let mut names = Names::new(2);
            let spare = names.spares();
            let board = names.filled_but(&[4]);
            let (old, new) = (names.at(0, kind), names.at(home, over));
            let names = &names;
            names.enter(&board, old, 1);
            let scenario = Scenario::new(names, board, &[old], &spare);
            let seen = scenario.run(vec![
                Box::new(move |memory| names.packet(memory, new)),
                Box::new(move |memory| names.confirm(memory, old)),
            ]);
            report(&format!("confirm {kind:?}, {over:?} of home {home}"), seen);
        }
    }
}

#[test]
fn nothing_is_counted_on_the_next_connection_of_a_line() {
    for [kind, over] in [
        [Kind::Confirmed, Kind::Confirmed],
        [Kind::Unconfirmed, Kind::Confirmed6],
        [Kind::Confirmed6, Kind::Unconfirmed],
        [Kind::Unconfirmed6, Kind::Unconfirmed6],
    ] {
        let mut names = Names::new(2);
        let spare = names.spares();
        let board = names.filled_but(&[4]);
        // The numbers of the old one come after those of the new one, and would count there.
        let new = names.at(1, over);
        let old = names.at(0, kind);
        let names = &names;
        names.enter(&board, old, 0);
        let again = move |memory: &Recorder| {
            names.remove(memory, old);
            names.packet(memory, new);
        };
        let scenario = Scenario::new(names, board, &[old], &spare);
        let seen = scenario.run(vec![
            Box::new(move |memory| names.packet(memory, old)),
            Box::new(again),
        ]);
        report(&format!("count {kind:?}, {over:?} follows"), seen);
        let seen = scenario.run(vec![
            Box::new(move |memory| World::new(memory, names, NOW).arrives(old, 5)),
            Box::new(again),
        ]);
        report(&format!("arrives {kind:?}, {over:?} follows"), seen);
        let seen = scenario.run(vec![
            Box::new(move |memory| World::new(memory, names, NOW).leaves(old, 5)),
            Box::new(again),
        ]);
        report(&format!("leaves {kind:?}, {over:?} follows"), seen);
    }
}

#[test]
fn both_directions_of_a_connection_count_exactly() {
    for kind in KINDS {
        for is_there in [true, false] {
            let mut names = Names::new(1);
            let spare = names.spares();
            let board = names.filled_but(&[4, 7]);
            let name = names.at(0, kind);
            let names = &names;
            if is_there {
                names.enter(&board, name, 3);
            }
            let scenario = Scenario::new(names, board, &[], &spare).exact(&[name]);
            let seen = scenario.run(vec![
                Box::new(move |memory| World::new(memory, names, NOW).arrives(name, 5)),
                Box::new(move |memory| World::new(memory, names, NOW).leaves(name, 9)),
            ]);
            report(
                &format!("both directions of {kind:?}, there: {is_there}"),
                seen,
            );
            let seen = scenario.run(vec![
                Box::new(move |memory| World::new(memory, names, NOW).arrives(name, 5)),
                Box::new(move |memory| World::new(memory, names, NOW).arrives(name, 9)),
            ]);
            report(&format!("two packets of {kind:?}, there: {is_there}"), seen);
        }
    }
}

#[test]
fn what_has_expired_gives_way_once() {
    for [kind, over] in [
        [Kind::Confirmed, Kind::Confirmed],
        [Kind::Unconfirmed, Kind::Confirmed6],
        [Kind::Confirmed6, Kind::Unconfirmed6],
    ] {
        let mut names = Names::new(2);
        let spare = names.spares();
        let board = names.filled_but(&[4]);
        let (old, new) = (names.at(0, kind), names.at(1, over));
        let names = &names;
        names.enter(&board, old, LONG);
        let scenario = Scenario::new(names, board, &[old], &spare);
        let arrives = |name: u32, now: u32| -> Script<'_> {
            Box::new(move |memory| World::new(memory, names, now).arrives(name, 5))
        };
        let sweeps = || -> Script<'_> {
            Box::new(move |memory| {
                visit(names, memory, NOW, 3..6);
            })
        };
        report(
            "expired, entered anew twice",
            scenario.run(vec![arrives(old, NOW), arrives(old, NOW)]),
        );
        report(
            "expired, taken by two",
            scenario.run(vec![arrives(old, NOW), arrives(new, NOW)]),
        );
        report(
            "expired, swept",
            scenario.run(vec![arrives(old, NOW), sweeps()]),
        );
        // A packet that came just before.
        let before = NOW.wrapping_sub(LONG) + 1;
        report(
            "refreshed and taken",
            scenario.run(vec![arrives(old, before), arrives(new, NOW)]),
        );
        report(
            "refreshed and swept",
            scenario.run(vec![arrives(old, before), sweeps()]),
        );
    }
}

#[test]
fn copies_of_rows_are_of_one_connection() {
    for [kind, over] in [
        [Kind::Confirmed, Kind::Confirmed],
        [Kind::Confirmed, Kind::Confirmed6],
        [Kind::Confirmed6, Kind::Unconfirmed6],
        [Kind::Unconfirmed, Kind::Unconfirmed],
    ] {
        let mut names = Names::new(2);
        let spare = names.spares();
        let board = names.filled_but(&[4]);
        let (old, new) = (names.at(0, kind), names.at(1, over));
        let names = &names;
        names.enter(&board, old, 0);
        let scenario = Scenario::new(names, board, &[old], &spare);
        let stands = scenario.standing[0];
        let seen = scenario.run(vec![
            Box::new(move |memory| names.read(memory, 4)),
            Box::new(move |memory| {
                names.remove(memory, old);
                names.packet(memory, new);
            }),
        ]);
        report(&format!("copy {kind:?}, {over:?} follows"), seen);
        let seen = scenario.run(vec![
            Box::new(move |memory| {
                names.look(memory, stands);
                names.find(memory, old);
            }),
            Box::new(move |memory| {
                names.remove(memory, old);
                names.packet(memory, new);
            }),
        ]);
        report(&format!("find {kind:?}, {over:?} follows"), seen);
    }
}

#[test]
fn a_cold_line_that_comes_late_harms_nobody() {
    for over in [Kind::Unconfirmed, Kind::Confirmed, Kind::Confirmed6] {
        let mut names = Names::new(2);
        let spare = names.spares();
        let board = names.filled_but(&[4]);
        let (old, new) = (names.at(0, Kind::Unconfirmed), names.at(1, over));
        let names = &names;
        names.enter(&board, old, 3);
        let scenario = Scenario::new(names, board, &[old], &spare);
        let stands = scenario.standing[0];
        let seen = scenario.run(vec![
            Box::new(move |memory| World::new(memory, names, NOW).arrives(old, 5)),
            Box::new(move |memory| {
                World::new(memory, names, NOW).arrives(new, 5);
                World::new(memory, names, NOW).arrives(new, 6);
                names.look(memory, stands);
            }),
        ]);
        report(&format!("late cold line, {over:?} follows"), seen);
    }
}

#[test]
fn the_sweep_waits_for_writers() {
    let mut names = Names::new(2);
    let spare = names.spares();
    let board = names.filled_but(&[2, 5]);
    let (old, name) = (
        names.at(0, Kind::Unconfirmed),
        names.at(0, Kind::Confirmed6),
    );
    let names = &names;
    names.enter(&board, old, 0);
    // What is entered while the sweep waits stays.
    let scenario = Scenario::new(names, board, &[old], &spare).exact(&[name]);
    let seen = scenario.run(vec![
        Box::new(move |memory| {
            let lines = visit(names, memory, NOW, [2, 5].into_iter());
            memory.wait();
            give_back(memory, &lines);
        }),
        Box::new(move |memory| {
            names.packet(memory, name);
            names.remove(memory, old);
        }),
    ]);
    report("sweep and writer", seen);
}

/// The table after a script has stopped for ever, at each of its steps.
fn stopped_at_every_step(names: &Names, board: &Board, script: &dyn Fn(&Recorder)) -> Vec<Board> {
    let board = board.clone();
    let mut answers = Vec::new();
    let mut boards = Vec::new();
    while let (Some(op), _) = Recorder::run(names.lines(), answers.clone(), script) {
        answers.push(board.perform(op));
        boards.push(board.clone());
    }
    boards
}

#[test]
fn lines_are_given_back_while_others_write() {
    let mut states = 0;
    for over in [Kind::Unconfirmed, Kind::Confirmed6] {
        let mut names = Names::new(2);
        let spare = names.spares();
        let board = names.filled_but(&[2, 5]);
        let (old, dead, other) = (
            names.at(0, Kind::Unconfirmed),
            names.at(1, over),
            names.at(0, Kind::Confirmed6),
        );
        let names = &names;
        names.enter(&board, old, 0);
        let script = |memory: &Recorder| {
            names.remove(memory, old);
            names.packet(memory, dead);
        };
        for left in stopped_at_every_step(names, &board, &script) {
            let lines = RefCell::new(visit(names, &left, NOW, 0..names.lines()));
            if lines.borrow().is_empty() {
                continue;
            }
            for name in [old, dead, other] {
                let mut scenario = Scenario::new(names, left.clone(), &[old], &spare);
                scenario.is_littered = true;
                let lines = lines.borrow().clone();
                let seen = scenario.run(vec![
                    Box::new(move |memory| give_back(memory, &lines)),
                    Box::new(move |memory| names.packet(memory, name)),
                ]);
                states += seen.states;
            }
        }
    }
    println!("giving back: {states} states");
}

#[test]
fn three_enter_one_key_where_one_has_room() {
    three_enter_one_key(&[2], &[Kind::Confirmed, Kind::Confirmed6]);
}

#[test]
#[ignore = "thirty million states take minutes"]
fn three_enter_one_key_where_all_have_room() {
    three_enter_one_key(&[2, 5, 8], &[Kind::Unconfirmed, Kind::Confirmed6]);
}

fn three_enter_one_key(free: &[u32], kinds: &[Kind]) {
    for &kind in kinds {
        let mut names = Names::new(1);
        let spare = names.spares();
        let board = names.filled_but(free);
        let name = names.at(0, kind);
        let names = &names;
        let scenario = Scenario::new(names, board, &[], &spare).exact(&[name]);
        let packet = || -> Script<'_> { Box::new(move |memory| names.packet(memory, name)) };
        let seen = scenario.run_simply(vec![packet(), packet(), packet()]);
        report(&format!("three of one key, {kind:?}"), seen);
    }
}

#[test]
fn two_enter_one_key_while_a_row_goes() {
    for kind in [Kind::Unconfirmed, Kind::Confirmed6] {
        for home in [0, 1] {
            let mut names = Names::new(2);
            let spare = names.spares();
            let board = names.filled_but(&[2, 5, 8]);
            let (old, name) = (names.at(home, Kind::Unconfirmed), names.at(0, kind));
            let names = &names;
            names.enter(&board, old, 0);
            let scenario = Scenario::new(names, board, &[old], &spare).exact(&[name]);
            let packet = || -> Script<'_> { Box::new(move |memory| names.packet(memory, name)) };
            let seen = scenario.run_simply(vec![
                packet(),
                packet(),
                Box::new(move |memory| names.remove(memory, old)),
            ]);
            report(&format!("two of one key, {kind:?}, and a removal"), seen);
        }
    }
}

#[test]
fn two_displace_one_that_is_being_confirmed() {
    let mut names = Names::new(2);
    let spare = names.spares();
    let board = names.filled_but(&[4]);
    let old = names.at(0, Kind::Unconfirmed);
    let (a, b) = (
        names.at(0, Kind::Unconfirmed),
        names.at(1, Kind::Confirmed6),
    );
    let names = &names;
    names.enter(&board, old, 1);
    let scenario = Scenario::new(names, board, &[old], &spare);
    let seen = scenario.run(vec![
        Box::new(move |memory| names.packet(memory, a)),
        Box::new(move |memory| names.packet(memory, b)),
        Box::new(move |memory| names.confirm(memory, old)),
    ]);
    report("two displace one", seen);
}
