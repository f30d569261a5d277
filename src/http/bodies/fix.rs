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
