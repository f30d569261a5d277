//! The alerts of an anomaly that fire.

use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::domain::{Firing, Timestamp};

/// The alerts of an anomaly that fire, according to the deliveries so far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Firing)]
pub(in crate::http) struct FiringBody {
    /// Number of alerts; at most 1,000.
    #[schema(example = 2)]
    episodes: usize,
    /// The time at which the first of them started firing.
    #[schema(value_type = schemas::Time)]
    since: Timestamp,
}

impl From<Firing> for FiringBody {
    fn from(Firing { episodes, since }: Firing) -> Self {
        Self { episodes, since }
    }
}
