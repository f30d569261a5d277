//! Traces of single requests: the one place that names spans and their attributes, which follow
//! <https://opentelemetry.io/docs/specs/semconv/>. A request has a span, its batches have theirs
//! under it, and the store's calls under those.
//!
//! While traces are off, nothing here allocates or reads a clock. Spans of `tracing` were rejected:
//! they would go through the log's filters too, and need more of them to stay out of the log.

mod config;
mod export;

use std::{sync::OnceLock, time::SystemTime};

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, TraceId, Tracer as _},
};
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracer};
use tokio::task_local;

pub use config::{InvalidEndpoint, SampleRatio, TracesConfig, TracesEndpoint};
pub use export::{Traces, TracesError};

/// The tracer of the process; set if traces are on.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

task_local! {
    /// The span of the request that this task works on.
    static REQUEST: Context;
}

/// The `error.type` of a span whose caller did not wait for the end.
const GONE: &str = "gone";

const MAX_TRACESTATE_BYTES: usize = 512;
/// Maximum length of a text in a span.
const MAX_TEXT_CHARS: usize = 1_024;

/// The attribute for the number of items of a call.
const ITEMS: &str = "anomaly_counter.items";

/// Returns true if requests are traced.
pub fn are_on() -> bool {
    TRACER.get().is_some()
}

/// The span of a request. If it is dropped before the answer, there is none: the client has
/// disconnected, or the service ends.
#[derive(Debug)]
pub struct RequestSpan {
    context: Context,
    is_answered: bool,
}

/// The attributes of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The method, if it is a standard one.
    pub method: Option<&'static str>,
    /// The route of the router's table.
    pub route: Option<&'static str>,
    /// The path as it was sent.
    pub path: &'a str,
    /// The client's address.
    pub client: &'a str,
    /// The id of the request in the log.
    pub id: &'a str,
    /// The headers, which may name the caller's span.
    pub headers: &'a HeaderMap,
}

/// The headers by which a caller names its span. A `tracestate` longer than the 512 characters that
/// <https://www.w3.org/TR/trace-context/#tracestate-limits> asks for is ignored, because each span
/// under it has a copy.
struct CallersTrace<'a>(&'a HeaderMap);

impl Extractor for CallersTrace<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let value = self.0.get(key)?.to_str().ok()?;
        (key != "tracestate" || value.len() <= MAX_TRACESTATE_BYTES).then_some(value)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// Truncates a text of a client, which stays in memory until it is sent.
fn truncated(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}

impl RequestSpan {
    /// Begins the span of a request; `None` if traces are off.
    pub fn begin(head: RequestHead<'_>) -> Option<Self> {
        let tracer = TRACER.get()?;
        let RequestHead { method, route, path, client, id, headers } = head;
        let caller = TraceContextPropagator::new()
            .extract_with_context(&Context::new(), &CallersTrace(headers));
        let (method, shown) = method.map_or(("_OTHER", "HTTP"), |method| (method, method));
        let name = route.map_or_else(|| shown.to_owned(), |route| format!("{shown} {route}"));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.path", truncated(path)),
            KeyValue::new("anomaly_counter.request_id", truncated(id)),
            KeyValue::new("client.address", client.to_owned()),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let span = tracer.build_with_context(builder.with_attributes(attributes), &caller);
        Some(Self { context: Context::new().with_span(span), is_answered: false })
    }

    /// Runs `work`; the spans that it begins are under this one.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        REQUEST.sync_scope(self.context.clone(), work)
    }

    /// Runs a future; the spans that it begins are under this one.
    pub fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        REQUEST.scope(self.context.clone(), work)
    }

    /// Ends the span with the answer.
    pub fn answered(mut self, status: u16) {
        let span = self.context.span();
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        self.is_answered = true;
    }

    /// Returns the header by which the caller finds the trace: `traceresponse` of
    /// <https://w3c.github.io/trace-context/#traceresponse-header>.
    pub fn traceresponse(&self) -> String {
        let span = self.context.span();
        let context = span.span_context();
        let flags = context.trace_flags();
        format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        let span = self.context.span();
        if !self.is_answered {
            span.set_attribute(KeyValue::new("error.type", GONE));
            span.set_status(Status::error("there was no response"));
        }
        span.end();
    }
}

/// Returns the trace of the request that this task works on, sampled or not.
pub fn trace_id() -> Option<TraceId> {
    TRACER.get()?;
    REQUEST.try_with(|request| request.span().span_context().trace_id()).ok()
}

/// The parent of another span, if there is a trace and it is sampled.
#[derive(Clone, Debug, Default)]
pub struct Parent(Option<Context>);

impl Parent {
    /// Returns the request that this task works on.
    pub fn request() -> Self {
        if !are_on() {
            return Self(None);
        }
        Self(REQUEST.try_with(Context::clone).ok().filter(is_sampled))
    }
}

fn is_sampled(context: &Context) -> bool {
    context.span().span_context().is_sampled()
}

/// The span of a call's items on their way through the queue and a batch, or into the spool, until
/// their answer.
#[derive(Debug)]
pub struct ItemsSpan(Parent);

impl ItemsSpan {
    /// Begins the span of items that go to the queue. `call` is its name in metrics.
    pub fn batch(call: &'static str, items: usize) -> Self {
        let call = KeyValue::new("anomaly_counter.call", call);
        Self::begin("batch", || vec![call, count(ITEMS, items)])
    }

    /// Begins the span of items that go to the spool.
    pub fn spool(items: usize) -> Self {
        Self::begin("spool", || vec![count(ITEMS, items)])
    }

    fn begin(name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) -> Self {
        let (Some(tracer), Parent(Some(parent))) = (TRACER.get(), Parent::request()) else {
            return Self(Parent(None));
        };
        let builder = SpanBuilder::from_name(name).with_attributes(attributes());
        let span = tracer.build_with_context(builder, &parent);
        Self(Parent(Some(Context::new().with_span(span))))
    }

    /// Returns the parent of the span of the call to the store.
    pub fn parent(&self) -> Parent {
        self.0.clone()
    }

    /// Ends the span; with an `error` if none of the items was executed.
    pub fn end(self, error: impl FnOnce() -> Option<&'static str>) {
        if let Some(context) = &self.0.0 {
            let span = context.span();
            if let Some(error) = error() {
                span.set_attribute(KeyValue::new("error.type", error));
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }
}

/// The spans that share a call to the store.
#[derive(Debug, Default)]
pub struct Parents(Vec<Context>);

impl Parents {
    /// Adds a parent.
    pub fn add(&mut self, parent: Parent) {
        self.0.extend(parent.0);
    }
}

impl From<Parent> for Parents {
    fn from(parent: Parent) -> Self {
        Self(parent.0.into_iter().collect())
    }
}

/// The span of a call to the store. Each of the parents that share it gets a copy with the same
/// times, so that each trace is complete by itself.
#[derive(Debug)]
pub struct StoreSpan {
    /// Empty once the span has ended.
    parents: Vec<Context>,
    begun: SystemTime,
    store: &'static str,
    call: &'static str,
    items: usize,
}

impl StoreSpan {
    /// Begins the span; `None` if no parent is traced.
    pub fn begin(
        parents: Parents,
        store: &'static str,
        call: &'static str,
        items: usize,
    ) -> Option<Self> {
        let Parents(parents) = parents;
        (!parents.is_empty()).then(|| Self { parents, begun: now(), store, call, items })
    }

    /// Ends the span; with an `error` if nothing of the call was executed.
    pub fn end(mut self, error: Option<&'static str>) {
        self.export(error);
    }

    fn export(&mut self, error: Option<&'static str>) {
        let Some(tracer) = TRACER.get() else { return };
        let ended = now();
        for parent in std::mem::take(&mut self.parents) {
            let mut builder = self.builder().with_start_time(self.begun);
            if let Some(error) = error {
                let error = KeyValue::new("error.type", error);
                builder.attributes.get_or_insert_default().push(error);
            }
            let mut span = tracer.build_with_context(builder, &parent);
            if error.is_some() {
                span.set_status(Status::error(""));
            }
            span.end_with_timestamp(ended);
        }
    }

    fn builder(&self) -> SpanBuilder {
        let mut attributes = Vec::with_capacity(5);
        let (name, kind) = if self.store == "redis" {
            attributes.push(KeyValue::new("db.system.name", "redis"));
            attributes.push(KeyValue::new("db.operation.name", "EVALSHA"));
            attributes.push(KeyValue::new("db.stored_procedure.name", self.call));
            (format!("EVALSHA {}", self.call), SpanKind::Client)
        } else {
            attributes.push(KeyValue::new("db.operation.name", self.call));
            (format!("{} {}", self.store, self.call), SpanKind::Internal)
        };
        // The conventions do not define a batch of one.
        if self.items > 1 {
            attributes.push(count("db.operation.batch.size", self.items));
        }
        SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes)
    }
}

impl Drop for StoreSpan {
    /// Ends the span: the caller has disconnected, or waits no longer.
    fn drop(&mut self) {
        if !self.parents.is_empty() {
            self.export(Some(GONE));
        }
    }
}

fn count(name: &'static str, items: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(items).unwrap_or(i64::MAX))
}

#[expect(clippy::disallowed_methods, reason = "nothing is decided by when a span begins and ends")]
fn now() -> SystemTime {
    SystemTime::now()
}
