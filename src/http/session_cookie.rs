//! The cookie in which a browser keeps a token. It holds the token itself, so that it is valid at
//! every instance, and becomes invalid with the token.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};

/// The token that a request to `/session` presents. The endpoint checks it itself.
#[derive(Clone)]
pub(super) struct PresentedToken {
    /// The token in the header `Authorization` or in the cookie.
    pub(super) secret: Option<String>,
    /// The cookie that a token is kept in.
    pub(super) cookie: SessionCookie,
    /// The address of the caller.
    pub(super) address: Option<Arc<str>>,
}

/// The name of the cookie, by the scheme of the request.
#[derive(Clone, Copy, Debug)]
pub(super) enum SessionCookie {
    /// The name over plain HTTP.
    Plain,
    /// The name over TLS. Browsers accept a cookie of this name only over TLS, for this host and
    /// for all paths.
    Secure,
}

impl SessionCookie {
    pub(super) const fn of_scheme(is_https: bool) -> Self {
        if is_https { Self::Secure } else { Self::Plain }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Plain => "anomaly_counter",
            Self::Secure => "__Host-anomaly_counter",
        }
    }

    /// Returns the token in the cookies of a request.
    pub(super) fn token(self, headers: &HeaderMap) -> Option<&str> {
        let values = headers.get_all(header::COOKIE).iter();
        let mut cookies = values.flat_map(|value| value.to_str().unwrap_or_default().split(';'));
        cookies.find_map(|cookie| {
            let (name, token) = cookie.trim().split_once('=')?;
            (name == self.name() && !token.is_empty()).then_some(token)
        })
    }

    /// Returns the value of `Set-Cookie` that keeps a token; `None` if a cookie can't hold it.
    pub(super) fn set(self, token: &str, max_age_seconds: u32) -> Option<HeaderValue> {
        // The characters of a cookie's value (RFC 6265, 4.1.1).
        let is_fit = |byte: u8| matches!(byte, b'!'..=b'~') && !b"\",;\\".contains(&byte);
        if !token.bytes().all(is_fit) {
            return None;
        }
        let secure = if matches!(self, Self::Secure) { "; Secure" } else { "" };
        let name = self.name();
        let text = format!(
            "{name}={token}; HttpOnly; SameSite=Strict; Path=/; Max-Age={max_age_seconds}{secure}"
        );
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Returns the value of `Set-Cookie` that removes the cookie.
    pub(super) fn clear(self) -> Option<HeaderValue> {
        self.set("", 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(cookie: SessionCookie, header: &'static str) -> Option<String> {
        let headers = [(header::COOKIE, HeaderValue::from_static(header))].into_iter().collect();
        cookie.token(&headers).map(str::to_owned)
    }

    #[test]
    fn the_token_is_found_among_other_cookies_by_the_name_for_the_scheme() {
        let both = "a=b; anomaly_counter=one; __Host-anomaly_counter=two; c";
        assert_eq!(token(SessionCookie::Plain, both).as_deref(), Some("one"));
        assert_eq!(token(SessionCookie::Secure, both).as_deref(), Some("two"));
        assert_eq!(token(SessionCookie::Secure, "anomaly_counter=one"), None);
        assert_eq!(token(SessionCookie::Plain, "anomaly_counter="), None);
        assert_eq!(token(SessionCookie::Plain, "xanomaly_counter=one"), None);
    }

    #[test]
    fn a_token_with_characters_that_a_cookie_can_not_hold_is_not_stored() {
        for unfit in ["a b", "a;Path=/x", "a\r\nb", "\u{e9}", "a,b", "\"a\""] {
            assert!(SessionCookie::Plain.set(unfit, 1).is_none(), "{unfit:?}");
        }
        let set = SessionCookie::Secure.set("anc_x-Y_1", 60).unwrap();
        let expected = "__Host-anomaly_counter=anc_x-Y_1; HttpOnly; SameSite=Strict; Path=/; \
                        Max-Age=60; Secure";
        assert_eq!(set, expected);
    }
}
