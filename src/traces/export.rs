//! Sends spans to a collector, in batches, from a thread of its own behind a bounded queue: no call
//! waits for it. The SDK's own log is left out, because an unreachable collector would cause a line
//! for each batch; an outage is two lines here, one at its beginning and one at its end.

use std::{
    error::Error,
    io::Read as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::{InstrumentationScope, KeyValue, trace::TracerProvider as _};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Sampler, SdkTracerProvider, SpanData},
};
use parking_lot::Mutex;
use reqwest::{blocking::Client, redirect};

use super::config::{SampleRatio, TracesConfig, TracesEndpoint};
use crate::tls;

/// The service's name in traces, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES has another.
const SERVICE_NAME: &str = "anomaly-counter";
/// The SDK's name for a service without one.
const UNKNOWN_SERVICE: &str = "unknown_service";

/// Timeout for sending a batch of spans.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum part of an answer that is read. Its content is not used, but a connection is reused only
/// if all of it was read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Maximum time that a shutdown waits for the last spans to be sent.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The export of traces to a collector.
#[derive(Debug)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Starts tracing, if an endpoint is configured. To be called, and ended, outside of a runtime,
    /// because the exporter has one of its own.
    ///
    /// # Errors
    /// If spans can't be sent as configured. An unreachable collector is no error.
    pub fn start(config: &TracesConfig) -> Result<Self, TracesError> {
        let Some(endpoint) = &config.endpoint else { return Ok(Self(None)) };
        let provider = provider(endpoint, config.sample_ratio)?;
        let scope = InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
            .with_version(env!("CARGO_PKG_VERSION"));
        // Only the first call of a process has an effect.
        let _ = super::TRACER.set(provider.tracer_with_scope(scope.build()));
        tracing::info!(%endpoint, "sending traces to {endpoint}");
        Ok(Self(Some(provider)))
    }

    /// Sends the spans that have not been sent, as far as the collector accepts them in time.
    pub fn end(self) {
        let Some(provider) = self.0 else { return };
        if provider.shutdown_with_timeout(FLUSH_TIMEOUT).is_err() {
            let seconds = FLUSH_TIMEOUT.as_secs();
            tracing::warn!(
                seconds,
                "the last spans were not sent within {seconds} s, and are dropped"
            );
        }
    }
}

/// The reason for which traces can't be exported.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The HTTP client can't be built, because the system's certificates are missing.
    #[error("traces can't be sent: {0}")]
    Client(#[from] reqwest::Error),
    /// The environment has a variable `OTEL_…` that is not supported.
    #[error(
        "traces can't be sent: {0}. Check the OTEL_EXPORTER_OTLP_… variables in the environment"
    )]
    Exporter(#[from] ExporterBuildError),
}

/// Builds the provider that makes spans and sends those of sampled traces.
fn provider(
    endpoint: &TracesEndpoint,
    ratio: SampleRatio,
) -> Result<SdkTracerProvider, TracesError> {
    tls::install_provider();
    let client = Client::builder()
        .timeout(SEND_TIMEOUT)
        // Headers with secrets are for the collector alone.
        .redirect(redirect::Policy::none());
    let client = if endpoint.is_local() { client.no_proxy() } else { client }.build()?;
    let collector = Arc::new(Collector { client, last_error: Mutex::default() });
    let exporter = SpanExporter::builder()
        .with_http()
        .with_shared_http_client(Arc::<Collector>::clone(&collector))
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.to_string())
        .with_timeout(SEND_TIMEOUT)
        .build()?;
    let exporter = LoggedExporter {
        exporter,
        collector,
        endpoint: endpoint.clone(),
        lost_spans: AtomicU64::new(0),
    };
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio.get())));
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(sampler)
        .with_resource(resource())
        .build())
}

/// The attributes that all spans share. The environment overrides them.
fn resource() -> Resource {
    let detected = Resource::builder().build();
    let mut own = vec![
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
    ];
    let name = detected.get(&"service.name".into());
    if name.is_none_or(|name| name.as_str().starts_with(UNKNOWN_SERVICE)) {
        own.push(KeyValue::new("service.name", SERVICE_NAME));
    }
    own.retain(|attribute| {
        attribute.key.as_str() == "service.name" || detected.get(&attribute.key).is_none()
    });
    Resource::builder().with_attributes(own).build()
}

/// The collector's HTTP client. It keeps the reason of a failed request, which the SDK writes to
/// its own log only.
#[derive(Debug)]
struct Collector {
    client: Client,
    last_error: Mutex<String>,
}

#[async_trait]
impl HttpClient for Collector {
    /// Sends a batch. It blocks, which is allowed on the SDK's own thread.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        self.send(request)
            .inspect_err(|error| *self.last_error.lock() = with_causes(error.as_ref()))
    }
}

impl Collector {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::blocking::Request::try_from(request)?;
        let answer = self.client.execute(request).map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        if !status.is_success() {
            *self.last_error.lock() = format!("it returns {status}");
        }
        let mut response = Response::builder().status(status);
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let mut body = Vec::new();
        answer.take(MAX_ANSWER_BYTES).read_to_end(&mut body)?;
        Ok(response.body(body.into())?)
    }
}

/// Renders an error with its causes, because the innermost one says what is wrong.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An exporter that logs an outage in two lines.
#[derive(Debug)]
struct LoggedExporter {
    exporter: SpanExporter,
    collector: Arc<Collector>,
    endpoint: TracesEndpoint,
    /// Spans lost in the current outage; 0 outside of one.
    lost_spans: AtomicU64,
}

impl opentelemetry_sdk::trace::SpanExporter for LoggedExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        self.collector.last_error.lock().clear();
        let result = self.exporter.export(batch).await;
        let endpoint = &self.endpoint;
        match &result {
            Ok(()) => {
                let lost_spans = self.lost_spans.swap(0, Ordering::Relaxed);
                if lost_spans > 0 {
                    tracing::info!(
                        %endpoint,
                        lost_spans,
                        "{endpoint} accepts traces again; at least {lost_spans} spans are lost"
                    );
                }
            }
            Err(failure) if self.lost_spans.fetch_add(spans, Ordering::Relaxed) == 0 => {
                let last_error = std::mem::take(&mut *self.collector.last_error.lock());
                let cause = if last_error.is_empty() { failure.to_string() } else { last_error };
                tracing::warn!(
                    %endpoint,
                    cause,
                    "{endpoint} accepts no traces, and spans are dropped until it does: {cause}"
                );
            }
            Err(_) => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
