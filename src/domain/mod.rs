//! The model: anomalies, their occurrences, levels, repairs and fixes. Pure: no I/O, no async, no
//! clock, because time is an argument. Everything else imports from here.

mod alert;
mod audit;
mod escalation;
mod estimate;
mod event;
mod fix;
mod frequency;
mod history;
mod incidents;
mod key;
mod key_mapping;
mod metadata;
mod moment;
mod operation;
mod pattern;
mod recent_ids;
mod repair;
mod rollup;
mod rules;
mod selection;
mod signature;
mod signature_json;
mod stats;
mod texts;
mod timeline;
mod timestamp;
mod window;

pub use alert::{AlertEpisode, AlertState, Fingerprint};
pub use audit::{AUDIT_ENTRIES, Actor, AuditEntry, AuditEvent};
pub use escalation::{Band, EscalationLevel, InvalidThresholds, Thresholds};
pub use estimate::{KnownDetails, KnownMark, KnownStats};
pub use event::{EventDigest, EventId, InvalidEventId, MAX_AHEAD_SECONDS, Occurrence};
pub use fix::{FIX_VALIDITY_SECONDS, FixMark, FixRemoval, PermanentFix};
pub use frequency::{Before, Frequency, NewestEvents};
pub use history::{
    AskedPeriod, CountSince, HistoryBucket, HistoryPeriod, HistoryStep, HistoryWindow,
    InvalidHistoryStep, InvalidHistoryWindow, InvalidPeriod, MAX_BUCKETS,
};
pub use incidents::{
    AlertCounted, AlertPolicy, AlertVerdict, CountBy, Decision, Firing, IncidentChange, Incidents,
    MAX_FINGERPRINTS, PEER_SECONDS,
};
pub use key::{AnomalyKey, InvalidKey};
pub use key_mapping::{
    Explanation, Field, InvalidKeyConfig, InvalidRelabel, KeyConfig, KeyMapping, MappedSignature,
    Mask, PostedFields, PostedTo, Step, StepKind,
};
pub use metadata::AnomalyConfig;
pub use moment::Moment;
pub use operation::Operation;
pub use pattern::{InvalidPattern, Pattern};
pub use recent_ids::RecentIds;
pub use repair::{
    Action, InvalidAction, InvalidSuccessRate, RECENT_ATTEMPTS, RecentAttempt, RepairAttempt,
    RepairHistory, RepairStatistics, SuccessRate,
};
pub use rollup::{COARSE_BUCKET_SECONDS, FINE_BUCKET_SECONDS, RunningTotals};
pub use rules::{
    Condition, CountedWindow, Counts, ExtraCount, ExtraWindow, InvalidSpan, Levels,
    MAX_BECAUSE_BYTES, MAX_EXTRA_WINDOWS, MAX_NEWEST, MAX_RULES, MAX_STEP_COUNT, Matcher, Rule,
    RuleError, RuleRef, RuleSet, RuleSource, SourceValue, Term, Verdict, parse_span,
};
pub use selection::{
    Cursor, InvalidCursor, InvalidLevel, InvalidOrder, InvalidRuleName, InvalidSearch,
    InvalidTimeLimit, LevelSet, Listable, Order, Position, Ranking, RuleName, SearchWords,
    Selection, Sort, TextPattern, TextPatternTooLong, TextVerdict, TimeLimit, TimeRange, Top,
    UnknownOrder, UnknownSort,
};
pub use signature::{InvalidSignature, Signature, json_type_name};
pub use signature_json::{MemberName, ReplacedField, SignatureJson, for_each_member};
pub use stats::AnomalyStats;
pub use texts::{FieldIds, TextId, Texts};
pub use timeline::{Insertion, Timeline, TimelineConfig};
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use window::{RETENTION, Window, WindowCounts};
