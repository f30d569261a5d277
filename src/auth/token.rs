//! Tokens: secrets that callers show, known by their digests, with scopes and quotas.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::domain::Timestamp;

/// Minimum burst of events that a quota allows: as many as one array holds.
const EVENTS_BURST: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

/// A permission of a token. None includes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Recording: anomalies, repairs, deliveries of alerts.
    Ingest,
    /// Reading.
    Read,
    /// Marking permanent fixes, removing marks, and administration.
    Operate,
}

impl Scope {
    /// Returns its name in configurations and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a scope: the scopes are ingest, read and operate")]
pub struct InvalidScope;

impl FromStr for Scope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let scopes = [Self::Ingest, Self::Read, Self::Operate];
        scopes.into_iter().find(|scope| scope.as_str() == text).ok_or(InvalidScope)
    }
}

/// The SHA-256 of a token. A token is 256 random bits, so that a slow hash would gain nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest([u8; 32]);

impl TokenDigest {
    /// Returns the digest of a token.
    pub fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

/// Writes 64 hex digits.
impl fmt::Display for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenDigest({self})")
    }
}

impl ConstantTimeEq for TokenDigest {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl<'de> Deserialize<'de> for TokenDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let invalid = || {
            // The error does not repeat the text, which may be the token itself.
            D::Error::custom(
                "is not a SHA-256 in 64 hex digits: `anomaly-counter token new` prints an entry \
                 with the right one",
            )
        };
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut digest = [0; 32];
        for (byte, start) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&text[start..start + 2], 16).map_err(|_| invalid())?;
        }
        Ok(Self(digest))
    }
}

/// One entry of `auth.tokens` or of the file that `auth.file` names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The name of its holder, for logs and audits.
    pub name: String,
    /// The digest of the secret.
    pub sha256: TokenDigest,
    /// Its permissions.
    pub scopes: Vec<Scope>,
    /// The end of its validity; unlimited where absent.
    pub expires_at: Option<Timestamp>,
    /// Maximum number of requests a second; unlimited where absent.
    pub requests_per_second: Option<NonZeroU32>,
    /// Maximum number of occurrences and repairs a second; unlimited where absent.
    pub events_per_second: Option<NonZeroU32>,
}

/// A new token. It is shown once, and stored nowhere.
pub struct NewToken(String);

impl NewToken {
    /// Generates 256 random bits after a prefix by which scanners for leaked secrets recognise
    /// them.
    pub fn generate() -> Self {
        Self(format!("anc_{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())))
    }

    /// Returns the secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken")
    }
}

/// The time until the same number is allowed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter(pub Duration);

/// A token in use.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) config: TokenConfig,
    requests: Option<DefaultDirectRateLimiter>,
    events: Option<(DefaultDirectRateLimiter, NonZeroU32)>,
}

impl Token {
    pub(super) fn new(config: TokenConfig) -> Self {
        let requests = config.requests_per_second.map(Quota::per_second).map(RateLimiter::direct);
        let events = config.events_per_second.map(|rate| {
            let burst = rate.max(EVENTS_BURST);
            (RateLimiter::direct(Quota::per_second(rate).allow_burst(burst)), burst)
        });
        Self { config, requests, events }
    }

    pub(super) fn admit_request(&self) -> Result<(), RetryAfter> {
        let Some(requests) = &self.requests else { return Ok(()) };
        requests
            .check()
            .map_err(|error| RetryAfter(error.wait_time_from(DefaultClock::default().now())))
    }

    /// Takes events from the quota. More than the burst count as the burst, because they would
    /// never pass.
    pub(super) fn admit_events(&self, count: usize) -> Result<(), RetryAfter> {
        let Some((events, burst)) = &self.events else { return Ok(()) };
        let count = u32::try_from(count).unwrap_or(u32::MAX).min(burst.get());
        let Some(count) = NonZeroU32::new(count) else { return Ok(()) };
        match events.check_n(count) {
            Ok(Err(error)) => Err(RetryAfter(error.wait_time_from(DefaultClock::default().now()))),
            // The count is within the burst, so there is no other error.
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_printed() {
        let digest = TokenDigest::of("secret");
        let json = format!("\"{digest}\"");
        assert_eq!(serde_json::from_str::<TokenDigest>(&json).unwrap(), digest);
        for wrong in ["\"secret\"".to_owned(), json.replace(&json[1..2], "g")] {
            let error = serde_json::from_str::<TokenDigest>(&wrong).unwrap_err().to_string();
            assert!(error.contains("64 hex digits") && !error.contains("secret\""), "{error}");
        }
    }

    #[test]
    fn new_tokens_differ_and_are_not_shown_by_debug() {
        let (one, other) = (NewToken::generate(), NewToken::generate());
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.reveal().len(), "anc_".len() + 43);
        assert_eq!(format!("{one:?}"), "NewToken");
    }

    #[test]
    fn a_whole_array_passes_a_smaller_limit_of_events_and_the_next_one_waits() {
        let token = Token::new(TokenConfig {
            name: "pipeline".to_owned(),
            sha256: TokenDigest::of("secret"),
            scopes: vec![Scope::Ingest],
            expires_at: None,
            requests_per_second: None,
            events_per_second: NonZeroU32::new(10),
        });
        assert_eq!(token.admit_events(1_000), Ok(()));
        let RetryAfter(wait) = token.admit_events(1_000).unwrap_err();
        assert!(wait > Duration::from_secs(90) && wait <= Duration::from_secs(100), "{wait:?}");
        assert_eq!(token.admit_events(0), Ok(()));
        assert_eq!(token.admit_request(), Ok(()));
    }
}
