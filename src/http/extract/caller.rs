//! The caller of a request: its quota of events, and its name for the audit.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};
use tower_http::request_id::RequestId;

use crate::{
    auth::{Caller, Scope},
    domain::Actor,
    http::problem::Problem,
    telemetry::{self, Shed},
};

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // A route that requires a scope always has a caller.
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

/// The events that the caller's token may still record.
#[derive(Debug)]
pub(in crate::http) struct EventQuota(Caller);

impl EventQuota {
    /// Takes `count` events from the quota.
    pub(in crate::http) fn take(&self, count: usize) -> Result<(), Problem> {
        self.0.admit_events(count).map_err(|wait| {
            telemetry::shed(Shed::Token);
            Problem::token_limit(Scope::Ingest, wait)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for EventQuota {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        Caller::from_request_parts(parts, state).await.map(Self)
    }
}

/// The token's name and the request's id, for the audit of a write.
#[derive(Debug)]
pub(in crate::http) struct Requester(Actor);

impl Requester {
    /// The actor of the write. Where the caller gives no name, the token's is taken.
    pub(in crate::http) fn actor(self, given_name: Option<String>) -> Actor {
        let Actor { token, request_id, .. } = self.0;
        Actor { by: given_name.or_else(|| token.clone()), token, request_id }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Requester {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let caller = parts.extensions.get::<Caller>();
        let token = caller.and_then(Caller::name).map(str::to_owned);
        let id = parts.extensions.get::<RequestId>();
        let request_id = id.and_then(|id| id.header_value().to_str().ok()).map(str::to_owned);
        Ok(Self(Actor { by: None, token, request_id }))
    }
}
