//! Real clients: many that stay, and some that come while the flood is on.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};

use super::server::raise_descriptor_limit;
use crate::demo::{
    actors::{PATIENCE, enter},
    interrupt,
    network::{self, ALICE},
};

/// Descriptors that this process needs for other things, newcomers included.
const OTHERS: usize = 2_000;
/// How long a newcomer waits for its turn.
const INTERVAL: Duration = Duration::from_millis(50);

/// The clients that stay.
pub(super) struct Crowd {
    streams: Vec<TcpStream>,
}

impl Crowd {
    /// Makes room for `size` of them.
    pub(super) fn new(size: usize) -> Result<Self> {
        raise_descriptor_limit(size + OTHERS)?;
        Ok(Self {
            streams: Vec::with_capacity(size),
        })
    }

    /// Opens `number` more connections, one after the other.
    pub(super) fn open(&mut self, number: usize) -> Result<()> {
        enter(ALICE, || {
            for _ in 0..number {
                interrupt::check()?;
                let stream = TcpStream::connect_timeout(&network::server(80), PATIENCE)
                    .with_context(|| format!("cannot open connection {}", self.streams.len()))?;
                stream.set_nodelay(true)?;
                self.streams.push(stream);
            }
            Ok(())
        })
    }

    /// Their own endpoints.
    pub(super) fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.streams.iter().map(TcpStream::local_addr).collect()
    }

    /// Sends a byte on each and returns on how many it came back.
    pub(super) fn ask(&self) -> usize {
        let asked: Vec<&TcpStream> = self
            .streams
            .iter()
            .filter(|stream| (&mut &**stream).write_all(b"?").is_ok())
            .collect();
        let answered = asked.into_iter().filter(|stream| is_answered(stream));
        answered.count()
    }
}

fn is_answered(mut stream: &TcpStream) -> bool {
    let mut byte = [0];
    let answered = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.read_exact(&mut byte));
    answered.is_ok() && byte == *b"?"
}

/// Clients that open a connection one after the other, until told to end.
pub(super) struct Newcomers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<Vec<TcpStream>>>>,
    streams: Vec<TcpStream>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    tried: AtomicU64,
    opened: AtomicU64,
}

impl Newcomers {
    /// Starts them in `namespace`. One that is not connected and answered `within` a time has failed.
    pub(super) fn start(namespace: &'static str, within: Duration) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = thread::spawn(move || enter(namespace, || Ok(come(&of_thread, within))));
        Ok(Self {
            shared,
            thread: Some(thread),
            streams: Vec::new(),
        })
    }

    /// How many have tried, and how many of them were connected and answered.
    pub(super) fn numbers(&self) -> (u64, u64) {
        // In this order, or an attempt could succeed before it was made.
        let opened = self.shared.opened.load(Ordering::Acquire);
        (self.shared.tried.load(Ordering::Acquire), opened)
    }

    /// Lets no more come; those that are there stay.
    pub(super) fn end(mut self) -> Result<Self> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            self.streams = ended.map_err(|_| anyhow!("the newcomers panicked"))??;
        }
        Ok(self)
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn come(shared: &Shared, within: Duration) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    while !shared.is_over.load(Ordering::Relaxed) {
        shared.tried.fetch_add(1, Ordering::Release);
        if let Ok(stream) = visit(within) {
            shared.opened.fetch_add(1, Ordering::Release);
            streams.push(stream);
        }
        thread::sleep(INTERVAL);
    }
    streams
}

fn visit(within: Duration) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&network::server(80), within)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(b"!")?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}
