//! What was sent past the kernel's hooks is told to the connection table.

use demux_common::{parse, sent::Sent};

use crate::{
    Result,
    bpffs::BpfFs,
    netns::NetworkNamespace,
    state::{Instance, Lock},
    tables::Sender,
};

/// Frames that were sent and have not been told of.
#[derive(Debug)]
pub(super) struct Reports {
    sender: Sender,
    waiting: Vec<Sent>,
}

impl Reports {
    /// For the instance of this network namespace.
    ///
    /// # Errors
    ///
    /// Where it is not there, or its program may not be run.
    pub(super) fn open(bpffs: &BpfFs) -> Result<Self> {
        let namespace = NetworkNamespace::current()?;
        let instance = Instance::open(bpffs, namespace.cookie(), Lock::Shared)?;
        Ok(Self {
            sender: Sender::open(instance.paths())?,
            waiting: Vec::new(),
        })
    }

    /// Keeps a frame in mind. What is no segment or datagram has no row.
    pub(super) fn note(&mut self, ifindex: u32, frame: &[u8]) {
        if let Ok(parsed) = parse::parse(frame) {
            self.waiting.push(Sent::new(ifindex, &parsed));
        }
    }

    /// Tells of all of them.
    ///
    /// # Errors
    ///
    /// Where the program cannot be run. They are forgotten also then.
    pub(super) fn hand_over(&mut self) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let result = self.sender.report(&self.waiting);
        self.waiting.clear();
        result
    }
}
