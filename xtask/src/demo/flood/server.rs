//! The web server of the flood: a process of its own, because a process may have only so many
//! descriptors, and its clients need as many.

use std::{
    env,
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::process::CommandExt as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    buffer::spare_capacity,
    event::epoll,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::demo::{actors, network::SERVER};

/// What it says once it listens.
const READY: &str = "ready";
/// As many as it will ever have.
const DESCRIPTORS: usize = 1 << 17;
/// What its listener and the end of its parent are called in events; connections have their index.
const LISTENER: u64 = u64::MAX;
const PARENT: u64 = u64::MAX - 1;

/// The process, which ends with the value.
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start() -> Result<Self> {
        let xtask = env::current_exe().context("cannot find the xtask binary")?;
        let mut command = Command::new(xtask);
        command.args(["demo", "--flood-server"]);
        // It ends when its input does, so that what is told after a Ctrl-C is not its absence.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().context("cannot start the server")?;
        let mut server = Self { child };
        let mut said = String::new();
        if let Some(stdout) = server.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        ensure!(said.trim() == READY, "the server cannot start: {said}");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is the server, until standard input ends: sends back every byte.
///
/// # Errors
/// When it cannot start or go on; an error before it listens is what the parent is told.
pub(in crate::demo) fn serve() -> Result<()> {
    let started = raise_descriptor_limit(DESCRIPTORS).and_then(|()| {
        actors::enter(SERVER, || {
            TcpListener::bind(("0.0.0.0", 80)).context("cannot listen on port 80")
        })
    });
    let said = match &started {
        Ok(_) => READY.to_owned(),
        Err(error) => format!("{error:#}"),
    };
    writeln!(io::stdout(), "{said}")?;
    Ok(echo(&started?)?)
}

fn echo(listener: &TcpListener) -> io::Result<()> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let watch = |socket: &dyn AsFd, name: u64| {
        let name = epoll::EventData::new_u64(name);
        epoll::add(&poll, socket.as_fd(), name, epoll::EventFlags::IN)
    };
    listener.set_nonblocking(true)?;
    watch(listener, LISTENER)?;
    watch(&io::stdin(), PARENT)?;
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    let mut events = Vec::with_capacity(256);
    loop {
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            match event.data.u64() {
                PARENT => return Ok(()),
                LISTENER => {
                    while let Some(stream) = accepted(listener)? {
                        stream.set_nonblocking(true)?;
                        watch(&stream, streams.len() as u64)?;
                        streams.push(Some(stream));
                    }
                }
                index => {
                    let stream = &mut streams[index as usize];
                    if stream
                        .as_mut()
                        .is_some_and(|stream| answer(stream).is_err())
                    {
                        // Closing it also ends its events.
                        *stream = None;
                    }
                }
            }
        }
    }
}

fn accepted(listener: &TcpListener) -> io::Result<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        // The client went away before it was accepted.
        Err(error) if error.kind() == ErrorKind::ConnectionAborted => Ok(None),
        Err(error) => Err(error),
    }
}

fn answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut bytes = [0; 64];
    match stream.read(&mut bytes) {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        // Nobody sends so much that it would not fit.
        Ok(length) => stream.write_all(&bytes[..length]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets this process have `needed` descriptors, or as many as it may where that is fewer.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn raise_descriptor_limit(needed: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = needed as u64;
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let current = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    let raised = Rlimit {
        current: Some(current),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")
}
