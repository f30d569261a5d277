//! The command `spool`: lists, retries or drops the writes that Redis has refused permanently. A
//! running service does it itself; without one the file is opened here.

use std::time::Duration;

use clap::Subcommand;
use reqwest::{Method, Response, StatusCode};

use super::{
    Failure,
    local::{Local, TOKEN_VARIABLE},
};
use crate::{
    config::Config,
    counter::SystemClock,
    http::{DeadLetterBody, RetriedBody},
    logging,
    printable::Printable,
    spool::{DeadLetter, Spool, SpoolError, SpoolOpenError},
};

/// Nobody else waits for the disk.
const DISK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// The text of `--help` about the token.
pub(super) const SPOOL_TOKEN: &str = "\
A running service is asked by HTTP. Where it requires tokens, put one into the environment variable
ANOMALY_COUNTER_TOKEN: `list` takes the scope read, `retry` and `drop` the scope operate.";

/// What to do with the writes that Redis has refused for good.
#[derive(Debug, Subcommand)]
pub(super) enum SpoolCommand {
    /// List them: number, what it was, whose, when, and why it was refused
    #[command(after_help = SPOOL_TOKEN)]
    List,
    /// Try one again, or all of them, once the cause is fixed
    #[command(after_help = SPOOL_TOKEN)]
    Retry {
        /// The number that the list shows
        #[arg(required_unless_present = "all")]
        sequence: Option<u64>,
        /// Try all of them again
        #[arg(long, conflicts_with = "sequence")]
        all: bool,
    },
    /// Drop one for good
    #[command(after_help = SPOOL_TOKEN)]
    Drop {
        /// The number that the list shows
        sequence: u64,
    },
}

pub(super) async fn run(command: SpoolCommand, config: &Config) -> Result<(), Failure> {
    // A damaged file is set aside here too, which must be said.
    logging::start(&config.log);
    let ignore_waiting = |_: &crate::spool::Spooled| {};
    let now = SystemClock.now();
    match Spool::open(&config.data_dir, config.spool, DISK_TIMEOUT, now, ignore_waiting) {
        Ok(spool) => on_file(command, &spool).await,
        Err(SpoolOpenError::InUse { .. }) => through_service(command, config).await,
        Err(fault) => Err(fault.into()),
    }
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
            println!("{sequence} is tried again when the service starts");
            Ok(())
        }
        SpoolCommand::Retry { sequence: None, .. } => {
            let readable =
                |letter: DeadLetter| letter.operation.is_some().then_some(letter.sequence);
            let sequences = spool.all_dead_letters(readable).await?;
            let retried = revive(sequences.into_iter().flatten().collect()).await?.len();
            println!("{retried} are tried again when the service starts");
            Ok(())
        }
        SpoolCommand::Drop { sequence } => {
            found(sequence, spool.drop_dead(sequence).await?)?;
            println!("{sequence} is dropped");
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
            println!("{retried} are being tried again");
        }
        SpoolCommand::Retry { sequence: Some(sequence), .. } => {
            let retry = format!("{letters}/{sequence}/retry");
            let answer = send(&local, Method::POST, &retry).await?;
            found(sequence, answer.status() != StatusCode::NOT_FOUND)?;
            println!("{sequence} is being tried again");
        }
        SpoolCommand::Drop { sequence } => {
            let answer = send(&local, Method::DELETE, &format!("{letters}/{sequence}")).await?;
            found(sequence, answer.status() != StatusCode::NOT_FOUND)?;
            println!("{sequence} is dropped");
        }
    }
    Ok(())
}

async fn send(local: &Local, method: Method, path: &str) -> Result<Response, Failure> {
    let url = local.url(path);
    let answer = local.send(method, path).await.map_err(|error| {
        format!("the spool is in use, but {url} does not answer ({error}): is `listen` the same?")
    })?;
    if answer.status().is_success() || answer.status() == StatusCode::NOT_FOUND {
        return Ok(answer);
    }
    if matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        let why = answer.text().await?;
        let needed = "the scopes read (to list) and operate (to retry and drop)";
        return Err(format!("put a token with {needed} into {TOKEN_VARIABLE}: {why}").into());
    }
    Err(format!("{url} answers {}: {}", answer.status(), answer.text().await?).into())
}

fn found(sequence: u64, was_there: bool) -> Result<(), Failure> {
    let missing = || format!("no readable dead letter has the number {sequence}: see `spool list`");
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
        println!("{}  {kind}  {key}  {at}  {reason}", letter.sequence);
    }
    if count == 0 {
        println!("there are no dead letters");
    }
}
