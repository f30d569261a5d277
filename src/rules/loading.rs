//! Reads the rules, at the start and when they are reloaded.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use serde::Deserialize;

use super::{config::RulesConfig, in_force::RulesInForce};
use crate::{
    domain::{RuleError, RuleSet, RuleSource, Thresholds, Timestamp},
    options::{self, OptionError},
    telemetry,
};

/// Maximum size of the file in bytes: more than the maximum number of the largest rules takes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The reason why rules can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// There are two sources of rules.
    #[error(
        "`rules.file` and [[rules.rule]] are both set: write the rules in one of the two places"
    )]
    Both,
    /// The file can't be read.
    #[error("the file {} (`rules.file`) can't be read: {source}", file.display())]
    Unreadable {
        /// The path of the file.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The file does not have the required form.
    #[error("{}: {source}", file.display())]
    Form {
        /// The path of the file.
        file: PathBuf,
        /// The fault of its form.
        source: OptionError,
    },
    /// A rule of the file can't be used.
    #[error("{}: {source}", file.display())]
    InFile {
        /// The path of the file.
        file: PathBuf,
        /// The fault of the rule.
        source: RuleError,
    },
    /// A rule of the configuration can't be used.
    #[error("[[rules.rule]]: {0}")]
    Inline(RuleError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<RuleSource>,
}

/// The rules, which can be replaced while the service runs.
#[derive(Debug)]
pub struct Rules {
    config: RulesConfig,
    thresholds: Thresholds,
    in_force: RwLock<Arc<RulesInForce>>,
}

impl Rules {
    /// Reads the rules.
    ///
    /// # Errors
    /// Fails if a rule or the file can't be used.
    pub fn load(
        config: RulesConfig,
        thresholds: Thresholds,
        now: Timestamp,
    ) -> Result<Self, RulesError> {
        let set = read(&config, thresholds)?;
        let in_force = RwLock::new(Arc::new(RulesInForce::new(set, now, None)));
        Ok(Self { config, thresholds, in_force })
    }

    /// Creates rules that consist only of the rule `default`, without a configuration.
    #[cfg(test)]
    pub(crate) fn of_thresholds(thresholds: Thresholds) -> Self {
        let config: RulesConfig =
            serde_json::from_str(r#"{"file": null, "rearm": "24h", "rule": []}"#).unwrap();
        Self::load(config, thresholds, Timestamp::MIN).unwrap()
    }

    /// Reads the file again, if there is one, and returns the number of rules that come into force.
    /// Running requests keep the rules that they began with.
    ///
    /// # Errors
    /// Fails as [`Rules::load`] does. The rules in force then stay, and the failure is counted.
    pub fn reload(&self, now: Timestamp) -> Result<Option<usize>, RulesError> {
        if self.config.file.is_none() {
            return Ok(None);
        }
        let read = read(&self.config, self.thresholds);
        let set = read.inspect_err(|_| telemetry::rules_reload_failure())?;
        let count = set.rules().len();
        let mut in_force = self.in_force.write();
        *in_force = Arc::new(RulesInForce::new(set, now, Some(&in_force)));
        Ok(Some(count))
    }

    /// Returns the rules in force.
    pub fn in_force(&self) -> Arc<RulesInForce> {
        Arc::clone(&self.in_force.read())
    }

    /// Returns the configuration that the rules are loaded by.
    pub fn config(&self) -> &RulesConfig {
        &self.config
    }
}

fn read(config: &RulesConfig, thresholds: Thresholds) -> Result<RuleSet, RulesError> {
    let rearm = config.rearm.seconds();
    let Some(file) = &config.file else {
        let set = RuleSet::parse(&config.rule, thresholds, rearm, None);
        return set.map_err(RulesError::Inline);
    };
    if !config.rule.is_empty() {
        return Err(RulesError::Both);
    }
    let named = || file.clone();
    let content =
        content(file).map_err(|source| RulesError::Unreadable { file: named(), source })?;
    let rules: RulesFile = options::read_text(&content)
        .map_err(|source| RulesError::Form { file: named(), source })?;
    RuleSet::parse(&rules.rule, thresholds, rearm, Some(content.as_bytes()))
        .map_err(|source| RulesError::InFile { file: named(), source })
}

fn content(file: &Path) -> io::Result<String> {
    // Opening a pipe would block until another process writes to it.
    if !fs::metadata(file)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let text = format!("it is larger than {} MiB", MAX_FILE_BYTES >> 20);
        return Err(io::Error::other(text));
    }
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}
