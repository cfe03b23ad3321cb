//! HTTP as far as the tests of user-space stacks need it: a server with the kernel's sockets, and a client that
//! checks every byte. Both know `/bytes/N`: N bytes that can be told from any others.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use super::{netns::Netns, sockets::listen};

/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `/bytes/N` is, here and in the example of a server.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count)
        .map(|place| (place ^ (place >> 8) ^ (place >> 16)) as u8)
        .collect()
}

/// Serves `/bytes/N` with the kernel's sockets, for as long as the test runs.
pub fn serve(netns: &Netns, at: SocketAddr) {
    let listener = listen(netns, at);
    thread::spawn(move || accept(&listener));
}

fn accept(listener: &TcpListener) {
    for stream in listener.incoming().map_while(Result::ok) {
        // A client that goes away early is the test's to judge.
        thread::spawn(move || answer(&stream));
    }
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut field = String::new();
    while reader.read_line(&mut field)? > 2 {
        field.clear();
    }
    let count = line
        .split(' ')
        .nth(1)
        .and_then(|path| path.strip_prefix("/bytes/"));
    let body = bytes(
        count
            .and_then(|count| count.parse().ok())
            .unwrap_or_default(),
    );
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: kernel\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    stream.write_all(&answer)
}

/// A client with a connection that it uses until the server closes it.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects from the namespace of the present thread.
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, stream),
        })
    }

    /// Its own endpoint.
    pub fn address(&self) -> SocketAddr {
        self.reader.get_ref().local_addr().expect("an address")
    }

    /// From now on waits no longer than this for an answer, and fails with [`io::ErrorKind::WouldBlock`].
    pub fn give_up_after(&self, patience: Duration) {
        let stream = self.reader.get_ref();
        stream.set_read_timeout(Some(patience)).expect("a timeout");
    }

    /// Asks for so many bytes and checks them; returns the name of the server.
    pub fn get(&mut self, count: usize, is_last: bool) -> io::Result<String> {
        let connection = if is_last { "close" } else { "keep-alive" };
        let request = format!(
            "GET /bytes/{count} HTTP/1.1\r\nHost: test\r\nConnection: {connection}\r\n\r\n"
        );
        self.reader.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if !line.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(format!("the answer begins with {line:?}")));
        }
        let mut server = String::new();
        let mut length = None;
        loop {
            line.clear();
            self.reader.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some(("Server", name)) => name.clone_into(&mut server),
                Some(("Content-Length", value)) => length = value.parse().ok(),
                Some(_) => {}
                None => break,
            }
        }
        if length != Some(count) {
            return Err(io::Error::other(format!("{length:?} bytes, not {count}")));
        }
        let mut body = vec![0; count];
        self.reader.read_exact(&mut body)?;
        if body != bytes(count) {
            return Err(io::Error::other(format!("{count} wrong bytes")));
        }
        Ok(server)
    }

    /// Whether the server has closed the connection, and sends nothing more.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.reader.fill_buf()?.is_empty())
    }
}

/// One request over a connection of its own; returns the name of the server.
pub fn get(to: SocketAddr, count: usize) -> io::Result<String> {
    let mut client = Client::connect(to)?;
    let server = client.get(count, true)?;
    if !client.is_at_end()? {
        return Err(io::Error::other("more than was asked for"));
    }
    Ok(server)
}
