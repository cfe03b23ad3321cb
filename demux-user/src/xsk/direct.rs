//! Sets by sockets of this process.

use std::{
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use rustix::process::getuid;

use super::{
    area::Area,
    options::Options,
    port::{self, Peer, Port, Rings},
    queue::{Place, QueueId, receive_queues},
    region::Shape,
    registry::{self, Claim, Wish},
    socket::{Binding, Socket},
};
use crate::{
    Error, Result,
    bpffs::BpfFs,
    capability::{self, Capability},
    interface,
    interface::Interface,
    process::Process,
};

/// How long a queue may keep the memory of a socket that has been closed: the kernel gives it up later, in
/// several steps, and there is nothing to wait on.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(5);

/// A set whose sockets are this process's.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) claim: Claim,
    pub(super) queues: Vec<DirectQueue>,
}

/// A queue of such a set.
#[derive(Debug)]
pub(super) struct DirectQueue {
    pub(super) place: Place,
    pub(super) zero_copy: bool,
    pub(super) port: Port,
}

/// Claims the set, binds a socket to each receive queue of its interfaces, and publishes each as it is bound.
pub(super) fn open(options: &Options, bpffs: &BpfFs) -> Result<Direct> {
    let shape = options.shape()?;
    let operation = format!("open the sockets of the set {:?}", options.name);
    capability::require(&operation, &[Capability::NetRaw])?;
    let mut interfaces: Vec<Interface> = Vec::new();
    for name in &options.interfaces {
        let interface = interface::by_name(name)?;
        if interfaces
            .iter()
            .any(|other| other.index == interface.index)
        {
            return Err(Error::invalid("interface", name, "it is named twice"));
        }
        interfaces.push(interface);
    }
    let counts: Vec<u16> = interfaces.iter().map(receive_queues).collect();
    let this = Process::current().map_err(|source| Error::io("read /proc/self/stat", source))?;
    let claim = registry::claim(
        bpffs,
        &Wish {
            name: options.name.parse()?,
            owner: this,
            uid: getuid().as_raw(),
            holder: this,
            interfaces: interfaces
                .iter()
                .zip(&counts)
                .map(|(interface, count)| (interface.index, *count))
                .collect(),
            longest: port::longest_frame(shape.chunk_size, options.multi_buffer) as u32,
        },
    )?;
    let mut queues = Vec::new();
    for (interface, count) in interfaces.iter().zip(counts) {
        for queue in 0..u32::from(count) {
            queues.push(open_queue(options, shape, interface, queue, &claim)?);
        }
    }
    Ok(Direct { claim, queues })
}

fn open_queue(
    options: &Options,
    shape: Shape,
    interface: &Interface,
    queue: u32,
    claim: &Claim,
) -> Result<DirectQueue> {
    let place = Place {
        id: QueueId {
            ifindex: interface.index,
            queue,
        },
        interface: interface.name.clone(),
    };
    let area = Area::new(shape.chunk_size, shape.chunks)
        .map_err(|source| Error::io(format!("make memory for the frames of {place}"), source))?;
    let (socket, rings) = bound(options, shape, &place, &area)?;
    let zero_copy = socket.is_zero_copy()?;
    let port = Port::new(area, rings, Peer::Kernel(socket), options.multi_buffer)?;
    // Chunks wait in the fill ring by now, so the first packet finds one.
    claim.publish(interface.index, queue, port.as_fd(), zero_copy)?;
    Ok(DirectQueue {
        place,
        zero_copy,
        port,
    })
}

/// A socket with this memory, bound to the queue.
fn bound(options: &Options, shape: Shape, place: &Place, area: &Area) -> Result<(Socket, Rings)> {
    let how = Binding {
        copy: options.copy,
        multi_buffer: options.multi_buffer,
    };
    let deadline = Instant::now() + PATIENCE;
    let socket = Socket::new()?;
    socket.register(area)?;
    let rings = Rings {
        fill: socket.fill(shape.ring_size)?,
        completion: socket.completion(shape.ring_size)?,
        rx: socket.rx(shape.ring_size)?,
        tx: socket.tx(shape.ring_size)?,
    };
    loop {
        match socket.bind(place, how) {
            Err(Error::QueueBusy { .. }) if Instant::now() < deadline => thread::sleep(INTERVAL),
            result => return result.map(|()| (socket, rings)),
        }
    }
}
