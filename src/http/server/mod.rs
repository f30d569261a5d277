//! Accepts connections and serves them: so many at most, none of them slow to say what it wants,
//! and at the end each gets its answer.

mod connections;
mod files;
mod tls;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, Response},
    response::IntoResponse as _,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_rustls::TlsAcceptor;
use tower::{Service, ServiceExt as _};

use self::connections::Connections;
use super::{
    HttpConfig,
    problem::{Problem, ProblemKind},
};
use crate::telemetry::{self, Shed};

pub(super) use connections::Place;
pub use tls::{Tls, TlsConfig, TlsError};

/// So many connections at the same time are told that there is no place for them; the others are just
/// ended. And for so long the head of their request is waited for.
const MAX_REFUSALS: usize = 256;
const REFUSAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Without file descriptors or memory no connection can be taken: a pause lets others end.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// A longer head of a request is refused. By itself hyper would keep 400 KB for each client that sends one
/// without an end.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `routes` until `stop` is done, then lets what was accepted be answered.
pub async fn serve<S>(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    routes: S,
    config: HttpConfig,
    stop: impl Future<Output = ()> + Send,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let server = Server {
        tls,
        routes,
        header_timeout: Duration::from_secs(config.header_timeout_seconds.get().into()),
        send_timeout: Duration::from_secs(config.send_timeout_seconds.get().into()),
        connections: Connections::new(files::room_for(config.max_connections.get().into())),
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        graceful: GracefulShutdown::new(),
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, peer)) => server.take(stream, peer),
            Err(error) => pause(&error).await,
        }
    }
    drop(listener);
    tracing::info!("stopping: requests under way are answered first");
    let patience = Duration::from_secs(config.shutdown_timeout_seconds);
    if time::timeout(patience, server.graceful.shutdown()).await.is_err() {
        let seconds = config.shutdown_timeout_seconds;
        tracing::warn!(seconds, "requests still under way after {seconds} s are cut off");
    }
}

/// Who has opened the connection of a request. Its text is made once a connection, since each request has it in its
/// log lines.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) text: Arc<str>,
}

impl Peer {
    pub(super) fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, text: address.to_string().into() }
    }
}

struct Server<S> {
    tls: Option<Arc<Tls>>,
    routes: S,
    header_timeout: Duration,
    send_timeout: Duration,
    connections: Connections,
    refusals: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl<S> Server<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    /// Serves a connection in a task of its own; one that has no place is told so.
    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        // An answer is small and complete: waiting to fill a segment only delays it. A stream that
        // does not take the option serves all the same.
        let _ = stream.set_nodelay(true);
        // A client that reads no answers would keep theirs in memory for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.send_timeout));
        let Some(place) = self.connections.place() else {
            self.refuse(stream);
            return;
        };
        let place = Arc::new(place);
        let connection = Connection {
            routes: self.routes.clone(),
            builder: connection_builder(self.header_timeout),
            watcher: self.graceful.watcher(),
            peer: Peer::new(peer.ip()),
            place: Arc::clone(&place),
        };
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor());
        let open = telemetry::connection();
        tokio::spawn(async move {
            tokio::select! {
                () = connection.serve(stream, acceptor) => {}
                () = place.leaving() => {}
            }
            drop(open);
        });
    }

    /// Tells a connection that there is no place for it, unless that would take an agreement on TLS.
    fn refuse(&self, stream: TcpStream) {
        telemetry::shed(Shed::Connections);
        if self.tls.is_some() {
            return;
        }
        let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() else { return };
        let mut builder = connection_builder(REFUSAL_HEADER_TIMEOUT);
        let stream = TokioIo::new(stream);
        let refused = builder.keep_alive(false).serve_connection(stream, service_fn(refuse));
        tokio::spawn(async move {
            // How a client takes its refusal is its own affair.
            drop(refused.await);
            drop(place);
        });
    }
}

/// A connection that has its place.
struct Connection<S> {
    routes: S,
    builder: http1::Builder,
    watcher: Watcher,
    peer: Peer,
    place: Arc<Place>,
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    async fn serve(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        let Some(acceptor) = acceptor else { return self.answer(stream).await };
        match time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.answer(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "no TLS was agreed on"),
            Err(_) => tracing::debug!("a client took too long to agree on TLS"),
        }
    }

    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let Self { routes, builder, watcher, peer, place } = self;
        let answer = service_fn(move |mut request: Request<Incoming>| {
            place.touch();
            request.extensions_mut().insert(peer.clone());
            request.extensions_mut().insert(Arc::clone(&place));
            routes.clone().oneshot(request)
        });
        let served = builder.serve_connection(TokioIo::new(stream), answer);
        if let Err(error) = watcher.watch(served).await {
            tracing::debug!(%error, "a connection has broken");
        }
    }
}

fn connection_builder(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
    builder.max_buf_size(MAX_HEAD_BYTES);
    builder
}

async fn refuse(_: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let detail = "there are more connections than can be served: try again in a moment";
    Ok(Problem::new(ProblemKind::Overloaded, detail).into_response())
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "a connection can't be accepted");
    time::sleep(PAUSE_AFTER_FAILED_ACCEPT).await;
}
