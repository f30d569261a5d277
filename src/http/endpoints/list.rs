//! `GET /anomalies`: the list of anomalies.

use axum::{
    extract::State,
    http::{HeaderValue, Uri, header::LINK},
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::endpoint::{Endpoint, routes};
use crate::{
    auth::Scope,
    catalogue::ListQuery,
    counter::{AnomalyList, Answered, ListedAnomaly},
    domain::{AnomalyKey, Cursor, Order, Ranking, Sort, Timestamp},
    http::{
        bodies::{
            CompletenessBody, Dated, FiringBody, FrequencyBody, Limit, SignatureBody, conditional,
            schemas, selection_parameters,
        },
        extract::{IfNoneMatch, Query},
        problem::{Problem, ProblemKind},
        state::AppState,
    },
    store::SeriesSpan,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new("anomalies.list", routes!(list))
            .scope(Scope::Read)
            .problems(&[ProblemKind::InvalidField]),
    ]
}

selection_parameters! {
    /// The parameters of a list.
    struct ListParameters {
        /// The value by which the list is sorted; equal values are sorted by key. An anomaly
        /// without the value comes last.
        #[serde(deserialize_with = "crate::http::extract::parsed")]
        #[param(inline, value_type = Option<SortParameter>, nullable = false)]
        sort: Option<Sort>,
        /// The direction. `asc` is allowed with `last_seen`, `first_seen` and `key`. The default is
        /// `asc` for `key` and `desc` for all others.
        #[serde(deserialize_with = "crate::http::extract::parsed")]
        #[param(inline, value_type = Option<OrderParameter>, nullable = false)]
        order: Option<Order>,
        /// Maximum number of anomalies on a page.
        #[serde(deserialize_with = "crate::http::extract::parsed")]
        #[param(
            value_type = Option<u32>, nullable = false, minimum = 1, maximum = 200, example = 50,
        )]
        limit: Option<Limit<50, 200>>,
        /// The `next_cursor` of the previous page. All other parameters must be the same.
        #[serde(deserialize_with = "crate::http::extract::parsed")]
        #[param(value_type = Option<String>, nullable = false)]
        cursor: Option<Cursor>,
        /// If present, each anomaly has the number of its occurrences in each of the last 24 hours
        /// (`24h`), or in each 6 hours of the last 7 days (`7d`).
        #[param(inline, nullable = false)]
        series: Option<SeriesParameter>,
    }
}

/// The values of `sort`.
#[derive(ToSchema)]
#[schema(as = Sort, rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes values, and is never made")]
enum SortParameter {
    #[schema(rename = "count_24h")]
    Count24h,
    #[schema(rename = "count_1h")]
    Count1h,
    #[schema(rename = "count_7d")]
    Count7d,
    #[schema(rename = "count_30d")]
    Count30d,
    LastSeen,
    FirstSeen,
    Key,
}

/// The values of `order`.
#[derive(ToSchema)]
#[schema(as = Order, rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes values, and is never made")]
enum OrderParameter {
    Desc,
    Asc,
}

/// The window of the numbers in `series`.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[schema(as = Series)]
enum SeriesParameter {
    /// 24 hours.
    #[serde(rename = "24h")]
    Day,
    /// 28 times 6 hours.
    #[serde(rename = "7d")]
    Week,
}

impl SeriesParameter {
    fn span(self) -> SeriesSpan {
        match self {
            Self::Day => SeriesSpan { step_seconds: 3_600, buckets: 24 },
            Self::Week => SeriesSpan { step_seconds: 6 * 3_600, buckets: 28 },
        }
    }
}

/// A page of a list of anomalies.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnomalyList)]
struct ListBody {
    /// The anomalies, in the requested order.
    #[schema(max_items = 200)]
    anomalies: Vec<ListedBody>,
    /// The number of anomalies that match, whatever `limit` is.
    #[schema(example = 1331)]
    total: u64,
    /// False if the total may be inexact, because the counts of some anomalies are not current.
    total_exact: bool,
    /// The `cursor` of the next page; null at the end. An anomaly whose sort value does not change
    /// between two pages is listed exactly once; one whose value changes may be listed twice or not
    /// at all. The key never changes, so paging with `sort=key` lists every anomaly that exists
    /// throughout. This holds while `ranking` is `exact`.
    #[schema(required)]
    next_cursor: Option<String>,
    /// The time as of which the figures are current.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required, nullable = false, value_type = Option<schemas::Time>)]
    as_of: Option<Timestamp>,
    #[serde(flatten)]
    completeness: CompletenessBody,
    ranking: RankingBody,
    /// True if the store, or a part of it, is unavailable: the figures are the last known ones plus
    /// the writes that wait.
    degraded: bool,
}

/// The accuracy of the order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Ranking)]
enum RankingBody {
    /// All anomalies are in order.
    Exact,
    /// The figures of some anomalies on other pages may not be current.
    Approximate,
}

/// An anomaly of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ListedAnomaly)]
struct ListedBody {
    #[schema(value_type = schemas::AnomalyKey)]
    anomaly_key: AnomalyKey,
    /// The four fields that identify the anomaly; null if unknown.
    #[schema(required)]
    signature: Option<SignatureBody>,
    frequency: FrequencyBody,
    /// The time at which the anomaly was marked as permanently fixed; null without a mark, or if
    /// unknown in an outage.
    #[schema(required, value_type = Option<schemas::Time>)]
    fixed_at: Option<Timestamp>,
    /// The alerts of the anomaly that fire; null if there are none, or if they are unknown, as in
    /// an outage.
    #[schema(required)]
    firing: Option<FiringBody>,
    /// The numbers of occurrences in equal intervals, oldest first; null if unknown. They add up to
    /// the count of the window. Present if `series` was requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<u64>>, max_items = 28)]
    series: Option<Option<Vec<u64>>>,
}

impl Dated for ListBody {
    fn set_as_of(&mut self, as_of: Timestamp) {
        self.as_of = Some(as_of);
    }
}

impl ListedBody {
    fn new(listed: ListedAnomaly, has_series: bool) -> Self {
        let ListedAnomaly { signature, frequency, degraded, firing, series } = listed;
        Self {
            anomaly_key: frequency.key,
            signature: signature.map(SignatureBody::from),
            fixed_at: frequency.stats.mark.set_at(),
            firing: firing.map(FiringBody::from),
            frequency: FrequencyBody::new(frequency, degraded),
            series: has_series.then_some(series),
        }
    }
}

/// List anomalies.
///
/// An anomaly must match all parameters; of a repeated parameter, it must match one value. An
/// unknown field of an anomaly matches nothing. The header `Link` points to the next page, if there
/// is one. If `If-None-Match` has the `ETag` of an earlier response, the response is 304 if it
/// would differ in `as_of` only.
#[utoipa::path(
    get,
    path = "/anomalies",
    tag = "anomalies",
    params(ListParameters),
    responses(
        (status = 200, description = "A page of the list.", body = ListBody),
        (status = 304, description = "The page has not changed."),
    ),
)]
async fn list(
    State(state): State<AppState>,
    uri: Uri,
    has: IfNoneMatch,
    Query(mut parameters): Query<ListParameters>,
) -> Result<Response, Problem> {
    let selection = parameters.selection()?;
    let ListParameters { sort, order, limit, cursor, series, .. } = parameters;
    let ranking = Ranking::new(sort.unwrap_or_default(), order)
        .map_err(|error| Problem::field("order", error))?;
    let after = cursor
        .map(|cursor| cursor.position(ranking, &selection))
        .transpose()
        .map_err(|error| Problem::field("cursor", error))?;
    let limit = limit.unwrap_or_default().get();
    let query = ListQuery { selection, ranking, limit, after };
    let span = series.map(SeriesParameter::span);
    let list = state.counter.list(state.counter.moment(), query, span).await?;

    let Answered { value: list, degraded } = list;
    let AnomalyList { as_of, next, .. } = list;
    let next_cursor = next.map(|cursor| cursor.to_string());
    let link = next_cursor.as_ref().and_then(|cursor| next_link(&uri, cursor));
    let ranking = if list.ranking_is_exact { RankingBody::Exact } else { RankingBody::Approximate };
    let anomalies = list.anomalies.into_iter();
    let body = ListBody {
        anomalies: anomalies.map(|listed| ListedBody::new(listed, series.is_some())).collect(),
        total: list.total,
        total_exact: list.total_is_exact,
        next_cursor,
        as_of: None,
        completeness: list.completeness.into(),
        ranking,
        degraded: degraded.is_some(),
    };
    let mut response = conditional(&has, body, as_of);
    response.headers_mut().extend(link.map(|link| (LINK, link)));
    Ok(response)
}

/// Returns the link to the next page (RFC 8288): the same request with its cursor.
fn next_link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let parameters = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    query.extend_pairs(parameters.filter(|(name, _)| name != "cursor"));
    query.append_pair("cursor", cursor);
    HeaderValue::try_from(format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish())).ok()
}
