//! The reader of AF_XDP sockets: one thread for those of both ways.

use std::{
    hint::black_box,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use demux_user::xsk::{
    area::Area,
    port::{Peer, Port, Rings},
    queue::{Place, QueueId},
    socket::{Binding, CopyMode, Socket},
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::threads::Thread;

const CHUNK_SIZE: u32 = 2048;
const RING: u32 = 2048;

/// A port on the first queue of an interface of the present namespace.
pub(crate) fn open(interface: &str, ifindex: u32) -> Port {
    let socket = Socket::new().expect("an AF_XDP socket");
    let area = Area::new(CHUNK_SIZE, 2 * RING).expect("memory");
    socket.register(&area).expect("memory for the socket");
    let rings = Rings {
        fill: socket.fill(RING).expect("a ring"),
        completion: socket.completion(RING).expect("a ring"),
        rx: socket.rx(RING).expect("a ring"),
        tx: socket.tx(RING).expect("a ring"),
    };
    let place = Place {
        id: QueueId { ifindex, queue: 0 },
        interface: interface.to_owned(),
    };
    let how = Binding {
        copy: CopyMode::Copy,
        multi_buffer: false,
    };
    socket.bind(&place, how).expect("the queue");
    Port::new(area, rings, Peer::Kernel(socket), how.multi_buffer).expect("a port")
}

/// The socket of a port.
pub(crate) fn socket(port: &Port) -> &Socket {
    match port.peer() {
        Peer::Kernel(socket) => socket,
        Peer::Process { .. } => unreachable!("it was opened with a socket"),
    }
}

/// The thread that reads all ports.
pub(crate) struct Consumer {
    pub(crate) thread: Thread,
    received: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Consumer {
    pub(crate) fn start(ports: Vec<Port>) -> Self {
        let (received, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (tell, told) = mpsc::channel();
        let (to, end) = (Arc::clone(&received), Arc::clone(&ends));
        let handle = thread::spawn(move || {
            tell.send(Thread::current()).expect("somebody who waits");
            consume(ports, &to, &end);
        });
        Self {
            thread: told.recv().expect("the thread"),
            received,
            ends,
            handle: Some(handle),
        }
    }

    /// How many frames it has read.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

fn consume(mut ports: Vec<Port>, received: &AtomicU64, ends: &AtomicBool) {
    let patience = Timespec::try_from(Duration::from_millis(100)).expect("a time");
    while !ends.load(Ordering::Relaxed) {
        let mut count = 0;
        for port in &mut ports {
            while port.receive().expect("the socket lives") {
                black_box(port.frame().first());
                count += 1;
            }
        }
        received.fetch_add(count, Ordering::Relaxed);
        let may_sleep = ports.iter_mut().all(Port::may_sleep);
        if may_sleep {
            let mut fds: Vec<PollFd<'_>> = ports
                .iter()
                .map(|port| PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN))
                .collect();
            // Whatever it says, the rings are looked at next.
            let _ = poll(&mut fds, Some(&patience));
        }
    }
}
