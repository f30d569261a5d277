//! `/spool/dead-letters`: the writes that the store has refused for good, for operators. The command
//! `spool` of the command line uses it while the service runs.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::{Deserialize, Serialize};

use super::{
    AppState,
    problem::{Problem, ProblemKind},
};
use crate::{
    domain::{AnomalyKey, Timestamp},
    spool::DeadLetter,
};

/// A write that the store has refused for good.
#[derive(Debug, Serialize, Deserialize)]
pub struct DeadLetterBody {
    /// Its number, by which it is retried or dropped.
    pub sequence: u64,
    /// Why it was refused.
    pub reason: String,
    /// What it was: `occurrence`, `repair`, `permanent fix` and so on; absent, like all that
    /// follows, where its record is damaged.
    pub kind: Option<String>,
    /// Whose it was.
    pub anomaly_key: Option<AnomalyKey>,
    /// Its id.
    pub event_id: Option<String>,
    /// When it happened.
    pub at: Option<Timestamp>,
}

impl From<DeadLetter> for DeadLetterBody {
    fn from(letter: DeadLetter) -> Self {
        let operation = letter.operation;
        let operation = operation.as_ref();
        Self {
            sequence: letter.sequence,
            reason: letter.reason,
            kind: operation.map(|operation| operation.kind().to_owned()),
            anomaly_key: operation.map(|operation| operation.key()),
            event_id: operation.map(|operation| operation.id().to_string()),
            at: operation.map(|operation| operation.at()),
        }
    }
}

/// The answer to a retry or a drop.
#[derive(Debug, Serialize)]
pub(super) struct DoneBody {
    sequence: u64,
}

/// `GET /spool/dead-letters`.
pub(super) async fn list(
    State(state): State<AppState>,
) -> Result<Json<Vec<DeadLetterBody>>, Problem> {
    let letters = state.counter.dead_letters().await?;
    Ok(Json(letters.into_iter().map(DeadLetterBody::from).collect()))
}

/// `POST /spool/dead-letters/{sequence}/retry`.
pub(super) async fn retry(
    State(state): State<AppState>,
    Path(sequence): Path<String>,
) -> Result<Json<DoneBody>, Problem> {
    let sequence = parse(&sequence)?;
    done(sequence, state.counter.retry_dead_letter(sequence).await?)
}

/// `DELETE /spool/dead-letters/{sequence}`.
pub(super) async fn remove(
    State(state): State<AppState>,
    Path(sequence): Path<String>,
) -> Result<Json<DoneBody>, Problem> {
    let sequence = parse(&sequence)?;
    done(sequence, state.counter.drop_dead_letter(sequence).await?)
}

fn parse(sequence: &str) -> Result<u64, Problem> {
    sequence.parse().map_err(|_| Problem::field("sequence", "must be a number from the list"))
}

fn done(sequence: u64, was_there: bool) -> Result<Json<DoneBody>, Problem> {
    if was_there {
        return Ok(Json(DoneBody { sequence }));
    }
    let detail = format!("no readable dead letter has the number {sequence}");
    Err(Problem::new(ProblemKind::UnknownDeadLetter, detail))
}
