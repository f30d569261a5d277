//! The HTTP ceiling of `make bench`: the service without a store. It has the same server loop,
//! parsing, hashing and answers, no middleware and no data, and is not part of the product.

use std::{future, net::SocketAddr, sync::Arc};

use anomaly_counter::{
    config::LoadedConfig,
    counter::SystemClock,
    domain::{AnomalyKey, InvalidKey, InvalidSignature, Signature, Timestamp},
    http::{self, ClientConnection, Routes},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::Path,
    http::{Request, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use mimalloc::MiMalloc;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tower::ServiceExt as _;

/// The same allocator as the service's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Answers like the service, without any data.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { listen } = Arguments::parse();
    // The service's own limits, so that both serve connections alike.
    let limits = LoadedConfig::load(None)?.config.http;
    let routes = Router::new()
        .route("/anomalies", post(record))
        .route("/anomalies/{key}/frequency", get(frequency));
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind(listen).await?;
        println!("{}", json!({"address": listener.local_addr()?}));
        http::serve(listener, None, Ceiling(routes), limits, future::pending()).await;
        Ok(())
    })
}

/// The routes without the service's layers.
#[derive(Clone)]
struct Ceiling(Router);

impl Routes for Ceiling {
    fn answer(
        &self,
        _: Arc<ClientConnection>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response> + Send + use<> {
        self.0.clone().oneshot(request).map(|answered| {
            let Ok(response) = answered;
            response
        })
    }
}

/// The members of the service's answer, with values of the same size.
#[derive(Debug, Serialize)]
struct FrequencyBody {
    anomaly_key: AnomalyKey,
    count_1h: u64,
    count_24h: u64,
    count_7d: u64,
    count_30d: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
    auto_repair_count: u64,
    permanent_fix_applied: bool,
    escalation_level: Option<&'static str>,
    previous_level: Option<&'static str>,
    regressed: bool,
    degraded: bool,
    /// Present only in the answer to a POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    counted: Option<bool>,
}

impl FrequencyBody {
    fn of(key: AnomalyKey, now: Timestamp, counted: Option<bool>) -> Self {
        Self {
            anomaly_key: key,
            count_1h: 123,
            count_24h: 123,
            count_7d: 123,
            count_30d: 123,
            first_seen: now.minus_seconds(60),
            last_seen: now,
            auto_repair_count: 0,
            permanent_fix_applied: false,
            escalation_level: Some("PERMANENT_FIX"),
            previous_level: Some("PERMANENT_FIX"),
            regressed: false,
            degraded: false,
            counted,
        }
    }
}

/// `POST /anomalies`: an object, or an array of them.
async fn record(body: Bytes) -> Result<Response, Unreadable> {
    let now = SystemClock.now();
    match serde_json::from_slice(&body)? {
        Value::Array(elements) => {
            let bodies: Result<Vec<_>, _> =
                elements.iter().map(|element| counted(element, now)).collect();
            Ok(Json(bodies?).into_response())
        }
        element => Ok(Json(counted(&element, now)?).into_response()),
    }
}

fn counted(element: &Value, now: Timestamp) -> Result<FrequencyBody, Unreadable> {
    let fields = element.as_object().ok_or(Unreadable)?;
    Ok(FrequencyBody::of(Signature::from_fields(fields)?.key(), now, Some(true)))
}

/// `GET /anomalies/{key}/frequency`.
async fn frequency(Path(key): Path<String>) -> Result<Json<FrequencyBody>, Unreadable> {
    Ok(Json(FrequencyBody::of(key.parse()?, SystemClock.now(), None)))
}

/// A request that can't be read. The benchmark sends none, so a bare status is enough.
#[derive(Debug)]
struct Unreadable;

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        StatusCode::BAD_REQUEST.into_response()
    }
}

impl From<serde_json::Error> for Unreadable {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

impl From<InvalidSignature> for Unreadable {
    fn from(_: InvalidSignature) -> Self {
        Self
    }
}

impl From<InvalidKey> for Unreadable {
    fn from(_: InvalidKey) -> Self {
        Self
    }
}
