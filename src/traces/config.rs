//! The section `traces` of the configuration.

use std::{fmt, str::FromStr};

use serde::Deserialize;
use url::{Host, Url};

/// The section `traces` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The collector's URL for OTLP over HTTP; absent for no traces.
    pub endpoint: Option<TracesEndpoint>,
    /// The ratio of requests that are traced if the caller does not decide.
    pub sample_ratio: SampleRatio,
}

/// The URL of a collector. It has no user, password or query, so that it can be logged.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct TracesEndpoint(Url);

/// The reason for which a text is not the URL of a collector. The text may hold a secret, and is
/// not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// It can't be parsed, or is not an HTTP URL.
    #[error(
        "this is not a URL of a collector: write it like http://127.0.0.1:4318/v1/traces (or https)"
    )]
    Malformed,
    /// It has no path; collectors receive traces at a path of their own.
    #[error(
        "the URL has no path: collectors accept traces at a path such as /v1/traces, as in \
         http://127.0.0.1:4318/v1/traces"
    )]
    NoPath,
    /// It has a user or a password.
    #[error(
        "the URL has a user or a password: remove them, and set OTEL_EXPORTER_OTLP_HEADERS to the \
         headers that the collector requires, such as authorization=Basic%20..."
    )]
    Credentials,
    /// It has a query, which may hold a secret.
    #[error(
        "the URL has a query, which may contain a secret: remove it, and set \
         OTEL_EXPORTER_OTLP_HEADERS to the headers that the collector requires, such as api-key=..."
    )]
    Query,
}

impl FromStr for TracesEndpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let url = Url::parse(text).map_err(|_| InvalidEndpoint::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(InvalidEndpoint::Malformed);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidEndpoint::Credentials);
        }
        if url.query().is_some() {
            return Err(InvalidEndpoint::Query);
        }
        if url.path() == "/" {
            return Err(InvalidEndpoint::NoPath);
        }
        Ok(Self(url))
    }
}

impl TracesEndpoint {
    /// Returns true if it is on this machine, which is not reached through a proxy.
    pub(super) fn is_local(&self) -> bool {
        match self.0.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }
}

impl TryFrom<String> for TracesEndpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, InvalidEndpoint> {
        text.parse()
    }
}

impl fmt::Display for TracesEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A ratio from 0 to 1.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "f64")]
pub struct SampleRatio(f64);

impl SampleRatio {
    pub(super) fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for SampleRatio {
    type Error = String;

    fn try_from(ratio: f64) -> Result<Self, String> {
        if (0.0..=1.0).contains(&ratio) {
            return Ok(Self(ratio));
        }
        Err(format!("{ratio} is not a share: write a number from 0.0 (none) to 1.0 (all)"))
    }
}
