//! The policy for pages in browsers. A browser sends requests for any page that it shows, also to a
//! service that only this machine can reach, so requests of other sites' pages are refused.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, uri::Authority};
use serde::{Deserialize, Deserializer, de::Error as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::{request_host::host_of, text_list::text_list};
use crate::http::{
    headers::{IDEMPOTENCY_KEY, TRACERESPONSE, X_DEGRADED, X_REQUEST_ID},
    problem::{Problem, ProblemKind},
};

/// The header with the relation between the service's site and that of the page that sends a
/// request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The section `browser` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrowserConfig {
    /// The origins whose pages may call.
    #[serde(deserialize_with = "origins")]
    pub allowed_origins: Vec<HeaderValue>,
    /// The names, beside addresses and `localhost`, by which the service is called if it requires
    /// no token.
    #[serde(deserialize_with = "hosts")]
    pub allowed_hosts: Vec<String>,
}

/// Refuses requests of other sites' pages.
#[derive(Debug)]
pub(super) struct OriginPolicy {
    config: BrowserConfig,
    /// True if only programs of this machine can reach the service.
    is_local: bool,
}

impl OriginPolicy {
    pub(super) fn new(config: BrowserConfig, is_local: bool) -> Self {
        Self { config, is_local }
    }

    /// Admits a request, unless another site's page sends it. `is_open` is true if no token is
    /// required.
    pub(super) fn admit<B>(&self, request: &Request<B>, is_open: bool) -> Result<(), Problem> {
        let headers = request.headers();
        let host = host_of(request);
        if self.is_local && is_open && !host.is_none_or(|host| self.is_own_name(host)) {
            // A name that somebody else has pointed at this machine ("DNS rebinding").
            let detail = "this host name is not allowed: call the service by its address or as \
                          localhost, add the host to `browser.allowed_hosts`, or configure tokens";
            return Err(Problem::new(ProblemKind::UnknownHost, detail));
        }
        if is_safe(request.method()) || self.is_own_page(headers, host) {
            return Ok(());
        }
        let detail = "a page of another site may not make this call: if the page is yours, add its \
                      origin to `browser.allowed_origins`";
        Err(Problem::new(ProblemKind::CrossOrigin, detail))
    }

    /// Admits a request with a cookie, unless it changes something and does not come from the
    /// service's own page: browsers add cookies to the requests of any page.
    pub(super) fn admit_cookie<B>(request: &Request<B>) -> Result<(), Problem> {
        let headers = request.headers();
        let is_own = match headers.get(SEC_FETCH_SITE) {
            Some(site) => site == "same-origin",
            // Browsers send this header only over connections that they trust, such as TLS.
            None => {
                headers.get(header::ORIGIN).is_some_and(|origin| is_at(origin, host_of(request)))
            }
        };
        if is_safe(request.method()) || is_own {
            return Ok(());
        }
        let detail = "with a cookie, only the service's own page may make this call: send the \
                      token as `Authorization: Bearer TOKEN`";
        Err(Problem::new(ProblemKind::CrossOrigin, detail))
    }

    /// Answers the requests that browsers send before a page of an allowed origin calls.
    pub(super) fn cors(config: &BrowserConfig) -> Option<CorsLayer> {
        if config.allowed_origins.is_empty() {
            return None;
        }
        let methods = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(config.allowed_origins.clone()))
            .allow_methods(methods)
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                IDEMPOTENCY_KEY,
                X_REQUEST_ID,
                HeaderName::from_static("traceparent"),
                HeaderName::from_static("tracestate"),
            ])
            .expose_headers([
                header::LOCATION,
                header::RETRY_AFTER,
                X_DEGRADED,
                X_REQUEST_ID,
                TRACERESPONSE,
            ]);
        Some(layer)
    }

    /// Returns false if the request comes from a page of another site. Only browsers send an
    /// origin, so a request without one comes from a program.
    fn is_own_page(&self, headers: &HeaderMap, host: Option<&str>) -> bool {
        let Some(origin) = headers.get(header::ORIGIN) else { return true };
        is_at(origin, host) || self.config.allowed_origins.contains(origin)
    }

    fn is_own_name(&self, host: &str) -> bool {
        // Nearly all hosts are addresses, which are checked ten times faster.
        if host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok() {
            return true;
        }
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        name.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.config.allowed_hosts.contains(&name)
    }
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Returns whether an origin is at a host.
fn is_at(origin: &HeaderValue, host: Option<&str>) -> bool {
    let parts = origin.to_str().ok().and_then(|text| text.split_once("://"));
    parts.is_some_and(|(_, authority)| Some(authority) == host)
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let host = |text: String| {
        let name = text.parse::<Authority>().ok().map(|authority| authority.host().to_owned());
        // They are compared with names in lower case.
        name.filter(|name| *name == text).map(|name| name.to_ascii_lowercase()).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is not a host name: write it like counter.example.org, without a scheme \
                 or a port"
            ))
        })
    };
    text_list(deserializer)?.into_iter().map(host).collect()
}

fn origins<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderValue>, D::Error> {
    let texts = text_list(deserializer)?;
    let is_origin = |text: &str| {
        let authority = text.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.parse::<Authority>().is_ok())
    };
    let origin = |text: String| match HeaderValue::from_str(&text) {
        Ok(origin) if is_origin(&text) => Ok(origin),
        _ => Err(D::Error::custom(format!(
            "{text:?} is not an origin: write it like https://grafana.example.org, without a path"
        ))),
    };
    texts.into_iter().map(origin).collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn origin_policy() -> OriginPolicy {
        let allowed_origins = vec![HeaderValue::from_static("https://ops.example.org")];
        let config = BrowserConfig { allowed_origins, allowed_hosts: vec!["counter".to_owned()] };
        OriginPolicy::new(config, true)
    }

    fn admits(method: &str, host: &str, origin: Option<&str>, is_open: bool) -> bool {
        let mut request = Request::builder().method(method).uri("/anomalies").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        origin_policy().admit(&request.body(Body::empty()).unwrap(), is_open).is_ok()
    }

    #[test]
    fn a_page_of_another_site_may_not_write() {
        let host = "127.0.0.1:8080";
        for (origin, may) in [
            (None, true),
            (Some("http://127.0.0.1:8080"), true),
            (Some("https://ops.example.org"), true),
            (Some("https://evil.example"), false),
            (Some("http://127.0.0.1:8081"), false),
            (Some("null"), false),
        ] {
            assert_eq!(admits("POST", host, origin, true), may, "{origin:?}");
            assert_eq!(admits("DELETE", host, origin, false), may, "{origin:?}");
            assert!(admits("GET", host, origin, true), "{origin:?}");
        }
    }

    #[test]
    fn with_a_cookie_only_the_own_page_may_write() {
        let admits = |method: &str, headers: &[(&str, &str)]| {
            let host = ("host", "counter.example:8080");
            let mut request = Request::builder().method(method).uri("/permanent-fix");
            for (name, value) in headers.iter().chain([&host]) {
                request = request.header(*name, *value);
            }
            OriginPolicy::admit_cookie(&request.body(Body::empty()).unwrap()).is_ok()
        };
        let own = ("origin", "http://counter.example:8080");
        let others = ("origin", "https://ops.example.org");
        assert!(admits("PUT", &[("sec-fetch-site", "same-origin")]));
        assert!(admits("PUT", &[own]));
        for headers in [
            &[][..],
            &[others],
            &[("origin", "null")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "cross-site"), own],
            &[("sec-fetch-site", "none")],
        ] {
            assert!(!admits("PUT", headers), "{headers:?}");
            assert!(admits("GET", headers), "{headers:?}");
        }
    }

    #[test]
    fn without_tokens_a_host_name_that_is_not_the_services_own_is_refused() {
        for (host, is_own) in [
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("localhost:8080", true),
            ("counter.localhost", true),
            ("Counter:8080", true),
            ("evil.example:8080", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example", false),
        ] {
            assert_eq!(admits("GET", host, None, true), is_own, "{host}");
            assert!(admits("GET", host, None, false), "{host}");
        }
    }
}
