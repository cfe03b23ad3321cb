//! AF_XDP sockets of the kernel: real ones, bound to the queues of veth pairs.

mod common;

use std::{
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    time::Duration,
};

use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_XSKMAP;
use demux_user::{
    Error, bpf as calls,
    xsk::{
        area::Area,
        port::{Peer, Port, Rings},
        queue::{Place, QueueId},
        ring::{Consumer, Descriptor, Producer},
        socket::{Binding, CopyMode, Socket, Statistics},
    },
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::common::{
    bpf::{self, GENERIC, NATIVE},
    frames::{Capture, FrameSocket},
    in_both_modes,
    netns::{Netns, Queues},
    pair::quick_netns,
    wait::{wait_for, wait_for_some},
};

/// Of no protocol that anybody speaks (IEEE Std 802, for experiments).
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Another one.
const PROBE: [u8; 2] = [0x88, 0xb6];

const COPY: Binding = Binding {
    copy: CopyMode::Copy,
    multi_buffer: false,
};

/// Two namespaces, joined by interfaces with so many queues.
struct Cable {
    near: Netns,
    far: Netns,
}

impl Cable {
    fn new(queues: u32) -> Self {
        let cable = Self {
            near: quick_netns(),
            far: quick_netns(),
        };
        let queues = Queues {
            rx: queues,
            tx: queues,
        };
        cable
            .near
            .veth_with_queues("near", queues, &cable.far, "far", queues);
        // Interfaces that have just come up lose what is sent for a moment.
        let ends = [(&cable.near, "near"), (&cable.far, "far")];
        for (from, to) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let sender = FrameSocket::new(from.0, from.1);
            let capture = Capture::new(to.0, to.1);
            let mut probe = [0xff; 60];
            probe[12..14].copy_from_slice(&PROBE);
            wait_for("a frame to get through", || {
                sender.send(&probe);
                std::iter::from_fn(|| capture.next()).any(|frame| frame[12..14] == PROBE)
            });
        }
        cable
    }

    fn place(&self, queue: u32) -> Place {
        Place {
            id: QueueId {
                ifindex: self.near.index("near"),
                queue,
            },
            interface: "near".into(),
        }
    }

    /// Sends what arrives to the sockets at the number of their queue. Ends with the descriptor.
    fn redirect(&self, mode: &str, sockets: &[(u32, &Socket)]) -> OwnedFd {
        let map = bpf::map(BPF_MAP_TYPE_XSKMAP, 4, 4, 64, 0);
        for (queue, socket) in sockets {
            let fd = socket.as_fd().as_raw_fd();
            calls::map_update(map.as_fd(), &queue.to_ne_bytes(), &fd.to_ne_bytes(), 0).unwrap();
        }
        let program = bpf::redirect_program(map.as_fd());
        let mode = if mode == "native" { NATIVE } else { GENERIC };
        let ifindex = self.near.index("near");
        self.near
            .enter(|| bpf::attach_xdp(program.as_fd(), ifindex, mode))
    }

    /// A frame from the far to the near station.
    fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let mut frame = self.near.mac("near").to_vec();
        frame.extend(self.far.mac("far"));
        frame.extend(ETHER_TYPE);
        frame.extend(payload);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// A socket with memory and all rings, not bound.
fn prepared(chunk_size: u32) -> (Socket, Area, Rings) {
    let socket = Socket::new().unwrap();
    let area = Area::new(chunk_size, 64).unwrap();
    socket.register(&area).unwrap();
    let rings = Rings {
        fill: socket.fill(32).unwrap(),
        completion: socket.completion(32).unwrap(),
        rx: socket.rx(32).unwrap(),
        tx: socket.tx(32).unwrap(),
    };
    (socket, area, rings)
}

fn port(place: &Place, chunk_size: u32, how: Binding) -> Port {
    let (socket, area, rings) = prepared(chunk_size);
    socket.bind(place, how).unwrap();
    Port::new(area, rings, Peer::Kernel(socket), how.multi_buffer).unwrap()
}

fn socket(port: &Port) -> &Socket {
    match port.peer() {
        Peer::Kernel(socket) => socket,
        Peer::Process { .. } => panic!("this one has a socket"),
    }
}

/// The next frame of our type.
fn receive(port: &mut Port) -> Vec<u8> {
    loop {
        while port.receive().unwrap() {
            if port.frame().get(12..14) == Some(&ETHER_TYPE) {
                return port.frame().to_vec();
            }
        }
        sleep(&*port);
    }
}

/// Waits for a frame.
fn sleep(port: impl AsFd) {
    let patience = Timespec::try_from(Duration::from_secs(30)).unwrap();
    let mut ports = [PollFd::new(&port, PollFlags::IN)];
    assert_eq!(
        poll(&mut ports, Some(&patience)).unwrap(),
        1,
        "waited in vain"
    );
}

/// The next frame of our type that has arrived at the other end.
fn ours(capture: &Capture) -> Vec<u8> {
    wait_for_some("a frame", || {
        std::iter::from_fn(|| capture.next()).find(|frame| frame.get(12..14) == Some(&ETHER_TYPE))
    })
}

fn frames_go_both_ways(mode: &str) {
    let cable = Cable::new(1);
    let place = cable.place(0);
    let mut port = cable.near.enter(|| port(&place, 2048, COPY));
    assert!(!socket(&port).is_zero_copy().unwrap());
    let _link = cable.redirect(mode, &[(0, socket(&port))]);
    let sender = FrameSocket::new(&cable.far, "far");
    // More than there are chunks, so all of them are used again.
    for number in 0..200_u32 {
        let frame = cable.frame(&[number as u8; 700]);
        sender.send(&frame);
        assert_eq!(receive(&mut port), frame);
    }

    let capture = Capture::new(&cable.far, "far");
    for number in 0..200_u32 {
        let mut frame = cable.far.mac("far").to_vec();
        frame.extend(cable.near.mac("near"));
        frame.extend(ETHER_TYPE);
        frame.extend([number as u8; 1000]);
        wait_for("room to send", || {
            port.flush().unwrap();
            port.send(&frame).unwrap()
        });
        port.flush().unwrap();
        let arrived = ours(&capture);
        assert_eq!(arrived, frame);
    }
    assert_eq!(port.malformed(), 0);
    assert_eq!(socket(&port).statistics().unwrap().rx_dropped, 0);
}

fn long_frames_take_several_chunks(mode: &str) {
    let cable = Cable::new(1);
    for (netns, name) in [(&cable.near, "near"), (&cable.far, "far")] {
        netns.set_mtu(name, 9000);
    }
    let place = cable.place(0);
    let how = Binding {
        multi_buffer: true,
        ..COPY
    };
    let mut port = cable.near.enter(|| port(&place, 2048, how));
    let _link = cable.redirect(mode, &[(0, socket(&port))]);
    let sender = FrameSocket::new(&cable.far, "far");
    let capture = Capture::new(&cable.far, "far");
    for length in [46, 1500, 1792, 1793, 2034, 2035, 4000, 8986, 9000] {
        let payload: Vec<u8> = (0..length).map(|number| number as u8).collect();
        let frame = cable.frame(&payload);
        sender.send(&frame);
        assert_eq!(receive(&mut port), frame, "{length} bytes");

        let mut frame = frame;
        let (destination, source) = frame[..12].split_at_mut(6);
        destination.swap_with_slice(source);
        assert!(port.send(&frame).unwrap());
        port.flush().unwrap();
        let arrived = ours(&capture);
        assert_eq!(arrived, frame, "{length} bytes");
    }
    assert_eq!(port.malformed(), 0);
}

fn frames_that_are_too_long_are_counted(mode: &str) {
    let cable = Cable::new(1);
    for (netns, name) in [(&cable.near, "near"), (&cable.far, "far")] {
        netns.set_mtu(name, 3000);
    }
    let place = cable.place(0);
    let port = cable.near.enter(|| port(&place, 2048, COPY));
    let _link = cable.redirect(mode, &[(0, socket(&port))]);
    FrameSocket::new(&cable.far, "far").send(&cable.frame(&[1; 2500]));
    wait_for("a frame to be dropped", || {
        socket(&port).statistics().unwrap().rx_dropped == 1
    });
}

fn several_sockets_share_a_queue(mode: &str) {
    let cable = Cable::new(1);
    let place = cable.place(0);
    // A socket belongs to the namespace that it was made in.
    let (first, second, area, rings) = cable.near.enter(|| {
        let (first, area, rings) = prepared(2048);
        (first, Socket::new().unwrap(), area, rings)
    });
    let mut rx: Consumer<Descriptor> = second.rx(32).unwrap();
    let mut tx: Producer<Descriptor> = second.tx(32).unwrap();
    first.bind(&place, COPY).unwrap();
    second.bind_sharing(&place, &first).unwrap();
    // The program sends all to the second; the chunks come from the ring of the first.
    let _link = cable.redirect(mode, &[(0, &second)]);
    let Rings {
        mut fill,
        mut completion,
        ..
    } = rings;
    for chunk in 0..32 {
        assert!(fill.push(area.address_of(chunk)));
    }
    fill.submit();
    let frame = cable.frame(b"for the second");
    FrameSocket::new(&cable.far, "far").send(&frame);
    // The kernel's own protocols send a few frames, too.
    let arrived = loop {
        let mut bytes = Vec::new();
        match rx.pop() {
            Some(arrived) => {
                assert!(area.copy_out(arrived.address, arrived.len, &mut bytes));
                if bytes == frame {
                    break arrived;
                }
            }
            None => sleep(&second),
        }
    };

    let capture = Capture::new(&cable.far, "far");
    assert!(tx.push(arrived));
    tx.submit();
    second.kick_tx().unwrap();
    let echoed = ours(&capture);
    assert_eq!(echoed, frame);
    wait_for("the chunk", || completion.pop() == Some(arrived.address));
}

in_both_modes! {
    frames_go_both_ways
    long_frames_take_several_chunks
    frames_that_are_too_long_are_counted
    several_sockets_share_a_queue
}

#[test]
fn a_queue_has_one_memory() {
    for queues in [1, 4] {
        let cable = Cable::new(queues);
        cable.near.enter(|| {
            let ports: Vec<Port> = (0..queues)
                .map(|queue| port(&cable.place(queue), 4096, COPY))
                .collect();
            for (queue, port) in (0..).zip(&ports) {
                assert_eq!(socket(port).statistics().unwrap(), Statistics::default());
                let (other, _area, _rings) = prepared(4096);
                let error = other.bind(&cable.place(queue), COPY).unwrap_err();
                assert_eq!((error.code(), error.exit_status()), ("queue_busy", 5));
                let expected = format!("near queue {queue}");
                assert!(error.to_string().contains(&expected), "{error}");
                assert!(error.hint().unwrap().contains("demux daemon"));
            }
            let (other, _area, _rings) = prepared(4096);
            let error = other.bind(&cable.place(queues), COPY).unwrap_err();
            assert_eq!(error.code(), "invalid_argument", "{error}");
        });
    }
}

#[test]
fn a_driver_without_zero_copy_says_so() {
    let cable = Cable::new(1);
    let (socket, _area, _rings) = cable.near.enter(|| prepared(4096));
    let how = Binding {
        copy: CopyMode::ZeroCopy,
        multi_buffer: false,
    };
    let place = cable.place(0);
    let error = socket.bind(&place, how).unwrap_err();
    assert_eq!((error.code(), error.exit_status()), ("unsupported", 6));
    assert!(error.to_string().contains("zero copy"), "{error}");
}

#[test]
fn without_the_capability_there_is_no_socket() {
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    let error = std::thread::spawn(move || {
        set_capabilities(None, none).unwrap();
        Socket::new().unwrap_err()
    })
    .join()
    .unwrap();
    assert!(
        matches!(&error, Error::MissingCapability { missing, .. } if missing == &["CAP_NET_RAW"])
    );
}

#[test]
fn memory_that_may_not_be_locked_is_told() {
    use rustix::{
        process::{Resource, Rlimit, setrlimit},
        thread::{CapabilitySet, CapabilitySets, set_capabilities},
    };
    // The limit holds for the process, and for those without CAP_IPC_LOCK only, of which this is one thread.
    let error = std::thread::spawn(|| {
        let some = CapabilitySets {
            effective: CapabilitySet::NET_RAW,
            permitted: CapabilitySet::NET_RAW,
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, some).unwrap();
        let limit = Rlimit {
            current: Some(4096),
            maximum: Some(4096),
        };
        setrlimit(Resource::Memlock, limit).unwrap();
        let socket = Socket::new().unwrap();
        let area = Area::new(4096, 64).unwrap();
        socket.register(&area).unwrap_err()
    })
    .join()
    .unwrap();
    assert_eq!(error.code(), "locked_memory", "{error}");
    assert!(error.to_string().contains("262144 bytes"), "{error}");
}

#[test]
fn what_is_no_such_socket_is_refused() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert!(Socket::from_fd(one.into()).is_err());
    let socket = Socket::new().unwrap();
    assert!(socket.rx(3).is_err(), "no power of two");
}
