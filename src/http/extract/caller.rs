//! The caller of a request: its quota of events, and its name for the audit.

use std::convert::Infallible;

use axum::{extract::FromRequestParts, http::request::Parts};

use crate::{
    auth::{Caller, Scope},
    domain::Actor,
    http::{problem::Problem, state::RequestState},
    telemetry::{self, Shed},
};

impl FromRequestParts<RequestState> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Infallible> {
        Ok(request.caller.clone())
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

impl FromRequestParts<RequestState> for EventQuota {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Infallible> {
        Ok(Self(request.caller.clone()))
    }
}

/// The token's name and the request's id, for the audit of a write.
#[derive(Debug)]
pub(in crate::http) struct Requester(Actor);

impl Requester {
    /// Returns the actor of the write. If the caller gives no name, that of the token is used.
    pub(in crate::http) fn actor(self, given_name: Option<String>) -> Actor {
        let Actor { token, request_id, .. } = self.0;
        Actor { by: given_name.or_else(|| token.clone()), token, request_id }
    }
}

impl FromRequestParts<RequestState> for Requester {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, request: &RequestState) -> Result<Self, Infallible> {
        let token = request.caller.name().map(str::to_owned);
        Ok(Self(Actor { by: None, token, request_id: Some(request.id.to_string()) }))
    }
}
