//! The members by which a list or a summary says whether it is about all anomalies.

use serde::Serialize;
use utoipa::ToSchema;

use crate::catalogue::{Completeness, PartialReason};

/// The completeness of a response about many anomalies.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[schema(as = Completeness)]
pub(in crate::http) struct CompletenessBody {
    /// True if the response covers all anomalies. False if some may be missing, as shortly after a
    /// start.
    complete: bool,
    /// The reason why some may be missing. Present if `complete` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<ReasonBody>,
    /// Number of anomalies that are known so far. Present if `complete` is false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    loaded: Option<u64>,
}

/// The reason why some anomalies may be missing.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PartialReason)]
enum ReasonBody {
    /// The service has not gone through the store yet since its start.
    Loading,
    /// The store does not permit the service to go through it.
    Denied,
    /// There are more anomalies, or changes of them, than could be taken in.
    Behind,
}

impl From<Completeness> for CompletenessBody {
    fn from(completeness: Completeness) -> Self {
        let Completeness::Partial { reason, loaded } = completeness else {
            return Self { complete: true, reason: None, loaded: None };
        };
        let reason = match reason {
            PartialReason::Loading => ReasonBody::Loading,
            PartialReason::Denied => ReasonBody::Denied,
            PartialReason::Behind => ReasonBody::Behind,
        };
        Self { complete: false, reason: Some(reason), loaded: Some(loaded) }
    }
}
