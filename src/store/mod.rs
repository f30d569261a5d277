//! The stores of anomalies, behind one trait. Callers do not know which store they use. The stored
//! types are those of `domain`. Levels, retries and outages are decided elsewhere.

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

/// The settings by which a store records.
#[derive(Clone, Copy, Debug)]
pub struct RecordingConfig {
    /// The bounds of an anomaly's events.
    pub timeline: TimelineConfig,
    /// The rules by which alerts are counted.
    pub alerts: AlertPolicy,
}

#[cfg(test)]
impl RecordingConfig {
    /// Creates the settings for unit tests that record nothing.
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
/// fails alone; a fault of the whole store fails every element that it affects.
///
/// **Time** is an argument, a [`Moment`], and never read from a clock. Its `now` decides which
/// events are in which window. Its `horizon`, which is not later, decides what has expired: nothing
/// that expires, is removed, or is kept for some time according to the paragraphs below depends on
/// a later time. A store may forget later if its own clock is behind, and the expiry of whole keys
/// may follow its own clock.
///
/// **Once.** Within an anomaly, the id of an occurrence counts once while its first copy has not
/// expired and is among the events that are kept exactly or were rolled up last
/// ([`TimelineConfig`]). The id of a repair, a mark or its removal takes effect once in 35 days,
/// while it is among the remembered ids of its anomaly (the same configuration). Both hold whatever
/// happens between two copies, even within one batch or from two processes at the same time.
///
/// **Alerts.** An occurrence with an [`episode`](Occurrence::episode) counts only if the rules of
/// [`Incidents`](crate::domain::Incidents) say so. They decide by the deliveries of the anomaly's
/// alerts that were applied before, in the same atomic step; the time of an alert is that of its
/// delivery. A delivered alert makes its anomaly known. Its state is kept for 35 days after the
/// anomaly's last alert.
///
/// **Durable.** A write that was answered `Ok` survives the end of this process.
///
/// **Windows.** An event is inside a window when its time ≥ `now` − length. An event that is older
/// than 30 days at the horizon is not kept; recording an occurrence removes such events of the
/// anomaly, up to a limit per call; reading removes nothing. An event that is older than 30 days
/// only at `now` is kept, and counts in no window. A count may be too high by the events of one
/// bucket of time, and the stats then say so; it is never too low. The windows of an anomaly's rule
/// are counted at the same moment
/// ([`AnomalyStats::set_extra`](crate::domain::AnomalyStats::set_extra)).
///
/// **Known.** An anomaly is known while any data about it are kept: for 35 days, or a minute less,
/// after the last occurrence or repair, and for 90 days after a mark, even if the mark was removed.
/// Repairs are removed 35 days after the last one. Occurrences make an anomaly known, even those
/// that are older than 30 days, because an alert that has fired for a long time is not a typing
/// error; repairs and fixes of an unknown anomaly are refused.
///
/// **Late.** A mark or a removal whose time is before `now` has waited. If the store is shared
/// ([`Store::resets`]), it changes nothing after a later mark or removal.
///
/// **Faults** are [`StoreError`]s; outcomes are values. An element fails as permanent only because
/// of its own anomaly's data, and never because of an error for a whole call. A dropped future may
/// or may not have taken effect.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Returns the name for operators: `embedded` or `redis`.
    fn name(&self) -> &'static str;

    /// Returns the number of batches that it executes at the same time. Further batches would only
    /// wait.
    fn concurrent_batches(&self) -> usize;

    /// Returns the maximum number of elements of a batch, unless a single call has more.
    fn batch_items(&self) -> usize;

    /// Records occurrences, and returns the stats of each one's anomaly after it.
    async fn record(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>>;

    /// Records occurrences as [`Store::record`] does, but they may have been recorded before: they
    /// are sent again, replayed after a crash, or salvaged. A store that drops ids of rolled-up
    /// events must not record an occurrence whose id it may have dropped, because it might count
    /// twice: [`RecordOutcome::Unrecognisable`].
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

    /// Returns stats as [`Store::stats`] does, with the counts that the anomalies' rules need.
    async fn stats_by_rule(
        &self,
        moment: Moment,
        anomalies: Vec<Judged>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>>;

    /// Returns true if stats are read from memory, so that gathering reads into batches gains
    /// nothing.
    fn stats_from_memory(&self) -> bool {
        false
    }

    /// Returns the numbers of each anomaly's events in consecutive intervals, oldest first; `None`
    /// for unknown anomalies. Their sum is the count of the window that the intervals form.
    async fn series(
        &self,
        moment: Moment,
        span: SeriesSpan,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Vec<u64>>, StoreError>>;

    /// Returns true if [`Store::scan`] shows all anomalies.
    fn is_scannable(&self) -> bool {
        false
    }

    /// Calls `visit` with the anomalies after a key, in the order of their keys: as many as can be
    /// visited within a millisecond. Returns the key to continue after; `None` at the end. Must be
    /// called on a thread that may be blocked.
    ///
    /// # Errors
    /// Fails if the store does not answer.
    fn scan(
        &self,
        _moment: Moment,
        _after: Option<AnomalyKey>,
        _visit: &mut dyn FnMut(&Scanned<'_>),
    ) -> Result<Option<AnomalyKey>, StoreError> {
        Ok(None)
    }

    /// Returns the interface of a store in which no process sees all anomalies; `None` if
    /// [`Store::scan`] shows them.
    fn shared_rows(&self) -> Option<&dyn SharedRows> {
        None
    }

    /// Returns everything that is kept about one anomaly; `None` if it is unknown.
    async fn details(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<AnomalyDetails>, StoreError> {
        self.details_by_rule(moment, key.into()).await
    }

    /// Returns details as [`Store::details`] does, with the counts that the anomaly's rule needs.
    async fn details_by_rule(
        &self,
        moment: Moment,
        anomaly: Judged,
    ) -> Result<Option<AnomalyDetails>, StoreError>;

    /// Returns the object of an anomaly's first post; `None` if it is not kept.
    async fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, StoreError>;

    /// Returns the repairs of one anomaly; `None` if it is unknown.
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
    /// effective marks, removals and repairs, newest first; `None` if it is unknown. It is kept for
    /// as long as the anomaly is, but for at most 90 days.
    async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, StoreError>;

    /// Counts an anomaly's events since each of `times`, and returns its audit; `None` if it is
    /// unknown. The times rise, and none of them is more than 30 days before `now`. As in a window,
    /// an event at one of the times is inside; a count may be too high by the events of one bucket
    /// of time, and then says so; it is never too low.
    async fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        times: &[Timestamp],
    ) -> Result<Option<AnomalyHistory>, StoreError>;

    /// Marks an anomaly as permanently fixed, in place of an earlier mark; `None` if it is unknown.
    async fn mark_fixed(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError>;

    /// Removes a mark, and returns whether there was one; `None` if the anomaly is unknown.
    async fn unmark_fixed(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError>;

    /// Removes everything that is kept about an anomaly, and returns whether it was known. A later
    /// occurrence starts anew: no earlier id is known.
    async fn forget(&self, moment: Moment, key: AnomalyKey) -> Result<bool, StoreError>;

    /// Returns the shard of an anomaly. It may change from call to call.
    fn shard(&self, _key: AnomalyKey) -> Shard {
        Shard::default()
    }

    /// Returns all shards of the store.
    fn shards(&self) -> Vec<Shard> {
        vec![Shard::default()]
    }

    /// Returns a receiver for numbers that grow whenever the store may have forgotten its last
    /// writes, as after a failover; `None` if that can't happen.
    fn resets(&self) -> Option<watch::Receiver<Resets>> {
        None
    }

    /// Returns the ids that identify a shard's server and its data: its run id and its replication
    /// id. If they are the same as before, so are the server and the data. `None` if the server
    /// does not report them. They were read from a connection that is up and was made after the
    /// last of [`Store::resets`].
    async fn identity(&self, _shard: Shard) -> Option<String> {
        None
    }

    /// Checks whether a shard takes writes, with a small write of its own; for a disk of this
    /// service, which may hang, by its known state. A shard without anomalies passes.
    ///
    /// # Errors
    /// Returns the fault that a write would get.
    async fn check(&self, shard: Shard) -> Result<(), StoreError>;

    /// Returns the number of anomalies, and its maximum; `None` if the store does not count them.
    fn size(&self) -> Option<StoreSize> {
        None
    }

    /// Does a bounded piece of maintenance, such as removing expired data. Must be called about
    /// once a second.
    ///
    /// # Errors
    /// Returns the fault that stopped it. The next call continues.
    async fn maintain(&self, moment: Moment) -> Result<(), StoreError>;

    /// Ends all work. No call may follow.
    async fn close(&self);
}

/// The outcome of an occurrence, and the stats of its anomaly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The outcome of the occurrence.
    pub outcome: RecordOutcome,
    /// The time by which the windows were counted.
    pub now: Timestamp,
    /// The 24-hour count just before it.
    pub previous_count_24h: u64,
    /// The newest event inside 30 days just before it, if a mark of a permanent fix holds: it shows
    /// whether the anomaly had already come back.
    pub previous_last_seen: Option<Timestamp>,
    /// The stats after it, with the counts that its rule needs.
    pub stats: AnomalyStats,
    /// The times of the newest events after it, as many as its rule needs, if the counts may be
    /// those of a step ([`Rule::may_step`](crate::domain::Rule::may_step)).
    pub newest: Vec<Timestamp>,
}

/// An anomaly with the rule that judges it, if that is known.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The key of the anomaly.
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
    /// It was counted.
    Counted,
    /// Its id was counted before. Nothing has changed.
    Duplicate,
    /// It is older than 30 days at the horizon: its anomaly is known, and no count has changed. (A
    /// full store does not make it known.)
    TooOld,
    /// It may have been recorded before, and its id can't be recognised any more. Nothing has
    /// changed.
    Unrecognisable,
    /// It is an alert whose episode was already known.
    Ongoing,
    /// It is a new episode of an incident that was already counted.
    SameIncident,
    /// It is an alert that has ended.
    Resolved,
    /// It is an alert for which a later delivery was applied before.
    Stale,
}

impl RecordOutcome {
    /// Returns true if it means that an alert is not an occurrence.
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
    /// True if it counts from this call on; false if its id was already known.
    pub counted: bool,
    /// The repair history after the attempt.
    pub history: RepairHistory,
}

/// An anomaly as a scan visits it.
#[expect(missing_debug_implementations, reason = "it has a function")]
pub struct Scanned<'a> {
    /// The key of the anomaly.
    pub key: AnomalyKey,
    /// Its identifying fields; `None` if they are not known.
    pub fields: Option<FieldIds>,
    /// The texts of the fields.
    pub texts: &'a Texts,
    /// Counts its events, with the counts that a rule needs. Called on demand, because most
    /// anomalies are excluded by their fields.
    pub stats: &'a dyn Fn(&RuleRef) -> KnownStats,
    /// Returns its firing alerts.
    pub firing: &'a dyn Fn() -> Option<Firing>,
}

/// The intervals of [`Store::series`]. The last one ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesSpan {
    /// The length of each interval, in seconds.
    pub step_seconds: i64,
    /// The number of intervals.
    pub buckets: u16,
}

/// A part of a store that can be unavailable by itself: a master of a cluster. Most stores have
/// only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u16);

/// Number of times since the process began that a store may have forgotten its last writes, by
/// certainty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resets {
    /// A connection was made again, or the server replied that it is a replica, is loading its
    /// data, or does not know a script that it has run. Nothing was forgotten if the
    /// [`Store::identity`] of the shard is the same as before.
    pub suspected: u64,
    /// Slots have moved to another master, whose identity does not show what they contain.
    pub certain: u64,
}

/// The number of anomalies in a store, and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// The number of anomalies that are kept.
    pub anomalies: usize,
    /// Maximum number of anomalies. Occurrences of further ones are refused.
    pub max_anomalies: usize,
}

/// Everything that is kept about one anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnomalyDetails {
    /// The object of the first post; absent if an older writer left none, or if it has expired.
    pub signature_json: Option<String>,
    /// The time at which the anomaly became known; absent in the same cases.
    pub known_since: Option<Timestamp>,
    /// The stats: occurrences, repairs and mark.
    pub stats: AnomalyStats,
    /// The permanent fix that holds.
    pub fix: Option<PermanentFix>,
    /// The repair history.
    pub repairs: RepairHistory,
    /// The firing alerts; `None` if there are none.
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
    /// The time at which the anomaly became known; absent as in [`AnomalyDetails`].
    pub known_since: Option<Timestamp>,
    /// The number of events since each of the requested times.
    pub counts: Vec<CountSince>,
    /// The audit as [`Store::audit`] returns it.
    pub audit: Vec<AuditEntry>,
}

/// Returns true if an entry is not too old for an audit.
fn is_audited(moment: Moment, entry: &AuditEntry) -> bool {
    entry.at >= moment.now.minus_seconds(FIX_VALIDITY_SECONDS)
}

/// The time for which an anomaly is kept after its last occurrence, repair or mark: 35 days, in
/// seconds.
const KEPT_SECONDS: i64 = 35 * 86_400;
