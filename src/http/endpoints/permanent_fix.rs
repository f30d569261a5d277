//! `/permanent-fix`: an operator's mark that the cause is fixed.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    counter::Answered,
    domain::{AnomalyKey, EventId, FixMark, FixRemoval},
    http::{
        bodies::{DegradedBody, FixBody, schemas, write_status},
        extract::{JsonBody, KeyPath, OptionalJsonBody, RequestBody, Requester, parse_key},
        json::Json,
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    use ProblemKind::{InvalidKey, UnknownAnomaly};
    vec![
        Endpoint::new("permanent_fix.mark", routes!(mark))
            .scope(Scope::Operate)
            .problems(&[InvalidKey, UnknownAnomaly]),
        Endpoint::new("permanent_fix.unmark", routes!(unmark))
            .scope(Scope::Operate)
            .problems(&[InvalidKey, UnknownAnomaly]),
    ]
}

/// A permanent fix to mark.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FixToMark)]
struct MarkRequest {
    /// The key of the anomaly whose cause is fixed.
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: String,
    /// A description of the fix.
    #[schema(example = "raised the CPU limit")]
    fix_description: Prose,
    /// The person who fixed it. The default is the name of the token.
    #[schema(example = "ops")]
    fixed_by: Option<Prose>,
}

impl RequestBody for MarkRequest {
    const NOUN: &'static str = "a permanent fix";
}

/// The removal of the mark of a permanent fix.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FixToUnmark)]
struct UnmarkRequest {
    /// The person who removes the mark. The default is the name of the token.
    #[schema(example = "ana")]
    removed_by: Option<Prose>,
    /// The reason for the removal.
    #[schema(example = "it came back under load")]
    reason: Option<Prose>,
}

impl RequestBody for UnmarkRequest {
    const NOUN: &'static str = "the removal of a permanent fix";
}

/// A text for people: 1 to 4,000 characters, not only white space. The only control characters
/// allowed are tabs and line breaks.
#[derive(Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(
    pattern = "^[^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*\
               [^\\u0000-\\u0020\\u007f-\\u009f\\s]\
               [^\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f]*$",
    min_length = 1,
    max_length = 4000,
    example = "raised the CPU limit"
)]
struct Prose(String);

impl Prose {
    const MAX_CHARACTERS: usize = 4_000;
}

impl TryFrom<String> for Prose {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("must not be empty".to_owned());
        }
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(format!("must be at most {} characters", Self::MAX_CHARACTERS));
        }
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
            let fault = "must not contain control characters other than tabs and line breaks";
            return Err(fault.to_owned());
        }
        Ok(Self(text))
    }
}

/// The response to the removal of a mark.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Unmarked)]
struct UnmarkedBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always false.
    permanent_fix_applied: bool,
    /// False if there was no mark to remove; null if unknown in an outage.
    #[schema(required)]
    removed: Option<bool>,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// Mark the cause of an anomaly as fixed.
///
/// The mark is valid for 90 days, and replaces an earlier one. If the anomaly occurs after it, its
/// frequency has `regressed: true`, and the service logs a warning.
#[utoipa::path(
    put,
    path = "/permanent-fix",
    tag = "permanent fixes",
    request_body = MarkRequest,
    responses(
        (status = 200, description = "The cause is marked as fixed.", body = FixBody),
        (
            status = 202, body = FixBody,
            description = "The store is unavailable. The mark is on disk, and is set once the \
                           store answers.",
        ),
    ),
)]
async fn mark(
    State(state): State<AppState>,
    requester: Requester,
    JsonBody(mark): JsonBody<MarkRequest>,
) -> Result<(StatusCode, Json<FixBody>), Problem> {
    let MarkRequest { anomaly_key, fix_description: Prose(description), fixed_by } = mark;
    let key = parse_key(&anomaly_key).map_err(|problem| problem.at_field("anomaly_key"))?;
    let actor = requester.actor(fixed_by.map(|Prose(name)| name));
    let fixed_by = actor.by.clone();

    let moment = state.counter.moment();
    let mark = FixMark { key, id: EventId::unique(), at: moment.now, description, fixed_by, actor };
    let fix = state.counter.mark_fixed(moment, mark).await?;
    let Answered { value, degraded } = fix.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok((write_status(degraded), Json(FixBody::new(key, value, degraded))))
}

/// Remove the mark of a permanent fix.
///
/// The body is optional.
#[utoipa::path(
    delete,
    path = "/permanent-fix/{key}",
    tag = "permanent fixes",
    params(("key" = schemas::AnomalyKey, Path)),
    request_body = Option<UnmarkRequest>,
    responses(
        (
            status = 200, description = "The mark is removed, or there was none.",
            body = UnmarkedBody,
        ),
        (
            status = 202, body = UnmarkedBody,
            description = "The store is unavailable. The removal is on disk, and takes effect \
                           once the store answers.",
        ),
    ),
)]
async fn unmark(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
    requester: Requester,
    OptionalJsonBody(removal): OptionalJsonBody<UnmarkRequest>,
) -> Result<(StatusCode, Json<UnmarkedBody>), Problem> {
    let UnmarkRequest { removed_by, reason } = removal;
    let moment = state.counter.moment();
    let actor = requester.actor(removed_by.map(|Prose(name)| name));
    let reason = reason.map(|Prose(text)| text);
    let removal = FixRemoval { key, id: EventId::unique(), at: moment.now, reason, actor };
    let removed = state.counter.unmark_fixed(moment, removal).await?;
    let Answered { value, degraded } = removed.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let body = UnmarkedBody {
        anomaly_key: key,
        permanent_fix_applied: false,
        removed: value,
        degraded: degraded.into(),
    };
    Ok((write_status(degraded), Json(body)))
}
