//! The section `redis` of the configuration.

use std::{
    fmt,
    num::{NonZeroU8, NonZeroU16, NonZeroU32},
    str::FromStr,
};

use fred::types::config::Config;
use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use super::tls::RedisTlsConfig;

/// The section `redis` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// The URL of Redis; absent for the embedded store.
    pub url: Option<RedisUrl>,
    /// The beginning of every key's name.
    #[serde(deserialize_with = "key_prefix")]
    pub key_prefix: String,
    /// Number of connections to each server.
    pub connections: NonZeroU8,
    /// Maximum number of batches in flight to each server.
    pub concurrent_batches: NonZeroU8,
    /// Maximum number of elements in a batch, unless a single call has more.
    pub batch_items: NonZeroU16,
    /// Timeout of a command, in milliseconds.
    pub command_timeout_ms: NonZeroU32,
    /// Timeout of connecting, in milliseconds.
    pub connect_timeout_ms: NonZeroU32,
    /// The section `redis.tls`.
    pub tls: RedisTlsConfig,
}

/// A checked URL of Redis. Its printed form has no passwords.
#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub struct RedisUrl {
    shown: String,
    is_tls: bool,
    server: Config,
}

/// The error for a text that is not a URL of Redis.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRedisUrl {
    /// It is not a valid URL.
    #[error(
        "the URL can't be read ({0}): write it like redis://127.0.0.1:6379 or \
         redis://user:password@host:6379/0"
    )]
    Malformed(String),
    /// It names a database, which a cluster does not support.
    #[error(
        "the URL names a database, but a Redis Cluster has only one: remove the number after the \
         port"
    )]
    Database,
    /// The scheme belongs to another kind of server.
    #[error(
        "the URL has the scheme `{0}`, which is not supported: use redis://, rediss:// (TLS), \
         redis+unix:///path, redis-sentinel://, redis-cluster://, or the last two with rediss"
    )]
    Scheme(String),
}

fn key_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    if prefix.contains(['{', '}']) {
        return Err(D::Error::custom(
            "the prefix must not contain { or }: on a cluster they determine the slot of a key",
        ));
    }
    Ok(prefix)
}

impl RedisUrl {
    /// Returns the server's address and credentials, without TLS.
    pub(super) fn server(&self) -> &Config {
        &self.server
    }

    /// Returns true if connections must be encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl FromStr for RedisUrl {
    type Err = InvalidRedisUrl;

    fn from_str(text: &str) -> Result<Self, InvalidRedisUrl> {
        let url = Url::parse(text).map_err(|e| InvalidRedisUrl::Malformed(e.to_string()))?;
        let is_tls = match url.scheme() {
            "redis" | "redis+unix" | "redis-sentinel" | "redis-cluster" => false,
            "rediss" | "rediss-sentinel" | "rediss-cluster" => true,
            other => return Err(InvalidRedisUrl::Scheme(other.to_owned())),
        };
        let is_cluster = url.scheme().ends_with("-cluster");
        if is_cluster && !matches!(url.path(), "" | "/" | "/0") {
            return Err(InvalidRedisUrl::Database);
        }
        // With the scheme for TLS, fred would always load the system's certificates.
        let plain = if is_tls { text.replacen("rediss", "redis", 1) } else { text.to_owned() };
        let server = Config::from_url(&plain)
            .map_err(|e| InvalidRedisUrl::Malformed(e.details().to_owned()))?;
        Ok(Self { shown: without_secrets(url), is_tls, server })
    }
}

/// Returns the URL without passwords. A single word before the `@` may also be a password.
fn without_secrets(mut url: Url) -> String {
    const HIDDEN: &str = "***";
    // Both calls fail only for URLs that can't have such a part.
    if url.password().is_some() {
        let _ = url.set_password(Some(HIDDEN));
    } else if !url.username().is_empty() {
        let _ = url.set_username(HIDDEN);
    }
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let shown = pairs.into_iter().map(|(name, value)| {
            let is_secret = name == "sentinelPassword";
            (name, if is_secret { HIDDEN.to_owned() } else { value })
        });
        url.query_pairs_mut().clear().extend_pairs(shown.collect::<Vec<_>>());
    }
    url.into()
}

impl TryFrom<String> for RedisUrl {
    type Error = InvalidRedisUrl;

    fn try_from(text: String) -> Result<Self, InvalidRedisUrl> {
        text.parse()
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
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
        assert_eq!(url.server().password.as_deref(), Some("s3cret"));
        let sentinel = "rediss-sentinel://:pw1@h:26379?sentinelServiceName=m&sentinelPassword=pw2";
        for secret in [sentinel, "redis://pw1@h"] {
            let shown = secret.parse::<RedisUrl>().unwrap().to_string();
            assert!(!shown.contains("pw1") && !shown.contains("pw2"), "{shown}");
        }
    }

    #[test]
    fn what_is_no_redis_url_is_refused() {
        for wrong in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "redis://h:1/notanumber",
            "redis-cluster://h:1?node=h2",
            "redis-cluster://h:1/2",
            "redis-sentinel://h",
        ] {
            assert!(wrong.parse::<RedisUrl>().is_err(), "{wrong}");
        }
    }
}
