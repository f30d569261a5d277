//! Accepts connections and serves them: so many at most, none of them slow to say what it wants,
//! and at the end each gets its answer.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{Request, Response},
    response::IntoResponse as _,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tower::Service;

use super::{
    HttpConfig,
    problem::{Problem, ProblemKind},
    tls::Tls,
};
use crate::telemetry::{self, Shed};

/// So many connections at the same time are told that there is no place for them; the others are just
/// ended. And for so long the head of their request is waited for.
const MAX_REFUSALS: usize = 256;
const REFUSAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Without file descriptors or memory no connection can be taken: a pause lets others end.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

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
        places: Arc::new(Semaphore::new(config.max_connections.get().into())),
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
            Ok((stream, _)) => server.take(stream),
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

struct Server<S> {
    tls: Option<Arc<Tls>>,
    routes: S,
    header_timeout: Duration,
    send_timeout: Duration,
    places: Arc<Semaphore>,
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
    fn take(&self, stream: TcpStream) {
        // An answer is small and complete: waiting to fill a segment only delays it. A stream that
        // does not take the option serves all the same.
        let _ = stream.set_nodelay(true);
        // A client that reads no answers would keep theirs in memory for ever.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.send_timeout));
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.refuse(stream);
            return;
        };
        let held = (place, telemetry::connection());
        let served = Connection {
            routes: self.routes.clone(),
            builder: connection_builder(self.header_timeout),
            watcher: self.graceful.watcher(),
        };
        let acceptor = self.tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            match acceptor {
                None => served.serve(stream).await,
                Some(acceptor) => {
                    match time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => served.serve(stream).await,
                        Ok(Err(error)) => tracing::debug!(%error, "no TLS was agreed on"),
                        Err(_) => tracing::debug!("a client took too long to agree on TLS"),
                    }
                }
            }
            drop(held);
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
}

impl<S> Connection<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let routes = TowerToHyperService::new(self.routes);
        let served = self.builder.serve_connection(TokioIo::new(stream), routes);
        if let Err(error) = self.watcher.watch(served).await {
            tracing::debug!(%error, "a connection has broken");
        }
    }
}

fn connection_builder(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
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
