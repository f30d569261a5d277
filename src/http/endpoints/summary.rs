//! `GET /summary`: the number of anomalies of each kind.

use std::collections::BTreeMap;

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    catalogue::{Group, Summary, SummaryQuery},
    counter::{AnomalySummary, Answered},
    domain::{LevelSet, Signature, Timestamp},
    http::{
        bodies::{CompletenessBody, Dated, Limit, conditional, schemas, selection_parameters},
        extract::{IfNoneMatch, Query},
        problem::{Problem, ProblemKind},
        state::AppState,
    },
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("anomalies.summary", routes!(summary))
            .scope(Scope::Read)
            .problems(&[ProblemKind::InvalidField]),
    ]
}

selection_parameters! {
    /// The parameters of a summary.
    struct SummaryParameters {
        /// The fields by whose values the anomalies are grouped: `alert_name`, `service`,
        /// `namespace`, `error_type`. Repeat the parameter, or separate fields with commas.
        #[param(value_type = Vec<String>, required = false, example = "namespace,service")]
        by: Vec<Fields>,
        /// Maximum number of values for each field: those with the most anomalies. All other values
        /// are one entry.
        #[serde(deserialize_with = "crate::http::extract::parsed")]
        #[param(
            value_type = Option<u32>, nullable = false, minimum = 1, maximum = 100, example = 10,
        )]
        top: Option<Limit<10, 100>>,
    }
}

/// Identifying fields, as indices into [`Signature::FIELDS`].
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
struct Fields(Vec<usize>);

impl TryFrom<String> for Fields {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let place = |name: &str| {
            let mut fields = Signature::FIELDS.into_iter();
            let place = fields.position(|(field, alias)| field == name || alias == Some(name));
            place.ok_or_else(|| {
                let known = Signature::FIELDS.map(|(name, _)| name).join(", ");
                format!("must be one of {known}, not {name:?}")
            })
        };
        text.split(',').map(place).collect::<Result<_, _>>().map(Self)
    }
}

/// The number of anomalies, and of their occurrences.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Summary)]
struct SummaryBody {
    /// The number of anomalies that match.
    #[schema(example = 1331)]
    anomalies: u64,
    occurrences: OccurrencesBody,
    levels: LevelsBody,
    /// The number of those that are marked as permanently fixed.
    #[schema(example = 9)]
    fixed: u64,
    /// The number of those that occurred again after they were marked.
    #[schema(example = 2)]
    regressed: u64,
    /// The number of those with an alert that fires.
    #[schema(example = 5)]
    firing: u64,
    /// The values of each field in `by`, those with the most anomalies first.
    #[schema(value_type = BTreeMap<String, Vec<GroupBody>>)]
    by: BTreeMap<&'static str, Vec<GroupBody>>,
    /// The time as of which the figures are current.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required, nullable = false, value_type = Option<schemas::Time>)]
    as_of: Option<Timestamp>,
    #[serde(flatten)]
    completeness: CompletenessBody,
    /// True if the store, or a part of it, is unavailable: the figures are the last known ones plus
    /// the writes that wait.
    degraded: bool,
}

/// The occurrences of all anomalies together.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Occurrences)]
struct OccurrencesBody {
    /// Occurrences within the last hour.
    count_1h: u64,
    /// Occurrences within the last 24 hours.
    count_24h: u64,
    /// Occurrences within the last 7 days.
    count_7d: u64,
    /// Occurrences within the last 30 days.
    count_30d: u64,
}

/// The number of anomalies at each level.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LevelCounts)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
struct LevelsBody {
    /// Anomalies at the level `PERMANENT_FIX`.
    #[schema(example = 1)]
    permanent_fix: u64,
    /// Anomalies at the level `ESCALATE`.
    #[schema(example = 3)]
    escalate: u64,
    /// Anomalies at the level `REPEAT`.
    #[schema(example = 6)]
    repeat: u64,
    /// Anomalies without a level.
    #[schema(example = 502)]
    #[serde(rename = "none")]
    none: u64,
}

/// The anomalies with one value of a field.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Group)]
struct GroupBody {
    /// The value; null for all other values together, and for anomalies whose value is unknown.
    #[schema(required, example = "shop")]
    value: Option<String>,
    /// The number of anomalies.
    #[schema(example = 512)]
    anomalies: u64,
    /// Their occurrences within the last 24 hours.
    #[schema(example = 901)]
    count_24h: u64,
    levels: LevelsBody,
}

impl From<[u64; 4]> for LevelsBody {
    /// Takes the numbers in the order of [`LevelSet::EACH`].
    fn from([none, repeat, escalate, permanent_fix]: [u64; LevelSet::EACH.len()]) -> Self {
        Self { permanent_fix, escalate, repeat, none }
    }
}

impl From<Group> for GroupBody {
    fn from(group: Group) -> Self {
        let Group { value, anomalies, count_24h, levels } = group;
        let value = value.map(|value| value.to_string());
        Self { value, anomalies, count_24h, levels: levels.into() }
    }
}

impl Dated for SummaryBody {
    fn set_as_of(&mut self, as_of: Timestamp) {
        self.as_of = Some(as_of);
    }
}

/// Summarise anomalies: count them by level, and by the values of fields.
///
/// The parameters are the filters of the list. If `If-None-Match` has the `ETag` of an earlier
/// response, the response is 304 if it would differ in `as_of` only.
#[utoipa::path(
    get,
    path = "/summary",
    tag = "anomalies",
    params(SummaryParameters),
    responses(
        (status = 200, description = "The summary.", body = SummaryBody),
        (status = 304, description = "The summary has not changed."),
    ),
)]
async fn summary(
    State(state): State<AppState>,
    has: IfNoneMatch,
    Query(mut parameters): Query<SummaryParameters>,
) -> Result<Response, Problem> {
    let selection = parameters.selection()?;
    let SummaryParameters { by, top, .. } = parameters;
    let mut fields: Vec<usize> = by.into_iter().flat_map(|Fields(fields)| fields).collect();
    fields.sort_unstable();
    fields.dedup();
    let query = SummaryQuery { selection, by: fields, top: top.unwrap_or_default().get() };
    let answered = state.counter.summary(state.counter.moment(), query).await?;

    let Answered { value: AnomalySummary { summary, completeness, as_of }, degraded } = answered;
    let Summary { anomalies, occurrences, levels, fixed, regressed, firing, by } = summary;
    let by = by.into_iter().map(|(field, groups)| {
        let (name, _) = Signature::FIELDS[field];
        (name, groups.into_iter().map(GroupBody::from).collect())
    });
    let body = SummaryBody {
        anomalies,
        occurrences: OccurrencesBody {
            count_1h: occurrences.hour,
            count_24h: occurrences.day,
            count_7d: occurrences.week,
            count_30d: occurrences.month,
        },
        levels: levels.into(),
        fixed,
        regressed,
        firing,
        by: by.collect(),
        as_of: None,
        completeness: completeness.into(),
        degraded: degraded.is_some(),
    };
    Ok(conditional(&has, body, as_of))
}
