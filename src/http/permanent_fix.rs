//! `/permanent-fix`: an operator's mark that the cause is fixed.

use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    AppState,
    audit::CameFrom,
    body::JsonBody,
    degraded::{DegradedBody, written},
    fields::Fields,
    path::KeyPath,
    problem::Problem,
    schemas,
};
use crate::{
    counter::{Answered, Degraded},
    domain::{AnomalyKey, EventId, FixMark, FixRemoval, PermanentFix, Timestamp},
};

/// How long a description or a name may be, in characters.
const MAX_CHARACTERS: usize = 4_000;

/// A permanent fix to mark.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "it describes what is read field by field")]
#[serde(deny_unknown_fields)]
#[schema(as = FixToMark)]
struct MarkRequest {
    /// Whose cause is fixed.
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// What was done.
    #[schema(value_type = schemas::Prose, example = "raised the CPU limit")]
    fix_description: String,
    /// Who did it.
    #[schema(value_type = Option<schemas::Prose>, example = "ops")]
    fixed_by: Option<String>,
}

/// A mark that holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fix)]
pub(super) struct FixBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always true.
    permanent_fix_applied: bool,
    /// What was done; null where an older writer has not said.
    #[schema(required, example = "raised the CPU limit")]
    fix_description: Option<String>,
    /// Who did it, where that was said.
    #[schema(required, example = "ops")]
    fixed_by: Option<String>,
    /// When it was marked.
    #[schema(value_type = schemas::Time)]
    fixed_at: Timestamp,
    /// When the mark ends: 90 days later.
    #[schema(value_type = schemas::Time)]
    expires_at: Timestamp,
    #[serde(flatten)]
    degraded: DegradedBody,
}

impl FixBody {
    pub(super) fn new(
        anomaly_key: AnomalyKey,
        fix: PermanentFix,
        degraded: Option<Degraded>,
    ) -> Self {
        Self {
            anomaly_key,
            permanent_fix_applied: true,
            expires_at: fix.expires_at(),
            fix_description: fix.description,
            fixed_by: fix.fixed_by,
            fixed_at: fix.marked_at,
            degraded: degraded.into(),
        }
    }
}

/// The answer when a mark is taken back.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Unmarked)]
pub(super) struct UnmarkedBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always false.
    permanent_fix_applied: bool,
    /// False when there was no mark to take back.
    removed: bool,
    #[serde(flatten)]
    degraded: DegradedBody,
}

/// Mark an anomaly's cause as fixed.
///
/// The mark holds for 90 days. An occurrence after it has `regressed`.
#[utoipa::path(
    put,
    path = "/permanent-fix",
    tag = "permanent fixes",
    request_body = MarkRequest,
    responses(
        (status = 200, description = "It is marked.", body = FixBody),
        (status = 202, description = "The store is away: the mark waits for it, and will hold.", body = FixBody),
    ),
)]
pub(super) async fn mark(
    State(state): State<AppState>,
    came_from: CameFrom,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<FixBody>), Problem> {
    let mut fields = Fields::of("a permanent fix", body)?;
    let key = fields.anomaly_key()?;
    let description = fields.required_text("fix_description")?;
    let fixed_by = fields.optional_text("fixed_by")?;
    fields.finish()?;
    check_prose("fix_description", &description)?;
    if let Some(fixed_by) = &fixed_by {
        check_prose("fixed_by", fixed_by)?;
    }

    let now = state.counter.now();
    let actor = came_from.said_by(fixed_by.as_deref());
    let mark = FixMark { key, id: EventId::unique(), at: now, description, fixed_by, actor };
    let fix = state.counter.mark_fixed(now, mark).await?;
    let Answered { value, degraded } = fix.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok((written(degraded), Json(FixBody::new(key, value, degraded))))
}

/// Take the mark of a permanent fix back.
#[utoipa::path(
    delete,
    path = "/permanent-fix/{key}",
    tag = "permanent fixes",
    params(("key" = schemas::AnomalyKey, Path)),
    responses(
        (status = 200, description = "No mark holds.", body = UnmarkedBody),
        (status = 202, description = "The store is away: the removal waits for it.", body = UnmarkedBody),
    ),
)]
pub(super) async fn unmark(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
    came_from: CameFrom,
) -> Result<(StatusCode, Json<UnmarkedBody>), Problem> {
    let now = state.counter.now();
    let actor = came_from.said_by(None);
    let removal = FixRemoval { key, id: EventId::unique(), at: now, actor };
    let removed = state.counter.unmark_fixed(now, removal).await?;
    let Answered { value, degraded } = removed.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let body = UnmarkedBody {
        anomaly_key: key,
        permanent_fix_applied: false,
        removed: value,
        degraded: degraded.into(),
    };
    Ok((written(degraded), Json(body)))
}

/// Prose for people: not empty, not endless, and without control characters but line breaks.
fn check_prose(name: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(Problem::field(name, "must not be empty"));
    }
    if text.chars().count() > MAX_CHARACTERS {
        return Err(Problem::field(name, format!("must be at most {MAX_CHARACTERS} characters")));
    }
    if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return Err(Problem::field(name, "must not hold control characters but line breaks"));
    }
    Ok(())
}
