//! Which service a command calls, and how: by the command line, the environment, and the client's
//! configuration files, in this order.

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use reqwest::{
    Url,
    header::{AUTHORIZATION, HeaderValue},
};
use serde::Deserialize;

use super::failure::Failure;
use crate::{
    cli::local::TOKEN_VARIABLE,
    options::{self, OptionError},
};

/// The environment variable with the address of the service.
pub(super) const URL_VARIABLE: &str = "ANOMALY_COUNTER_URL";

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The file for all users of a machine.
const SYSTEM_FILE: &str = "/etc/anomaly-counter/client.toml";
/// The file of a user, in the user's configuration folder.
const USER_FILE: &str = "anomaly-counter/client.toml";

/// The text of `--help` about the configuration.
pub(super) const CONFIGURATION: &str = "\
Settings come from the options, the environment (ANOMALY_COUNTER_URL, and ANOMALY_COUNTER_TOKEN with
the token itself), ~/.config/anomaly-counter/client.toml, and /etc/anomaly-counter/client.toml;
earlier sources take precedence. An example of client.toml:
  url = \"https://counter.example.org\"
  token_file = \"token\"        # relative to this file, or absolute
  ca_file = \"ca.pem\"
  certificate_file = \"client.pem\"   # only if the service has tls.client_ca_file
  key_file = \"client.key\"
  output = \"wide\"";

/// The options of all commands that call a running service.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Service")]
pub(in crate::cli) struct ServiceOptions {
    /// The address of the service; the default is http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Trust only certificates signed by the CA in this PEM file
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Show the service the certificate in this PEM file
    #[arg(long, value_name = "FILE", requires = "key_file")]
    certificate_file: Option<PathBuf>,
    /// The certificate's private key, a PEM file
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    key_file: Option<PathBuf>,
    /// The output format; in a pipe, `json` is the service's response byte for byte
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// The format in which a response is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// For people
    #[default]
    Table,
    /// For people, with all columns and fields
    Wide,
    /// For programs
    Json,
}

/// A configuration file of the client.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClientFile {
    url: Option<String>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    certificate_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    output: Option<Format>,
}

/// A call of the service.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) url: Url,
    /// The origin of the address, in words.
    pub(super) url_origin: String,
    pub(super) token: Option<Token>,
    pub(super) ca: Option<PemFile>,
    /// The client's certificate with its key.
    pub(super) identity: Option<PemFile>,
    pub(super) output: Format,
}

/// A token as it is sent.
#[derive(Debug)]
pub(super) struct Token {
    /// Marked as sensitive, so that no debug output contains it.
    pub(super) header: HeaderValue,
    pub(super) origin: String,
}

/// Certificates.
pub(super) struct PemFile {
    pub(super) path: PathBuf,
    pub(super) pem: Vec<u8>,
}

impl fmt::Debug for PemFile {
    /// Shows no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Settings {
    pub(super) fn gather(options: &ServiceOptions) -> Result<Self, Failure> {
        let files = [user_file(), Some(PathBuf::from(SYSTEM_FILE))];
        Self::of(options, &|name| env::var(name).ok(), files.into_iter().flatten())
    }

    /// Earlier files take precedence.
    fn of(
        options: &ServiceOptions,
        variable: &dyn Fn(&str) -> Option<String>,
        files: impl Iterator<Item = PathBuf>,
    ) -> Result<Self, Failure> {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let mut url = options.url.clone().map(|url| (url, "--url".to_owned()));
        url = url.or_else(|| variable(URL_VARIABLE).map(|url| (url, URL_VARIABLE.to_owned())));
        let mut token = match &options.token_file {
            Some(path) => Some(read_token(path)?),
            None => variable(TOKEN_VARIABLE)
                .map(|token| Token::new(&token, TOKEN_VARIABLE.to_owned()))
                .transpose()?,
        };
        let mut ca = options.ca_file.as_deref().map(read_pem).transpose()?;
        let mut identity = match (&options.certificate_file, &options.key_file) {
            (Some(certificate), Some(key)) => Some(read_identity(certificate, key)?),
            _ => None,
        };
        let mut output = options.output;
        for path in files {
            let Some(file) = read_file(&path)? else { continue };
            let beside =
                |other: PathBuf| path.parent().map(|dir| dir.join(&other)).unwrap_or(other);
            url = url.or_else(|| file.url.map(|url| (url, path.display().to_string())));
            output = output.or(file.output);
            if let (None, Some(file)) = (&token, file.token_file) {
                token = Some(read_token(&beside(file))?);
            }
            if let (None, Some(file)) = (&ca, file.ca_file) {
                ca = Some(read_pem(&beside(file))?);
            }
            identity = match (identity, file.certificate_file, file.key_file) {
                (None, Some(certificate), Some(key)) => {
                    Some(read_identity(&beside(certificate), &beside(key))?)
                }
                (None, None, None) => None,
                (None, _, _) => {
                    let path = path.display();
                    return Err(Failure::Misuse(format!(
                        "{path}: `certificate_file` and `key_file` belong together: give both"
                    )));
                }
                (known, _, _) => known,
            };
        }
        let (url, url_origin) =
            url.unwrap_or_else(|| (DEFAULT_URL.to_owned(), "the default".to_owned()));
        let url =
            read_url(&url).map_err(|what| Failure::Misuse(format!("{url_origin}: {what}")))?;
        Ok(Self { url, url_origin, token, ca, identity, output: output.unwrap_or_default() })
    }
}

impl Token {
    fn new(token: &str, origin: String) -> Result<Self, Failure> {
        let header = format!("Bearer {}", token.trim()).parse::<HeaderValue>();
        let mut header = header.map_err(|_| {
            Failure::Misuse(format!("{origin} has no valid token: a token is printable ASCII text"))
        })?;
        header.set_sensitive(true);
        Ok(Self { header, origin })
    }

    /// The request header with the token.
    pub(super) const HEADER: reqwest::header::HeaderName = AUTHORIZATION;
}

fn user_file() -> Option<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    Some(dir?.join(USER_FILE))
}

/// Returns a configuration file, if there is one.
fn read_file(path: &Path) -> Result<Option<ClientFile>, Failure> {
    let is_there = path.try_exists().or_else(|error| match error.kind() {
        // A folder that the user may not read is not the user's.
        io::ErrorKind::PermissionDenied | io::ErrorKind::NotADirectory => Ok(false),
        _ => Err(unreadable(path, &error)),
    })?;
    if !is_there {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    options::read_text(&text).map(Some).map_err(|error: OptionError| {
        Failure::Misuse(format!(
            "{}: {error}. `anomaly-counter top --help` shows such a file",
            path.display()
        ))
    })
}

fn read_token(path: &Path) -> Result<Token, Failure> {
    let token = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    if token.trim().is_empty() {
        let path = path.display();
        return Err(Failure::Misuse(format!(
            "{path} is empty: put the token, and nothing else, into it"
        )));
    }
    Token::new(&token, path.display().to_string())
}

fn read_pem(path: &Path) -> Result<PemFile, Failure> {
    let pem = fs::read(path).map_err(|error| unreadable(path, &error))?;
    Ok(PemFile { path: path.to_owned(), pem })
}

fn read_identity(certificate: &Path, key: &Path) -> Result<PemFile, Failure> {
    let mut identity = read_pem(certificate)?;
    identity.pem.extend(read_pem(key)?.pem);
    Ok(identity)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Misuse(format!("the file {} can't be read: {error}", path.display()))
}

/// Reads an address, without a slash at its end.
fn read_url(text: &str) -> Result<Url, String> {
    let example = "give one such as https://counter.example.org";
    let mut url: Url =
        text.parse().map_err(|error| format!("{text:?} is not an address ({error}): {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
        return Err(format!("{text:?} is not an address of http or https: {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "an address must not have a user or a password, which others could see: put the token \
             into {TOKEN_VARIABLE} or into a file"
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn of(
        options: &ServiceOptions,
        variables: &[(&str, &str)],
        files: &[PathBuf],
    ) -> Result<Settings, Failure> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::of(options, &variable, files.iter().cloned())
    }

    fn file(dir: &TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_files() {
        let dir = TempDir::new().unwrap();
        let user = file(&dir, "user.toml", "url = \"http://user\"\noutput = \"json\"\n");
        let system = file(&dir, "system.toml", "url = \"http://system\"\ntoken_file = \"token\"\n");
        file(&dir, "token", "anc_system\n");
        let files = [user.clone(), dir.path().join("missing.toml"), system];

        let none = of(&ServiceOptions::default(), &[], &[]).unwrap();
        assert_eq!((none.url.as_str(), none.output), ("http://127.0.0.1:8080/", Format::Table));
        assert!(none.token.is_none());

        let by_files = of(&ServiceOptions::default(), &[(URL_VARIABLE, "")], &files).unwrap();
        assert_eq!((by_files.url.as_str(), by_files.output), ("http://user/", Format::Json));
        assert_eq!(by_files.url_origin, user.display().to_string());
        assert_eq!(by_files.token.unwrap().header, "Bearer anc_system");

        let variables = [(URL_VARIABLE, "http://variable/base/"), (TOKEN_VARIABLE, "anc_mine")];
        let by_environment = of(&ServiceOptions::default(), &variables, &files).unwrap();
        assert_eq!(by_environment.url.as_str(), "http://variable/base");
        assert_eq!(by_environment.token.unwrap().header, "Bearer anc_mine");

        let options = ServiceOptions {
            url: Some("https://option".to_owned()),
            token_file: Some(file(&dir, "own", "anc_own")),
            output: Some(Format::Wide),
            ..ServiceOptions::default()
        };
        let by_options = of(&options, &variables, &files).unwrap();
        assert_eq!((by_options.url.as_str(), by_options.output), ("https://option/", Format::Wide));
        assert_eq!(by_options.token.unwrap().header, "Bearer anc_own");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_file_and_key() {
        let dir = TempDir::new().unwrap();
        for (text, says) in [
            ("token = \"anc_x\"\n", "`token` is not a known key"),
            ("urls = 1\n", "is not a known key: the keys here are `url`"),
            ("output = \"yaml\"\n", "\"table\", \"wide\" or \"json\""),
            ("url =\n", "is not TOML"),
        ] {
            let path = file(&dir, "client.toml", text);
            let error =
                of(&ServiceOptions::default(), &[], std::slice::from_ref(&path)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            let error = error.to_string();
            assert!(error.contains(says), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(!error.contains("anc_x"), "{error}");
        }
    }

    #[test]
    fn an_address_is_one_of_http_without_a_password() {
        let refused = |url: &str| {
            let options = ServiceOptions { url: Some(url.to_owned()), ..ServiceOptions::default() };
            of(&options, &[], &[]).unwrap_err().to_string()
        };
        assert!(
            refused("localhost:8080").starts_with("--url: \"localhost:8080\" is not an address of")
        );
        assert!(refused("counter").contains("give one such as https://"));
        let secret = refused("http://ana:anc_secret@counter");
        assert!(secret.contains("ANOMALY_COUNTER_TOKEN") && !secret.contains("anc_secret"));
    }

    #[test]
    fn a_token_file_that_has_no_token_is_named() {
        let dir = TempDir::new().unwrap();
        for (text, says) in [("\n", "is empty"), ("anc_1\nanc_2\n", "has no valid token")] {
            let path = file(&dir, "token", text);
            let options =
                ServiceOptions { token_file: Some(path.clone()), ..ServiceOptions::default() };
            let error = of(&options, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("/token"), "{error}");
        }
        let missing =
            ServiceOptions { token_file: Some("/missing".into()), ..ServiceOptions::default() };
        assert!(of(&missing, &[], &[]).unwrap_err().to_string().contains("/missing can't be read"));
    }
}
