//! The state of the store, as the calls and the probes find it: Healthy → Degraded → Replaying →
//! Healthy. While a part of the store is away, a breaker keeps calls from it; only probes go there.
//! An outage is two lines in the log, however often it flickers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    domain::Timestamp,
    store::{Shard, StoreError},
    telemetry::{self, State},
};

/// So many faults in a row, and no answer between them, are an outage. A write that was made to
/// wait is one by itself, since what is about its anomaly must queue behind it.
const FAULTS_IN_A_ROW: u32 = 3;

/// Where the service is between a working store and none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// The store answers, and nothing waits.
    Healthy,
    /// The store, or a part of it, does not answer.
    Degraded,
    /// The store answers, and what has waited is being carried out.
    Replaying,
}

impl From<HealthState> for State {
    fn from(state: HealthState) -> Self {
        match state {
            HealthState::Healthy => Self::Healthy,
            HealthState::Degraded => Self::Degraded,
            HealthState::Replaying => Self::Replaying,
        }
    }
}

/// Takes note of faults and answers.
#[derive(Debug)]
pub(super) struct Health {
    store: &'static str,
    /// Whether anything in `record` is other than on a healthy day: all calls of one share this.
    is_disturbed: AtomicBool,
    record: Mutex<Record>,
    /// Grows with each part of the store that falls away.
    outages: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Record {
    faults: BTreeMap<Shard, u32>,
    away: BTreeSet<Shard>,
    /// Those of which the log has told in this outage: what flickers is told of once.
    told: BTreeSet<Shard>,
    /// Since when the state has not been Healthy.
    since: Option<Timestamp>,
}

impl Health {
    pub(super) fn new(store: &'static str) -> Self {
        Self {
            store,
            is_disturbed: AtomicBool::new(false),
            record: Mutex::default(),
            outages: watch::Sender::new(0),
        }
    }

    /// Takes note of how a call ended.
    pub(super) fn observe<T>(&self, now: Timestamp, shard: Shard, result: &Result<T, StoreError>) {
        if let Err(fault) = result {
            telemetry::store_error(fault.class());
        }
        match result {
            Err(fault) if fault.is_outage() => {
                let faults = {
                    let mut record = self.record.lock();
                    self.is_disturbed.store(true, Ordering::Relaxed);
                    let faults = record.faults.entry(shard).or_default();
                    *faults += 1;
                    *faults
                };
                if faults >= FAULTS_IN_A_ROW {
                    self.begin_outage(now, shard, fault);
                }
            }
            // Also a refusal is an answer.
            Ok(_) | Err(_) => self.observe_answer(shard),
        }
    }

    /// Takes note of a batch that has failed as a whole. A timeout of many calls together is as good
    /// as many of single ones.
    pub(super) fn observe_batch(&self, now: Timestamp, shard: Shard, fault: &StoreError) {
        if fault.is_outage() {
            self.begin_outage(now, shard, fault);
        }
    }

    /// Opens the breaker of a part of the store.
    pub(super) fn begin_outage(&self, now: Timestamp, shard: Shard, fault: &StoreError) {
        let mut record = self.record.lock();
        self.is_disturbed.store(true, Ordering::Relaxed);
        if record.away.insert(shard) {
            telemetry::outage();
            self.outages.send_modify(|outages| *outages += 1);
        }
        let store = self.store;
        record.since.get_or_insert(now);
        if record.told.insert(shard) {
            if record.told.len() == 1 {
                tracing::warn!(store, error = %fault, "the store does not answer");
            } else {
                tracing::warn!(store, error = %fault, "another part of the store does not answer");
            }
        }
    }

    /// Closes the breaker again: a probe was answered.
    pub(super) fn end_outage(&self, shard: Shard) {
        let mut record = self.record.lock();
        record.away.remove(&shard);
        record.faults.remove(&shard);
    }

    /// Whether calls are to be kept from this part of the store.
    pub(super) fn is_away(&self, shard: Shard) -> bool {
        self.is_disturbed() && self.record.lock().away.contains(&shard)
    }

    pub(super) fn away(&self) -> BTreeSet<Shard> {
        self.record.lock().away.clone()
    }

    /// Since when the state has not been Healthy.
    pub(super) fn since(&self) -> Option<Timestamp> {
        if self.is_disturbed() { self.record.lock().since } else { None }
    }

    pub(super) fn state(&self) -> HealthState {
        if !self.is_disturbed() {
            return HealthState::Healthy;
        }
        let record = self.record.lock();
        match (record.away.is_empty(), record.since) {
            (false, _) => HealthState::Degraded,
            (true, Some(_)) => HealthState::Replaying,
            (true, None) => HealthState::Healthy,
        }
    }

    /// Begins to replay what an earlier process has left.
    pub(super) fn begin_replay(&self, now: Timestamp) {
        self.record.lock().since.get_or_insert(now);
        self.is_disturbed.store(true, Ordering::Relaxed);
    }

    /// Is Healthy again where nothing is away. To be called when nothing waits.
    pub(super) fn settle(&self, now: Timestamp) {
        let mut record = self.record.lock();
        if !record.away.is_empty() {
            return;
        }
        record.told.clear();
        if let Some(since) = record.since.take() {
            let seconds = (now.as_micros() - since.as_micros()) / 1_000_000;
            let store = self.store;
            tracing::info!(store, seconds, "the store answers again, after {seconds} s");
        }
        self.is_disturbed.store(!record.faults.is_empty(), Ordering::Relaxed);
    }

    /// Changes whenever a part of the store falls away.
    pub(super) fn outages(&self) -> watch::Receiver<u64> {
        self.outages.subscribe()
    }

    fn is_disturbed(&self) -> bool {
        self.is_disturbed.load(Ordering::Relaxed)
    }

    fn observe_answer(&self, shard: Shard) {
        if self.is_disturbed() {
            let mut record = self.record.lock();
            record.faults.remove(&shard);
            let is_undisturbed = record.faults.is_empty() && record.since.is_none();
            self.is_disturbed.store(!is_undisturbed, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard(0);

    fn now() -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000)
    }

    fn fault() -> Result<(), StoreError> {
        Err(StoreError::Transient("away".to_owned()))
    }

    #[test]
    fn three_faults_in_a_row_are_an_outage_and_two_with_an_answer_between_are_none() {
        let health = Health::new("redis");
        for result in [fault(), fault(), Ok(()), fault(), fault()] {
            health.observe(now(), SHARD, &result);
            assert_eq!(health.state(), HealthState::Healthy);
        }
        health.observe(now(), SHARD, &fault());
        assert_eq!((health.state(), health.since()), (HealthState::Degraded, Some(now())));
        assert!(health.is_away(SHARD) && !health.is_away(Shard(1)));
    }

    #[test]
    fn it_is_healthy_again_once_what_was_away_is_back_and_nothing_waits() {
        let health = Health::new("redis");
        health.begin_outage(now(), SHARD, &fault().unwrap_err());
        health.settle(now());
        assert_eq!(health.state(), HealthState::Degraded);
        health.end_outage(SHARD);
        assert_eq!(health.state(), HealthState::Replaying);
        health.settle(now());
        assert_eq!((health.state(), health.since()), (HealthState::Healthy, None));
        assert!(!health.is_disturbed());
    }
}
