//! The figures of one repair action.

use serde::Serialize;
use utoipa::ToSchema;

use super::schemas;
use crate::domain::{RepairHistory, RepairStatistics, SuccessRate};

/// The attempts and successes of one repair action, among the anomaly's newest 100 attempts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Action)]
pub(in crate::http) struct ActionBody {
    /// The name of the repair action.
    #[schema(example = "restart_pod")]
    action: String,
    /// Number of attempts of this action.
    #[schema(maximum = 100, example = 2)]
    total: u64,
    /// Number of those attempts that worked.
    #[schema(maximum = 100, example = 1)]
    success: u64,
    #[schema(value_type = schemas::SuccessRate)]
    success_rate: SuccessRate,
}

impl ActionBody {
    pub(in crate::http) fn new(action: &str, figures: RepairStatistics) -> Self {
        Self {
            action: action.to_owned(),
            total: figures.total,
            success: figures.success,
            success_rate: figures.success_rate(),
        }
    }

    /// Returns the figures of each action of a history, the most tried first.
    pub(in crate::http) fn of_history(history: &RepairHistory) -> Vec<Self> {
        let figures = history.statistics_by_action();
        figures.into_iter().map(|(action, figures)| Self::new(action, figures)).collect()
    }
}
