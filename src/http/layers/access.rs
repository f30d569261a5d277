//! Lets requests in or turns them away by what their heads say, before their bodies are read.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, Method, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::Either;
use tower::Service;

use super::browser::OriginPolicy;
use crate::{
    auth::{AuthError, Caller, RetryAfter, Scope, SignedDelivery},
    http::{
        AppState,
        problem::{Problem, ProblemKind},
    },
    telemetry::{self, Shed},
};

/// Where Alertmanager and Grafana deliver.
pub(in crate::http) const WEBHOOK_PATH: &str = "/webhooks/alertmanager";

/// The header in which Grafana signs a delivery.
pub(in crate::http) const GRAFANA_SIGNATURE: HeaderName =
    HeaderName::from_static("x-grafana-alerting-signature");

/// What a request takes; `None` for what everybody may ask. What is not named here takes the most.
pub(in crate::http) fn needed(method: &Method, path: &str) -> Option<Scope> {
    match (method, path) {
        (_, "/healthz" | "/readyz" | "/openapi.json" | "/docs") => None,
        // The parts of the page, and what the types of problems lead to.
        (_, path) if path.starts_with("/docs/") || path.starts_with("/problems/") => None,
        (&Method::GET | &Method::HEAD, _) => Some(Scope::Read),
        (&Method::POST, "/anomalies" | "/repairs" | WEBHOOK_PATH) => Some(Scope::Ingest),
        _ => Some(Scope::Operate),
    }
}

/// What is asked of a request.
#[derive(Debug)]
pub(super) struct Access {
    state: AppState,
    origin_policy: OriginPolicy,
}

impl Access {
    pub(super) fn new(state: AppState, origin_policy: OriginPolicy) -> Self {
        Self { state, origin_policy }
    }

    /// Notes on the request who calls, where it is let in.
    fn admit(&self, request: &mut Request) -> Result<(), Problem> {
        let authenticator = &self.state.authenticator;
        self.origin_policy.admit(request, authenticator.is_open())?;
        let Some(scope) = needed(request.method(), request.uri().path()) else { return Ok(()) };
        if let Some(delivery) = self.signed_delivery(request) {
            // Believed once its body is there.
            request.extensions_mut().insert(delivery);
            request.extensions_mut().insert(Caller::default());
            return Ok(());
        }
        let secret = shown_secret(request.headers());
        let caller = authenticator.admit(self.state.counter.now(), secret.as_deref(), scope)?;
        caller.admit_request().map_err(|wait| limited(scope, wait))?;
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn signed_delivery(&self, request: &Request) -> Option<SignedDelivery> {
        let headers = request.headers();
        let is_delivery = request.uri().path() == WEBHOOK_PATH
            && request.method() == Method::POST
            && !headers.contains_key(header::AUTHORIZATION);
        let signature = headers.get(GRAFANA_SIGNATURE).filter(|_| is_delivery)?.to_str().ok()?;
        let authenticator = &self.state.authenticator;
        let time = authenticator.grafana_timestamp_header().and_then(|name| headers.get(name));
        authenticator.signed_delivery(signature, time.and_then(|time| time.to_str().ok()))
    }
}

/// What is behind it gets only the requests that are let in.
#[derive(Clone, Debug)]
pub(super) struct RequireScope<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> RequireScope<S> {
    pub(super) fn new(access: Access, inner: S) -> Self {
        Self { access: Arc::new(access), inner }
    }
}

impl<S> Service<Request> for RequireScope<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.access.admit(&mut request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(problem) => Either::Left(ready(Ok(problem.into_response()))),
        }
    }
}

/// Takes events from what a caller may record.
pub(in crate::http) fn admit_events(caller: &Caller, count: usize) -> Result<(), Problem> {
    caller.admit_events(count).map_err(|wait| limited(Scope::Ingest, wait))
}

/// The token behind `Bearer`, or the password of `Basic`, whatever its user.
fn shown_secret(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, credentials) = text.split_once(' ')?;
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credentials.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(credentials).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}

/// Alertmanager drops what is answered 429, and tries again after a 503.
fn limited(scope: Scope, RetryAfter(wait): RetryAfter) -> Problem {
    telemetry::shed(Shed::Token);
    let (kind, what) = match scope {
        Scope::Ingest => (ProblemKind::Overloaded, "and nothing was recorded"),
        Scope::Read | Scope::Operate => (ProblemKind::TooManyRequests, "and nothing was done"),
    };
    let detail = format!("this token's limit is reached, {what}: try again later, or raise it");
    Problem::new(kind, detail).retry_after(wait)
}

impl From<AuthError> for Problem {
    fn from(denied: AuthError) -> Self {
        let detail = match &denied {
            AuthError::Missing => {
                "this takes a token: send the header `Authorization: Bearer TOKEN`, or the token as \
                 the password of Basic. `anomaly-counter token new` makes one"
                    .to_owned()
            }
            AuthError::Unknown => {
                "the token or signature is not known here: check it for a typo, and that it was \
                 made for this service"
                    .to_owned()
            }
            AuthError::Expired { name } => {
                format!("the token {name:?} has expired: have a new one made")
            }
            AuthError::Forbidden { name, needed } => format!(
                "the token {name:?} is not good for this, which takes the scope {needed}"
            ),
        };
        // As RFC 6750 has it.
        let error = match &denied {
            AuthError::Missing => String::new(),
            AuthError::Unknown | AuthError::Expired { .. } => {
                ", error=\"invalid_token\"".to_owned()
            }
            AuthError::Forbidden { needed, .. } => {
                format!(", error=\"insufficient_scope\", scope=\"{needed}\"")
            }
        };
        let kind = match denied {
            AuthError::Forbidden { .. } => ProblemKind::Forbidden,
            AuthError::Missing | AuthError::Unknown | AuthError::Expired { .. } => {
                ProblemKind::Unauthorized
            }
        };
        Self::new(kind, detail).challenge(format!("Bearer realm=\"anomaly-counter\"{error}"))
    }
}
