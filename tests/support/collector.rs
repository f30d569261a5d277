//! A trace collector of a test's own, which accepts OTLP over HTTP and keeps the spans.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::TcpListener as StdListener,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use rustls::{ServerConfig, crypto::ring};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::AbortHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{eventually, servers::process::on_free_port};

/// A collector that accepts traces until it is dropped.
pub(crate) struct Collector {
    port: u16,
    state: Arc<State>,
    accepting: AbortHandle,
}

#[derive(Default)]
struct State {
    connections: AtomicU64,
    /// True while all spans are refused. Refusals are counted.
    refuses: AtomicBool,
    refusals: AtomicU64,
    spans: Mutex<Vec<SentSpan>>,
    headers: Mutex<BTreeMap<String, String>>,
}

/// A span as it was sent, with its ids in hex and its attributes as text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SentSpan {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    /// The number in OTLP: 1 internal, 2 server, 3 client.
    pub(crate) kind: i32,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) is_error: bool,
    pub(crate) attributes: BTreeMap<String, String>,
    /// The attributes of the sender.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::serve(on_free_port(listen).unwrap(), None).await
    }

    /// Starts a collector on the port of an earlier one.
    pub(crate) async fn on(port: u16) -> Self {
        Self::serve(listen(port).unwrap(), None).await
    }

    /// Starts a collector with TLS, with `server.pem` and `server.key` of the folder.
    pub(crate) async fn with_certificate_in(dir: &Path) -> Self {
        let certificates = anomaly_counter::tls::certificates(&dir.join("server.pem")).unwrap();
        let key = anomaly_counter::tls::private_key(&dir.join("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        Self::serve(on_free_port(listen).unwrap(), Some(tls)).await
    }

    async fn serve(listener: StdListener, tls: Option<TlsAcceptor>) -> Self {
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    state.connections.fetch_add(1, Ordering::Relaxed);
                    let (state, tls) = (Arc::clone(&state), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => state.take(stream).await,
                            // A client that does not trust the certificate ends the connection.
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    state.take(stream).await;
                                }
                            }
                        }
                    });
                }
            }
        });
        Self { port, state, accepting: accepting.abort_handle() }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        traces_url(self.port)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Starts or stops refusing spans.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::Relaxed);
    }

    pub(crate) fn refusals(&self) -> u64 {
        self.state.refusals.load(Ordering::Relaxed)
    }

    /// Returns a header of the last request.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.state.headers.lock().unwrap().get(name).cloned()
    }

    pub(crate) fn spans(&self) -> Vec<SentSpan> {
        self.state.spans.lock().unwrap().clone()
    }

    /// Waits for this many spans of a trace.
    pub(crate) async fn trace(&self, id: &str, spans: usize) -> Vec<SentSpan> {
        eventually(&format!("{spans} spans of {id} come"), || async {
            let mut sent = self.spans();
            sent.retain(|span| span.trace == id);
            assert!(sent.len() <= spans, "{sent:#?}");
            (sent.len() == spans).then_some(sent)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn listen(port: u16) -> io::Result<StdListener> {
    StdListener::bind(("127.0.0.1", port))
}

/// Returns the URL of a collector on this port.
pub(crate) fn traces_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}/v1/traces")
}

/// Starts a collector that accepts connections and never answers.
pub(crate) fn silent_collector() -> (StdListener, String) {
    let listener = on_free_port(listen).unwrap();
    let url = traces_url(listener.local_addr().unwrap().port());
    (listener, url)
}

impl State {
    async fn take(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let service = service_fn(|request| Self::keep(Arc::clone(&self), request));
        // The sender may end the connection at any time.
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn keep(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Empty<Bytes>>, Infallible> {
        assert_eq!(request.uri().path(), "/v1/traces");
        if self.refuses.load(Ordering::Relaxed) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            let refusal = Response::builder().status(400).body(Empty::new());
            return Ok(refusal.unwrap());
        }
        let headers = request.headers().iter();
        *self.headers.lock().unwrap() = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            let sender = texts(resource.resource.unwrap().attributes);
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let sent = spans.map(|span| SentSpan::of(span, &sender));
            self.spans.lock().unwrap().extend(sent);
        }
        Ok(Response::new(Empty::new()))
    }
}

impl SentSpan {
    fn of(span: Span, resource: &BTreeMap<String, String>) -> Self {
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            kind: span.kind,
            begun: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
            is_error: span.status.is_some_and(|status| status.code == 2),
            attributes: texts(span.attributes),
            resource: resource.clone(),
        }
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes
        .into_iter()
        .map(|pair| (pair.key, text(pair.value.unwrap().value.unwrap())))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
