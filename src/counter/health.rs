//! The health of the store: a breaker for each shard, and the state of the service that follows
//! from them (Healthy → Degraded → Replaying → Healthy). While a breaker is open, only probes call
//! its shard. [`Health::observe`] is the one place that decides what an outage is; all other code
//! only reports what it has seen. An outage is two lines in the log, however often the store comes
//! and goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::slowness::{SLOW, Slowness};
use crate::{
    domain::Timestamp,
    store::{Cause, FaultClass, Shard, StoreError},
    telemetry::{self, Counters, Label},
};

/// Number of consecutive faults of single calls, without an answer between them, that is an outage.
const FAULTS_IN_A_ROW: u32 = 3;

/// The state of the service between a working store and none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// The store answers, and no write waits.
    Healthy,
    /// The store, or a shard of it, does not answer.
    Degraded,
    /// The store answers, and the writes that waited are being applied.
    Replaying,
}

impl Label for HealthState {
    const ALL: &'static [Self] = &[Self::Healthy, Self::Degraded, Self::Replaying];

    fn value(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Replaying => "replaying",
        }
    }
}

/// The kind of a call: one that changes the store, or one that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Read,
    Write,
}

/// An event that was observed on a shard.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Observation<'a> {
    /// The shard has answered a call.
    Answer,
    /// The shard has taken a write.
    Taken,
    /// A read has failed.
    ReadFault(&'a StoreError),
    /// A write has failed. It waits from now on, if writes can wait.
    WriteFault(&'a StoreError),
    /// Every element of a batch has failed.
    BatchFault(&'a StoreError),
    /// A check of readiness, or maintenance, has failed.
    CheckFault(&'a StoreError),
    /// The shard has answered a probe, and has received again the writes that it may have
    /// forgotten.
    Recovery,
}

/// The writes that waited in an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Number of writes applied.
    pub(crate) applied: usize,
    /// Number of writes that became dead letters.
    pub(crate) rejected: usize,
    /// Time from the first of these writes to the last.
    pub(crate) took: Duration,
}

/// The breakers and the state.
#[derive(Debug)]
pub(crate) struct Health {
    store: &'static str,
    /// True if a failed write can wait in a spool.
    writes_can_wait: bool,
    /// True if `record` differs from that of a healthy store. Calls to a healthy store read only
    /// this.
    is_disturbed: AtomicBool,
    record: Mutex<Record>,
    slowness: Mutex<Slowness>,
    /// Number of breakers opened so far.
    outages: watch::Sender<u64>,
    errors: Counters<FaultClass>,
}

#[derive(Debug, Default)]
struct Record {
    faults_in_a_row: BTreeMap<Shard, u32>,
    /// The shards whose breakers are open, with the last fault.
    unavailable: BTreeMap<Shard, StoreError>,
    /// Shards that were logged in this outage: a shard that comes and goes is logged once.
    logged: BTreeSet<Shard>,
    /// Causes that were logged in this outage.
    logged_causes: Vec<Cause>,
    /// Number of times that a shard took writes while `is_disturbed` was set.
    taken: BTreeMap<Shard, u64>,
    /// The time since which the state has not been Healthy.
    since: Option<Timestamp>,
}

impl Health {
    pub(crate) fn new(store: &'static str, writes_can_wait: bool) -> Self {
        Self {
            store,
            writes_can_wait,
            is_disturbed: AtomicBool::new(false),
            record: Mutex::default(),
            slowness: Mutex::default(),
            outages: watch::Sender::new(0),
            errors: telemetry::store_errors(),
        }
    }

    /// Decides what an observation means for the breaker of the shard.
    pub(crate) fn observe(&self, now: Timestamp, shard: Shard, observation: Observation<'_>) {
        use Observation::{Answer, BatchFault, CheckFault, ReadFault, Recovery, Taken, WriteFault};
        match observation {
            Answer => self.end_row_of_faults(shard),
            Taken => {
                self.count_taken(shard);
                self.end_row_of_faults(shard);
            }
            Recovery => self.close_breaker(shard),
            CheckFault(fault) if leaves_open(fault) => {}
            CheckFault(fault) => self.open_breaker(now, shard, fault),
            // A refusal is also an answer.
            ReadFault(fault) | WriteFault(fault) | BatchFault(fault) if !fault.is_outage() => {
                self.end_row_of_faults(shard);
            }
            // A timeout of a batch counts as much as several timeouts of single calls.
            BatchFault(fault) => self.open_breaker(now, shard, fault),
            // Later writes of the same anomaly must queue behind this one.
            WriteFault(fault) if self.writes_can_wait => self.open_breaker(now, shard, fault),
            ReadFault(fault) | WriteFault(fault) => {
                if self.count_fault(shard) >= FAULTS_IN_A_ROW {
                    self.open_breaker(now, shard, fault);
                }
            }
        }
    }

    /// Observes the outcome of a client's call, or of its element of a batch.
    pub(crate) fn observe_result<T>(
        &self,
        now: Timestamp,
        shard: Shard,
        kind: CallKind,
        result: &Result<T, StoreError>,
    ) {
        let observation = match (result, kind) {
            (Ok(_), CallKind::Read) => Observation::Answer,
            (Ok(_), CallKind::Write) => Observation::Taken,
            (Err(fault), CallKind::Read) => Observation::ReadFault(fault),
            (Err(fault), CallKind::Write) => Observation::WriteFault(fault),
        };
        if let Err(fault) = result {
            self.errors.increment(fault.class());
        }
        self.observe(now, shard, observation);
    }

    /// Observes the duration of a call that ended at `now`. A store that is slow repeatedly is one
    /// line in the log, and one more when it recovers.
    pub(crate) fn observe_duration(&self, now: Instant, shard: Shard, took: Duration) {
        if took >= SLOW && self.slowness.lock().note(now, shard) {
            let (store, took_ms, slow_ms) = (self.store, took.as_millis(), SLOW.as_millis());
            tracing::warn!(
                store,
                took_ms,
                "the store is slow: calls repeatedly take more than {slow_ms} ms"
            );
        }
    }

    /// Notes which shards are no longer slow. Must be called about once a second.
    pub(crate) fn end_slowness(&self, now: Instant) {
        for lasted in self.slowness.lock().end(now) {
            let (store, seconds) = (self.store, lasted.as_secs());
            tracing::info!(store, seconds, "the store is fast again, after {seconds} s");
        }
    }

    /// Returns the number of shards that are slow repeatedly.
    pub(crate) fn slow_shards(&self) -> usize {
        self.slowness.lock().shards()
    }

    /// Counts the faults of a call that say nothing about the shard.
    pub(crate) fn count_faults<T>(&self, results: &[Result<T, StoreError>]) {
        for fault in results.iter().filter_map(|result| result.as_ref().err()) {
            self.errors.increment(fault.class());
        }
    }

    /// Returns the results for elements that an open breaker keeps from the store. They are counted
    /// as faults, but say nothing new about the shard.
    pub(crate) fn reject<T>(
        &self,
        shard: Shard,
        elements: usize,
    ) -> Option<Vec<Result<T, StoreError>>> {
        if !self.is_disturbed() {
            return None;
        }
        let fault = StoreError::unavailable_since(self.record.lock().unavailable.get(&shard)?);
        self.errors.increment_by(fault.class(), elements);
        Some((0..elements).map(|_| Err(fault.clone())).collect())
    }

    /// Returns whether the breaker of a shard is open.
    pub(crate) fn is_unavailable(&self, shard: Shard) -> bool {
        self.is_disturbed() && self.record.lock().unavailable.contains_key(&shard)
    }

    /// Returns the shards whose breakers are open.
    pub(crate) fn unavailable(&self) -> BTreeSet<Shard> {
        self.record.lock().unavailable.keys().copied().collect()
    }

    /// Returns the causes for which shards are unavailable, one for each of them.
    pub(crate) fn causes(&self) -> Vec<Cause> {
        if self.is_disturbed() {
            self.record.lock().unavailable.values().map(StoreError::cause).collect()
        } else {
            Vec::new()
        }
    }

    /// Returns how often each shard was seen to take writes. The numbers grow while the state is
    /// not Healthy.
    pub(crate) fn taken(&self) -> BTreeMap<Shard, u64> {
        self.record.lock().taken.clone()
    }

    /// Returns the time since which the state has not been Healthy.
    pub(crate) fn since(&self) -> Option<Timestamp> {
        if self.is_disturbed() { self.record.lock().since } else { None }
    }

    pub(crate) fn state(&self) -> HealthState {
        if !self.is_disturbed() {
            return HealthState::Healthy;
        }
        let record = self.record.lock();
        match (record.unavailable.is_empty(), record.since) {
            (false, _) => HealthState::Degraded,
            (true, Some(_)) => HealthState::Replaying,
            (true, None) => HealthState::Healthy,
        }
    }

    /// Leaves the state Healthy, because a write waits.
    pub(crate) fn begin_replay(&self, now: Timestamp) {
        self.record.lock().since.get_or_insert(now);
        self.is_disturbed.store(true, Ordering::Relaxed);
    }

    /// Ends the outage if every breaker is closed. Must be called when no write waits. `replayed`
    /// are the writes that waited, for the log.
    pub(crate) fn settle(&self, now: Timestamp, replayed: Replayed) {
        let mut record = self.record.lock();
        if !record.unavailable.is_empty() {
            return;
        }
        record.logged.clear();
        record.logged_causes.clear();
        if let Some(since) = record.since.take() {
            let seconds = (now.as_micros() - since.as_micros()) / 1_000_000;
            let store = self.store;
            let Replayed { applied, rejected, took } = replayed;
            let replay_seconds = took.as_millis() as f64 / 1_000.0;
            tracing::info!(
                store,
                seconds,
                applied,
                rejected,
                replay_seconds,
                "the store answers again, after {seconds} s: {applied} waiting writes were applied \
                 in {replay_seconds} s, and {rejected} became dead letters"
            );
        }
        self.is_disturbed.store(!record.faults_in_a_row.is_empty(), Ordering::Relaxed);
    }

    /// Returns a receiver that changes whenever a breaker opens.
    pub(crate) fn outages(&self) -> watch::Receiver<u64> {
        self.outages.subscribe()
    }

    fn is_disturbed(&self) -> bool {
        self.is_disturbed.load(Ordering::Relaxed)
    }

    /// Counts a fault. Returns the number of consecutive faults.
    fn count_fault(&self, shard: Shard) -> u32 {
        let mut record = self.record.lock();
        self.is_disturbed.store(true, Ordering::Relaxed);
        let faults = record.faults_in_a_row.entry(shard).or_default();
        *faults += 1;
        *faults
    }

    fn count_taken(&self, shard: Shard) {
        if self.is_disturbed() {
            *self.record.lock().taken.entry(shard).or_default() += 1;
        }
    }

    fn end_row_of_faults(&self, shard: Shard) {
        if self.is_disturbed() {
            let mut record = self.record.lock();
            record.faults_in_a_row.remove(&shard);
            let is_undisturbed = record.faults_in_a_row.is_empty() && record.since.is_none();
            self.is_disturbed.store(!is_undisturbed, Ordering::Relaxed);
        }
    }

    fn open_breaker(&self, now: Timestamp, shard: Shard, fault: &StoreError) {
        let mut record = self.record.lock();
        self.is_disturbed.store(true, Ordering::Relaxed);
        if record.unavailable.insert(shard, fault.clone()).is_none() {
            self.slowness.lock().forget(shard);
            telemetry::outage();
            self.outages.send_modify(|outages| *outages += 1);
        }
        let store = self.store;
        record.since.get_or_insert(now);
        if record.logged.insert(shard) {
            if record.logged.len() == 1 {
                tracing::warn!(store, error = %fault, "the store does not answer: {fault}");
            } else {
                let part = "another part of the store does not answer";
                tracing::warn!(store, error = %fault, "{part}: {fault}");
            }
            if !record.logged_causes.contains(&fault.cause()) {
                record.logged_causes.push(fault.cause());
            }
        }
    }

    /// Notes the outcome of a probe of a shard whose breaker is open. Returns true if the waiting
    /// writes may be tried. A cause that needs an operator is one more line in the log.
    pub(crate) fn observe_probe(&self, shard: Shard, result: &Result<(), StoreError>) -> bool {
        match result {
            Ok(()) => true,
            Err(fault) => {
                self.note_probe_fault(shard, fault);
                leaves_open(fault)
            }
        }
    }

    fn note_probe_fault(&self, shard: Shard, fault: &StoreError) {
        let mut record = self.record.lock();
        let Some(last) = record.unavailable.get_mut(&shard) else { return };
        *last = fault.clone();
        let passes = matches!(fault.cause(), Cause::Timeout | Cause::Unreachable | Cause::Loading);
        if !passes && !record.logged_causes.contains(&fault.cause()) {
            record.logged_causes.push(fault.cause());
            let (store, cause) = (self.store, fault.cause().value());
            tracing::warn!(store, cause, error = %fault, "the store accepts no writes: {fault}");
        }
    }

    fn close_breaker(&self, shard: Shard) {
        let mut record = self.record.lock();
        record.unavailable.remove(&shard);
        record.faults_in_a_row.remove(&shard);
    }
}

/// Returns true if a failed probe does not show whether its shard takes writes: a user may lack a
/// permission that only the probe needs. The writes decide then.
fn leaves_open(fault: &StoreError) -> bool {
    fault.cause() == Cause::Permission
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(0);

    fn now() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000)
    }

    fn fault() -> StoreError {
        StoreError::transient(Cause::Unreachable, "unreachable")
    }

    #[test]
    fn three_faults_in_a_row_are_an_outage_and_two_with_an_answer_between_are_none() {
        let health = Health::new("redis", true);
        for result in [Err(fault()), Err(fault()), Ok(()), Err(fault()), Err(fault())] {
            health.observe_result(now(), SHARD, CallKind::Read, &result);
            assert_eq!(health.state(), HealthState::Healthy);
        }
        health.observe(now(), SHARD, Observation::ReadFault(&fault()));
        assert_eq!((health.state(), health.since()), (HealthState::Degraded, Some(now())));
        assert!(health.is_unavailable(SHARD) && !health.is_unavailable(Shard(1)));
    }

    #[test]
    fn one_fault_is_an_outage_where_a_write_waits_or_a_whole_batch_or_a_check_fails() {
        let fault = fault();
        let opens = |writes_can_wait, observation| {
            let health = Health::new("redis", writes_can_wait);
            health.observe(now(), SHARD, observation);
            health.is_unavailable(SHARD)
        };
        assert!(opens(true, Observation::WriteFault(&fault)), "a write that waits");
        assert!(!opens(false, Observation::WriteFault(&fault)), "a write that can't wait");
        assert!(opens(false, Observation::BatchFault(&fault)), "a whole batch");
        assert!(opens(false, Observation::CheckFault(&fault)), "a check");
        let denied = StoreError::indeterminate(Cause::Permission, "NOPERM");
        assert!(!opens(true, Observation::CheckFault(&denied)), "a check that is not permitted");
        assert!(!opens(true, Observation::ReadFault(&fault)), "a read");
    }

    #[test]
    fn a_fault_that_says_nothing_about_other_anomalies_ends_a_row() {
        for no_outage in [StoreError::moving("MOVED"), StoreError::permanent("WRONGTYPE")] {
            let health = Health::new("redis", true);
            for _ in 0..2 {
                health.observe(now(), SHARD, Observation::ReadFault(&fault()));
            }
            health.observe(now(), SHARD, Observation::WriteFault(&no_outage));
            assert!(!health.is_disturbed(), "{no_outage:?}");
        }
    }

    #[test]
    fn the_cause_is_that_of_the_last_fault_of_an_open_breaker() {
        let health = Health::new("redis", true);
        assert_eq!(health.causes(), []);
        assert!(!health.observe_probe(SHARD, &Err(fault())));
        assert_eq!(health.causes(), [], "the breaker is closed");
        health.observe(now(), SHARD, Observation::BatchFault(&fault()));
        assert_eq!(health.causes(), [Cause::Unreachable]);
        let readonly = StoreError::transient(Cause::Readonly, "READONLY");
        assert!(!health.observe_probe(SHARD, &Err(readonly)));
        assert_eq!(health.causes(), [Cause::Readonly]);
        let denied = StoreError::indeterminate(Cause::Permission, "NOPERM");
        assert!(health.observe_probe(SHARD, &Err(denied)), "the writes that wait decide");
        assert_eq!(health.causes(), [Cause::Permission]);
        assert!(health.observe_probe(SHARD, &Ok(())));
        health.observe(now(), SHARD, Observation::Recovery);
        assert_eq!(health.causes(), []);
    }

    #[test]
    fn calls_that_a_breaker_rejects_do_not_open_it_again() {
        let health = Health::new("redis", true);
        health.observe(now(), SHARD, Observation::BatchFault(&fault()));
        let rejected = health.reject::<()>(SHARD, 3).unwrap();
        health.observe(now(), SHARD, Observation::Recovery);
        assert_eq!(rejected, vec![Err(StoreError::unavailable_since(&fault())); 3]);
        assert_eq!(health.reject::<()>(SHARD, 3), None);
        assert!(!health.is_unavailable(SHARD));
    }

    #[test]
    fn it_is_healthy_again_once_every_breaker_is_closed_and_nothing_waits() {
        let health = Health::new("redis", true);
        health.observe(now(), SHARD, Observation::BatchFault(&fault()));
        health.settle(now(), Replayed::default());
        assert_eq!(health.state(), HealthState::Degraded);
        health.observe(now(), SHARD, Observation::Recovery);
        assert_eq!(health.state(), HealthState::Replaying);
        health.settle(now(), Replayed::default());
        assert_eq!((health.state(), health.since()), (HealthState::Healthy, None));
        assert!(!health.is_disturbed());
    }
}
