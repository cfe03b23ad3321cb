//! A web server of the usual kind: the kernel's sockets, and one sentence.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

use anyhow::{Context as _, Result};

use crate::demo::{actors::enter, network::SERVER};

/// What it says.
pub(super) const TEXT: &str = "hello from the kernel\n";

/// A server that ends with the value.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on `port` of every address of the server.
    pub(super) fn start(port: u16) -> Result<Self> {
        let listener = enter(SERVER, || {
            TcpListener::bind(("0.0.0.0", port))
                .with_context(|| format!("cannot listen on port {port}"))
        })?;
        let accepting = listener.try_clone()?;
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                thread::spawn(move || answer(&stream));
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

/// Answers one request, whatever it is.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    while lines
        .next()
        .transpose()?
        .is_some_and(|line| !line.is_empty())
    {}
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{TEXT}",
        TEXT.len()
    );
    stream.write_all(answer.as_bytes())
}
