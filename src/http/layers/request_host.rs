//! The host that a request is for. A request whose host is ambiguous is refused: a proxy before the
//! service might have read the other one. See RFC 9112, sections 3.2 and 3.2.2.

use std::net::SocketAddr;

use axum::http::{Request, Version, header, uri::Authority};

use crate::http::problem::{Problem, ProblemKind};

/// The port of an authority that names none.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Returns the host that a request names, with its port if that is given: the host of its target
/// or, without one, of its header `Host`.
pub(super) fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let in_header = || request.headers().get(header::HOST)?.to_str().ok();
    request.uri().authority().map(Authority::as_str).or_else(in_header)
}

/// Refuses a request that does not name exactly one host.
pub(super) fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let malformed = |detail: &str| Err(Problem::new(ProblemKind::MalformedRequest, detail));
    let Some(host) = hosts.next() else {
        // HTTP/1.0 has no such header.
        if request.version() == Version::HTTP_11 {
            return malformed("the request has no Host header, which HTTP/1.1 requires: send it");
        }
        return Ok(());
    };
    if hosts.next().is_some() {
        return malformed("the request has more than one Host header: send one");
    }
    let Ok(host) = host.to_str() else {
        return malformed("the Host header is not text: send a name or an address");
    };
    // Nearly all hosts are addresses or plain names, which are checked without a copy.
    let is_simple = || host.parse::<SocketAddr>().is_ok() || is_plain_name(host);
    if request.uri().authority().is_none() && (host.is_empty() || is_simple()) {
        return Ok(());
    }
    let host = host.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
    let Some(host) = host else {
        return malformed(
            "the Host header is not a host: send a name or an address, with the port if needed",
        );
    };
    match request.uri().authority() {
        Some(target) if !is_same(request, target, &host) => {
            let detail = format!(
                "the target of the request names another host than its Host header ({host}): the \
                 service is not a proxy"
            );
            Err(Problem::new(ProblemKind::UnknownHost, detail))
        }
        _ => Ok(()),
    }
}

/// Returns whether a host is a name or an IPv4 address without a port, and without anything that
/// would have another meaning in an authority.
fn is_plain_name(host: &str) -> bool {
    !host.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

fn is_same<B>(request: &Request<B>, target: &Authority, host: &Authority) -> bool {
    let is_https = request.uri().scheme_str() == Some("https");
    let default_port = if is_https { HTTPS_PORT } else { HTTP_PORT };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    target.host().eq_ignore_ascii_case(host.host())
        && port(target) == port(host)
        && !target.as_str().contains('@')
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn status(version: Version, target: &str, hosts: &[&str]) -> u16 {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let checked = check_host(&request.body(Body::empty()).unwrap());
        checked.map_or_else(|problem| problem.kind().status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_names_one_host() {
        let http_11 = |target: &str, hosts: &[&str]| status(Version::HTTP_11, target, hosts);
        for host in ["localhost", "localhost:8080", "[::1]:8080", "10.0.0.1", ""] {
            assert_eq!(http_11("/anomalies", &[host]), 200, "{host}");
        }
        for wrong in ["a b", "evil.example@127.0.0.1", "127.0.0.1#.evil.example", "a/b"] {
            assert_eq!(http_11("/anomalies", &[wrong]), 400, "{wrong}");
        }
        assert_eq!(http_11("/anomalies", &[]), 400);
        assert_eq!(status(Version::HTTP_10, "/anomalies", &[]), 200);
        assert_eq!(http_11("/anomalies", &["localhost", "localhost"]), 400);
    }

    #[test]
    fn a_target_with_a_host_has_that_of_the_header() {
        let at = |target: &str, host: &str| status(Version::HTTP_11, target, &[host]);
        assert_eq!(at("http://localhost:8080/anomalies", "LOCALHOST:8080"), 200);
        assert_eq!(at("http://localhost/anomalies", "localhost:80"), 200);
        assert_eq!(at("http://localhost:8080/anomalies", "localhost"), 421);
        assert_eq!(at("http://evil.example/anomalies", "localhost"), 421);
        assert_eq!(at("http://localhost@evil.example/anomalies", "localhost"), 421);
        assert_eq!(at("http://evil.example/anomalies", ""), 400);
    }
}
