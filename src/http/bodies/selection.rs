//! The parameters by which lists and summaries select anomalies. They are the same for both, and a
//! type that refuses unknown ones can't be a part of another: so a macro defines the types.

/// Defines the parameters of a query: those of the selection, and its own.
macro_rules! selection_parameters {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
        #[serde(default, deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        $vis struct $name {
            /// The alert's name. A value without `*` and `?` must be equal byte for byte. A value
            /// with `*` (any characters) or `?` (any one character) is a pattern for the whole name
            /// that ignores case; `\` makes the next character literal. An empty value selects an
            /// empty name. If the parameter is repeated, one of its values must match. All four
            /// fields together may have 16 values.
            #[param(value_type = Vec<String>, required = false, example = "High*")]
            alert_name: Vec<$crate::domain::TextPattern>,
            /// Another name for `alert_name`.
            #[param(value_type = Vec<String>, required = false)]
            alertname: Vec<$crate::domain::TextPattern>,
            /// The service, as `alert_name`.
            #[param(value_type = Vec<String>, required = false)]
            service: Vec<$crate::domain::TextPattern>,
            /// Another name for `service`.
            #[param(value_type = Vec<String>, required = false)]
            job: Vec<$crate::domain::TextPattern>,
            /// The namespace, as `alert_name`.
            #[param(value_type = Vec<String>, required = false)]
            namespace: Vec<$crate::domain::TextPattern>,
            /// The kind of error, as `alert_name`.
            #[param(value_type = Vec<String>, required = false)]
            error_type: Vec<$crate::domain::TextPattern>,
            /// Another name for `error_type`.
            #[param(value_type = Vec<String>, required = false)]
            reason: Vec<$crate::domain::TextPattern>,
            /// Words separated by spaces. Each word must be a part of one of the four fields,
            /// ignoring case, or the first 4 to 16 digits of the key.
            #[serde(deserialize_with = "crate::http::extract::parsed")]
            #[param(value_type = Option<String>, nullable = false, max_length = 200)]
            q: Option<$crate::domain::SearchWords>,
            /// The levels, one of which the anomaly must have: `REPEAT`, `ESCALATE`,
            /// `PERMANENT_FIX`, `none`. Repeat the parameter, or separate levels with commas.
            #[param(value_type = Vec<String>, required = false, example = "ESCALATE,PERMANENT_FIX")]
            level: Vec<$crate::domain::LevelSet>,
            /// The lowest level that the anomaly must have.
            #[param(
                value_type = Option<$crate::http::bodies::schemas::EscalationLevel>,
                nullable = false,
            )]
            min_level: Option<$crate::domain::EscalationLevel>,
            /// The name of the rule that decides the anomaly's level. If the parameter is repeated,
            /// one of its values must match.
            #[param(value_type = Vec<String>, required = false, example = "default")]
            rule: Vec<$crate::domain::RuleName>,
            /// True for anomalies with alerts that fire, false for those without.
            #[param(nullable = false)]
            firing: Option<bool>,
            /// True for anomalies that are marked as permanently fixed, false for all others.
            #[param(nullable = false)]
            fixed: Option<bool>,
            /// True for anomalies that occurred again after they were marked as fixed.
            #[param(nullable = false)]
            regressed: Option<bool>,
            /// True for anomalies with at least one repair attempt.
            #[param(nullable = false)]
            repaired: Option<bool>,
            /// The newest occurrence must be at this time or later: a time in the format of RFC
            /// 3339, or an age such as `90m`, `24h` or `7d`.
            #[serde(deserialize_with = "crate::http::extract::parsed")]
            #[param(value_type = Option<String>, nullable = false, example = "24h")]
            last_seen_after: Option<$crate::domain::TimeLimit>,
            /// The newest occurrence must be before this time or age.
            #[serde(deserialize_with = "crate::http::extract::parsed")]
            #[param(value_type = Option<String>, nullable = false)]
            last_seen_before: Option<$crate::domain::TimeLimit>,
            /// The oldest occurrence within 30 days must be at this time or age, or later.
            #[serde(deserialize_with = "crate::http::extract::parsed")]
            #[param(value_type = Option<String>, nullable = false)]
            first_seen_after: Option<$crate::domain::TimeLimit>,
            /// The oldest occurrence within 30 days must be before this time or age.
            #[serde(deserialize_with = "crate::http::extract::parsed")]
            #[param(value_type = Option<String>, nullable = false)]
            first_seen_before: Option<$crate::domain::TimeLimit>,
            /// Minimum number of occurrences within the last hour.
            #[param(value_type = Option<u64>, nullable = false, maximum = 4_294_967_295_u64)]
            min_count_1h: Option<u32>,
            /// Minimum number of occurrences within the last 24 hours.
            #[param(value_type = Option<u64>, nullable = false, maximum = 4_294_967_295_u64)]
            min_count_24h: Option<u32>,
            /// Minimum number of occurrences within the last 7 days.
            #[param(value_type = Option<u64>, nullable = false, maximum = 4_294_967_295_u64)]
            min_count_7d: Option<u32>,
            /// Minimum number of occurrences within the last 30 days.
            #[param(value_type = Option<u64>, nullable = false, maximum = 4_294_967_295_u64)]
            min_count_30d: Option<u32>,
            $($own)*
        }

        impl $name {
            /// Takes the selection out of the parameters.
            fn selection(
                &mut self,
            ) -> Result<$crate::domain::Selection, $crate::http::problem::Problem> {
                use std::mem::take;
                $crate::http::bodies::check_patterns([
                    ("alert_name", &self.alert_name),
                    ("alertname", &self.alertname),
                    ("service", &self.service),
                    ("job", &self.job),
                    ("namespace", &self.namespace),
                    ("error_type", &self.error_type),
                    ("reason", &self.reason),
                ])?;
                let both = |mut named: Vec<_>, other: Vec<_>| {
                    named.extend(other);
                    named
                };
                let fields = [
                    both(take(&mut self.alert_name), take(&mut self.alertname)),
                    both(take(&mut self.service), take(&mut self.job)),
                    take(&mut self.namespace),
                    both(take(&mut self.error_type), take(&mut self.reason)),
                ];
                let levels = take(&mut self.level).into_iter().reduce(|mut all, levels| {
                    all.extend(levels);
                    all
                });
                Ok($crate::domain::Selection {
                    fields,
                    words: take(&mut self.q).unwrap_or_default(),
                    levels,
                    min_level: self.min_level,
                    rules: take(&mut self.rule),
                    firing: self.firing,
                    fixed: self.fixed,
                    regressed: self.regressed,
                    repaired: self.repaired,
                    last_seen: $crate::domain::TimeRange {
                        after: self.last_seen_after,
                        before: self.last_seen_before,
                    },
                    first_seen: $crate::domain::TimeRange {
                        after: self.first_seen_after,
                        before: self.first_seen_before,
                    },
                    min_counts: $crate::domain::WindowCounts {
                        hour: self.min_count_1h.unwrap_or(0).into(),
                        day: self.min_count_24h.unwrap_or(0).into(),
                        week: self.min_count_7d.unwrap_or(0).into(),
                        month: self.min_count_30d.unwrap_or(0).into(),
                    },
                })
            }
        }
    };
}

use crate::{domain::TextPattern, http::problem::Problem};

pub(in crate::http) use selection_parameters;

/// Maximum number of patterns of a query: each is tried on each distinct text.
const MAX_PATTERNS: usize = 16;

/// Checks that there are not too many patterns. The problem names the last field that has one.
pub(in crate::http) fn check_patterns(
    fields: [(&str, &Vec<TextPattern>); 7],
) -> Result<(), Problem> {
    let count: usize = fields.iter().map(|(_, patterns)| patterns.len()).sum();
    let last = fields.iter().rev().find(|(_, patterns)| !patterns.is_empty());
    match last {
        Some((name, _)) if count > MAX_PATTERNS => Err(Problem::field(
            name,
            format!("is one of {count} values for the four fields: give at most {MAX_PATTERNS}"),
        )),
        _ => Ok(()),
    }
}
