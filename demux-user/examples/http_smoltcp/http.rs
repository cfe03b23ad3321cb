//! As much of HTTP/1.1 (RFC 9112) as it takes: GET, several requests over one connection, and its end.

use smoltcp::socket::tcp::Socket;

/// The longest request that is read.
const LONGEST: usize = 8 << 10;

/// The requests of one connection and the answers to them, one after the other.
#[derive(Default)]
pub(super) struct Exchange {
    /// What was received and not answered yet.
    request: Vec<u8>,
    /// What is being sent.
    answer: Option<Answer>,
    /// Whether nothing will be answered any more.
    is_last: bool,
}

/// An answer on its way: a beginning, then so many bytes.
struct Answer {
    beginning: Vec<u8>,
    bytes: u64,
    /// How much of all that was handed to the socket.
    sent: u64,
}

/// The byte at this place of `/bytes/N`.
fn byte_at(place: u64) -> u8 {
    (place ^ (place >> 8) ^ (place >> 16)) as u8
}

impl Exchange {
    /// Reads what has come, and sends what there is room for.
    pub(super) fn go_on(&mut self, socket: &mut Socket<'_>) {
        loop {
            self.read(socket);
            if self.answer.is_none() && !self.is_last {
                self.answer = self.next_answer();
            }
            let Some(answer) = &mut self.answer else {
                break;
            };
            if !answer.send(socket) {
                return;
            }
            self.answer = None;
        }
        // Nobody will ask any more: either we said so, or the client has.
        if (self.is_last || !socket.may_recv()) && socket.may_send() {
            socket.close();
        }
    }

    fn read(&mut self, socket: &mut Socket<'_>) {
        while socket.can_recv() && self.request.len() < LONGEST {
            let taken = socket.recv(|bytes| {
                let room = LONGEST - self.request.len();
                let bytes = &bytes[..bytes.len().min(room)];
                self.request.extend(bytes);
                (bytes.len(), bytes.len())
            });
            if !matches!(taken, Ok(1..)) {
                return;
            }
        }
    }

    /// The answer to the next request; `None` while it is not all there.
    fn next_answer(&mut self) -> Option<Answer> {
        const END: &[u8] = b"\r\n\r\n";
        let end = self
            .request
            .windows(END.len())
            .position(|bytes| bytes == END);
        let Some(end) = end else {
            if self.request.len() < LONGEST {
                return None;
            }
            self.is_last = true;
            return Some(Answer::text(
                "431 Request Header Fields Too Large",
                "too long\n",
                true,
            ));
        };
        let head: Vec<u8> = self.request.drain(..end + END.len()).collect();
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, version] = first[..] else {
            self.is_last = true;
            return Some(Answer::text("400 Bad Request", "that is not HTTP\n", true));
        };
        let fields: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase()))
            .collect();
        let value = |name: &str| {
            fields
                .iter()
                .find(|field| field.0 == name)
                .map(|field| &*field.1)
        };
        // What follows a request with a body cannot be told from it without reading that.
        let has_body = value("content-length").is_some_and(|length| length != "0")
            || value("transfer-encoding").is_some();
        let keeps = match value("connection") {
            Some("close") => false,
            Some("keep-alive") => true,
            _ => version == "HTTP/1.1",
        };
        self.is_last = has_body || !keeps;
        Some(match (method, target) {
            ("GET", "/") => Answer::text("200 OK", "hello from user space\n", self.is_last),
            ("GET", target) => match target.strip_prefix("/bytes/").map(str::parse) {
                Some(Ok(count)) => Answer::bytes(count, self.is_last),
                _ => Answer::text("404 Not Found", "there is / and /bytes/N\n", self.is_last),
            },
            _ => Answer::text("405 Method Not Allowed", "only GET\n", self.is_last),
        })
    }
}

impl Answer {
    fn text(status: &str, text: &str, is_last: bool) -> Self {
        let mut beginning = head(status, "text/plain", text.len() as u64, is_last);
        beginning.extend(text.bytes());
        Self {
            beginning,
            bytes: 0,
            sent: 0,
        }
    }

    fn bytes(count: u64, is_last: bool) -> Self {
        Self {
            beginning: head("200 OK", "application/octet-stream", count, is_last),
            bytes: count,
            sent: 0,
        }
    }

    /// Hands the socket what it has room for; `true` once that is all.
    fn send(&mut self, socket: &mut Socket<'_>) -> bool {
        let first = self.beginning.len() as u64;
        let length = first.saturating_add(self.bytes);
        while self.sent < length && socket.can_send() {
            let part = socket.send(|room| {
                let count = (length - self.sent).min(room.len() as u64) as usize;
                for (place, byte) in (self.sent..).zip(&mut room[..count]) {
                    *byte = match self.beginning.get(place as usize) {
                        Some(byte) => *byte,
                        None => byte_at(place - first),
                    };
                }
                (count, count as u64)
            });
            match part {
                Ok(part) => self.sent += part,
                // Reset by the client: there is nobody to send to.
                Err(_) => return true,
            }
        }
        self.sent == length
    }
}

fn head(status: &str, kind: &str, length: u64, is_last: bool) -> Vec<u8> {
    let connection = if is_last { "close" } else { "keep-alive" };
    format!(
        "HTTP/1.1 {status}\r\nServer: demux-example\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    )
    .into_bytes()
}
