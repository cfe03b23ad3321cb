//! An AF_XDP socket, by its options.
//!
//! The order is that of the kernel (`net/xdp/xsk.c`): memory is registered, rings are made, and then the
//! socket is bound to one receive queue. A queue has one memory (UMEM). Further sockets of the same
//! process can be bound to the queue sharing it: they have rings for rx and tx of their own, while the fill
//! and the completion ring are those of the first.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send,
        socket_with,
        sockopt::{
            set_xdp_rx_ring_size, set_xdp_tx_ring_size, set_xdp_umem_completion_ring_size,
            set_xdp_umem_fill_ring_size, set_xdp_umem_reg, xdp_mmap_offsets, xdp_options,
            xdp_statistics,
        },
        xdp::{
            SocketAddrXdp, SocketAddrXdpFlags, SocketAddrXdpWithSharedUmem, XDP_PGOFF_RX_RING,
            XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XDP_UMEM_PGOFF_FILL_RING,
            XdpMmapOffsets, XdpOptionsFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
        },
    },
};

use super::{
    area::Area,
    mapping::Mapping,
    queue::Place,
    ring::{Consumer, Descriptor, Layout, Producer, Ring, Slot},
};
use crate::{Error, Result, capability::Capability, kernel::Version};

/// The first kernel that receives and sends frames in several chunks (`XDP_USE_SG`).
const MULTI_BUFFER: Version = Version { major: 6, minor: 6 };

/// Whether frames are copied between the driver and the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CopyMode {
    /// Not copied where the driver can do without, else copied.
    #[default]
    Auto,
    /// Copied.
    Copy,
    /// Not copied; binding fails where the driver cannot do that.
    ZeroCopy,
}

/// How a socket is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// Whether frames are copied.
    pub copy: CopyMode,
    /// Whether frames may be longer than a chunk and take several.
    pub multi_buffer: bool,
}

/// What the kernel has counted for a socket: `struct xdp_statistics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Frames that were dropped for other reasons than those below, such as being too long.
    pub rx_dropped: u64,
    /// Addresses in the fill ring that were none.
    pub rx_invalid: u64,
    /// Descriptors in the tx ring that were none.
    pub tx_invalid: u64,
    /// Frames that were dropped because the rx ring was full.
    pub rx_ring_full: u64,
    /// How often the fill ring was empty, which drops a frame.
    pub fill_ring_empty: u64,
    /// How often the tx ring was empty when it was looked at.
    pub tx_ring_empty: u64,
}

/// An AF_XDP socket. The kernel keeps what it was told until the last descriptor is closed.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    offsets: XdpMmapOffsets,
}

impl Socket {
    /// A new socket without memory, rings or queue.
    ///
    /// # Errors
    ///
    /// [`Error::MissingCapability`] without CAP_NET_RAW, [`Error::Unsupported`] where the kernel has no
    /// AF_XDP.
    pub fn new() -> Result<Self> {
        const OPEN: &str = "open an AF_XDP socket";
        let fd = socket_with(
            AddressFamily::XDP,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| match errno {
            Errno::AFNOSUPPORT => Error::Unsupported {
                operation: OPEN.into(),
                reason: "this kernel was built without CONFIG_XDP_SOCKETS".into(),
            },
            errno => Error::privileged(OPEN, errno, Capability::NetRaw),
        })?;
        Self::from_fd(fd)
    }

    /// A socket that another process may have made.
    ///
    /// # Errors
    ///
    /// Where it is none of AF_XDP.
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let offsets =
            xdp_mmap_offsets(&fd).map_err(|errno| Error::io("use a socket of AF_XDP", errno))?;
        Ok(Self { fd, offsets })
    }

    /// Registers the memory of its frames. The socket does not keep it: whoever uses the chunks does.
    ///
    /// # Errors
    ///
    /// [`Error::LockedMemory`] where the caller may not lock as much; else as setsockopt(2).
    pub fn register(&self, area: &Area) -> Result<()> {
        let value = XdpUmemReg {
            addr: area.start().as_ptr().expose_provenance() as u64,
            len: area.len() as u64,
            chunk_size: area.chunk_size(),
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(&self.fd, value).map_err(|errno| match errno {
            Errno::NOBUFS | Errno::NOMEM | Errno::AGAIN => Error::LockedMemory {
                operation: "register the memory of an AF_XDP socket".into(),
                bytes: area.len() as u64,
            },
            errno => Error::io("register the memory of an AF_XDP socket", errno),
        })
    }

    /// Makes the fill ring. Only of the socket that has registered the memory.
    ///
    /// # Errors
    ///
    /// EINVAL where the size is no power of two, or where there is such a ring already; ENOMEM.
    pub fn fill(&self, size: u32) -> Result<Producer<u64>> {
        set_xdp_umem_fill_ring_size(&self.fd, size).map_err(|errno| no_ring("fill", errno))?;
        self.ring("fill", self.offsets.fr, XDP_UMEM_PGOFF_FILL_RING, size)
            .map(Ring::producer)
    }

    /// Makes the completion ring. Only of the socket that has registered the memory.
    ///
    /// # Errors
    ///
    /// As [`Socket::fill`].
    pub fn completion(&self, size: u32) -> Result<Consumer<u64>> {
        set_xdp_umem_completion_ring_size(&self.fd, size)
            .map_err(|errno| no_ring("completion", errno))?;
        let at = XDP_UMEM_PGOFF_COMPLETION_RING;
        self.ring("completion", self.offsets.cr, at, size)
            .map(Ring::consumer)
    }

    /// Makes the ring of frames that arrive.
    ///
    /// # Errors
    ///
    /// As [`Socket::fill`].
    pub fn rx(&self, size: u32) -> Result<Consumer<Descriptor>> {
        set_xdp_rx_ring_size(&self.fd, size).map_err(|errno| no_ring("rx", errno))?;
        self.ring("rx", self.offsets.rx, XDP_PGOFF_RX_RING, size)
            .map(Ring::consumer)
    }

    /// Makes the ring of frames to be sent.
    ///
    /// # Errors
    ///
    /// As [`Socket::fill`].
    pub fn tx(&self, size: u32) -> Result<Producer<Descriptor>> {
        set_xdp_tx_ring_size(&self.fd, size).map_err(|errno| no_ring("tx", errno))?;
        self.ring("tx", self.offsets.tx, XDP_PGOFF_TX_RING, size)
            .map(Ring::producer)
    }

    fn ring<T: Slot>(
        &self,
        name: &str,
        offsets: XdpRingOffset,
        at: u64,
        size: u32,
    ) -> Result<Ring<T>> {
        let flags = offsets.flags.ok_or_else(|| Error::Unsupported {
            operation: "use AF_XDP".into(),
            reason: "Linux before 5.4 has no flags in its rings".into(),
        })?;
        let layout = Layout {
            producer: offsets.producer,
            consumer: offsets.consumer,
            flags,
            slots: offsets.desc,
        };
        let len = layout.slots as usize + size as usize * size_of::<T>();
        let mapping =
            Mapping::of(self.fd.as_fd(), at, len).map_err(|source| no_ring(name, source))?;
        Ring::new(&Arc::new(mapping), layout, size).ok_or_else(|| {
            Error::unexpected(
                format!("use the {name} ring of an AF_XDP socket"),
                format!("the kernel has it at {layout:?}"),
            )
        })
    }

    /// Binds the socket to a queue, which thereby has its memory. It must have all four rings.
    ///
    /// # Errors
    ///
    /// [`Error::QueueBusy`] where the queue has the memory of another socket, which a socket keeps for a
    /// moment after it was closed. [`Error::Unsupported`] where the driver cannot do without copying, or the
    /// kernel knows no frames in several chunks. Else as bind(2).
    pub fn bind(&self, place: &Place, how: Binding) -> Result<()> {
        let mut flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        match how.copy {
            CopyMode::Auto => {}
            CopyMode::Copy => flags |= SocketAddrXdpFlags::XDP_COPY,
            CopyMode::ZeroCopy => flags |= SocketAddrXdpFlags::XDP_ZEROCOPY,
        }
        if how.multi_buffer {
            flags |= SocketAddrXdpFlags::XDP_USE_SG;
        }
        let address = SocketAddrXdp::new(flags, place.id.ifindex, place.id.queue);
        bind(&self.fd, &address).map_err(|errno| not_bound(place, Some(how), errno))
    }

    /// Binds the socket to the queue of `first`, whose memory and fill and completion rings it shares. How
    /// that one is bound decides about copying and long frames for both.
    ///
    /// # Errors
    ///
    /// As bind(2).
    pub fn bind_sharing(&self, place: &Place, first: &Self) -> Result<()> {
        let flags = SocketAddrXdpFlags::XDP_SHARED_UMEM;
        let address = SocketAddrXdpWithSharedUmem {
            addr: SocketAddrXdp::new(flags, place.id.ifindex, place.id.queue),
            shared_umem_fd: first.fd.as_fd(),
        };
        bind(&self.fd, &address).map_err(|errno| not_bound(place, None, errno))
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn statistics(&self) -> Result<Statistics> {
        let read = xdp_statistics(&self.fd)
            .map_err(|errno| Error::io("read the statistics of an AF_XDP socket", errno))?;
        Ok(Statistics {
            rx_dropped: read.rx_dropped,
            rx_invalid: read.rx_invalid_descs,
            tx_invalid: read.tx_invalid_descs,
            // Since Linux 5.9.
            rx_ring_full: read.rx_ring_full.unwrap_or(0),
            fill_ring_empty: read.rx_fill_ring_empty_descs.unwrap_or(0),
            tx_ring_empty: read.tx_ring_empty_descs.unwrap_or(0),
        })
    }

    /// Whether frames are not copied between the driver and the area. To be asked once it is bound.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn is_zero_copy(&self) -> Result<bool> {
        xdp_options(&self.fd)
            .map(|options| options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
            .map_err(|errno| Error::io("read the options of an AF_XDP socket", errno))
    }

    /// Has the kernel look at the tx ring. It may leave some for the next call.
    ///
    /// # Errors
    ///
    /// ENETDOWN where the interface is down, ENXIO where it is gone.
    pub fn kick_tx(&self) -> io::Result<()> {
        passing(send(&self.fd, &[], SendFlags::DONTWAIT).map(drop))
    }

    /// Has the driver look at the fill ring.
    ///
    /// # Errors
    ///
    /// As [`Socket::kick_tx`].
    pub fn kick_rx(&self) -> io::Result<()> {
        passing(recv(&self.fd, &mut [0; 0], RecvFlags::DONTWAIT).map(drop))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What passes by itself is no failure: the rings keep what is in them for the next call.
fn passing(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Ok(()) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn no_ring(name: &str, source: impl Into<io::Error>) -> Error {
    Error::io(format!("make the {name} ring of an AF_XDP socket"), source)
}

/// Why a socket could not be bound; `how` is `None` for one that shares.
fn not_bound(place: &Place, how: Option<Binding>, errno: Errno) -> Error {
    let operation = format!("bind an AF_XDP socket to {place}");
    let multi_buffer = how.is_some_and(|how| how.multi_buffer);
    match errno {
        Errno::BUSY => Error::QueueBusy {
            queue: place.to_string(),
        },
        Errno::OPNOTSUPP if how.is_some_and(|how| how.copy == CopyMode::ZeroCopy) => {
            Error::Unsupported {
                operation,
                reason: if multi_buffer {
                    "its driver has no zero copy, or none of frames in several buffers".into()
                } else {
                    "its driver has no zero copy".into()
                },
            }
        }
        Errno::INVAL if multi_buffer && Version::running().is_ok_and(|at| at < MULTI_BUFFER) => {
            Error::Unsupported {
                operation: format!("{operation} for frames in several buffers"),
                reason: format!(
                    "that needs Linux {MULTI_BUFFER}; without multi_buffer it works for frames of one chunk"
                ),
            }
        }
        Errno::INVAL => Error::invalid(
            "queue",
            place.to_string(),
            "the interface has no such queue, or the socket is bound already",
        ),
        errno => Error::io(operation, errno),
    }
}
