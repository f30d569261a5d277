//! `/spool/dead-letters`: writes that the store has refused permanently, for operators. The command
//! `spool` of the command line uses it while the service runs.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    domain::{AnomalyKey, Timestamp},
    http::{
        bodies::schemas,
        extract::TextPath,
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
    spool::DeadLetter,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidField, UnknownDeadLetter};
    vec![
        Endpoint::new("dead_letters.list", routes!(list)).scope(Scope::Read),
        Endpoint::new("dead_letters.retry", routes!(retry))
            .scope(Scope::Operate)
            .problems(&[UnknownDeadLetter, InvalidField]),
        Endpoint::new("dead_letters.retry_all", routes!(retry_all)).scope(Scope::Operate),
        Endpoint::new("dead_letters.drop", routes!(remove))
            .scope(Scope::Operate)
            .problems(&[UnknownDeadLetter, InvalidField]),
    ]
}

/// A write that the store refused permanently.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterBody {
    /// The number of the dead letter, by which it is retried or dropped.
    #[schema(example = 17)]
    pub sequence: u64,
    /// The reason why the store refused the write.
    #[schema(example = "the anomaly is not known")]
    pub reason: String,
    /// The kind of write, such as `occurrence`, `repair` or `permanent fix`. If the record is
    /// damaged, this field and all that follow are null.
    #[schema(required, example = "repair")]
    pub kind: Option<String>,
    /// The key of the anomaly that the write is about.
    #[schema(required, value_type = Option<schemas::AnomalyKey>)]
    pub anomaly_key: Option<AnomalyKey>,
    /// The id of the write.
    #[schema(required, value_type = Option<schemas::EventId>)]
    pub event_id: Option<String>,
    /// The time of the write.
    #[schema(required, value_type = Option<schemas::Time>)]
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

/// The response to a retry or a drop.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetterDone)]
struct DoneBody {
    /// The number of the dead letter.
    #[schema(example = 17)]
    sequence: u64,
}

/// List the writes that the store refused permanently.
///
/// The list is always empty on the embedded store.
#[utoipa::path(
    get,
    path = "/spool/dead-letters",
    tag = "operation",
    responses((
        status = 200, description = "The dead letters, oldest first.", body = [DeadLetterBody],
    )),
)]
async fn list(State(state): State<AppState>) -> Result<Json<Vec<DeadLetterBody>>, Problem> {
    Ok(Json(state.counter.dead_letters(DeadLetterBody::from).await?))
}

/// Retry a dead letter.
///
/// A write that is refused again is listed with a new number.
#[utoipa::path(
    post,
    path = "/spool/dead-letters/{sequence}/retry",
    tag = "operation",
    params((
        "sequence" = u64, Path, example = 17,
        description = "The number of the dead letter in the list.",
    )),
    responses((
        status = 200, description = "The write is queued, and is applied again.", body = DoneBody,
    )),
)]
async fn retry(
    State(state): State<AppState>,
    TextPath(sequence): TextPath,
) -> Result<Json<DoneBody>, Problem> {
    let sequence = parse(&sequence)?;
    done(sequence, state.counter.retry_dead_letters(Some(sequence)).await? > 0)
}

/// The response to a retry of all dead letters.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = DeadLettersRetried)]
pub struct RetriedBody {
    /// Number of dead letters that are retried. Dead letters with a damaged record are not.
    #[schema(example = 3)]
    pub retried: usize,
}

/// Retry all dead letters.
///
/// Writes that are refused again are listed with new numbers.
#[utoipa::path(
    post,
    path = "/spool/dead-letters/retry",
    tag = "operation",
    responses((
        status = 200, description = "The writes are queued, and are applied again.",
        body = RetriedBody,
    )),
)]
async fn retry_all(State(state): State<AppState>) -> Result<Json<RetriedBody>, Problem> {
    let retried = state.counter.retry_dead_letters(None).await?;
    Ok(Json(RetriedBody { retried }))
}

/// Drop a dead letter.
///
/// The write is lost.
#[utoipa::path(
    delete,
    path = "/spool/dead-letters/{sequence}",
    tag = "operation",
    params((
        "sequence" = u64, Path, example = 17,
        description = "The number of the dead letter in the list.",
    )),
    responses((status = 200, description = "The dead letter is dropped.", body = DoneBody)),
)]
async fn remove(
    State(state): State<AppState>,
    TextPath(sequence): TextPath,
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
