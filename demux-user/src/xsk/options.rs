//! What a set of sockets is to be like.

use std::path::PathBuf;

use super::{port::MAX_PARTS, region::Shape, socket::CopyMode};
use crate::{Error, Result};

/// What a set is to be like, and how it is got at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name of the set: what bindings name as `xsk:NAME`.
    pub name: String,
    /// The names of its interfaces, one to four. It has a socket on each of their receive queues.
    pub interfaces: Vec<String>,
    /// How it is got at.
    pub access: Access,
    /// Bytes of the chunks that frames lie in, 2048 or 4096. The first 256 bytes are the kernel's.
    pub chunk_size: u32,
    /// How many slots each ring has, a power of two from 32 to 32768. Each queue has memory for twice as many
    /// chunks.
    pub ring_size: u32,
    /// Whether frames are copied between the driver and the chunks. The daemon decides itself.
    pub copy: CopyMode,
    /// Whether frames may take several chunks: for jumbo frames. Needs Linux 6.6.
    pub multi_buffer: bool,
    /// Whether what is sent is entered into the connection table. The daemon always does.
    pub report: bool,
}

/// How a set is got at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Access {
    /// By way of the daemon where it runs, else directly.
    #[default]
    Auto,
    /// By sockets of this process, which needs CAP_NET_RAW and write access to the maps. The process has the
    /// receive queues for itself: no other can have sockets there.
    Direct,
    /// By way of the daemon, which listens on this socket file, or at its usual place.
    Daemon(Option<PathBuf>),
}

impl Options {
    /// A set with this name on one interface, and whatever else is usual: access as it is possible, chunks of
    /// 4096 bytes, rings of 2048, frames of any length.
    #[must_use]
    pub fn new(name: impl Into<String>, interface: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            interfaces: vec![interface.into()],
            access: Access::Auto,
            chunk_size: 4096,
            ring_size: 2048,
            copy: CopyMode::Auto,
            multi_buffer: true,
            report: true,
        }
    }

    /// The shape of the memory of each queue.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for sizes that cannot be.
    pub(super) fn shape(&self) -> Result<Shape> {
        if !matches!(self.chunk_size, 2048 | 4096) {
            return Err(Error::invalid(
                "chunk size",
                self.chunk_size.to_string(),
                "a chunk has 2048 or 4096 bytes",
            ));
        }
        let is_large_enough = self.ring_size as usize >= 2 * MAX_PARTS;
        let shape = Shape {
            chunk_size: self.chunk_size,
            chunks: self.ring_size.saturating_mul(2),
            ring_size: self.ring_size,
        };
        if !is_large_enough || !shape.is_sound() {
            return Err(Error::invalid(
                "ring size",
                self.ring_size.to_string(),
                "a ring has a power of two of slots, from 32 to 32768",
            ));
        }
        Ok(shape)
    }
}
