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
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use socket2::SockRef;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tower::Service;

use super::{
    HttpConfig,
    problem::{Problem, ProblemKind},
};
use crate::telemetry::{self, Shed};

/// So many connections at the same time are told that there is no place for them; the others are just
/// ended. And for so long the head of their request is waited for.
const MAX_REFUSALS: usize = 256;
const REFUSAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Without file descriptors or memory no connection can be taken: a pause lets others end.
const PAUSE_AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Serves `routes` until `stop` is done, then lets what was accepted be answered.
pub async fn serve<S>(
    listener: TcpListener,
    routes: S,
    config: HttpConfig,
    stop: impl Future<Output = ()> + Send,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let server = Server {
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
        let stream = TokioIo::new(stream);
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            telemetry::shed(Shed::Connections);
            if let Ok(place) = Arc::clone(&self.refusals).try_acquire_owned() {
                let mut builder = connection_builder(REFUSAL_HEADER_TIMEOUT);
                let refused =
                    builder.keep_alive(false).serve_connection(stream, service_fn(refuse));
                tokio::spawn(async move {
                    // How a client takes its refusal is its own affair.
                    drop(refused.await);
                    drop(place);
                });
            }
            return;
        };
        let routes = TowerToHyperService::new(self.routes.clone());
        let builder = connection_builder(self.header_timeout);
        let served = self.graceful.watch(builder.serve_connection(stream, routes));
        let told = telemetry::connection();
        tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection has broken");
            }
            drop((place, told));
        });
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
