//! Frames from a capture file: pcap in either byte order and precision, and pcapng.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader,
    traits::{PcapNGPacketBlock as _, PcapReaderIterator},
};

use crate::{Error, Result};

/// Room for the largest packet that a capture may hold.
const CAPACITY: usize = 1 << 20;

/// A capture file, read frame by frame.
pub struct Capture {
    path: PathBuf,
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Those of the interfaces of the present section; a pcap file has one of each.
    link_types: Vec<Linktype>,
}

/// A frame, as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The bytes that were kept.
    pub frame: Vec<u8>,
    /// How many bytes it had on the wire.
    pub length: u32,
}

impl Captured {
    /// Whether bytes of the frame are missing.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        (self.frame.len() as u64) < u64::from(self.length)
    }
}

impl Capture {
    /// Opens a capture file.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened, and [`Error::BadCapture`] where it is none.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |source| Error::io(format!("read {}", path.display()), source);
        let file = File::open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.is_dir() {
            return Err(failed(std::io::Error::from_raw_os_error(libc::EISDIR)));
        }
        Self::new(path, Full(file))
    }

    fn new(path: &Path, reader: impl Read + Send + 'static) -> Result<Self> {
        let reader = create_reader(CAPACITY, reader).map_err(|error| {
            damaged(
                path,
                match error {
                    PcapError::ReadError => "it cannot be read",
                    PcapError::Eof => "it is empty",
                    _ => "it is neither pcap nor pcapng",
                },
            )
        })?;
        Ok(Self {
            path: path.into(),
            reader,
            link_types: Vec::new(),
        })
    }

    /// The next frame; `None` after the last.
    ///
    /// # Errors
    ///
    /// [`Error::BadCapture`] where the file ends within a packet, is damaged, or holds frames of
    /// something else than Ethernet.
    pub fn next_frame(&mut self) -> Result<Option<Captured>> {
        loop {
            let available = self.reader.data().len();
            let (size, captured) = match self.reader.next() {
                Ok((size, block)) => (size, read(&self.path, &mut self.link_types, &block)?),
                Err(PcapError::Eof) => return Ok(None),
                Err(PcapError::Incomplete(_)) => {
                    // What does not fit in the buffer is not asked for again and again.
                    if self.reader.refill().is_err() {
                        return Err(damaged(&self.path, "it cannot be read"));
                    }
                    if self.reader.data().len() == available && !self.reader.reader_exhausted() {
                        return Err(damaged(&self.path, "a packet's length is wrong"));
                    }
                    continue;
                }
                Err(error) => {
                    let reason = match error {
                        PcapError::UnexpectedEof => "it ends within a packet",
                        PcapError::BufferTooSmall => "a packet's length is wrong",
                        _ => "it is damaged",
                    };
                    return Err(damaged(&self.path, reason));
                }
            };
            self.reader.consume(size);
            if let Some(captured) = captured {
                return Ok(Some(captured));
            }
        }
    }
}

/// Takes in one block, which holds a frame or tells of those to come.
fn read(
    path: &Path,
    link_types: &mut Vec<Linktype>,
    block: &PcapBlockOwned<'_>,
) -> Result<Option<Captured>> {
    let (interface, data, length) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *link_types = vec![header.network];
            return Ok(None);
        }
        PcapBlockOwned::Legacy(packet) => (0, packet.data, packet.origlen),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            link_types.clear();
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            link_types.push(interface.linktype);
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            (packet.if_id as usize, packet.packet_data(), packet.origlen)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            (0, packet.packet_data(), packet.origlen)
        }
        PcapBlockOwned::NG(_) => return Ok(None),
    };
    match link_types.get(interface) {
        Some(&Linktype::ETHERNET) => Ok(Some(Captured {
            frame: data.to_vec(),
            length,
        })),
        // The upper half of the field may tell of checksums.
        Some(&Linktype(number)) if number & 0xffff == Linktype::ETHERNET.0 => Ok(Some(Captured {
            frame: data.to_vec(),
            length,
        })),
        Some(Linktype(number)) => Err(damaged(
            path,
            &format!("it was not captured on Ethernet (link type {number})"),
        )),
        None => Err(damaged(path, "a packet of an unknown interface is in it")),
    }
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::BadCapture {
        path: path.into(),
        reason: reason.into(),
    }
}

/// Reads until the buffer is full or the end has come: the parser takes a short first read, such as
/// from a pipe, for a short file.
struct Full<R>(R);

impl<R: Read> Read for Full<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests;
