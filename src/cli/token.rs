//! The command `token`: creates tokens. The configuration contains only their digests.

use clap::Subcommand;

use super::streams::{errln, outln};
use crate::{
    auth::{NewToken, Scope, TokenDigest},
    counter::SystemClock,
};

const SECONDS_PER_DAY: i64 = 86_400;

/// The subcommands of `token`.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Print a new token, which is not stored, and its entry for the configuration
    New {
        /// The name of its holder, for logs and audits
        #[arg(long, value_parser = name)]
        name: String,
        /// A scope of the token: ingest, read or operate; repeat the option for several
        #[arg(long = "scope", required = true)]
        scopes: Vec<Scope>,
        /// Let the token expire after this number of days
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u16).range(1..))]
        expires_in_days: Option<u16>,
    },
}

pub(super) fn run(command: &TokenCommand) {
    let TokenCommand::New { name, scopes, expires_in_days } = command;
    let token = NewToken::generate();
    let mut names: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\"")).collect();
    names.dedup();
    errln!("The token, which is shown only once:\n");
    outln!("{}", token.reveal());
    errln!(
        "\nIts entry for the file `auth.file` (SIGHUP reloads it). In the service's configuration,\
         \nit begins with [[auth.tokens]] instead:\n"
    );
    errln!("[[tokens]]");
    // Rust's escapes of such a text are TOML's.
    errln!("name = {name:?}");
    errln!("sha256 = \"{}\"", TokenDigest::of(token.reveal()));
    errln!("scopes = [{}]", names.join(", "));
    if let Some(days) = expires_in_days {
        let expires_at = SystemClock.now().plus_seconds(i64::from(*days) * SECONDS_PER_DAY);
        errln!("expires_at = \"{expires_at}\"");
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if is_printable && (1..=64).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("a name must have 1 to 64 printable ASCII characters".to_owned())
    }
}
