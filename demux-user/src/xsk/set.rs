//! A named set of sockets, as a user-space stack uses it.

use std::{
    env, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    direct,
    options::{Access, Options},
    port::{Peer, Port},
    queue::{Place, QueueId},
    received::Received,
    registry::Claim,
    remote::{self, Connection, Remote},
    reports::Reports,
};
use crate::{Error, Result, bpffs::BpfFs, daemon::protocol::Open};

/// How long the kernel is left alone that did not take all that was sent.
const PAUSE: Duration = Duration::from_millis(1);

/// How often a waiting set asks whether its interfaces are still there: the kernel says nothing unasked.
const CHECK: Duration = Duration::from_secs(1);

/// How often nothing must have been found, in a row, for the same.
const CHECK_IDLE: u32 = 1024;

/// A set of sockets, one for each receive queue of each of its interfaces, to which bindings `--to xsk:NAME`
/// send packets. It is closed when it is dropped; packets then go to the fallback of their binding.
///
/// A loop takes what there is, answers, flushes, and waits:
///
/// ```no_run
/// # use demux_user::xsk::{Options, Set};
/// # fn main() -> demux_user::Result<()> {
/// let mut set = Set::open(&Options::new("echo", "eth0"))?;
/// loop {
///     while let Some(received) = set.receive()? {
///         let (queue, answer) = (received.queue(), received.frame().to_vec());
///         set.send(queue, &answer)?;
///     }
///     set.wait(None)?;
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Set {
    // Dropped first: nothing arrives any more once the others go.
    hold: Hold,
    queues: Vec<Queue>,
    ports: Vec<Port>,
    traffic: Vec<Traffic>,
    longest_frame: usize,
    /// The port that is looked at first.
    next: usize,
    /// How often nothing was found in a row.
    idle: u32,
    reports: Option<Reports>,
    /// All ports by their numbers, and the connection to the daemon behind them.
    epoll: OwnedFd,
}

/// What keeps a set.
#[derive(Debug)]
enum Hold {
    Direct {
        /// Gives the set back when it is dropped.
        _claim: Claim,
    },
    Daemon(Connection),
}

/// A receive queue with a socket of the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Which it is.
    pub id: QueueId,
    /// The name of its interface.
    pub interface: String,
    /// Whether the driver puts frames straight into the memory of the socket.
    pub zero_copy: bool,
    /// Whose socket it is.
    pub via: Via,
}

/// Whose sockets a set has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// This process's.
    Direct,
    /// The daemon's, which copies frames between the memory of its sockets and that of this process.
    Daemon,
}

/// What became of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way with the next flush.
    Queued,
    /// There was no room. Flush, and try again after a while.
    Full,
}

/// What has happened on a queue since the set was opened. What happened to frames that never reached the
/// set is among the counters of its bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueStatistics {
    /// Which it is.
    pub id: QueueId,
    /// Frames that arrived.
    pub rx_packets: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that were sent.
    pub tx_packets: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Arrived frames that were too long, or that there was no memory for.
    pub rx_dropped: u64,
    /// Arrived frames for which the rx ring had no room: they were not taken in time.
    pub rx_ring_full: u64,
    /// Arrived frames for which the fill ring had no chunk.
    pub fill_ring_empty: u64,
    /// Descriptors or addresses that one side could not understand; 0 unless there is a fault in it.
    pub invalid: u64,
    /// Frames that the daemon did not send, because their source is no binding's of this set.
    pub tx_refused: u64,
}

/// What passed through a port.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    rx_packets: u64,
    rx_bytes: u64,
    tx_packets: u64,
    tx_bytes: u64,
}

impl Set {
    /// Opens a set in the present network namespace. The BPF file system is the usual one, or that which
    /// `DEMUX_BPFFS` names; the daemon listens at its usual place, or where `DEMUX_SOCKET` says.
    ///
    /// # Errors
    ///
    /// [`Error::SocketSetTaken`] where a living process has the set; [`Error::QueueBusy`] where another has
    /// a queue; [`Error::NotLoaded`], [`Error::NotAttached`], [`Error::UnknownInterface`];
    /// [`Error::MissingCapability`] and [`Error::LockedMemory`] for what this process may not;
    /// [`Error::Unsupported`]; [`Error::NoDaemon`] and [`Error::Refused`] by way of the daemon;
    /// [`Error::InvalidArgument`].
    pub fn open(options: &Options) -> Result<Self> {
        Self::open_with(options, None)
    }

    /// As [`Set::open`], of the instance below a BPF file system.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn open_at(options: &Options, bpffs: &BpfFs) -> Result<Self> {
        Self::open_with(options, Some(bpffs))
    }

    fn open_with(options: &Options, bpffs: Option<&BpfFs>) -> Result<Self> {
        match &options.access {
            Access::Direct => Self::open_direct(options, bpffs),
            Access::Daemon(Some(path)) => Self::open_remote(options, path),
            Access::Daemon(None) => Self::open_remote(options, &remote::default_socket()),
            Access::Auto => match Self::open_remote(options, &remote::default_socket()) {
                Err(Error::NoDaemon(_)) => Self::open_direct(options, bpffs),
                result => result,
            },
        }
    }

    fn open_direct(options: &Options, bpffs: Option<&BpfFs>) -> Result<Self> {
        let bpffs = match bpffs {
            Some(bpffs) => bpffs.clone(),
            None => {
                let place = env::var_os(BpfFs::ENVIRONMENT).map(PathBuf::from);
                BpfFs::find(place.as_deref())?
            }
        };
        let opened = direct::open(options, &bpffs)?;
        let reports = options.report.then(|| Reports::open(&bpffs)).transpose()?;
        let (queues, ports): (Vec<_>, Vec<_>) = opened
            .queues
            .into_iter()
            .map(|queue| {
                let named = Queue::new(queue.place, queue.zero_copy, Via::Direct);
                (named, queue.port)
            })
            .unzip();
        let longest = ports.iter().map(Port::longest_frame).min();
        let hold = Hold::Direct {
            _claim: opened.claim,
        };
        Self::assemble(hold, queues, ports, longest.unwrap_or(0), reports)
    }

    fn open_remote(options: &Options, path: &Path) -> Result<Self> {
        options.shape()?;
        let opened = Remote::open(
            path,
            Open {
                set: options.name.clone(),
                interfaces: options.interfaces.clone(),
                ring_size: options.ring_size,
                chunk_size: options.chunk_size,
                multi_buffer: options.multi_buffer,
            },
        )?;
        let (queues, ports) = opened
            .queues
            .into_iter()
            .map(|queue| {
                let named = Queue::new(queue.place, queue.zero_copy, Via::Daemon);
                (named, queue.port)
            })
            .unzip();
        let hold = Hold::Daemon(opened.connection);
        Self::assemble(hold, queues, ports, opened.longest_frame, None)
    }

    fn assemble(
        hold: Hold,
        queues: Vec<Queue>,
        ports: Vec<Port>,
        longest_frame: usize,
        reports: Option<Reports>,
    ) -> Result<Self> {
        let failed = |errno| Error::io("watch the sockets of a set", errno);
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let watch = |number: usize, fd: BorrowedFd<'_>| {
            let data = EventData::new_u64(number as u64);
            epoll::add(&epoll, fd, data, EventFlags::IN).map_err(failed)
        };
        for (number, port) in ports.iter().enumerate() {
            watch(number, port.as_fd())?;
        }
        if let Hold::Daemon(connection) = &hold {
            watch(ports.len(), connection.as_fd())?;
        }
        Ok(Self {
            hold,
            traffic: vec![Traffic::default(); ports.len()],
            queues,
            ports,
            longest_frame,
            next: 0,
            idle: 0,
            reports,
            epoll,
        })
    }

    /// Its queues.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The longest frame that can arrive and be sent, in bytes.
    #[must_use]
    pub fn longest_frame(&self) -> usize {
        self.longest_frame
    }

    /// The next frame that has arrived on any of the queues, each of which gets its turn; `None` where there is
    /// none. Never waits.
    ///
    /// # Errors
    ///
    /// Where the interface or the daemon is gone, or the set was lost.
    pub fn receive(&mut self) -> Result<Option<Received<'_>>> {
        let count = self.ports.len();
        for offset in 0..count {
            let number = (self.next + offset) % count;
            if !self.ports[number].receive()? {
                continue;
            }
            self.next = (number + 1) % count;
            self.idle = 0;
            let frame = self.ports[number].frame();
            let traffic = &mut self.traffic[number];
            traffic.rx_packets += 1;
            traffic.rx_bytes += frame.len() as u64;
            return Ok(Some(Received::new(frame, self.queues[number].id)));
        }
        // Whoever waits on the descriptor is told for ever of a daemon that has ended.
        self.idle = self.idle.wrapping_add(1);
        if self.idle % CHECK_IDLE == 2 {
            self.look(Some(Duration::ZERO))?;
            self.check()?;
        }
        self.may_sleep();
        Ok(None)
    }

    /// Says so if nothing can arrive any more on a queue. [`Set::receive`], [`Set::wait`] and [`Set::ready`]
    /// ask now and then; who waits on the descriptor, which does not tell that an interface is gone, should ask
    /// by a timer.
    ///
    /// # Errors
    ///
    /// Where an interface or the daemon is gone, or the set was lost. An interface that is down may come up
    /// again.
    pub fn check(&self) -> Result<()> {
        if let Hold::Daemon(connection) = &self.hold {
            connection.check()?;
        }
        for (number, port) in self.ports.iter().enumerate() {
            if let Peer::Kernel(socket) = port.peer()
                && let Err(source) = socket.kick_rx()
                && source.raw_os_error() == Some(libc::ENXIO)
            {
                return Err(self.failed(number, source));
            }
        }
        Ok(())
    }

    /// Copies a frame, which must be complete with its checksums, to be sent by the interface of a queue. It
    /// leaves with the next [`Set::flush`] or [`Set::wait`].
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a queue that is not the set's, and for a frame that is longer than
    /// [`Set::longest_frame`] or has no Ethernet header.
    pub fn send(&mut self, by: QueueId, frame: &[u8]) -> Result<Sent> {
        let Some(number) = self.queues.iter().position(|queue| queue.id == by) else {
            return Err(Error::invalid(
                "queue",
                by.queue.to_string(),
                format!(
                    "the set has none of that number on the interface {}",
                    by.ifindex
                ),
            ));
        };
        if !self.ports[number].send(frame)? {
            return Ok(Sent::Full);
        }
        let traffic = &mut self.traffic[number];
        traffic.tx_packets += 1;
        traffic.tx_bytes += frame.len() as u64;
        if let Some(reports) = &mut self.reports {
            reports.note(by.ifindex, frame);
        }
        Ok(Sent::Queued)
    }

    /// Sends what is to be sent, offers memory for what arrives, and takes back that of what has left. The
    /// connection table is told before, so that it knows of a question when the answer arrives.
    ///
    /// The kernel may leave some of it: see [`Set::unsent`].
    ///
    /// # Errors
    ///
    /// Where the interface is down or gone, or the connection table cannot be told. Whatever fails, all else
    /// is done.
    pub fn flush(&mut self) -> Result<()> {
        let mut result = self.reports.as_mut().map_or(Ok(()), Reports::hand_over);
        for port in &mut self.ports {
            result = result.and(port.flush());
        }
        if let (Err(_), Hold::Daemon(connection)) = (&result, &self.hold) {
            // What it has to say tells more.
            connection.check()?;
        }
        result
    }

    /// How much of what was flushed has not been taken yet, in chunks. [`Set::wait`] and [`Set::ready`] see to
    /// it; who waits on the descriptor should flush again after a while.
    pub fn unsent(&mut self) -> u32 {
        self.ports.iter_mut().map(Port::unsent).sum()
    }

    /// Flushes, and waits for a frame to arrive, at most for as long as `timeout` says; `true` where one is
    /// there. A signal does not end it.
    ///
    /// # Errors
    ///
    /// As [`Set::flush`] and [`Set::receive`].
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            self.flush()?;
            if !self.may_sleep() {
                return Ok(true);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let pause = self.pause();
            let patience = left.map_or(pause, |left| left.min(pause));
            if self.look(Some(patience))? && !self.may_sleep() {
                return Ok(true);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(false);
            }
            if pause == CHECK {
                self.check()?;
            }
        }
    }

    /// Flushes, and waits with tokio for a frame to arrive. It may return although there is none.
    ///
    /// # Errors
    ///
    /// As [`Set::wait`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time enabled.
    pub async fn ready(&mut self) -> Result<()> {
        loop {
            self.flush()?;
            if !self.may_sleep() {
                return Ok(());
            }
            let pause = self.pause();
            let failed = |source| Error::io("wait for the sockets of a set", source);
            // SAFETY: the descriptor is the set's own, which is borrowed for as long as this lasts.
            let fd =
                unsafe { AsyncFd::register_with_interest(self.epoll.as_fd(), Interest::READABLE) }
                    .map_err(|error| failed(error.into_parts().1))?;
            match tokio::time::timeout(pause, fd.readable()).await {
                Ok(readable) => {
                    let _ = readable.map_err(failed)?;
                    break;
                }
                Err(_) if pause == CHECK => self.check()?,
                Err(_) => {}
            }
        }
        self.look(Some(Duration::ZERO))?;
        Ok(())
    }

    /// For how long nothing has to be done but wait.
    fn pause(&mut self) -> Duration {
        if self.unsent() > 0 { PAUSE } else { CHECK }
    }

    /// What has happened on each queue.
    ///
    /// # Errors
    ///
    /// Where the kernel or the daemon cannot be asked.
    pub fn statistics(&self) -> Result<Vec<QueueStatistics>> {
        match &self.hold {
            Hold::Direct { .. } => (0..self.ports.len())
                .map(|number| self.own_statistics(number))
                .collect(),
            Hold::Daemon(connection) => {
                let told = connection.statistics()?;
                let statistics = self.queues.iter().zip(&self.ports).zip(told);
                Ok(statistics
                    .map(|((queue, port), told)| QueueStatistics {
                        id: queue.id,
                        rx_packets: told.rx_packets,
                        rx_bytes: told.rx_bytes,
                        tx_packets: told.tx_packets,
                        tx_bytes: told.tx_bytes,
                        rx_dropped: told.rx_dropped,
                        rx_ring_full: told.rx_ring_full,
                        fill_ring_empty: told.fill_ring_empty,
                        invalid: told.rx_invalid + told.tx_invalid + port.malformed(),
                        tx_refused: told.tx_refused,
                    })
                    .collect())
            }
        }
    }

    fn own_statistics(&self, number: usize) -> Result<QueueStatistics> {
        let (port, traffic) = (&self.ports[number], &self.traffic[number]);
        let kernel = match port.peer() {
            Peer::Kernel(socket) => socket.statistics()?,
            Peer::Process { .. } => Default::default(),
        };
        Ok(QueueStatistics {
            id: self.queues[number].id,
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            rx_dropped: kernel.rx_dropped,
            rx_ring_full: kernel.rx_ring_full,
            fill_ring_empty: kernel.fill_ring_empty,
            invalid: kernel.rx_invalid + kernel.tx_invalid + port.malformed(),
            tx_refused: 0,
        })
    }

    /// Makes every port tell when a frame arrives; `false` where one is there already.
    fn may_sleep(&mut self) -> bool {
        self.ports
            .iter_mut()
            .fold(true, |all, port| port.may_sleep() && all)
    }

    /// Waits for an event, and says whether there was one; an error where it is that the daemon has ended.
    fn look(&self, patience: Option<Duration>) -> Result<bool> {
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let mut events: Vec<Event> = Vec::with_capacity(self.ports.len() + 1);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            patience.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::io("wait for the sockets of a set", errno)),
        }
        for event in &events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            let has_failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            match (self.ports.get(number), &self.hold) {
                (None, Hold::Daemon(connection)) => connection.check()?,
                (Some(port), Hold::Daemon(connection)) => {
                    port.hear();
                    if has_failed {
                        connection.check()?;
                        return Err(self.failed(number, Errno::PIPE.into()));
                    }
                }
                _ => {}
            }
        }
        Ok(!events.is_empty())
    }

    fn failed(&self, number: usize, source: io::Error) -> Error {
        let queue = &self.queues[number];
        let place = Place {
            id: queue.id,
            interface: queue.interface.clone(),
        };
        Error::io(format!("receive from {place}"), source)
    }
}

/// A descriptor that is readable when a frame has arrived since [`Set::receive`] has found none, or when the
/// daemon has ended, which that then tells.
impl AsFd for Set {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Queue {
    fn new(place: Place, zero_copy: bool, via: Via) -> Self {
        Self {
            id: place.id,
            interface: place.interface,
            zero_copy,
            via,
        }
    }
}
