//! Reporting what AF_XDP sockets have sent: through the program `demux_sent`, run for that.

use std::os::fd::{AsFd as _, OwnedFd};

use demux_common::{
    layout::program,
    sent::{BATCH, Preamble, Sent},
};
use zerocopy::IntoBytes as _;

use super::Tables;
use crate::{Error, Result, bpf, object, state::Paths};

/// The program that enters what was sent into the connection table.
#[derive(Debug)]
pub struct Sender {
    program: OwnedFd,
    packet: Vec<u8>,
}

impl Sender {
    /// Loads and pins the program, if the instance has not got it yet. The instance must be locked to
    /// write.
    ///
    /// # Errors
    ///
    /// What the verifier or the BPF file system refuses.
    pub fn provide(paths: &Paths, tables: &Tables) -> Result<()> {
        let pin = paths.program(program::SENT);
        if pin.exists() {
            return Ok(());
        }
        let mut ebpf = object::open(paths, tables)?;
        object::load_program(&mut ebpf, program::SENT, &pin)
    }

    /// Opens the program of an instance, which has it since a set of sockets was first claimed.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened, as without permission.
    pub fn open(paths: &Paths) -> Result<Self> {
        let path = paths.program(program::SENT);
        let program = bpf::object_get(&path, false)
            .map_err(|source| Error::io(format!("open {}", path.display()), source))?;
        Ok(Self {
            program,
            packet: Vec::new(),
        })
    }

    /// Enters packets that were sent, in their order.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run.
    pub fn report(&mut self, sent: &[Sent]) -> Result<()> {
        for batch in sent.chunks(BATCH) {
            let preamble = Preamble {
                ticks: 0,
                count: batch.len() as u64,
            };
            self.packet.clear();
            self.packet.extend_from_slice(preamble.as_bytes());
            self.packet.extend_from_slice(batch.as_bytes());
            bpf::test_run(self.program.as_fd(), &self.packet, 0, None, 1)
                .map_err(|source| Error::io("run the program demux_sent".to_owned(), source))?;
        }
        Ok(())
    }
}
