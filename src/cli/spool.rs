//! The command `spool`: lists, retries or drops the writes that Redis refused permanently. It calls
//! the running service; without one, it opens the file.

use std::{env, time::Duration};

use clap::Subcommand;
use reqwest::{Method, Response, StatusCode};

use super::{
    Failure,
    local::{Local, TOKEN_VARIABLE, innermost},
    streams::outln,
};
use crate::{
    config::Config,
    counter::SystemClock,
    http::{DeadLetterBody, RetriedBody},
    logging,
    printable::Printable,
    spool::{DeadLetter, SPOOL_FILE_NAME, Spool, SpoolError, SpoolOpenError},
};

/// Long, because no other call waits for the disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The text of `--help` about the token.
pub(super) const SPOOL_TOKEN: &str = "\
If the service is running, the command calls it by HTTP. If it requires tokens, put one into the
environment variable ANOMALY_COUNTER_TOKEN: `list` needs the scope read, `retry` and `drop` need the
scope operate.";

/// The subcommands of `spool`.
#[derive(Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// List them: number, kind, anomaly, time, and the reason of the refusal
    #[command(after_help = SPOOL_TOKEN)]
    List,
    /// Retry one or all of them, after the cause is fixed
    #[command(after_help = SPOOL_TOKEN)]
    Retry {
        /// The number in the list
        #[arg(required_unless_present = "all")]
        sequence: Option<u64>,
        /// Retry all of them
        #[arg(long, conflicts_with = "sequence")]
        all: bool,
    },
    /// Drop one permanently
    #[command(after_help = SPOOL_TOKEN)]
    Drop {
        /// The number in the list
        sequence: u64,
    },
}

pub(super) async fn run(command: SpoolCommand, config: &Config) -> Result<(), Failure> {
    must_exist(config)?;
    // Opening may rename a damaged file, which is logged.
    logging::start(&config.log);
    let ignore_waiting = |_: &crate::spool::Spooled| {};
    let now = SystemClock.now();
    match Spool::open(&config.data_dir, config.spool, DISK_TIMEOUT, now, ignore_waiting) {
        Ok(spool) => on_file(command, &spool).await,
        Err(SpoolOpenError::InUse { .. }) => through_service(command, config).await,
        Err(fault) => Err(fault.into()),
    }
}

/// Fails if there is no spool, which is probably a wrong configuration: nothing may be dead there.
fn must_exist(config: &Config) -> Result<(), Failure> {
    let file = config.data_dir.join(SPOOL_FILE_NAME);
    if config.redis.url.is_none() {
        return Err(
            "`redis.url` is not set here, and writes only wait with Redis: run the command with \
             the configuration of the service (--config FILE, or its environment)"
                .into(),
        );
    }
    if !file.exists() {
        let file = file.display();
        return Err(format!(
            "the file {file} does not exist: check `data_dir`, and run the command where the \
             service runs, with its configuration. The service creates the file when it starts"
        )
        .into());
    }
    Ok(())
}

async fn on_file(command: SpoolCommand, spool: &Spool) -> Result<(), Failure> {
    let revive = async |sequences| spool.revive_dead(sequences).await.map_err(SpoolError::from);
    match command {
        SpoolCommand::List => {
            print(spool.all_dead_letters(DeadLetterBody::from).await?);
            Ok(())
        }
        SpoolCommand::Retry { sequence: Some(sequence), .. } => {
            found(sequence, !revive(vec![sequence]).await?.is_empty())?;
            outln!("{sequence} will be retried when the service starts");
            Ok(())
        }
        SpoolCommand::Retry { sequence: None, .. } => {
            let readable =
                |letter: DeadLetter| letter.operation.is_some().then_some(letter.sequence);
            let sequences = spool.all_dead_letters(readable).await?;
            let retried = revive(sequences.into_iter().flatten().collect()).await?.len();
            let letters = count_of(retried);
            outln!("{letters} will be retried when the service starts");
            Ok(())
        }
        SpoolCommand::Drop { sequence } => {
            found(sequence, spool.drop_dead(sequence).await?)?;
            outln!("{sequence} is dropped");
            Ok(())
        }
    }
}

async fn through_service(command: SpoolCommand, config: &Config) -> Result<(), Failure> {
    let local = Local::of(config)?;
    let letters = "/spool/dead-letters";
    match command {
        SpoolCommand::List => {
            let listed: Vec<DeadLetterBody> =
                send(&local, Method::GET, letters).await?.json().await?;
            print(listed);
        }
        SpoolCommand::Retry { sequence: None, .. } => {
            let answer = send(&local, Method::POST, &format!("{letters}/retry")).await?;
            let RetriedBody { retried } = answer.json().await?;
            let are = if retried == 1 { "is" } else { "are" };
            outln!("{} {are} being retried", count_of(retried));
        }
        SpoolCommand::Retry { sequence: Some(sequence), .. } => {
            let retry = format!("{letters}/{sequence}/retry");
            let answer = send(&local, Method::POST, &retry).await?;
            found(sequence, answer.status() != StatusCode::NOT_FOUND)?;
            outln!("{sequence} is being retried");
        }
        SpoolCommand::Drop { sequence } => {
            let answer = send(&local, Method::DELETE, &format!("{letters}/{sequence}")).await?;
            found(sequence, answer.status() != StatusCode::NOT_FOUND)?;
            outln!("{sequence} is dropped");
        }
    }
    Ok(())
}

async fn send(local: &Local, method: Method, path: &str) -> Result<Response, Failure> {
    let url = local.url(path);
    let scope = if method == Method::GET { "read" } else { "operate" };
    let answer = local.send(method, path).await.map_err(|error| {
        format!(
            "the spool is in use, but {url} does not respond ({}): does the running service have \
             the same `listen`?",
            innermost(&error)
        )
    })?;
    if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    Err(refusal(&url, scope, answer.status(), &answer.text().await?).into())
}

/// Returns why the service refuses a call, in words. `body` is a problem, or that of another
/// program.
fn refusal(url: &str, scope: &str, status: StatusCode, body: &str) -> String {
    let put = format!("put one with the scope `{scope}` into {TOKEN_VARIABLE}");
    let problem = serde_json::from_str(body).ok().filter(serde_json::Value::is_object);
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    match (status, detail) {
        (StatusCode::UNAUTHORIZED, _) if env::var_os(TOKEN_VARIABLE).is_none() => {
            format!("the running service requires a token: {put}")
        }
        (StatusCode::UNAUTHORIZED, _) => format!(
            "the running service does not accept the token in {TOKEN_VARIABLE}, because it is \
             unknown or expired: {put}"
        ),
        (StatusCode::FORBIDDEN, _) => {
            format!("the token in {TOKEN_VARIABLE} is not sufficient: {put}")
        }
        (_, Some(detail)) => format!("{url} returns {status}: {}", Printable(detail)),
        (_, None) => format!(
            "{url} returns {status}, but not in the format of anomaly-counter: does the running \
             service have the same `listen`?"
        ),
    }
}

fn count_of(letters: usize) -> String {
    match letters {
        1 => "1 dead letter".to_owned(),
        count => format!("{count} dead letters"),
    }
}

fn found(sequence: u64, was_there: bool) -> Result<(), Failure> {
    let missing = || {
        format!(
            "no readable dead letter has the number {sequence}: see `anomaly-counter spool list`"
        )
    };
    if was_there { Ok(()) } else { Err(missing().into()) }
}

fn print(letters: impl IntoIterator<Item = DeadLetterBody>) {
    let mut count = 0;
    for letter in letters {
        count += 1;
        let kind = letter.kind.as_deref().unwrap_or("damaged record");
        let key = letter.anomaly_key.map(|key| key.to_string()).unwrap_or_default();
        let at = letter.at.map(|at| at.to_string()).unwrap_or_default();
        let (kind, reason) = (Printable(kind), Printable(&letter.reason));
        outln!("{}  {kind}  {key}  {at}  {reason}", letter.sequence);
    }
    if count == 0 {
        outln!("there are no dead letters");
    }
}
