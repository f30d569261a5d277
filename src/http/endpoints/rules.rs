//! `/rules`: the rules in force.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    domain::{EscalationLevel, Levels, Rule, Timestamp},
    http::{bodies::schemas, json::Json, state::AppState},
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint::new("rules.list", routes!(list)).scope(Scope::Read)]
}

/// The rules in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rules)]
struct RulesBody {
    /// The time at which the rules were loaded.
    #[schema(value_type = schemas::Time)]
    loaded_at: Timestamp,
    /// The first 8 hexadecimal digits of the SHA-256 of the rules file or, without a file, of the
    /// rules themselves.
    #[schema(pattern = "^[0-9a-f]{8}$", min_length = 8, max_length = 8, example = "1f2e3d4c")]
    checksum: String,
    /// A rise to a level that the anomaly had within this time is not new.
    #[schema(example = "24h")]
    rearm: String,
    /// The rules in order: the first one that matches decides. The last one is `default`.
    rules: Vec<RuleBody>,
}

/// A rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rule)]
struct RuleBody {
    /// The name of the rule.
    #[schema(min_length = 1, max_length = 64, example = "batch")]
    name: String,
    /// The matchers, all of which must match. A rule without matchers matches everything.
    #[schema(max_items = 8, example = json!(["namespace=\"batch\""]))]
    r#match: Vec<String>,
    levels: LevelsBody,
    /// Number of occurrences that the rule has decided since this instance started.
    #[schema(example = 17)]
    hits: u64,
}

/// The conditions of each level, one of which is enough; or `none` if no level is ever reached.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = RuleLevels)]
enum LevelsBody {
    /// Always `none`.
    None(NoLevels),
    /// The conditions by the name of the level.
    ByLevel(ConditionsBody),
}

/// The conditions of each level. One of them is enough. A missing level is never reached.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = RuleConditions)]
struct ConditionsBody {
    /// The conditions of `REPEAT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false, example = json!(["3 in 24h"]))]
    repeat: Vec<String>,
    /// The conditions of `ESCALATE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false, example = json!(["5 in 24h"]))]
    escalate: Vec<String>,
    /// The conditions of `PERMANENT_FIX`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false, example = json!(["10 in 24h"]))]
    permanent_fix: Vec<String>,
}

/// The value of `levels` if no level is ever reached.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum NoLevels {
    /// No level is ever reached.
    None,
}

impl LevelsBody {
    fn new(levels: &Levels) -> Self {
        if levels.is_none() {
            return Self::None(NoLevels::None);
        }
        let written = |level: EscalationLevel| {
            levels.conditions(level).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let [repeat, escalate, permanent_fix] = EscalationLevel::ALL.map(written);
        Self::ByLevel(ConditionsBody { repeat, escalate, permanent_fix })
    }
}

impl RuleBody {
    fn new(rule: &Rule, hits: u64) -> Self {
        Self {
            name: rule.name().to_owned(),
            r#match: rule.matchers().iter().map(ToString::to_string).collect(),
            levels: LevelsBody::new(rule.levels()),
            hits,
        }
    }
}

/// Read the rules in force.
///
/// A rule whose `hits` remain 0 matches no occurrence.
#[utoipa::path(
    get,
    path = "/rules",
    tag = "operation",
    responses((status = 200, description = "The rules in order.", body = RulesBody)),
)]
async fn list(State(state): State<AppState>) -> Json<RulesBody> {
    let rules = state.counter.rules();
    let in_force = rules.in_force();
    let set = in_force.set();
    let body = |(index, rule)| RuleBody::new(rule, in_force.hits(index));
    Json(RulesBody {
        loaded_at: in_force.loaded_at(),
        checksum: format!("{:08x}", set.checksum()),
        rearm: rules.config().rearm.to_string(),
        rules: set.rules().iter().enumerate().map(body).collect(),
    })
}
