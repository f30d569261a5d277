//! Admits or refuses requests by their heads, before their bodies are read.

use std::sync::Arc;

use axum::http::{HeaderMap, Request, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{origin_policy::OriginPolicy, request_host::check_host, route::RouteMatch};
use crate::{
    auth::{Caller, SignedDelivery},
    http::{
        endpoints::Access,
        headers::GRAFANA_SIGNATURE,
        problem::Problem,
        session_cookie::{PresentedToken, SessionCookie},
        state::AppState,
    },
    telemetry::{self, Shed},
};

/// The conditions under which a request is admitted.
#[derive(Debug)]
pub(super) struct AccessPolicy {
    state: AppState,
    origin_policy: OriginPolicy,
}

/// An admitted caller.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) caller: Caller,
    /// The signature of a delivery, which is checked once the body has arrived.
    pub(super) signed: Option<Box<SignedDelivery>>,
}

impl AccessPolicy {
    pub(super) fn new(state: AppState, origin_policy: OriginPolicy) -> Self {
        Self { state, origin_policy }
    }

    /// Admits a request from the address `client`; returns `None` if everybody may send it.
    /// `cookie` is the session cookie of its scheme.
    pub(super) fn admit<B>(
        &self,
        request: &mut Request<B>,
        route: RouteMatch,
        client: Arc<str>,
        cookie: SessionCookie,
    ) -> Result<Option<Admitted>, Problem> {
        check_host(request)?;
        let authenticator = &self.state.authenticator;
        self.origin_policy.admit(request, authenticator.is_open())?;
        let access = route.access(request.method());
        if access == Access::Session {
            let secret = self.secret(request, cookie)?;
            let presented = PresentedToken { secret, cookie, address: Some(client) };
            request.extensions_mut().insert(presented);
            return Ok(None);
        }
        let Some(scope) = access.scope() else { return Ok(None) };
        if matches!(access, Access::ScopeOrSignature(_))
            && let Some(delivery) = self.signed_delivery(request.headers())
        {
            let caller = Caller::without_token(Some(client));
            return Ok(Some(Admitted { caller, signed: Some(Box::new(delivery)) }));
        }
        let secret = self.secret(request, cookie)?;
        let now = self.state.counter.now();
        let caller = authenticator.admit(now, secret.as_deref(), scope, Some(client))?;
        caller.admit_request().map_err(|wait| {
            telemetry::shed(Shed::Token);
            Problem::token_limit(scope, wait)
        })?;
        Ok(Some(Admitted { caller, signed: None }))
    }

    /// Returns the token that a request presents: in its header `Authorization`, or else in the
    /// cookie of the page.
    fn secret<B>(
        &self,
        request: &Request<B>,
        cookie: SessionCookie,
    ) -> Result<Option<String>, Problem> {
        let headers = request.headers();
        if headers.contains_key(header::AUTHORIZATION) {
            return Ok(shown_secret(headers));
        }
        let Some(token) = cookie.token(headers) else { return Ok(None) };
        if !self.state.page.enabled || self.state.authenticator.is_open() {
            return Ok(None);
        }
        OriginPolicy::admit_cookie(request)?;
        Ok(Some(token.to_owned()))
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

/// Returns the token of `Bearer`, or the password of `Basic` with any user.
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
