//! Metrics over HTTP: one request a connection, and nobody waits for a slow client.

use std::{collections::VecDeque, convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

use super::{PAUSE, blocking::blocking, session::Shared};
use crate::{
    Error, Result,
    metrics::{self, CONTENT, Scrape},
};

/// How many clients are served at once. One more, and the oldest is turned out.
const CONNECTIONS: usize = 16;

/// How long a client may take for its request, and for all.
const HEADER: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(10);

/// Bytes of the longest request.
const LONGEST: usize = 8 * 1024;

/// Where metrics are asked for.
#[derive(Debug)]
pub(super) struct Exporter {
    listener: TcpListener,
}

impl Exporter {
    /// Listens at an address.
    ///
    /// # Errors
    ///
    /// Where somebody else does.
    pub(super) fn open(address: SocketAddr) -> Result<Self> {
        let open = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        };
        open()
            .map(|listener| Self { listener })
            .map_err(|source| Error::io(format!("serve metrics at {address}"), source))
    }

    /// Takes a socket that somebody listens on for us.
    ///
    /// # Errors
    ///
    /// Where it cannot be waited for.
    pub(super) fn given(listener: std::net::TcpListener) -> Result<Self> {
        listener
            .set_nonblocking(true)
            .and_then(|()| TcpListener::from_std(listener))
            .map(|listener| Self { listener })
            .map_err(|source| Error::io("serve metrics", source))
    }

    /// Where it listens.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.listener
            .local_addr()
            .map_err(|source| Error::io("serve metrics", source))
    }

    /// Serves until it is dropped.
    pub(super) async fn serve(self, shared: Rc<Shared>) {
        let source = Rc::new(Source {
            shared,
            errors: Mutex::new(0),
        });
        let mut clients: JoinSet<()> = JoinSet::new();
        let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        oldest.retain(|client| !client.is_finished());
                        if oldest.len() >= CONNECTIONS
                            && let Some(client) = oldest.pop_front()
                        {
                            client.abort();
                        }
                        oldest.push_back(clients.spawn_local(answer(stream, Rc::clone(&source))));
                    }
                    // As without descriptors.
                    Err(_) => sleep(PAUSE).await,
                },
                Some(_) = clients.join_next() => {}
            }
        }
    }
}

/// What clients ask.
struct Source {
    shared: Rc<Shared>,
    /// What could not be read so far. Who has it reads: the others wait.
    errors: Mutex<u64>,
}

async fn answer(stream: TcpStream, source: Rc<Source>) {
    let service = service_fn(move |request| respond(request, Rc::clone(&source)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .max_buf_size(LONGEST)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever was slow, or spoke otherwise, has no answer.
    let _ = timeout(WHOLE, connection).await;
}

async fn respond(
    request: Request<Incoming>,
    source: Rc<Source>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status, text: &'static str| {
        let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
        *response.status_mut() = status;
        response
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::new(Bytes::from(source.text().await)));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT));
            response
        }
        "/" => plain(StatusCode::OK, "demux: see /metrics\n"),
        _ => plain(StatusCode::NOT_FOUND, "see /metrics\n"),
    })
}

impl Source {
    async fn text(&self) -> String {
        let mut errors = self.errors.lock().await;
        let scrape = Scrape {
            bindings: self.shared.config.borrow().service.metrics_bindings,
            errors: *errors,
            daemon: Some(self.shared.counts.get()),
        };
        let bpffs = self.shared.bpffs.clone();
        let text = blocking(move || metrics::present(bpffs.as_deref(), scrape)).await;
        *errors = text.errors;
        text.text
    }
}
