//! Changing the connection table: through the program `demux_control`, run for that.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, OwnedFd},
};

pub use demux_common::command::Outcome;
use demux_common::{
    command::{BATCH, Command, Operation, Preamble},
    connection::ConnectionKey,
    layout::program,
    ports::{Answer, Request},
    table::{Head, Occupancy},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::Tables;
use crate::{Error, Result, bpf, state::Paths};

/// The program that changes the connection table.
#[derive(Debug)]
pub struct Control {
    program: OwnedFd,
}

/// What a sweep has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows that had expired, and were removed.
    pub expired: u64,
    /// Lines that a writer had left half-way, and were given back.
    pub given_back: u64,
}

impl Control {
    /// Opens the program of an instance.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened, as without permission.
    pub fn open(paths: &Paths) -> Result<Self> {
        let path = paths.program(program::CONTROL);
        let program = bpf::object_get(&path, false).map_err(|source| {
            Error::unchangeable(format!("run {}", path.display()), &path, source)
        })?;
        Ok(Self { program })
    }

    /// Executes commands, and returns what became of each, in their order.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn execute(&self, commands: &[Command]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(commands.len());
        for batch in commands.chunks(BATCH) {
            let (_, packet) = self.run(batch)?;
            for command in packet.chunks_exact(size_of::<Command>()) {
                let (_, rest) = command.split_at(size_of::<u32>());
                outcomes.push(match rest.first() {
                    Some(1) => Outcome::Done,
                    Some(2) => Outcome::Present,
                    Some(3) => Outcome::Full,
                    Some(4) => Outcome::Absent,
                    _ => Outcome::None,
                });
            }
        }
        Ok(outcomes)
    }

    /// Reserves a port for each request, and returns the answers in their order.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn allocate(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let commands: Vec<Command> = requests.iter().map(|&r| Command::allocate(r)).collect();
        let answers = self.answers(&commands)?;
        Ok(answers.into_iter().map(Answer::unpack).collect())
    }

    /// Gives back the local port of each four-tuple; says of each whether it was only reserved.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn release(&self, keys: &[ConnectionKey]) -> Result<Vec<bool>> {
        let commands: Vec<Command> = keys.iter().map(|&key| Command::release(key)).collect();
        let answers = self.answers(&commands)?;
        Ok(answers.into_iter().map(|answer| answer != 0).collect())
    }

    fn answers(&self, commands: &[Command]) -> Result<Vec<u64>> {
        let mut answers = Vec::with_capacity(commands.len());
        for batch in commands.chunks(BATCH) {
            let (_, packet) = self.run(batch)?;
            for command in packet.chunks_exact(size_of::<Command>()) {
                let (_, rest) = command.split_at(offset_of!(Command, head));
                let (answer, _) = u64::read_from_prefix(rest).expect("longer than its field");
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// The kernel's tick counter.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn ticks(&self) -> Result<u64> {
        self.run(&[]).map(|(preamble, _)| preamble.ticks)
    }

    fn run(&self, commands: &[Command]) -> Result<(Preamble, Vec<u8>)> {
        let failed = |source| Error::io("run the program demux_control".to_owned(), source);
        let mut packet = Preamble {
            ticks: 0,
            count: commands.len() as u64,
        }
        .as_bytes()
        .to_vec();
        for command in commands {
            packet.extend_from_slice(command.as_bytes());
        }
        let outcome =
            bpf::test_run(self.program.as_fd(), &packet, packet.len(), None, 1).map_err(failed)?;
        let (preamble, rest) = Preamble::read_from_prefix(&outcome.data_out)
            .map_err(|_| failed(std::io::ErrorKind::UnexpectedEof.into()))?;
        Ok((preamble, rest.to_vec()))
    }

    /// Removes rows that have expired, and gives back lines that a writer has left half-way.
    ///
    /// # Errors
    ///
    /// Where the table cannot be read or the program cannot be run.
    pub fn sweep(&self, tables: &Tables) -> Result<Swept> {
        self.sweep_in_turns(tables, || true)
    }

    /// As [`Control::sweep`], in turns of a few thousand lines. After each turn it asks `go_on`, which
    /// may take its time, whether to go on.
    ///
    /// # Errors
    ///
    /// As [`Control::sweep`].
    pub fn sweep_in_turns(
        &self,
        tables: &Tables,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Swept> {
        let config = tables.config()?;
        let mut swept = Swept::default();
        let mut expired = Vec::new();
        let mut unreached = Vec::new();
        let mut is_stopped = false;
        tables.for_each_batch(|first, lines, is_entered| {
            if is_stopped {
                return Ok(());
            }
            let now = config.clock.at(super::now());
            for (offset, line) in lines.iter().enumerate() {
                let index = first + offset as u32;
                let is_reached = line.occupancy == Occupancy::Live && is_entered(offset);
                if line.occupancy != Occupancy::Empty && !is_reached {
                    unreached.push((index, line.head()));
                } else if is_reached {
                    let idle = demux_common::connection::since(line.last_seen, now);
                    if idle >= config.lifetimes[line.state as usize] {
                        expired.push(Command::at(Operation::Expire, index, line.head()));
                    }
                }
            }
            swept.expired += done(&self.execute(&expired)?);
            expired.clear();
            is_stopped = !go_on();
            Ok(())
        })?;
        swept.given_back = self.give_back(&unreached)?;
        Ok(swept)
    }

    fn give_back(&self, lines: &[(u32, Head)]) -> Result<u64> {
        if lines.is_empty() {
            return Ok(0);
        }
        // Whoever was writing them when they were read has ended after this.
        bpf::synchronize().map_err(|source| {
            Error::io("wait for running programs (membarrier)".to_owned(), source)
        })?;
        let commands: Vec<Command> = lines
            .iter()
            .map(|&(index, head)| Command::at(Operation::GiveBack, index, head))
            .collect();
        Ok(done(&self.execute(&commands)?))
    }
}

fn done(outcomes: &[Outcome]) -> u64 {
    outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Done)
        .count() as u64
}
