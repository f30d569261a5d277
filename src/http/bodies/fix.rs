//! The mark of a permanent fix.

use serde::Serialize;
use utoipa::ToSchema;

use super::{degraded::DegradedBody, schemas};
use crate::{
    counter::Degraded,
    domain::{AnomalyKey, PermanentFix, Timestamp},
};

/// The mark that an anomaly's cause is fixed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fix)]
pub(in crate::http) struct FixBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// Always true.
    permanent_fix_applied: bool,
    /// A description of the fix; null if an older program set the mark without one.
    #[schema(required, example = "raised the CPU limit")]
    fix_description: Option<String>,
    /// The person who fixed it, or the name of the token of the request; null if neither is known.
    #[schema(required, example = "ops")]
    fixed_by: Option<String>,
    /// The time at which the mark was set. Later occurrences are regressions.
    #[schema(value_type = schemas::Time)]
    fixed_at: Timestamp,
    /// The time at which the mark expires: 90 days after it was set.
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
