//! Rules: the counts at which each group of anomalies reaches each level. The first rule whose
//! matchers hold decides, and the rule `default` with the thresholds is the last. A rule is a
//! function of the four identifying fields, so that every answer about an anomaly is judged by the
//! same one.
//!
//! Order of imports: error, counts → matcher, condition → levels → rule → steps, verdict → set.
#![cfg_attr(doc, doc = include_str!("../../../docs/design/rules.md"))]

mod condition;
mod counts;
mod error;
mod levels;
mod matcher;
mod rule;
mod set;
mod source;
mod steps;
mod verdict;

pub use condition::{Condition, CountedWindow, InvalidSpan, Term, parse_span};
pub use counts::{Counts, ExtraCount, ExtraWindow, MAX_EXTRA_WINDOWS};
pub use error::RuleError;
pub use levels::Levels;
pub use matcher::Matcher;
pub use rule::Rule;
pub use set::{MAX_RULES, RuleRef, RuleSet};
pub use source::{RuleSource, SourceValue};
pub use steps::{MAX_NEWEST, MAX_STEP_COUNT};
pub use verdict::{MAX_BECAUSE_BYTES, Verdict};
