//! Checks the tokens of callers. The tokens can be replaced while the service runs.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use parking_lot::RwLock;
use subtle::ConstantTimeEq as _;

use super::{
    config::{AuthConfig, AuthConfigError},
    failures::{AuthError, AuthFailure, note},
    token::{RetryAfter, Scope, Token, TokenConfig, TokenDigest},
    webhook::{SignedDelivery, WebhookSecret},
};
use crate::{domain::Timestamp, telemetry::LogSource};

/// An admitted caller.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `None` if no token is required.
    token: Option<Arc<Token>>,
    address: Option<Arc<str>>,
}

impl Caller {
    /// Returns a caller without a token, where none is required.
    pub fn without_token(address: Option<Arc<str>>) -> Self {
        Self { token: None, address }
    }

    /// Returns the name of the caller's token; `None` if no token is required.
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
    /// The time to wait, if the quota is used up.
    pub fn admit_events(&self, count: usize) -> Result<(), RetryAfter> {
        self.token.as_ref().map_or(Ok(()), |token| token.admit_events(count))
    }

    /// Takes a request from the token's quota.
    ///
    /// # Errors
    /// The time to wait, if the quota is used up.
    pub fn admit_request(&self) -> Result<(), RetryAfter> {
        self.token.as_ref().map_or(Ok(()), |token| token.admit_request())
    }
}

/// Name of the file in the data directory that exists once tokens have been in force there.
const MARKER: &str = "auth.seen";
const MARKER_TEXT: &str = "The service had tokens. Without tokens, a service on this data \
                           directory refuses every call, because a lost file of tokens must not \
                           open it. `auth.disabled = true` opens it.\n";

/// The tokens and the secret in use.
#[derive(Debug, Default)]
struct Policy {
    tokens: Vec<Arc<Token>>,
    grafana_secret: Option<WebhookSecret>,
    /// True if no token is required.
    is_open: bool,
    /// True if there is a token or the secret, or was one earlier.
    has_had_entries: bool,
}

impl Policy {
    fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.grafana_secret.is_none()
    }
}

/// Decides who may call.
#[derive(Debug)]
pub struct Authenticator {
    config: AuthConfig,
    /// The addresses at which the service can be reached.
    listen: Vec<SocketAddr>,
    /// The file that shows a later process that tokens were in force.
    marker: PathBuf,
    policy: RwLock<Arc<Policy>>,
}

impl Authenticator {
    /// Reads the tokens for a service that listens on one of `listen`.
    ///
    /// # Errors
    /// If there are none and other machines could connect, or if a file or an entry can't be used.
    pub fn open(
        config: AuthConfig,
        listen: Vec<SocketAddr>,
        data_dir: &Path,
        now: Timestamp,
    ) -> Result<Self, AuthConfigError> {
        let marker = data_dir.join(MARKER);
        let authenticator = Self { config, listen, marker, policy: RwLock::default() };
        authenticator.read_again(now)?;
        if authenticator.config.disabled {
            let listen = authenticator.listen.first();
            let listen = listen.map(ToString::to_string).unwrap_or_default();
            tracing::warn!(
                "auth.disabled is true: anyone who can reach {listen} may do everything"
            );
        }
        Ok(authenticator)
    }

    /// Reads the files again. An unchanged token keeps the state of its quotas. If tokens were in
    /// force and there are none now, all callers are refused.
    ///
    /// # Errors
    /// As in [`Authenticator::open`]; the tokens in use stay.
    pub fn reload(&self, now: Timestamp) -> Result<(), AuthConfigError> {
        self.read_again(now)?;
        self.remember_tokens();
        Ok(())
    }

    /// Creates the marker in the data directory, which must exist, if there are tokens.
    pub fn remember_tokens(&self) {
        if self.policy.read().is_empty() || self.marker.exists() {
            return;
        }
        if let Err(error) = fs::write(&self.marker, MARKER_TEXT) {
            let marker = self.marker.display();
            tracing::warn!(
                %error,
                "{marker} can't be written: {error}. A later start without tokens can't detect \
                 that there were tokens before"
            );
        }
    }

    fn read_again(&self, now: Timestamp) -> Result<(), AuthConfigError> {
        let configs = self.config.all_tokens()?;
        let grafana_secret = self.config.grafana_secret()?;
        let before = Arc::clone(&self.policy.read());
        let tokens: Vec<_> = configs
            .into_iter()
            .map(|config| {
                let same = before.tokens.iter().find(|token| token.config == config);
                same.map_or_else(|| Arc::new(Token::new(config.clone())), Arc::clone)
            })
            .collect();
        let mut policy = Policy { tokens, grafana_secret, ..Policy::default() };
        policy.has_had_entries =
            !policy.is_empty() || before.has_had_entries || self.marker.exists();
        policy.is_open = self.config.disabled || !policy.has_had_entries;
        if policy.is_empty() && !self.config.disabled {
            let elsewhere = self.listen.iter().find(|address| !address.ip().is_loopback());
            if let Some(elsewhere) = elsewhere {
                return Err(AuthConfigError::Open(*elsewhere));
            }
        }
        self.log_what_is_unusual(&before, &policy, now);
        *self.policy.write() = Arc::new(policy);
        Ok(())
    }

    fn log_what_is_unusual(&self, before: &Policy, policy: &Policy, now: Timestamp) {
        for file in self.config.files_that_others_can_write() {
            let file = file.display();
            tracing::warn!(
                "every user of this machine can write {file}, and so grant access: remove that \
                 permission (chmod o-w) from the file and its folder"
            );
        }
        if self.config.disabled {
            return;
        }
        let file = self.config.file.as_ref().map(|file| file.display().to_string());
        let is_expired = |token: &Arc<Token>| {
            token.config.expires_at.is_some_and(|expires_at| expires_at <= now)
        };
        if !policy.tokens.is_empty() {
            if policy.tokens.iter().all(is_expired) {
                let tokens = policy.tokens.len();
                tracing::error!(
                    tokens,
                    "all {tokens} tokens have expired: every call is refused. Create new ones with \
                     `anomaly-counter token new`"
                );
            }
        } else if !before.tokens.is_empty() || (policy.is_empty() && !policy.is_open) {
            let place = file.as_deref().unwrap_or("the configuration (`auth.file`)");
            tracing::error!(
                "there are no tokens, although there were some before: every call is refused. Put \
                 the callers' entries back into {place}; or, if everyone may do everything, set \
                 `auth.disabled = true`"
            );
        } else if let (true, Some(file)) = (policy.is_open, file) {
            tracing::warn!(
                "auth.file {file} has no entry: programs on this machine need no token. \
                 `anomaly-counter token new` prints an entry"
            );
        }
    }

    /// Returns the number of tokens.
    pub fn tokens(&self) -> usize {
        self.policy.read().tokens.len()
    }

    /// Returns whether no token is required.
    pub fn is_open(&self) -> bool {
        self.policy.read().is_open
    }

    /// Admits the caller at `address` if its token `secret` has the scope.
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

    /// Returns the entry of the token that the caller at `address` presents.
    ///
    /// # Errors
    /// The reason for a refusal, which is counted and logged.
    pub fn identify(
        &self,
        now: Timestamp,
        secret: Option<&str>,
        address: Option<&str>,
    ) -> Result<TokenConfig, AuthError> {
        let known = self.known(now, secret, Scope::Read);
        let token = known.inspect_err(|error| note(error, address, Instant::now()))?;
        Ok(token.config.clone())
    }

    /// Returns the time for which a browser keeps a token, in seconds.
    pub fn session_seconds(&self) -> u32 {
        u32::from(self.config.session_hours.get()) * 3600
    }

    /// Returns the header in which Grafana sends the time that it signs.
    pub fn grafana_timestamp_header(&self) -> Option<&str> {
        self.config.grafana_timestamp_header.as_deref()
    }

    /// Returns a delivery whose signature is to be checked with its body; `None` if no secret is
    /// configured, or if the time that has to be signed is missing.
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
        let error = refused(AuthFailure::Unknown, "", Scope::Ingest);
        note(&error, caller.address.as_deref(), Instant::now());
        error
    }

    fn check(
        &self,
        now: Timestamp,
        secret: Option<&str>,
        needed: Scope,
    ) -> Result<Arc<Token>, AuthError> {
        let token = self.known(now, secret, needed)?;
        if !token.config.scopes.contains(&needed) {
            return Err(refused(AuthFailure::Forbidden, &token.config.name, needed));
        }
        Ok(token)
    }

    /// Returns the token with a secret, unless it has expired. `needed` is for the message.
    fn known(
        &self,
        now: Timestamp,
        secret: Option<&str>,
        needed: Scope,
    ) -> Result<Arc<Token>, AuthError> {
        let refused = |failure, token_name: &str| refused(failure, token_name, needed);
        let secret = secret.ok_or_else(|| refused(AuthFailure::Missing, ""))?;
        let policy = Arc::clone(&self.policy.read());
        let digest = TokenDigest::of(secret);
        // All tokens are compared, so that the time does not reveal how close a guess was.
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
        Ok(Arc::clone(token))
    }
}

fn refused(failure: AuthFailure, token_name: &str, needed: Scope) -> AuthError {
    AuthError { failure, token_name: token_name.to_owned(), needed }
}
