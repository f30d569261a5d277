//! Reads the configuration from the built-in defaults, files and the environment, and records the
//! origin of each value. Each component owns its section.

mod listen;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use config::{Environment, File, FileFormat, Value, ValueKind};
use serde::Deserialize;

use crate::{
    auth::AuthConfig,
    catalogue::CatalogueConfig,
    counter::{BatchConfig, DegradedConfig},
    domain::{AnomalyConfig, KeyConfig, KeyMapping, Thresholds, TimelineConfig},
    http::{AlertmanagerConfig, BrowserConfig, HttpConfig, PageConfig, ProxyConfig, TlsConfig},
    logging::LogConfig,
    options::{self, ENVIRONMENT_PREFIX, ENVIRONMENT_SEPARATOR, OptionError},
    rules::RulesConfig,
    spool::SpoolConfig,
    store::{RecordingConfig, RedisConfig, RedisUrl, StoreConfig},
    traces::TracesConfig,
};

pub use self::listen::ListenAddress;

/// All options with their defaults and explanations.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

const CONFIG_DIR: &str = "config";

/// All options.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The address on which the service listens.
    pub listen: ListenAddress,
    /// The folder of the embedded store or, on Redis, of the spool.
    pub data_dir: PathBuf,
    /// Section `store`.
    pub store: StoreConfig,
    /// Section `redis`.
    pub redis: RedisConfig,
    /// Section `batch`.
    pub batch: BatchConfig,
    /// Section `catalogue`.
    pub catalogue: CatalogueConfig,
    /// Section `degraded`.
    pub degraded: DegradedConfig,
    /// Section `spool`.
    pub spool: SpoolConfig,
    /// Section `anomaly`.
    pub anomaly: AnomalyConfig,
    /// Section `key`.
    pub key: KeyConfig,
    /// Section `timeline`.
    pub timeline: TimelineConfig,
    /// Section `thresholds`.
    pub thresholds: Thresholds,
    /// Section `rules`.
    pub rules: RulesConfig,
    /// Section `alertmanager`.
    pub alertmanager: AlertmanagerConfig,
    /// Section `http`.
    pub http: HttpConfig,
    /// Section `page`.
    pub page: PageConfig,
    /// Section `tls`.
    pub tls: TlsConfig,
    /// Section `auth`.
    pub auth: AuthConfig,
    /// Section `browser`.
    pub browser: BrowserConfig,
    /// Section `proxy`.
    pub proxy: ProxyConfig,
    /// Section `log`.
    pub log: LogConfig,
    /// Section `traces`.
    pub traces: TracesConfig,
}

impl Config {
    /// Returns the mapping of posted fields and labels, which two sections configure.
    pub fn key_mapping(&self) -> KeyMapping {
        KeyMapping::new(self.key.clone(), self.alertmanager.kubernetes)
    }

    /// The configuration of recording.
    pub fn recording(&self) -> RecordingConfig {
        RecordingConfig { timeline: self.timeline, alerts: self.alertmanager.alerts() }
    }
}

/// The error of loading the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read, or a value is invalid.
    #[error("{0}. `anomaly-counter default-config` prints every option with an explanation")]
    Invalid(#[from] OptionError),
    /// The folder of configuration files can't be listed.
    #[error("the directory config/ can't be read: {0}")]
    Folder(#[from] std::io::Error),
}

/// A configuration with the origin of each value.
#[derive(Debug)]
pub struct LoadedConfig {
    /// The values.
    pub config: Config,
    origins: Vec<Setting>,
}

/// One value and its origin.
#[derive(Debug)]
struct Setting {
    key: String,
    value: String,
    origin: String,
}

impl LoadedConfig {
    /// Reads the built-in defaults, then `file` or, without one, `config/*.toml` except
    /// `default.toml`, then the environment.
    ///
    /// # Errors
    /// When a source can't be read, a key is unknown, or a value is invalid.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let files = match file {
            Some(file) => vec![file.to_owned()],
            None => files_of_working_directory()?,
        };
        let mut sources =
            config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        for file in files {
            sources = options::with_file(sources, &file)?;
        }
        let environment = Environment::with_prefix(ENVIRONMENT_PREFIX)
            .prefix_separator(ENVIRONMENT_SEPARATOR)
            .separator(ENVIRONMENT_SEPARATOR)
            // An empty variable, as in compose files, counts as unset.
            .ignore_empty(true);
        let gathered = sources.add_source(environment).build().map_err(OptionError::from)?;

        let mut origins = Vec::new();
        list_settings(&gathered.cache, String::new(), &mut origins);
        let config = options::read(gathered.cache)?;
        Ok(Self { config, origins })
    }
}

/// The effective configuration as TOML, secrets hidden, each value with its origin.
impl fmt::Display for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self
            .origins
            .iter()
            .map(|setting| format!("{} = {}", setting.key, self.shown(setting)))
            .collect();
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
        for (line, setting) in lines.iter().zip(&self.origins) {
            writeln!(f, "{line:width$}  # {}", setting.origin)?;
        }
        Ok(())
    }
}

impl LoadedConfig {
    fn shown(&self, setting: &Setting) -> String {
        match (&setting.key[..], &self.config.redis.url) {
            ("redis.url", Some(url)) => quoted(&RedisUrl::to_string(url)),
            _ => setting.value.clone(),
        }
    }
}

fn files_of_working_directory() -> Result<Vec<PathBuf>, ConfigError> {
    let folder = Path::new(CONFIG_DIR);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // A copy of the defaults expresses no choice of the user, and would override earlier files.
        let is_defaults = path.file_name().is_some_and(|name| name == "default.toml");
        if !is_defaults && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn list_settings(value: &Value, key: String, settings: &mut Vec<Setting>) {
    if let ValueKind::Table(table) = &value.kind {
        let mut entries: Vec<_> = table.iter().collect();
        // Sections follow the plain keys, as TOML requires.
        entries.sort_by_key(|(name, value)| (matches!(value.kind, ValueKind::Table(_)), *name));
        for (name, value) in entries {
            let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            list_settings(value, key, settings);
        }
        return;
    }
    let origin = options::origin(&key, value).unwrap_or_else(|| "built-in".to_owned());
    settings.push(Setting { key, value: toml_of(value), origin });
}

/// A value in TOML syntax.
fn toml_of(value: &Value) -> String {
    match &value.kind {
        ValueKind::String(text) => quoted(text),
        ValueKind::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(toml_of).collect();
            format!("[{}]", elements.join(", "))
        }
        ValueKind::Table(table) => {
            let mut members: Vec<String> =
                table.iter().map(|(name, value)| format!("{name} = {}", toml_of(value))).collect();
            members.sort();
            format!("{{ {} }}", members.join(", "))
        }
        _ => value.to_string(),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}
