//! Executes writes on the store, past the breaker: those that have waited, and those that the store
//! may have forgotten. Their ids make a second execution harmless. A call that the store refuses as
//! a whole says nothing about its writes: it is halved, until a write that is at fault itself is
//! alone and all others are applied.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    sync::Arc,
};

use super::{fallback::Fallback, stale_cache::CallTimes, steps::Source};
use crate::{
    counter::{
        clock::Clock,
        health::{Health, Observation},
    },
    domain::{AnomalyKey, Occurrence, Operation, RepairAttempt, Thresholds, Timestamp},
    spool::SpoolWrite,
    store::{Cause, FaultClass, RecordOutcome, Recorded, RepairRecorded, Shard, Store, StoreError},
};

/// Maximum number of operations that are executed at once.
pub(crate) const BATCH_OPERATIONS: usize = 256;

/// Maximum number of refused operations of a page or a resend that are logged one by one.
pub(crate) const LOGGED_REFUSALS: usize = 10;

/// Maximum number of anomalies that are tried alone on a shard that has refused all calls: it is
/// the server that refuses then, and not what is sent.
const LONE_REFUSALS: usize = 3;

/// The reason of a write that only an operator can decide about.
const UNRECOGNISABLE: &str = "it may have been counted before, and its id can't be recognised any \
                              more: a retry counts it in any case, so drop it if it was counted";

/// Executes writes.
#[derive(Clone, Debug)]
pub(crate) struct Executor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Arc<Health>,
    pub(crate) fallback: Option<Arc<Fallback>>,
    pub(crate) thresholds: Thresholds,
}

/// The outcome of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Execution {
    Applied {
        /// False if it had been applied before.
        is_new: bool,
    },
    /// It was not applied, and never will be by itself.
    Rejected {
        reason: String,
        /// True if it counts when an operator tries it again, even if it may have counted before.
        retry_counts: bool,
    },
    /// Its shard does not answer, or its anomaly is being moved; it waits on.
    Deferred {
        /// True if it may have taken effect.
        maybe_sent: bool,
    },
    /// The store has refused a call with nothing but this write, and takes others; it waits on.
    RefusedAlone(String),
}

/// The store's answer to one write.
enum Applied {
    /// It is a repair, or it is a fix, which does not tell whether it was applied before.
    Yes {
        is_new: bool,
    },
    UnknownAnomaly,
    Recorded(RecordOutcome),
}

/// The writes of a run, and what has become of them so far.
struct Run<'a> {
    writes: &'a [SpoolWrite],
    source: Source,
    executions: Vec<Execution>,
    /// Anomalies with a write that was refused alone: those behind it wait.
    refused: HashSet<AnomalyKey>,
    /// Shards that have answered.
    answered: BTreeSet<Shard>,
    /// Shards that are not called any more.
    given_up: BTreeSet<Shard>,
    /// The writes that were refused alone, by shard, with the fault.
    alone: BTreeMap<Shard, Vec<(usize, StoreError)>>,
}

impl Executor {
    pub(crate) fn shard(&self, operation: &Operation) -> Shard {
        self.store.shard(operation.key())
    }

    /// Executes writes in order: all of one kind, and either all maybe sent before or none.
    pub(crate) async fn execute(&self, writes: &[SpoolWrite], source: Source) -> Vec<Execution> {
        let mut run = Run {
            writes,
            source,
            executions: vec![Execution::Deferred { maybe_sent: false }; writes.len()],
            refused: HashSet::new(),
            answered: BTreeSet::new(),
            given_up: BTreeSet::new(),
            alone: BTreeMap::new(),
        };
        let all: Vec<usize> = (0..writes.len()).collect();
        // The last part is the next.
        let mut parts = match writes.first().map(|write| &write.operation) {
            Some(Operation::Mark(_) | Operation::Unmark(_)) => {
                all.into_iter().rev().map(|index| vec![index]).collect()
            }
            _ => vec![all],
        };
        while let Some(mut part) = parts.pop() {
            part.retain(|index| {
                let operation = &writes[*index].operation;
                !run.refused.contains(&operation.key())
                    && !run.given_up.contains(&self.shard(operation))
            });
            let refused = self.execute_part(&mut run, &part).await;
            match refused.as_slice() {
                [] => {}
                [(alone, fault)] if part.len() == 1 => self.note_alone(&mut run, *alone, fault),
                _ => {
                    let mut first: Vec<usize> = refused.into_iter().map(|(i, _)| i).collect();
                    let second = first.split_off(first.len().div_ceil(2));
                    parts.extend([second, first]);
                }
            }
        }
        self.judge_refusals(&mut run).await;
        run.executions
    }

    /// Executes a part of a run with one call. Returns the writes whose call was refused as a
    /// whole.
    async fn execute_part(&self, run: &mut Run<'_>, part: &[usize]) -> Vec<(usize, StoreError)> {
        let mut refused = Vec::new();
        if part.is_empty() {
            return refused;
        }
        let now = self.clock.now();
        let results = self.call(now, run, part).await;
        for (index, result) in part.iter().zip(results) {
            let shard = self.shard(&run.writes[*index].operation);
            let fault = match result {
                Ok(applied) => {
                    run.answered.insert(shard);
                    run.executions[*index] = execution(run.source, &applied);
                    continue;
                }
                Err(fault) => fault,
            };
            if fault.class() == FaultClass::Indeterminate {
                run.executions[*index] = Execution::Deferred { maybe_sent: true };
            }
            if is_refusal(&fault) {
                refused.push((*index, fault));
            } else if fault.is_temporary() {
                self.health.observe(now, shard, Observation::WriteFault(&fault));
                if fault.is_outage() {
                    run.given_up.insert(shard);
                }
            } else {
                run.answered.insert(shard);
                run.executions[*index] = rejected(fault.to_string());
            }
        }
        refused
    }

    async fn call(
        &self,
        now: Timestamp,
        run: &Run<'_>,
        part: &[usize],
    ) -> Vec<Result<Applied, StoreError>> {
        let operations = part.iter().map(|index| &run.writes[*index].operation);
        let is_again = part.first().is_some_and(|index| run.writes[*index].maybe_sent);
        let mut occurrences: Vec<Occurrence> = Vec::new();
        let mut repairs: Vec<RepairAttempt> = Vec::new();
        let mut results = Vec::new();
        for operation in operations {
            match operation {
                Operation::Occurrence(occurrence) => occurrences.push(occurrence.clone()),
                Operation::Repair(attempt) => repairs.push(attempt.clone()),
                Operation::Mark(mark) => {
                    let result = self.store.mark_fixed(now, mark.clone()).await;
                    results.push(result.map(|fix| applied(fix.map(|_| true))));
                }
                Operation::Unmark(removal) => {
                    let result = self.store.unmark_fixed(now, removal.clone()).await;
                    results.push(result.map(|removed| applied(removed.map(|_| true))));
                }
            }
        }
        if !occurrences.is_empty() {
            let recorded = self.record(now, run.source, is_again, occurrences).await;
            results.extend(recorded.into_iter().map(|r| Ok(Applied::Recorded(r?.outcome))));
        }
        if !repairs.is_empty() {
            let repaired = self.store.record_repairs(now, repairs).await;
            let is_new = |repaired: RepairRecorded| repaired.counted;
            results.extend(repaired.into_iter().map(|r| Ok(applied(r?.map(is_new)))));
        }
        results.resize_with(part.len(), || Err(StoreError::no_result()));
        results
    }

    async fn record(
        &self,
        now: Timestamp,
        source: Source,
        is_again: bool,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        let keys: Vec<_> = occurrences.iter().map(|occurrence| occurrence.key).collect();
        let results = match is_again {
            true => self.store.record_again(now, occurrences).await,
            false => self.store.record(now, occurrences).await,
        };
        if let Some(fallback) = &self.fallback {
            let keys = keys.iter().copied();
            fallback.report_steps(source, self.thresholds, keys.clone(), &results);
            // While writes are sent again the counts are still rising to what they were: they are
            // no news, and no loss.
            if source != Source::Resend {
                let times = CallTimes { began_at: now, arrived_at: self.clock.now() };
                fallback.update_recorded(times, keys, &results);
            }
        }
        results
    }

    fn note_alone(&self, run: &mut Run<'_>, index: usize, fault: &StoreError) {
        let operation = &run.writes[index].operation;
        let shard = self.shard(operation);
        run.refused.insert(operation.key());
        let alone = run.alone.entry(shard).or_default();
        alone.push((index, fault.clone()));
        if alone.len() >= LONE_REFUSALS && !run.answered.contains(&shard) {
            run.given_up.insert(shard);
        }
    }

    /// Decides whether writes or their shard are at fault: a shard that takes any other write is
    /// not. Where there was no other, a probe is one.
    async fn judge_refusals(&self, run: &mut Run<'_>) {
        for (shard, alone) in mem::take(&mut run.alone) {
            let Some((_, fault)) = alone.first() else { continue };
            let takes_others = run.answered.contains(&shard)
                || alone.len() == 1 && self.store.check(shard).await.is_ok();
            if takes_others {
                for (index, fault) in alone {
                    run.executions[index] = Execution::RefusedAlone(fault.to_string());
                }
            } else {
                let now = self.clock.now();
                self.health.observe(now, shard, Observation::WriteFault(fault));
            }
        }
    }
}

/// Returns whether the server has refused a whole call in words that name no state of the server.
fn is_refusal(fault: &StoreError) -> bool {
    fault.class() == FaultClass::Indeterminate && fault.cause() == Cause::Refused
}

fn applied(is_new: Option<bool>) -> Applied {
    is_new.map_or(Applied::UnknownAnomaly, |is_new| Applied::Yes { is_new })
}

fn rejected(reason: impl Into<String>) -> Execution {
    Execution::Rejected { reason: reason.into(), retry_counts: false }
}

fn execution(source: Source, applied: &Applied) -> Execution {
    match applied {
        Applied::Yes { is_new } => Execution::Applied { is_new: *is_new },
        Applied::Recorded(RecordOutcome::Counted) => Execution::Applied { is_new: true },
        Applied::Recorded(RecordOutcome::Duplicate) => Execution::Applied { is_new: false },
        // It was counted, and would have left every window since.
        Applied::Recorded(RecordOutcome::TooOld) if source == Source::Resend => {
            Execution::Applied { is_new: false }
        }
        Applied::UnknownAnomaly => rejected("the anomaly is not known"),
        Applied::Recorded(RecordOutcome::TooOld) => {
            rejected("it became older than 30 days while it waited")
        }
        Applied::Recorded(RecordOutcome::Unrecognisable) => {
            Execution::Rejected { reason: UNRECOGNISABLE.to_owned(), retry_counts: true }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::refusing_store::RefusingStore, *};
    use crate::{counter::clock::SystemClock, domain::EventId};

    fn executor(store: &Arc<RefusingStore>) -> Executor {
        Executor {
            store: Arc::clone(store) as Arc<dyn Store>,
            clock: Arc::new(SystemClock),
            health: Arc::new(Health::new("refusing", true)),
            fallback: None,
            thresholds: Thresholds::new(3, 5, 10).unwrap(),
        }
    }

    /// An event `<key>-<number>`.
    fn write(key: u64, number: usize) -> SpoolWrite {
        let id = EventId::parse(&format!("{key}-{number}")).unwrap();
        let (key, at) = (AnomalyKey::from_bits(key), SystemClock.now());
        let occurrence = Occurrence { key, id, at, signature_json: "{}".into() };
        SpoolWrite { operation: Operation::Occurrence(occurrence), maybe_sent: false }
    }

    fn is_unavailable(executor: &Executor) -> bool {
        executor.health.is_unavailable(Shard::default())
    }

    #[tokio::test]
    async fn a_call_that_is_refused_is_halved_until_the_write_at_fault_is_alone() {
        let refused_ids = vec!["7-100"];
        let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
        let executor = executor(&store);
        let writes: Vec<_> = (0..200).map(|number| write(number as u64 % 50, number)).collect();
        let mut poisoned = writes;
        poisoned[100] = write(7, 100);
        let executions = executor.execute(&poisoned, Source::Replay).await;
        for (index, (write, execution)) in poisoned.iter().zip(executions).enumerate() {
            let is_behind = write.operation.key() == AnomalyKey::from_bits(7) && index > 100;
            match execution {
                Execution::RefusedAlone(_) => assert_eq!(index, 100),
                Execution::Deferred { .. } => assert!(is_behind, "{index}"),
                other => assert_eq!(other, Execution::Applied { is_new: true }, "{index}"),
            }
        }
        let counted: usize = store.counted.lock().values().map(Vec::len).sum();
        assert_eq!(counted, 200 - 1 - 2, "the two behind it wait");
        assert!(*store.calls.lock() < 30, "{}", store.calls.lock());
        assert!(!is_unavailable(&executor));
    }

    #[tokio::test]
    async fn events_of_an_anomaly_keep_their_order_when_a_call_is_halved() {
        let refused_ids = vec!["1-3"];
        let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
        let writes: Vec<_> = (0..64).map(|number| write(number as u64 % 4, number)).collect();
        let mut poisoned = writes;
        poisoned[3] = write(1, 3);
        executor(&store).execute(&poisoned, Source::Replay).await;
        for ids in store.counted.lock().values() {
            let numbers: Vec<usize> =
                ids.iter().map(|id| id.split_once('-').unwrap().1.parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
    }

    #[tokio::test]
    async fn a_server_that_refuses_everything_is_at_fault_and_not_its_writes() {
        let refused_ids = vec!["*"];
        let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
        let executor = executor(&store);
        let writes: Vec<_> = (0..200).map(|number| write(number as u64, number)).collect();
        let executions = executor.execute(&writes, Source::Replay).await;
        assert_eq!(executions, vec![Execution::Deferred { maybe_sent: true }; 200]);
        assert!(*store.calls.lock() < 20, "{}", store.calls.lock());
        assert!(is_unavailable(&executor));
    }

    #[tokio::test]
    async fn a_lone_write_is_at_fault_if_a_probe_is_answered() {
        for fails_checks in [true, false] {
            let refused_ids = vec!["*"];
            let store = RefusingStore { refused_ids, fails_checks, ..RefusingStore::default() };
            let executor = executor(&Arc::new(store));
            let executions = executor.execute(&[write(1, 1)], Source::Replay).await;
            let is_at_fault = matches!(executions[0], Execution::RefusedAlone(_));
            assert_eq!(is_at_fault, !fails_checks);
            assert_eq!(is_unavailable(&executor), fails_checks);
        }
    }

    #[tokio::test]
    async fn what_may_have_been_sent_is_recorded_again_and_an_unrecognisable_one_is_rejected() {
        let store = Arc::new(RefusingStore::default());
        let again = SpoolWrite { maybe_sent: true, ..write(1, 1) };
        let executions = executor(&store).execute(&[again], Source::Replay).await;
        let expected =
            Execution::Rejected { reason: UNRECOGNISABLE.to_owned(), retry_counts: true };
        assert_eq!(executions, [expected]);
        assert!(store.counted.lock().is_empty());
    }
}
