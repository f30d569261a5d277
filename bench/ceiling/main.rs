//! The HTTP ceiling of `make bench`: the service without a store. It has the same server loop,
//! parsing, hashing and answers, no middleware and no data, and is not part of the product. With
//! `--redis` it is the bare server: its counts come from Redis, in the cheapest way.

mod bare_redis;

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
    extract::{Path, State},
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

use self::bare_redis::BareRedis;

/// The same allocator as the service's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Answers like the service, without any data.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// URL of a Redis that counts; without it nothing is counted
    #[arg(long)]
    redis: Option<String>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Arguments { listen, redis } = Arguments::parse();
    // The service's own limits, so that both serve connections alike.
    let limits = LoadedConfig::load(None)?.config.http;
    Runtime::new()?.block_on(async {
        let redis = match redis {
            Some(url) => Some(BareRedis::connect(&url).await?),
            None => None,
        };
        let routes = Router::new()
            .route("/anomalies", post(record))
            .route("/anomalies/{key}/frequency", get(frequency))
            .with_state(redis);
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

/// The count of each window while nothing is counted.
const COUNT: u64 = 123;

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
    fn of(key: AnomalyKey, now: Timestamp, counted: Option<bool>, count: u64) -> Self {
        Self {
            anomaly_key: key,
            count_1h: count,
            count_24h: count,
            count_7d: count,
            count_30d: count,
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

/// `POST /anomalies`: an object, or an array of them, which the bare server does not take.
async fn record(
    State(redis): State<Option<BareRedis>>,
    body: Bytes,
) -> Result<Response, Unanswered> {
    let now = SystemClock.now();
    match serde_json::from_slice(&body)? {
        Value::Array(elements) if redis.is_none() => {
            let bodies: Result<Vec<_>, Unanswered> = elements
                .iter()
                .map(|element| Ok(FrequencyBody::of(key(element)?, now, Some(true), COUNT)))
                .collect();
            Ok(Json(bodies?).into_response())
        }
        element => {
            let key = key(&element)?;
            let count = match redis {
                Some(redis) => redis.record(key, now).await.ok_or(Unanswered)?,
                None => COUNT,
            };
            Ok(Json(FrequencyBody::of(key, now, Some(true), count)).into_response())
        }
    }
}

fn key(element: &Value) -> Result<AnomalyKey, Unanswered> {
    let fields = element.as_object().ok_or(Unanswered)?;
    Ok(Signature::from_fields(fields)?.key())
}

/// `GET /anomalies/{key}/frequency`.
async fn frequency(
    State(redis): State<Option<BareRedis>>,
    Path(key): Path<String>,
) -> Result<Json<FrequencyBody>, Unanswered> {
    let (key, now) = (key.parse()?, SystemClock.now());
    let count = match redis {
        Some(redis) => redis.read(key, now).await.ok_or(Unanswered)?,
        None => COUNT,
    };
    Ok(Json(FrequencyBody::of(key, now, None, count)))
}

/// A request that can't be read, or a Redis that does not answer. The benchmark has neither, so a
/// bare status is enough.
#[derive(Debug)]
struct Unanswered;

impl IntoResponse for Unanswered {
    fn into_response(self) -> Response {
        StatusCode::BAD_REQUEST.into_response()
    }
}

impl From<serde_json::Error> for Unanswered {
    fn from(_: serde_json::Error) -> Self {
        Self
    }
}

impl From<InvalidSignature> for Unanswered {
    fn from(_: InvalidSignature) -> Self {
        Self
    }
}

impl From<InvalidKey> for Unanswered {
    fn from(_: InvalidKey) -> Self {
        Self
    }
}
