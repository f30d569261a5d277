//! Lets requests in or refuses them by their heads, before their bodies are read.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    extract::Request,
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::Either;
use tower::Service;

use super::{
    client_address::ProxyConfig, origin_policy::OriginPolicy, request_host::check_host,
    route::RouteMatch,
};
use crate::{
    auth::{Caller, SignedDelivery},
    http::{endpoints::Access, headers::GRAFANA_SIGNATURE, problem::Problem, state::AppState},
    telemetry::{self, Shed},
};

/// The conditions under which a request is let in.
#[derive(Debug)]
pub(super) struct AccessPolicy {
    state: AppState,
    origin_policy: OriginPolicy,
    proxy: Arc<ProxyConfig>,
}

impl AccessPolicy {
    pub(super) fn new(
        state: AppState,
        origin_policy: OriginPolicy,
        proxy: Arc<ProxyConfig>,
    ) -> Self {
        Self { state, origin_policy, proxy }
    }

    /// Lets a request in and notes its caller on it.
    fn admit(&self, request: &mut Request) -> Result<(), Problem> {
        check_host(request)?;
        let authenticator = &self.state.authenticator;
        self.origin_policy.admit(request, authenticator.is_open())?;
        let access = RouteMatch::of(request).access(request.method());
        let Some(scope) = access.scope() else { return Ok(()) };
        let address = self.proxy.client(request);
        if matches!(access, Access::ScopeOrSignature(_))
            && let Some(delivery) = self.signed_delivery(request.headers())
        {
            // The signature is checked when the body is there.
            request.extensions_mut().insert(delivery);
            request.extensions_mut().insert(Caller::without_token(address));
            return Ok(());
        }
        let secret = shown_secret(request.headers());
        let now = self.state.counter.now();
        let caller = authenticator.admit(now, secret.as_deref(), scope, address)?;
        caller.admit_request().map_err(|wait| {
            telemetry::shed(Shed::Token);
            Problem::token_limit(scope, wait)
        })?;
        request.extensions_mut().insert(caller);
        Ok(())
    }

    fn signed_delivery(&self, headers: &HeaderMap) -> Option<SignedDelivery> {
        if headers.contains_key(header::AUTHORIZATION) {
            return None;
        }
        let signature = headers.get(GRAFANA_SIGNATURE)?.to_str().ok()?;
        let authenticator = &self.state.authenticator;
        let time = authenticator.grafana_timestamp_header().and_then(|name| headers.get(name));
        authenticator.signed_delivery(signature, time.and_then(|time| time.to_str().ok()))
    }
}

/// Passes only those requests on that are let in.
#[derive(Clone, Debug)]
pub(super) struct RequireScope<S> {
    policy: Arc<AccessPolicy>,
    inner: S,
}

impl<S> RequireScope<S> {
    pub(super) fn new(policy: AccessPolicy, inner: S) -> Self {
        Self { policy: Arc::new(policy), inner }
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
        match self.policy.admit(&mut request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err(problem) => Either::Left(ready(Ok(problem.into_response()))),
        }
    }
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
