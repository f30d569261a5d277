//! Reads options from files and the environment into structs. An error names the key, where its
//! value came from, and what is allowed there, in the words of the file and not of the code.

mod deserializer;
mod error;
mod period;

use std::{fmt::Write as _, fs, io, path::Path};

use config::{
    ConfigBuilder, ConfigError, File, FileFormat, Format as _, Map, Source, Value,
    builder::DefaultState,
};
use serde::de::DeserializeOwned;

use self::deserializer::ValueDeserializer;

pub use self::{error::OptionError, period::Period};

/// Beginning of the names of environment variables.
pub const ENVIRONMENT_PREFIX: &str = "ANOMALY_COUNTER";
/// Text between the parts of a key in the name of an environment variable.
pub const ENVIRONMENT_SEPARATOR: &str = "__";

/// The `config` crate's name for the environment as an origin.
const ENVIRONMENT: &str = "the environment";

/// Reads gathered values into a struct.
///
/// # Errors
/// When a key is unknown or missing, or a value is not as it must be.
pub fn read<T: DeserializeOwned>(values: Value) -> Result<T, OptionError> {
    T::deserialize(ValueDeserializer::root(values))
}

/// Reads one TOML file into a struct.
///
/// # Errors
/// As [`read`], and when the file can't be read or is not TOML.
pub fn read_file<T: DeserializeOwned>(file: &Path) -> Result<T, OptionError> {
    let gathered = with_file(config::Config::builder(), file)?.build();
    read(gathered.map_err(OptionError::of_gathering)?.cache)
}

/// Reads a TOML text into a struct.
///
/// # Errors
/// As [`read`], and when it is not TOML.
pub fn read_text<T: DeserializeOwned>(text: &str) -> Result<T, OptionError> {
    let source = File::from_str(text, FileFormat::Toml);
    let gathered = config::Config::builder().add_source(source).build();
    read(gathered.map_err(OptionError::of_gathering)?.cache)
}

/// Adds a TOML file to the sources.
///
/// # Errors
/// When it can't be read.
pub fn with_file(
    sources: ConfigBuilder<DefaultState>,
    file: &Path,
) -> Result<ConfigBuilder<DefaultState>, OptionError> {
    let text = fs::read(file).and_then(|bytes| {
        let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
        String::from_utf8(bytes).map_err(not_text)
    });
    let text = text.map_err(|error| OptionError::unreadable(file, &error))?;
    Ok(sources.add_source(TomlFile { path: file.display().to_string(), text }))
}

/// The text of a file. The `config` crate's own source takes a folder, a file without permission or
/// a pipe for a missing one.
#[derive(Clone, Debug)]
struct TomlFile {
    path: String,
    text: String,
}

impl Source for TomlFile {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        let uri = || Some(self.path.clone());
        let parsed = FileFormat::Toml.parse(uri().as_ref(), &self.text);
        parsed.map_err(|cause| ConfigError::FileParse { uri: uri(), cause })
    }
}

impl From<ConfigError> for OptionError {
    fn from(error: ConfigError) -> Self {
        Self::of_gathering(error)
    }
}

/// Returns where a value came from: a file, a variable of the environment, or `None` for what is
/// built in.
pub fn origin(key: &str, value: &Value) -> Option<String> {
    match value.origin()? {
        ENVIRONMENT => Some(environment_variable(key)),
        file => Some(file.to_owned()),
    }
}

/// Returns the name of the environment variable for a key.
pub fn environment_variable(key: &str) -> String {
    let mut name = ENVIRONMENT_PREFIX.to_owned();
    for part in key.split('.') {
        // Writing to a String cannot fail.
        let _ = write!(name, "{ENVIRONMENT_SEPARATOR}{}", part.to_uppercase());
    }
    name
}
