//! `/permanent-fix`: an operator's mark that the cause is fixed.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{AppState, body::JsonBody, fields::Fields, path::KeyPath, problem::Problem};
use crate::domain::{AnomalyKey, FixMark, PermanentFix, Timestamp};

/// How long a description or a name may be, in characters.
const MAX_CHARACTERS: usize = 4_000;

/// A mark that holds.
#[derive(Debug, Serialize)]
pub(super) struct FixBody {
    anomaly_key: AnomalyKey,
    permanent_fix_applied: bool,
    fix_description: Option<String>,
    fixed_by: Option<String>,
    fixed_at: Timestamp,
    expires_at: Timestamp,
    degraded: bool,
}

impl FixBody {
    pub(super) fn new(anomaly_key: AnomalyKey, fix: PermanentFix) -> Self {
        Self {
            anomaly_key,
            permanent_fix_applied: true,
            expires_at: fix.expires_at(),
            fix_description: fix.description,
            fixed_by: fix.fixed_by,
            fixed_at: fix.marked_at,
            degraded: false,
        }
    }
}

/// The answer when a mark is taken back.
#[derive(Debug, Serialize)]
pub(super) struct UnmarkedBody {
    anomaly_key: AnomalyKey,
    permanent_fix_applied: bool,
    /// False when there was no mark to take back.
    removed: bool,
    degraded: bool,
}

/// `PUT /permanent-fix`.
pub(super) async fn mark(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Json<FixBody>, Problem> {
    let mut fields = Fields::of("a permanent fix", body)?;
    let key = fields.anomaly_key()?;
    let description = fields.required_text("fix_description")?;
    let fixed_by = fields.optional_text("fixed_by")?;
    fields.finish()?;
    check_prose("fix_description", &description)?;
    if let Some(fixed_by) = &fixed_by {
        check_prose("fixed_by", fixed_by)?;
    }

    let mark = FixMark {
        key,
        description,
        fixed_by,
    };
    let fix = state.counter.mark_fixed(state.counter.now(), mark).await?;
    let fix = fix.ok_or_else(|| Problem::unknown_anomaly(key))?;
    Ok(Json(FixBody::new(key, fix)))
}

/// `DELETE /permanent-fix/{key}`.
pub(super) async fn unmark(
    State(state): State<AppState>,
    KeyPath(key): KeyPath,
) -> Result<Json<UnmarkedBody>, Problem> {
    let removed = state.counter.unmark_fixed(state.counter.now(), key).await?;
    let removed = removed.ok_or_else(|| Problem::unknown_anomaly(key))?;
    let permanent_fix_applied = false;
    Ok(Json(UnmarkedBody {
        anomaly_key: key,
        permanent_fix_applied,
        removed,
        degraded: false,
    }))
}

/// Prose for people: not empty, not endless, and without control characters but line breaks.
fn check_prose(name: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(Problem::field(name, "must not be empty"));
    }
    if text.chars().count() > MAX_CHARACTERS {
        return Err(Problem::field(
            name,
            format!("must be at most {MAX_CHARACTERS} characters"),
        ));
    }
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
    {
        return Err(Problem::field(
            name,
            "must not hold control characters but line breaks",
        ));
    }
    Ok(())
}
