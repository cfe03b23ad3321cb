//! The actors: servers and clients with ordinary sockets, each in a namespace of the demo.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::network;

/// How long an answer may take that is expected.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The line after which a server ends the conversation.
pub(super) const BYE: &str = "bye";
/// How long nothing must come to be called silence.
pub(super) const SILENCE: Duration = Duration::from_millis(300);

/// Runs `work` on a thread in `namespace`. A socket stays where it was made.
///
/// # Errors
/// When there is no such namespace, and what `work` returns.
pub(super) fn enter<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = network::path(namespace);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let worker = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {namespace}"))?;
        work()
    };
    thread::scope(|scope| scope.spawn(worker).join())
        .map_err(|_| anyhow!("an actor in {namespace} panicked"))?
}

/// A server that answers every line; it ends with the value.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on `port` of every address of the server.
    pub(super) fn start(name: &'static str, port: u16) -> Result<Self> {
        Self::start_in(network::SERVER, name, port)
    }

    /// Listens on `port` of every address in `namespace`.
    pub(super) fn start_in(namespace: &str, name: &'static str, port: u16) -> Result<Self> {
        let listener = enter(namespace, || {
            TcpListener::bind(("0.0.0.0", port))
                .with_context(|| format!("cannot listen on port {port}"))
        })?;
        let accepting = listener.try_clone()?;
        thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                // Ends with its client.
                thread::spawn(move || serve(name, &stream, peer));
            }
        });
        Ok(Self { listener })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing it would not end the `accept` of the other thread.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn serve(name: &str, mut stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    for line in BufReader::new(stream).lines() {
        let line = line?;
        // At once: pieces would be packets.
        stream.write_all(format!("{line}, {peer}, this is {name}\n").as_bytes())?;
        if line == BYE {
            break;
        }
    }
    Ok(())
}

/// A client with an open connection.
pub(super) struct Client {
    /// Who it is, in the commentary.
    pub(super) name: &'static str,
    /// Its own endpoint.
    pub(super) address: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects from `namespace` to `port` of the server.
    pub(super) fn connect(name: &'static str, namespace: &str, port: u16) -> Result<Self> {
        let stream = enter(namespace, || {
            TcpStream::connect_timeout(&network::server(port), PATIENCE)
                .with_context(|| format!("{name} cannot connect to port {port}"))
        })?;
        Ok(Self {
            name,
            address: stream.local_addr()?,
            reader: BufReader::new(stream),
        })
    }

    /// Sends a line and returns the answer.
    pub(super) fn ask(&mut self, line: &str) -> Result<String> {
        self.send(line)?;
        let answer = self.answer(PATIENCE)?;
        answer.with_context(|| format!("{} got no answer", self.name))
    }

    /// Sends a line.
    pub(super) fn send(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        let sent = self.reader.get_mut().write_all(line.as_bytes());
        sent.with_context(|| format!("{} cannot send", self.name))
    }

    /// Waits for the server to end the conversation, and ends it too.
    pub(super) fn leave_after_server(mut self) -> Result<()> {
        self.reader.get_mut().set_read_timeout(Some(PATIENCE))?;
        let mut rest = String::new();
        let length = self.reader.read_line(&mut rest);
        let length = length.with_context(|| format!("the server keeps {}", self.name))?;
        ensure!(length == 0, "the server says more to {}: {rest}", self.name);
        Ok(())
    }

    /// Waits for an answer; there is none if it does not come in time.
    pub(super) fn answer(&mut self, within: Duration) -> Result<Option<String>> {
        self.reader.get_mut().set_read_timeout(Some(within))?;
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(anyhow!("the server hung up on {}", self.name)),
            Ok(_) => Ok(Some(line.trim_end().to_owned())),
            Err(error) if is_timeout(&error) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("{} cannot read", self.name)),
        }
    }
}

/// What became of an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Knock {
    /// Somebody listens.
    Accepted,
    /// The kernel says that nobody does.
    Refused,
    /// Nobody says anything.
    Silence,
}

/// Tries to connect from `namespace` to `port` of the server, which may take so long to answer.
pub(super) fn knock(namespace: &str, port: u16, within: Duration) -> Result<Knock> {
    enter(namespace, || {
        match TcpStream::connect_timeout(&network::server(port), within) {
            Ok(_) => Ok(Knock::Accepted),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(Knock::Refused),
            Err(error) if is_timeout(&error) => Ok(Knock::Silence),
            Err(error) => Err(error).with_context(|| format!("cannot knock at port {port}")),
        }
    })
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}
