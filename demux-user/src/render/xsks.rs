//! AF_XDP sockets, one a row.

use serde::Serialize;

use super::list::{Column, Row, left, right};

/// A socket of a set, or a set that nobody has opened.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct XskRow {
    /// The name of the set.
    pub name: String,
    /// `free` where nobody has opened it, `dead` where its owner has ended, `direct` where the owner
    /// holds the socket, `daemon` where the daemon does.
    pub access: &'static str,
    /// The process that owns it.
    pub pid: Option<u32>,
    /// The name of that process.
    pub process: Option<String>,
    /// The user of that process.
    pub uid: Option<u32>,
    /// The interface.
    pub iface: Option<String>,
    /// The receive queue of the interface.
    pub queue: Option<u32>,
    /// Whether packets reach a socket there.
    pub published: bool,
    /// Whether frames are not copied by the kernel.
    pub zero_copy: Option<bool>,
    /// The longest frame that it takes.
    pub longest: Option<u32>,
    /// Chunks that wait for frames to come; `None` where the caller may not look into the holder.
    pub fill: Option<u32>,
    /// Frames that were dropped since its rx ring was full.
    pub rx_ring_full: Option<u64>,
    /// How often there was no chunk for a frame.
    pub fill_ring_empty: Option<u64>,
    /// Frames that were dropped for other reasons.
    pub rx_dropped: Option<u64>,
    /// Descriptors of its owner that were none.
    pub invalid_descriptors: Option<u64>,
    /// Which opening of the set this is.
    pub generation: u32,
}

impl XskRow {
    /// Frames that were lost at this socket.
    fn drops(&self) -> Option<u64> {
        Some(self.rx_ring_full? + self.fill_ring_empty? + self.rx_dropped?)
    }
}

impl Row for XskRow {
    const NOUN: &'static str = "xsks";
    const COLUMNS: &'static [Column] = &[
        left("NAME"),
        left("ACCESS"),
        right("PID"),
        left("PROCESS"),
        left("IFACE"),
        right("QUEUE"),
        left("ZERO-COPY"),
        right("FILL"),
        right("DROPS"),
    ];

    fn cells(&self) -> Vec<String> {
        fn or_dash<T: ToString>(value: Option<T>) -> String {
            value.map_or_else(|| "-".to_owned(), |value| value.to_string())
        }
        let zero_copy = self.zero_copy.map(|is| if is { "yes" } else { "no" });
        vec![
            self.name.clone(),
            self.access.into(),
            or_dash(self.pid),
            or_dash(self.process.clone()),
            or_dash(self.iface.clone()),
            or_dash(self.queue),
            or_dash(zero_copy),
            or_dash(self.fill),
            or_dash(self.drops()),
        ]
    }
}
