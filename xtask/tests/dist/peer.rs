//! Another host, at the other end of a cable.

use std::{
    io::Read as _,
    net::TcpStream,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

use super::ip;

/// A thread in a network of its own.
pub(crate) struct Peer {
    thread: i32,
    work: Sender<Work>,
    replies: Receiver<String>,
}

/// What it can be asked for.
enum Work {
    /// To run `ip` with these arguments.
    Ip(&'static str),
    /// To connect to this address, and read until the other side closes.
    Read(&'static str),
}

impl Peer {
    pub(crate) fn start() -> Self {
        let (work, received) = channel();
        let (sender, replies) = channel();
        let (number, thread) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            number.send(gettid().as_raw()).unwrap();
            for work in received {
                let mut reply = String::new();
                match work {
                    Work::Ip(line) => ip(line),
                    Work::Read(address) => {
                        let mut stream = TcpStream::connect(address).unwrap();
                        stream.read_to_string(&mut reply).unwrap();
                    }
                }
                sender.send(reply).unwrap();
            }
        });
        Self {
            thread: thread.recv().unwrap(),
            work,
            replies,
        }
    }

    /// What `ip link set … netns` takes for it.
    pub(crate) fn number(&self) -> i32 {
        self.thread
    }

    pub(crate) fn ip(&self, line: &'static str) {
        self.work.send(Work::Ip(line)).unwrap();
        self.reply();
    }

    pub(crate) fn connect(&self, address: &'static str) {
        self.work.send(Work::Read(address)).unwrap();
    }

    /// What it has read.
    pub(crate) fn reply(&self) -> String {
        self.replies.recv().unwrap()
    }
}
