//! The section `auth` of the configuration, and the file of tokens that it names.

use std::{
    fs,
    net::SocketAddr,
    num::NonZeroU16,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{token::TokenConfig, webhook::WebhookSecret};
use crate::options;

/// Mode bits of files: others may write; and, for folders, users may remove only their own files.
const WRITABLE_BY_OTHERS: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The section `auth` of the configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// True if no token is required, on any address.
    pub disabled: bool,
    /// The tokens of callers.
    pub tokens: Vec<TokenConfig>,
    /// A TOML file with more tokens, read again on SIGHUP.
    pub file: Option<PathBuf>,
    /// A file with the secret by which Grafana signs its deliveries, read again on SIGHUP.
    pub grafana_secret_file: Option<PathBuf>,
    /// Time for which a browser keeps the token that it has logged in with, in hours.
    pub session_hours: NonZeroU16,
    /// The header in which Grafana sends the time that it signs. With it, deliveries without a time
    /// are refused.
    pub grafana_timestamp_header: Option<String>,
}

/// The configuration of tokens can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// Other machines could connect, and no token would be required.
    #[error(
        "refusing to listen on {0} without tokens, because anyone who can reach it could do \
         everything. Create a token: `anomaly-counter token new --name NAME --scope ingest` prints \
         it and its entry for the configuration. Or, in a network in which everyone may do \
         everything, set `auth.disabled = true` (ANOMALY_COUNTER__AUTH__DISABLED=true)"
    )]
    Open(SocketAddr),
    /// A file can't be used.
    #[error("{why}. Fix it, or name another file in `{option}`")]
    File {
        /// The fault with the name of the file, as text.
        why: String,
        /// The option that names it.
        option: &'static str,
    },
    /// Two tokens can't be distinguished, or one can't be used.
    #[error("{0}")]
    Entry(String),
}

/// The contents of `auth.file`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    tokens: Vec<TokenConfig>,
}

impl AuthConfig {
    /// Returns all tokens, those of the file last.
    pub(super) fn all_tokens(&self) -> Result<Vec<TokenConfig>, AuthConfigError> {
        let mut tokens = self.tokens.clone();
        if let Some(file) = &self.file {
            let read: TokenFile = options::read_file(file).map_err(|error| {
                AuthConfigError::File { why: error.to_string(), option: "auth.file" }
            })?;
            tokens.extend(read.tokens);
        }
        let file = self.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default();
        check(&tokens, |index| if index < self.tokens.len() { "auth.tokens" } else { &file })?;
        Ok(tokens)
    }

    pub(super) fn grafana_secret(&self) -> Result<Option<WebhookSecret>, AuthConfigError> {
        let Some(file) = &self.grafana_secret_file else { return Ok(None) };
        WebhookSecret::read(file).map(Some).map_err(|error| AuthConfigError::File {
            why: format!("the file {} can't be read: {error}", file.display()),
            option: "auth.grafana_secret_file",
        })
    }

    /// Returns the files of secrets that every user of this machine can write or replace.
    pub(super) fn files_that_others_can_write(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.file, &self.grafana_secret_file].into_iter().flatten();
        files.map(PathBuf::as_path).filter(|file| {
            let mode =
                |path: &Path| fs::metadata(path).map_or(0, |found| found.permissions().mode());
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder_mode = mode(folder.unwrap_or_else(|| Path::new(".")));
            let is_replaceable = folder_mode & (WRITABLE_BY_OTHERS | STICKY) == WRITABLE_BY_OTHERS;
            mode(file) & WRITABLE_BY_OTHERS != 0 || is_replaceable
        })
    }
}

/// Checks each entry, also against the others. `place` names the source of the entry with an index.
fn check<'a>(
    tokens: &[TokenConfig],
    place: impl Fn(usize) -> &'a str,
) -> Result<(), AuthConfigError> {
    for (index, token) in tokens.iter().enumerate() {
        let name = &token.name;
        let fault = |what: String| Err(AuthConfigError::Entry(format!("{}: {what}", place(index))));
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return fault(format!(
                "a token's `name` is {name:?}: it must have 1 to 64 characters, none of them a \
                 control character"
            ));
        }
        if token.scopes.is_empty() {
            return fault(format!(
                "the token {name:?} has no `scopes`: name at least one of \"ingest\", \"read\" and \
                 \"operate\""
            ));
        }
        let before = &tokens[..index];
        if before.iter().any(|other| other.name == *name) {
            return fault(format!("two tokens have the name {name:?}: rename one of them"));
        }
        if let Some(other) = before.iter().find(|other| other.sha256 == token.sha256) {
            let other = &other.name;
            return fault(format!(
                "{other:?} and {name:?} have the same token: create one for each"
            ));
        }
    }
    Ok(())
}
