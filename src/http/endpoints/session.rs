//! `/session`: a browser logs in with a token, which it keeps in a cookie, and logs out.

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Access, BodyKind, Endpoint, routes};
use crate::{
    auth::Scope,
    domain::Timestamp,
    http::{
        bodies::schemas,
        extract::{JsonBody, RequestBody},
        json::Json,
        problem::{Problem, ProblemKind},
        session_cookie::PresentedToken,
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{CrossOrigin, Unauthorized, UnknownRoute};
    let endpoints = [
        Endpoint::new("session.read", routes!(read)).problems(&[Unauthorized, UnknownRoute]),
        Endpoint::new("session.begin", routes!(begin)).problems(&[
            Unauthorized,
            UnknownRoute,
            CrossOrigin,
        ]),
        Endpoint::new("session.end", routes!(end)).problems(&[UnknownRoute, CrossOrigin]),
    ];
    endpoints.map(|endpoint| endpoint.access(Access::Session).body(BodyKind::Login)).into()
}

/// The caller, as the service identifies it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
struct SessionBody {
    /// True if no token is required.
    open: bool,
    /// The name of the token; null if none is required.
    #[schema(required, example = "ana")]
    name: Option<String>,
    /// The scopes of the caller: any of `ingest`, `read` and `operate`.
    #[schema(value_type = Vec<String>, example = json!(["read", "operate"]))]
    scopes: Vec<Scope>,
    /// The time at which the token expires; null if it does not.
    #[schema(required, value_type = Option<schemas::Time>)]
    expires_at: Option<Timestamp>,
}

/// A token to log in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Login)]
struct LoginRequest {
    /// The token.
    token: String,
}

impl RequestBody for LoginRequest {
    const NOUN: &'static str = "a login";
}

/// Read the caller's name and permissions.
///
/// The token is read from the header `Authorization` or, without it, from the cookie.
#[utoipa::path(
    get,
    path = "/session",
    tag = "session",
    responses((status = 200, description = "The caller.", body = SessionBody)),
)]
async fn read(
    State(state): State<AppState>,
    Extension(presented): Extension<PresentedToken>,
) -> Result<Json<SessionBody>, Problem> {
    must_be_enabled(&state)?;
    if state.authenticator.is_open() {
        let scopes = vec![Scope::Ingest, Scope::Read, Scope::Operate];
        return Ok(Json(SessionBody { open: true, name: None, scopes, expires_at: None }));
    }
    let (now, address) = (state.counter.now(), presented.address.as_deref());
    let token = state.authenticator.identify(now, presented.secret.as_deref(), address)?;
    let (name, scopes, expires_at) = (Some(token.name), token.scopes, token.expires_at);
    Ok(Json(SessionBody { open: false, name, scopes, expires_at }))
}

/// Log a browser in with a token.
///
/// The token is stored in a cookie, which is valid for `auth.session_hours`. The cookie
/// authenticates a browser as the header `Authorization` does; if both are present, the header is
/// used. Calls that change something must come from the service's own page. Programs need no
/// session.
#[utoipa::path(
    post,
    path = "/session",
    tag = "session",
    request_body = LoginRequest,
    responses((
        status = 204,
        description = "The response sets the cookie, unless no token is required.",
    )),
)]
async fn begin(
    State(state): State<AppState>,
    Extension(presented): Extension<PresentedToken>,
    JsonBody(LoginRequest { token }): JsonBody<LoginRequest>,
) -> Result<Response, Problem> {
    must_be_enabled(&state)?;
    if state.authenticator.is_open() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let address = presented.address.as_deref();
    state.authenticator.identify(state.counter.now(), Some(&token), address)?;
    let cookie = presented.cookie.set(&token, state.authenticator.session_seconds());
    let cookie = cookie.ok_or_else(|| {
        Problem::field("token", "has characters that a cookie can't contain: request a new token")
    })?;
    Ok(no_content(Some(cookie)))
}

/// Log a browser out.
#[utoipa::path(
    delete,
    path = "/session",
    tag = "session",
    responses((status = 204, description = "The response removes the cookie.")),
)]
async fn end(
    State(state): State<AppState>,
    Extension(presented): Extension<PresentedToken>,
) -> Result<Response, Problem> {
    must_be_enabled(&state)?;
    Ok(no_content(presented.cookie.clear()))
}

fn no_content(cookie: Option<HeaderValue>) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn must_be_enabled(state: &AppState) -> Result<(), Problem> {
    if state.page.enabled {
        return Ok(());
    }
    let detail = "the page is disabled (`page.enabled` is false): send the token with each call \
                  instead";
    Err(Problem::new(ProblemKind::UnknownRoute, detail))
}
