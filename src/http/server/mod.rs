//! Accepts and serves connections. Their number and the time to send a request are limited, and a
//! shutdown answers the requests in progress.

mod connections;
mod files;
mod tls;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    http::{Request, Response},
    response::IntoResponse as _,
};
use futures_util::FutureExt as _;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time,
};
use tokio_rustls::TlsAcceptor;

use self::connections::{ConnectionSlot, Connections};
use super::{
    config::HttpConfig,
    problem::{Problem, ProblemKind},
};
use crate::telemetry::{self, LogSource, Shed, may_log};

pub use tls::{Tls, TlsConfig, TlsError};

/// Maximum number of connections that are refused with an answer at the same time; others are just
/// closed; and the timeout for the head of their request.
const MAX_REFUSALS: usize = 256;
const REFUSAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed `accept`: without file descriptors or memory no connection can be accepted
/// until others have ended.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Maximum size of the head of a request. With hyper's own limit, a client that sends an endless
/// head would take 400 KB.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// Maximum time and number of bytes for reading from a client after the last answer.
const LINGER_TIME: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 256 << 10;

/// Timeout for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the requests of connections.
pub trait Routes: Clone + Send + Sync + 'static {
    /// Answers a request of `connection`.
    fn answer(
        &self,
        connection: Arc<ClientConnection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send + use<Self>;
}

/// Serves `routes` until `stop` completes, and then answers the requests that were accepted.
/// Returns the deadline of the whole shutdown.
pub async fn serve<R: Routes>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    routes: R,
    config: HttpConfig,
    stop: impl Future<Output = ()> + Send,
) -> time::Instant {
    let server = Server {
        tls,
        routes,
        header_timeout: Duration::from_secs(config.header_timeout_seconds.get().into()),
        send_timeout: Duration::from_secs(config.send_timeout_seconds.get().into()),
        connections: Connections::new(files::max_connections(config.max_connections.get().into())),
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        stop: watch::Sender::new(()),
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => server.accept(stream, peer),
            Err(error) => pause(&error).await,
        }
    }
    drop(listener);
    tracing::info!("stopping: requests in progress are completed first");
    let seconds = config.shutdown_timeout_seconds;
    let deadline = time::Instant::now() + Duration::from_secs(seconds.into());
    server.stop.send_replace(());
    if time::timeout_at(deadline, server.stop.closed()).await.is_err() {
        tracing::warn!(seconds, "requests still in progress after {seconds} s are aborted");
    }
    deadline
}

/// The connection of a request.
#[derive(Debug)]
pub struct ClientConnection {
    pub(super) peer: Peer,
    pub(super) slot: ConnectionSlot,
}

#[cfg(test)]
impl ClientConnection {
    pub(super) fn of_peer(address: &str) -> Self {
        let slot = Connections::new(1).slot().unwrap();
        Self { peer: Peer::new(address.parse().unwrap()), slot }
    }
}

/// The client's address. Its text is made once per connection, because each request has it in its
/// log lines.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) text: Arc<str>,
}

impl Peer {
    fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, text: address.to_string().into() }
    }
}

struct Server<R> {
    tls: Option<Arc<Tls>>,
    routes: R,
    header_timeout: Duration,
    send_timeout: Duration,
    connections: Connections,
    refusals: Arc<Semaphore>,
    /// Changes when connections have to end; each connection has a receiver until its last answer.
    stop: watch::Sender<()>,
}

impl<R: Routes> Server<R> {
    /// Serves a connection in a task of its own, or refuses it while all slots are in use.
    fn accept(&self, stream: TcpStream, peer: SocketAddr) {
        // An answer is small and complete: waiting to fill a segment only delays it. A stream that
        // refuses the option is served all the same.
        let _ = stream.set_nodelay(true);
        // Without this timeout, the answers to a client that does not read them would stay in
        // memory for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.send_timeout));
        let Some(slot) = self.connections.slot() else {
            self.refuse(stream);
            return;
        };
        let client = Arc::new(ClientConnection { peer: Peer::new(peer.ip()), slot });
        let connection = Connection {
            routes: self.routes.clone(),
            builder: connection_builder(self.header_timeout),
            stop: self.stop.subscribe(),
            client: Arc::clone(&client),
        };
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor());
        let open = telemetry::connection();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.serve(stream, acceptor) => {}
                () = client.slot.closing() => {}
            }
            drop(open);
        });
    }

    /// Answers a connection with a refusal, unless that would take a TLS handshake.
    fn refuse(&self, stream: TcpStream) {
        telemetry::shed(Shed::Connections);
        if self.tls.is_some() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let mut builder = connection_builder(REFUSAL_HEADER_TIMEOUT);
        builder.keep_alive(false);
        tokio::spawn(async move {
            let mut stream = stream;
            // An error means that the client did not wait for its refusal.
            drop(builder.serve_connection(TokioIo::new(&mut stream), service_fn(refuse)).await);
            linger(stream).await;
            drop(permit);
        });
    }
}

/// A connection that has its slot.
struct Connection<R> {
    routes: R,
    builder: http1::Builder,
    stop: watch::Receiver<()>,
    client: Arc<ClientConnection>,
}

impl<R: Routes> Connection<R> {
    async fn serve(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else { return self.answer_requests(stream).await };
        match time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.answer_requests(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn answer_requests(
        self,
        mut stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) {
        let Self { routes, builder, mut stop, client } = self;
        let answer = service_fn(move |request: Request<Incoming>| {
            client.slot.touch();
            routes.answer(Arc::clone(&client), request).map(Ok::<_, Infallible>)
        });
        let served = async {
            let served = builder.serve_connection(TokioIo::new(&mut stream), answer);
            let mut served = std::pin::pin!(served);
            tokio::select! {
                ended = served.as_mut() => return ended,
                _ = stop.changed() => served.as_mut().graceful_shutdown(),
            }
            served.await
        };
        if let Err(error) = served.await {
            tracing::debug!(%error, "a connection failed");
        }
        drop(stop);
        linger(stream).await;
    }
}

/// Ends a connection so that a client that still sends can read its answer: a socket that is closed
/// with bytes unread is reset, and a reset discards what the client has not read (RFC 9112, 9.6).
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let reading = async {
        let (mut buffer, mut read) = (vec![0; 4 << 10], 0);
        stream.shutdown().await?;
        while read < LINGER_BYTES
            && let length @ 1.. = stream.read(&mut buffer).await?
        {
            read += length;
        }
        io::Result::Ok(())
    };
    // It makes no difference whether the client has closed it by then.
    let _ = time::timeout(LINGER_TIME, reading).await;
}

fn connection_builder(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.max_buf_size(MAX_HEAD_BYTES);
    // While a request is handled, the service does not check whether its client has disconnected:
    // for that it would have to read ahead, into another buffer for each request. A client that has
    // only closed its sending side reads its answer. Nothing relies on noticing a disconnect: while
    // a body arrives, its end is noticed; after that, the request holds its permit and its memory
    // until its answer, for `http.response_timeout_seconds` at most.
    builder.half_close(true);
    builder
}

async fn refuse(_: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let detail = "there are more connections than the service can handle: try again in a moment";
    Ok(Problem::new(ProblemKind::Overloaded, detail).into_response())
}

async fn pause(error: &io::Error) {
    let kind = "a connection can't be accepted";
    if may_log(kind, LogSource::Anyone, Instant::now()) {
        tracing::warn!(%error, "{kind}");
    }
    time::sleep(PAUSE_AFTER_FAILED_ACCEPT).await;
}
