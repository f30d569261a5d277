//! The stores of anomalies behind one trait; no caller sees which one it has. The types that are
//! stored are those of `domain`. Levels, retries and outages are decided elsewhere.

mod embedded;
mod error;
mod keys;
mod redis;
mod shared_rows;

use std::fmt;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::{
    AlertPolicy, AnomalyKey, AnomalyStats, AuditEntry, CountSince, FIX_VALIDITY_SECONDS, FieldIds,
    Firing, FixMark, FixRemoval, KnownDetails, KnownStats, Moment, Occurrence, PermanentFix,
    RepairAttempt, RepairHistory, RuleRef, Texts, TimelineConfig, Timestamp,
};

pub use embedded::{
    CheckpointLimits, EMBEDDED_FILE_NAME, EmbeddedOpenError, EmbeddedStore, Recovery, StoreConfig,
    recover,
};
pub use error::{Cause, FaultClass, StoreError};
pub use redis::{
    InvalidRedisUrl, RedisConfig, RedisExamination, RedisReport, RedisStore, RedisTlsConfig,
    RedisTlsError, RedisUrl,
};
pub use shared_rows::{Announced, Found, SharedRows, StoredRow};

/// How a store records.
#[derive(Clone, Copy, Debug)]
pub struct RecordingConfig {
    /// The bounds of an anomaly's events.
    pub timeline: TimelineConfig,
    /// How alerts are counted.
    pub alerts: AlertPolicy,
}

#[cfg(test)]
impl RecordingConfig {
    /// One of unit tests that record nothing.
    fn smallest() -> Self {
        let one = std::num::NonZeroU32::MIN;
        Self {
            timeline: TimelineConfig { exact_events: one, operation_ids: one },
            alerts: AlertPolicy {
                count: crate::domain::CountBy::Incident,
                stale_after_seconds: 1,
                incident_max_seconds: 1,
                count_missed: false,
            },
        }
    }
}

/// A durable, shared memory of anomalies.
///
/// # The contract
///
/// **Batches.** Methods that take a batch return one result for each element, in the order of the
/// elements. Elements take effect one after the other, each as one atomic step. A faulty element
/// fails alone; a fault of the whole store fails every element that it hits.
///
/// **Time** is an argument, a [`Moment`], and never read from a clock. Its `now` decides which
/// events are in which window. Its `horizon`, which is not later, decides what has expired: nothing
/// that is said below to leave, to be removed, or to be kept for some time, goes by a later time. A
/// store may be slower to forget, where its own clock is behind, and deadlines by which whole keys
/// expire may follow its own clock.
///
/// **Once.** Within an anomaly, the id of an occurrence counts once for as long as its first copy
/// has not expired and is among the events that are kept exactly or that were rolled up last
/// ([`TimelineConfig`]). The id of a repair, a mark or its removal
/// takes effect once in 35 days, for as long as it is among the last of its anomaly that are
/// remembered (the same configuration). Both hold whatever comes between two copies, also within
/// one batch or from two processes at the same time.
///
/// **Alerts.** An occurrence with an [`episode`](Occurrence::episode) counts only if the rules of
/// [`Incidents`](crate::domain::Incidents) say so. They decide by what was heard of the anomaly's
/// alerts before, in the same atomic step; the time of an alert is that of its delivery. What is
/// heard of an alert makes its anomaly known, and is kept for 35 days after the last of them.
///
/// **Durable.** A write that was answered `Ok` survives the end of this process.
///
/// **Windows.** An event is inside a window when its time ≥ `now` − length. One that is older than
/// 30 days at the horizon is not kept, and recording an occurrence removes the anomaly's events
/// that are, a bounded number at once; reading removes nothing. One that is older than 30 days at
/// `now` only is kept, and counts in no window. A count may be too high by the events of one bucket
/// of time, and then the stats say so; it is never too low. The windows of an anomaly's rule are
/// counted at the same moment
/// ([`AnomalyStats::set_extra`](crate::domain::AnomalyStats::set_extra)).
///
/// **Known** is an anomaly about which anything is kept. It is kept for 35 days, or a minute less,
/// after the last occurrence or repair, and for 90 days after a mark, taken back or not. Repairs
/// are removed 35 days after the last one. Occurrences make an anomaly known, also those that are
/// older than 30 days, because an alert that has fired for long is no typo; repairs and fixes of an
/// unknown one are refused.
///
/// **Late** are a mark and a removal whose time is before `now`: they have waited. Where the store
/// is shared ([`Store::resets`]) they change nothing if a later one was faster.
///
/// **Faults** are [`StoreError`]s; outcomes are values. Only the data of its own anomaly fail an
/// element as permanent; what a server says of a whole call never does. A dropped future may or may
/// not have taken effect.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The name that operators know: `embedded` or `redis`.
    fn name(&self) -> &'static str;

    /// Number of batches that it works on at the same time. Further ones only wait.
    fn concurrent_batches(&self) -> usize;

    /// Maximum number of elements of a batch, unless a single call has more.
    fn batch_items(&self) -> usize;

    /// Records occurrences, and returns the stats of each one's anomaly after it.
    async fn record(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>>;

    /// As [`Store::record`], for occurrences that may have been recorded before: those that are
    /// sent again, replayed after a crash, or salvaged. A store that drops ids of rolled-up events
    /// may not record one whose id it could have dropped, because it might count twice:
    /// [`RecordOutcome::Unrecognisable`].
    async fn record_again(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        self.record(moment, occurrences).await
    }

    /// Returns the stats of anomalies without recording anything; `None` for unknown ones.
    async fn stats(
        &self,
        moment: Moment,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>> {
        self.stats_by_rule(moment, keys.into_iter().map(Judged::from).collect()).await
    }

    /// As [`Store::stats`], with the counts that the anomalies' rules ask for.
    async fn stats_by_rule(
        &self,
        moment: Moment,
        anomalies: Vec<Judged>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>>;

    /// Returns whether stats are in memory, so that gathering reads into batches gains nothing.
    fn stats_from_memory(&self) -> bool {
        false
    }

    /// Returns for each anomaly its events in neighbouring stretches of time, oldest first; `None`
    /// for unknown ones. They add up to the events of the window that the stretches make.
    async fn series(
        &self,
        moment: Moment,
        span: SeriesSpan,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Vec<u64>>, StoreError>>;

    /// Returns whether [`Store::scan`] shows all anomalies.
    fn is_scannable(&self) -> bool {
        false
    }

    /// Shows the anomalies after a key to `visit`, in the order of their keys: as many as can be
    /// looked at within a millisecond. Returns the key to go on after; `None` at the end. To be
    /// called where the thread may be kept busy.
    ///
    /// # Errors
    /// When the store does not answer.
    fn scan(
        &self,
        _moment: Moment,
        _after: Option<AnomalyKey>,
        _visit: &mut dyn FnMut(&Scanned<'_>),
    ) -> Result<Option<AnomalyKey>, StoreError> {
        Ok(None)
    }

    /// Returns what a store of which no process sees all anomalies offers instead; `None` where
    /// [`Store::scan`] shows them.
    fn shared_rows(&self) -> Option<&dyn SharedRows> {
        None
    }

    /// Returns everything that is kept about one anomaly; `None` when it is unknown.
    async fn details(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<AnomalyDetails>, StoreError> {
        self.details_by_rule(moment, key.into()).await
    }

    /// As [`Store::details`], with the counts that the anomaly's rule asks for.
    async fn details_by_rule(
        &self,
        moment: Moment,
        anomaly: Judged,
    ) -> Result<Option<AnomalyDetails>, StoreError>;

    /// Returns the object that an anomaly was first posted with; `None` where it is not kept.
    async fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, StoreError>;

    /// Returns the repairs of one anomaly; `None` when it is unknown.
    async fn repairs(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<RepairHistory>, StoreError> {
        Ok(self.details(moment, key).await?.map(|details| details.repairs))
    }

    /// Adds repair attempts to their anomalies; `None` for unknown ones.
    async fn record_repairs(
        &self,
        moment: Moment,
        attempts: Vec<RepairAttempt>,
    ) -> Vec<Result<Option<RepairRecorded>, StoreError>>;

    /// Returns the audit of an anomaly: the newest [`AUDIT_ENTRIES`](crate::domain::AUDIT_ENTRIES)
    /// of marks, their removals and repairs that had an effect, newest first; `None` when it is
    /// unknown. Kept for as long as the anomaly is, and for at most 90 days.
    async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, StoreError>;

    /// Counts an anomaly's events since each of `times`, which rise and of which none is more than
    /// 30 days before `now`, and returns its audit; `None` when it is unknown. As in a window, an
    /// event on one of the times is inside, a count may be too high by the events of one bucket of
    /// time, and then says so, and is never too low.
    async fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        times: &[Timestamp],
    ) -> Result<Option<AnomalyHistory>, StoreError>;

    /// Marks an anomaly as permanently fixed, in place of an earlier mark; `None` when it is
    /// unknown.
    async fn mark_fixed(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError>;

    /// Takes a mark back, and returns whether there was one; `None` when the anomaly is unknown.
    async fn unmark_fixed(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError>;

    /// Forgets an anomaly, with all that is kept about it, and returns whether it was known. A
    /// later occurrence begins anew: no id of before is known.
    async fn forget(&self, moment: Moment, key: AnomalyKey) -> Result<bool, StoreError>;

    /// Returns the shard that an anomaly is in. It may change from call to call.
    fn shard(&self, _key: AnomalyKey) -> Shard {
        Shard::default()
    }

    /// Returns all shards of the store.
    fn shards(&self) -> Vec<Shard> {
        vec![Shard::default()]
    }

    /// Numbers that grow whenever the store may have forgotten its last writes, as after a
    /// failover. `None` where that can't happen.
    fn resets(&self) -> Option<watch::Receiver<Resets>> {
        None
    }

    /// Returns the ids by which a shard's server is known to be the same as before, with the same
    /// data: its run id and its replication id. `None` where it does not tell them. They are of a
    /// connection that is up now, made after the last of [`Store::resets`].
    async fn identity(&self, _shard: Shard) -> Option<String> {
        None
    }

    /// Checks whether a shard takes writes, by a small one of its own; on a disk of this service,
    /// which may hang, by what is known of it. A shard that no anomaly is in any more is fine.
    ///
    /// # Errors
    /// The fault that a write would meet.
    async fn check(&self, shard: Shard) -> Result<(), StoreError>;

    /// Returns how many anomalies there are, and may be. `None` where the store counts none.
    fn size(&self) -> Option<StoreSize> {
        None
    }

    /// Does a bounded piece of maintenance, such as removing what has expired. To be called about
    /// once a second.
    ///
    /// # Errors
    /// The fault that stopped it; the next call continues.
    async fn maintain(&self, moment: Moment) -> Result<(), StoreError>;

    /// Ends all work. No call may follow.
    async fn close(&self);
}

/// The outcome of an occurrence, and the stats of its anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The outcome.
    pub outcome: RecordOutcome,
    /// The time by which the windows were counted.
    pub now: Timestamp,
    /// The count of 24 hours just before it.
    pub previous_count_24h: u64,
    /// The newest event inside 30 days just before it, where the mark of a permanent fix holds: it
    /// says whether the anomaly had come back before.
    pub previous_last_seen: Option<Timestamp>,
    /// The stats after it, with the counts that its rule asks for.
    pub stats: AnomalyStats,
    /// The times of the newest events after it, as many as its rule asks for, where the counts may
    /// be those of a step ([`Rule::may_step`](crate::domain::Rule::may_step)).
    pub newest: Vec<Timestamp>,
}

/// An anomaly with the rule that it is judged by, if that is known.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The anomaly.
    pub key: AnomalyKey,
    /// The rule, whose windows are counted.
    pub rule: Option<RuleRef>,
}

impl From<AnomalyKey> for Judged {
    fn from(key: AnomalyKey) -> Self {
        Self { key, rule: None }
    }
}

/// The outcome of an occurrence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It is counted.
    Counted,
    /// Its id was counted before; nothing has changed.
    Duplicate,
    /// It is older than 30 days at the horizon: its anomaly is known, and no count has changed. (A
    /// store that is full does not make it known.)
    TooOld,
    /// It may have been recorded before, and its id can't be recognised any more; nothing has
    /// changed.
    Unrecognisable,
    /// It is an alert whose episode was heard of before.
    Ongoing,
    /// It is a new episode of an incident that was counted before.
    SameIncident,
    /// It is an alert that has ended.
    Resolved,
    /// It is an alert of which a later delivery has said more.
    Stale,
}

impl RecordOutcome {
    /// Returns true if it says of an alert that it is no occurrence.
    pub fn is_of_alert_only(self) -> bool {
        match self {
            Self::Counted | Self::Duplicate | Self::TooOld | Self::Unrecognisable => false,
            Self::Ongoing | Self::SameIncident | Self::Resolved | Self::Stale => true,
        }
    }
}

/// The outcome of a repair attempt, and the repairs of its anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRecorded {
    /// True if it counts from this call on; false when its id was there before.
    pub counted: bool,
    /// The history after it.
    pub history: RepairHistory,
}

/// An anomaly as a scan shows it.
#[expect(missing_debug_implementations, reason = "it has a function")]
pub struct Scanned<'a> {
    /// The anomaly.
    pub key: AnomalyKey,
    /// Its identifying fields; `None` where they are not known.
    pub fields: Option<FieldIds>,
    /// The texts of the fields.
    pub texts: &'a Texts,
    /// Counts its events, with what its rule asks for: most anomalies are passed over by their
    /// fields.
    pub stats: &'a dyn Fn(&RuleRef) -> KnownStats,
    /// Returns its alerts that fire.
    pub firing: &'a dyn Fn() -> Option<Firing>,
}

/// The stretches of time of [`Store::series`]: the last one ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesSpan {
    /// Length of each, in seconds.
    pub step_seconds: i64,
    /// Their number.
    pub buckets: u16,
}

/// A part of a store that can be unavailable by itself: a master of a cluster. Most stores have
/// just one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// Number of times that a store may have forgotten its last writes since the process began, by
/// certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// A connection was made again, or the server said that it is a replica, is loading its data or
    /// does not know a script that it has run. Nothing was forgotten if the [`Store::identity`] of
    /// the shard is as before.
    pub suspected: u64,
    /// Slots have moved to another master, whose identity says nothing of what they hold.
    pub certain: u64,
}

/// The number of anomalies in a store, and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Anomalies that are kept.
    pub anomalies: usize,
    /// Maximum number of anomalies; occurrences of further ones are refused.
    pub max_anomalies: usize,
}

/// Everything that is kept about one anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyDetails {
    /// The object as it was first posted; absent when an older writer left none or it has expired.
    pub signature_json: Option<String>,
    /// When the anomaly became known; absent as above.
    pub known_since: Option<Timestamp>,
    /// Its occurrences.
    pub stats: AnomalyStats,
    /// The permanent fix that holds.
    pub fix: Option<PermanentFix>,
    /// Its repairs.
    pub repairs: RepairHistory,
    /// Its alerts that fire; `None` if there are none.
    pub firing: Option<Firing>,
}

impl From<AnomalyDetails> for KnownDetails {
    fn from(details: AnomalyDetails) -> Self {
        let AnomalyDetails { signature_json, known_since, fix, repairs, firing, .. } = details;
        let (signature, repairs) = (None, Some(repairs));
        Self { signature_json, signature, known_since, fix, repairs, firing }
    }
}

/// The occurrences of one anomaly over time, and its audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyHistory {
    /// When the anomaly became known; absent as in [`AnomalyDetails`].
    pub known_since: Option<Timestamp>,
    /// The events since each of the times that were asked for.
    pub counts: Vec<CountSince>,
    /// The audit as by [`Store::audit`].
    pub audit: Vec<AuditEntry>,
}

/// Returns whether an entry is not too old for an audit.
fn is_audited(moment: Moment, entry: &AuditEntry) -> bool {
    entry.at >= moment.now.minus_seconds(FIX_VALIDITY_SECONDS)
}

/// How long an anomaly is kept after its last occurrence, repair or mark: 35 days, in seconds.
const KEPT_SECONDS: i64 = 35 * 86_400;
