//! Checks the tokens of callers. The tokens can be replaced while the service runs.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use parking_lot::RwLock;
use subtle::ConstantTimeEq as _;

use super::{
    config::{AuthConfig, AuthConfigError},
    failures::{AuthError, AuthFailure, note},
    token::{RetryAfter, Scope, Token, TokenDigest},
    webhook::{SignedDelivery, WebhookSecret},
};
use crate::{domain::Timestamp, telemetry::LogSource};

/// A caller that was let in.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `None` where no token is required.
    token: Option<Arc<Token>>,
    address: Option<Arc<str>>,
}

impl Caller {
    /// Returns a caller of whom no token is required.
    pub fn without_token(address: Option<Arc<str>>) -> Self {
        Self { token: None, address }
    }

    /// Returns the name of the caller's token; `None` where no token is required.
    pub fn name(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.config.name.as_str())
    }

    /// Returns the caller as log lines name it.
    pub fn log_source(&self) -> LogSource<'_> {
        match (self.name(), &self.address) {
            (Some(name), _) => LogSource::Token(name),
            (None, Some(address)) => LogSource::Address(address),
            (None, None) => LogSource::Anyone,
        }
    }

    /// Takes `count` events from the token's quota.
    ///
    /// # Errors
    /// The time to wait, when the quota is used up.
    pub fn admit_events(&self, count: usize) -> Result<(), RetryAfter> {
        self.token.as_ref().map_or(Ok(()), |token| token.admit_events(count))
    }

    /// Takes a request from the token's quota.
    ///
    /// # Errors
    /// The time to wait, when the quota is used up.
    pub fn admit_request(&self) -> Result<(), RetryAfter> {
        self.token.as_ref().map_or(Ok(()), |token| token.admit_request())
    }
}

/// The tokens and the secret in use.
#[derive(Debug, Default)]
struct Policy {
    tokens: Vec<Arc<Token>>,
    grafana_secret: Option<WebhookSecret>,
}

/// Decides who may call.
#[derive(Debug)]
pub struct Authenticator {
    config: AuthConfig,
    listen: SocketAddr,
    policy: RwLock<Arc<Policy>>,
}

impl Authenticator {
    /// Reads the tokens for a service that listens on `listen`.
    ///
    /// # Errors
    /// When there are none and other machines could connect, or a file or an entry can't be used.
    pub fn open(config: AuthConfig, listen: SocketAddr) -> Result<Self, AuthConfigError> {
        let authenticator = Self { config, listen, policy: RwLock::default() };
        authenticator.reload()?;
        if authenticator.config.disabled {
            tracing::warn!("auth.disabled is true: whoever reaches {listen} may do everything");
        }
        Ok(authenticator)
    }

    /// Reads the files again, and returns the number of tokens. An unchanged token keeps the state
    /// of its quotas.
    ///
    /// # Errors
    /// As in [`Authenticator::open`]; the tokens in use stay.
    pub fn reload(&self) -> Result<usize, AuthConfigError> {
        let configs = self.config.all_tokens()?;
        let grafana_secret = self.config.grafana_secret()?;
        let is_open = configs.is_empty() && grafana_secret.is_none();
        if is_open && !self.config.disabled && !self.listen.ip().is_loopback() {
            return Err(AuthConfigError::Open(self.listen));
        }
        let before = Arc::clone(&self.policy.read());
        let tokens: Vec<_> = configs
            .into_iter()
            .map(|config| {
                let same = before.tokens.iter().find(|token| token.config == config);
                same.map_or_else(|| Arc::new(Token::new(config.clone())), Arc::clone)
            })
            .collect();
        let count = tokens.len();
        *self.policy.write() = Arc::new(Policy { tokens, grafana_secret });
        Ok(count)
    }

    /// Returns whether no token is required.
    pub fn is_open(&self) -> bool {
        let policy = self.policy.read();
        self.config.disabled || policy.tokens.is_empty() && policy.grafana_secret.is_none()
    }

    /// Lets the caller at `address` in if its token `secret` has the scope.
    ///
    /// # Errors
    /// The reason for a refusal, which is counted and logged.
    pub fn admit(
        &self,
        now: Timestamp,
        secret: Option<&str>,
        scope: Scope,
        address: Option<Arc<str>>,
    ) -> Result<Caller, AuthError> {
        if self.is_open() {
            return Ok(Caller::without_token(address));
        }
        let checked = self.check(now, secret, scope);
        let token = checked.inspect_err(|error| note(error, address.as_deref(), Instant::now()))?;
        Ok(Caller { token: Some(token), address })
    }

    /// Returns the header in which Grafana sends the time that it signs.
    pub fn grafana_timestamp_header(&self) -> Option<&str> {
        self.config.grafana_timestamp_header.as_deref()
    }

    /// Returns a delivery whose signature is to be checked with its body; `None` where no secret is
    /// configured, or the time that has to be signed is missing.
    pub fn signed_delivery(&self, signature: &str, time: Option<&str>) -> Option<SignedDelivery> {
        let secret = self.policy.read().grafana_secret.clone()?;
        if self.config.grafana_timestamp_header.is_some() != time.is_some() {
            return None;
        }
        Some(SignedDelivery {
            secret,
            signature: signature.to_owned(),
            time: time.map(str::to_owned),
        })
    }

    /// Refuses a delivery of `caller` whose signature does not match its body.
    pub fn refuse_delivery(&self, caller: &Caller) -> AuthError {
        let error = AuthError {
            failure: AuthFailure::Unknown,
            token_name: String::new(),
            needed: Scope::Ingest,
        };
        note(&error, caller.address.as_deref(), Instant::now());
        error
    }

    fn check(
        &self,
        now: Timestamp,
        secret: Option<&str>,
        needed: Scope,
    ) -> Result<Arc<Token>, AuthError> {
        let refused = |failure, token_name: &str| AuthError {
            failure,
            token_name: token_name.to_owned(),
            needed,
        };
        let secret = secret.ok_or_else(|| refused(AuthFailure::Missing, ""))?;
        let policy = Arc::clone(&self.policy.read());
        let digest = TokenDigest::of(secret);
        // All of them, so that the time does not reveal how near a guess was.
        let mut found = None;
        for token in &policy.tokens {
            if bool::from(token.config.sha256.ct_eq(&digest)) {
                found = Some(token);
            }
        }
        let token = found.ok_or_else(|| refused(AuthFailure::Unknown, ""))?;
        let name = &token.config.name;
        if token.config.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return Err(refused(AuthFailure::Expired, name));
        }
        if !token.config.scopes.contains(&needed) {
            return Err(refused(AuthFailure::Forbidden, name));
        }
        Ok(Arc::clone(token))
    }
}
