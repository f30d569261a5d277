//! The mark of a permanent fix.

use serde::Serialize;
use utoipa::ToSchema;

use super::{degraded::DegradedBody, schemas};
use crate::{
    counter::Degraded,
    domain::{AnomalyKey, PermanentFix, Timestamp},
};

/// A mark that holds.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fix)]
pub(in crate::http) struct FixBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always true.
    permanent_fix_applied: bool,
    /// The fix; null where an older writer has left none.
    #[schema(required, example = "raised the CPU limit")]
    fix_description: Option<String>,
    /// The person who fixed it; null where unknown.
    #[schema(required, example = "ops")]
    fixed_by: Option<String>,
    /// The time of the mark.
    #[schema(value_type = schemas::Time)]
    fixed_at: Timestamp,
    /// The end of the mark: 90 days later.
    #[schema(value_type = schemas::Time)]
    expires_at: Timestamp,
    #[serde(flatten)]
    degraded: DegradedBody,
}

impl FixBody {
    pub(in crate::http) fn new(
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
