//! The section `redis` of the configuration.

use std::{fmt, str::FromStr};

use serde::Deserialize;
use url::Url;

/// How to reach Redis, and how to use it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// Where Redis is; absent for the embedded store.
    pub url: Option<RedisUrl>,
    /// What every key's name begins with.
    pub key_prefix: String,
    /// Connections.
    pub connections: std::num::NonZeroU8,
    /// Script calls under way at the same time.
    pub concurrent_batches: usize,
    /// How long a command may take, in milliseconds.
    pub command_timeout_ms: u64,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u64,
}

/// A checked `redis://` URL. It prints without its password.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct RedisUrl(Url);

/// Why a text is no URL of a Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// It does not parse.
    #[error(
        "the URL can't be read ({0}): write it like redis://127.0.0.1:6379 or redis://user:password@host:6379/0"
    )]
    Malformed(String),
    /// A scheme of another kind of server.
    #[error("the URL has the scheme `{0}`, which is not supported: use redis://")]
    Scheme(String),
}

impl RedisUrl {
    /// The URL with its password.
    pub(super) fn expose(&self) -> &str {
        self.0.as_str()
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let url = Url::parse(text).map_err(|e| InvalidRedisUrl::Malformed(e.to_string()))?;
        if url.scheme() != "redis" {
            return Err(InvalidRedisUrl::Scheme(url.scheme().to_owned()));
        }
        // What fred would refuse later is refused here, while there is somebody to tell.
        fred::types::config::Config::from_url(text)
            .map_err(|e| InvalidRedisUrl::Malformed(e.details().to_owned()))?;
        Ok(Self(url))
    }
}

impl TryFrom<String> for RedisUrl {
    type Error = InvalidRedisUrl;

    fn try_from(text: String) -> Result<Self, InvalidRedisUrl> {
        text.parse()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        if shown.password().is_some() {
            // It fails only for URLs that can have no password.
            let _ = shown.set_password(Some("***"));
        }
        f.write_str(shown.as_str())
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_prints_without_its_password() {
        let url: RedisUrl = "redis://ops:s3cret@10.0.0.1:6380/2".parse().unwrap();
        assert_eq!(url.to_string(), "redis://ops:***@10.0.0.1:6380/2");
        assert!(!format!("{url:?}").contains("s3cret"));
        assert!(url.expose().contains("s3cret"));
    }

    #[test]
    fn what_is_no_redis_url_is_refused() {
        for wrong in ["", "127.0.0.1:6379", "http://127.0.0.1", "redis://h:1/notanumber"] {
            assert!(wrong.parse::<RedisUrl>().is_err(), "{wrong}");
        }
    }
}
