//! Tests of the executor, on a store that refuses writes.

use std::{collections::HashSet, sync::Arc};

use super::{
    execution::Execution, executor::Executor, refusing_store::RefusingStore, reported::Source,
};
use crate::{
    counter::{clock::SystemClock, health::Observation},
    domain::{Actor, AnomalyKey, EventId, FixRemoval, Occurrence, Operation},
    spool::SpoolWrite,
    store::{Shard, StoreError},
};

/// An event `<key>-<number>`.
fn write(key: u64, number: usize) -> SpoolWrite {
    let id = EventId::parse(&format!("{key}-{number}")).unwrap();
    let (key, at) = (AnomalyKey::from_bits(key), SystemClock.now());
    let signature_json = "{}".into();
    let occurrence = Occurrence { key, id, at, signature_json, episode: None, rule: None };
    SpoolWrite { operation: Operation::Occurrence(occurrence), maybe_sent: false }
}

fn is_unavailable(executor: &Executor) -> bool {
    executor.health.is_unavailable(Shard::default())
}

#[tokio::test]
async fn a_call_that_is_refused_is_halved_until_the_write_at_fault_is_alone() {
    let refused_ids = vec!["7-100".to_owned()];
    let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
    let executor = store.executor();
    let writes: Vec<_> = (0..200).map(|number| write(number as u64 % 50, number)).collect();
    let mut poisoned = writes;
    poisoned[100] = write(7, 100);
    let executions = executor.execute(&poisoned, Source::Replay).await;
    for (index, (write, execution)) in poisoned.iter().zip(executions).enumerate() {
        let is_behind = write.operation.key() == AnomalyKey::from_bits(7) && index > 100;
        match execution {
            Execution::RefusedAlone(_) => assert_eq!(index, 100),
            Execution::Held { .. } => assert!(is_behind, "{index}"),
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
    let refused_ids = vec!["1-3".to_owned()];
    let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
    let writes: Vec<_> = (0..64).map(|number| write(number as u64 % 4, number)).collect();
    let mut poisoned = writes;
    poisoned[3] = write(1, 3);
    store.executor().execute(&poisoned, Source::Replay).await;
    for ids in store.counted.lock().values() {
        let numbers: Vec<usize> =
            ids.iter().map(|id| id.split_once('-').unwrap().1.parse().unwrap()).collect();
        assert!(numbers.is_sorted(), "{numbers:?}");
    }
}

fn writes_of_different_anomalies(count: u64) -> Vec<SpoolWrite> {
    (0..count).map(|number| write(number, 0)).collect()
}

/// The ids of `writes_of_different_anomalies`.
fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{number}-0")).collect()
}

#[tokio::test]
async fn a_server_that_answers_no_probe_is_at_fault_and_not_its_writes() {
    let refused_ids = vec!["*".to_owned()];
    let store = RefusingStore { refused_ids, fails_checks: true, ..RefusingStore::default() };
    let store = Arc::new(store);
    for source in [Source::Replay, Source::Resend] {
        let executor = store.executor();
        *store.calls.lock() = 0;
        let executions = executor.execute(&on_trial(&executor, 200), source).await;
        assert_eq!(executions, vec![Execution::Deferred { maybe_sent: true }; 200]);
        assert!(*store.calls.lock() < 20, "{}", store.calls.lock());
        assert!(is_unavailable(&executor));
    }
}

/// Creates writes of different anomalies, for a shard whose breaker is open.
fn on_trial(executor: &Executor, count: u64) -> Vec<SpoolWrite> {
    let fault = StoreError::unavailable();
    executor.health.observe(SystemClock.now(), Shard::default(), Observation::BatchFault(&fault));
    writes_of_different_anomalies(count)
}

#[tokio::test]
async fn where_all_writes_are_refused_a_few_are_tried_alone_and_others_in_the_next_pass() {
    let refused_ids = vec!["*".to_owned()];
    let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
    let executor = store.executor();
    let writes = on_trial(&executor, 200);
    let mut tried = HashSet::new();
    for pass in 1..=2 {
        let executions = executor.execute(&writes, Source::Replay).await;
        for (index, execution) in executions.into_iter().enumerate() {
            match execution {
                Execution::RefusedAlone(_) => drop(tried.insert(index)),
                other => assert_eq!(other, Execution::NotTried { maybe_sent: true }, "{index}"),
            }
        }
        assert!(*store.calls.lock() < pass * 20, "{}", store.calls.lock());
    }
    assert!((9..20).contains(&tried.len()), "{tried:?}");
    assert!(tried.contains(&199));
}

#[tokio::test]
async fn one_write_that_is_taken_shows_that_the_others_are_at_fault() {
    for (poisoned, healthy) in [(3, 200), (10, 200), (240, 10), (30, 1)] {
        let refused_ids = ids(0..poisoned);
        let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
        let executor = store.executor();
        let writes = on_trial(&executor, poisoned + healthy);
        let executions = executor.execute(&writes, Source::Replay).await;
        for (number, execution) in (0..).zip(executions) {
            let is_refused = matches!(execution, Execution::RefusedAlone(_));
            assert_eq!(is_refused, number < poisoned, "{number} of {poisoned}: {execution:?}");
        }
        assert_eq!(store.counted.lock().len() as u64, healthy);
    }
}

#[tokio::test]
async fn a_write_that_is_taken_is_found_wherever_it_is() {
    let refused_ids = ids((0..200).filter(|number| *number != 77));
    let store = Arc::new(RefusingStore { refused_ids, ..RefusingStore::default() });
    let executor = store.executor();
    let writes = on_trial(&executor, 200);
    let mut passes = 0;
    while store.counted.lock().is_empty() {
        executor.execute(&writes, Source::Replay).await;
        passes += 1;
        assert!(passes <= 200);
    }
}

#[tokio::test]
async fn writes_behind_one_whose_anomaly_is_being_moved_wait_for_it() {
    let moving_ids = vec!["1-0".to_owned()];
    let store = Arc::new(RefusingStore { moving_ids, ..RefusingStore::default() });
    let executor = store.executor();
    // Each removal is a call of its own.
    let removal = |key, id| {
        let (id, at) = (EventId::parse(id).unwrap(), SystemClock.now());
        let removal = FixRemoval {
            key: AnomalyKey::from_bits(key),
            id,
            at,
            reason: None,
            actor: Actor::default(),
        };
        SpoolWrite { operation: Operation::Unmark(removal), maybe_sent: false }
    };
    let removals = [removal(1, "1-0"), removal(1, "1-1"), removal(2, "2-0")];
    let executions = executor.execute(&removals, Source::Replay).await;
    let held = Execution::Held { maybe_sent: false };
    assert_eq!(executions, [held.clone(), held, Execution::Applied { is_new: true }]);
    assert_eq!(*store.calls.lock(), 2, "the second one of the anomaly is not sent");
    assert!(!is_unavailable(&executor));
}

#[tokio::test]
async fn a_lone_write_is_at_fault_if_a_probe_is_answered() {
    for fails_checks in [true, false] {
        let refused_ids = vec!["*".to_owned()];
        let store = RefusingStore { refused_ids, fails_checks, ..RefusingStore::default() };
        let executor = Arc::new(store).executor();
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
    let executions = store.executor().execute(&[again], Source::Replay).await;
    assert!(matches!(&executions[0], Execution::Rejected { reason, retry_counts: true }
        if reason.contains("not stored any more")));
    assert!(store.counted.lock().is_empty());
}

/// As [`write`], with this many bytes of other fields.
fn large_write(key: u64, number: usize, bytes: usize) -> SpoolWrite {
    let mut write = write(key, number);
    if let Operation::Occurrence(occurrence) = &mut write.operation {
        occurrence.signature_json = "x".repeat(bytes).into();
    }
    write
}

#[tokio::test]
async fn a_call_that_is_too_large_to_end_in_time_is_halved_and_no_outage() {
    let store = Arc::new(RefusingStore { late_from: Some(250_000), ..RefusingStore::default() });
    let executor = store.executor();
    let mut writes: Vec<_> = (0..64).map(|n| large_write(n as u64 % 8, n, 30_000)).collect();
    // It is too large even alone: it waits, and so do later writes of its anomaly.
    writes[10] = large_write(99, 10, 400_000);
    writes[20] = large_write(99, 20, 10);
    let executions = executor.execute(&writes, Source::Replay).await;
    for (index, execution) in executions.into_iter().enumerate() {
        match index {
            10 => assert_eq!(execution, Execution::Held { maybe_sent: true }),
            20 => assert!(matches!(execution, Execution::Held { .. }), "{execution:?}"),
            _ => assert_eq!(execution, Execution::Applied { is_new: true }, "{index}"),
        }
    }
    assert!(!is_unavailable(&executor));
    assert!(*store.calls.lock() < 40, "{}", store.calls.lock());
    // The next run starts with the size that succeeded.
    let calls = *store.calls.lock();
    let writes: Vec<_> = (100..116).map(|n| large_write(n as u64, n, 30_000)).collect();
    let executions = executor.execute(&writes, Source::Replay).await;
    assert_eq!(executions, vec![Execution::Applied { is_new: true }; 16]);
    assert!(*store.calls.lock() - calls <= 5, "{}", store.calls.lock());
}

#[tokio::test]
async fn writes_that_were_never_sent_are_no_copies_after_a_call_that_was_late() {
    let store = Arc::new(RefusingStore { late_from: Some(250_000), ..RefusingStore::default() });
    let executor = store.executor();
    // The first call takes 34 of the large writes; the rest completes in time.
    let mut writes: Vec<_> = (0..36).map(|n| large_write(n as u64, n, 30_000)).collect();
    writes.extend((36..60).map(|n| write(n as u64, n)));
    let executions = executor.execute(&writes, Source::Replay).await;
    assert_eq!(executions, vec![Execution::Applied { is_new: true }; 60]);
    let came_again: HashSet<String> = store.came_again.lock().drain(..).collect();
    let number = |id: &String| id.split_once('-').unwrap().1.parse::<usize>().unwrap();
    let mut numbers: Vec<usize> = came_again.iter().map(number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, Vec::from_iter(0..34));
}

#[tokio::test]
async fn a_server_that_answers_no_probe_either_is_at_fault_and_not_the_size() {
    let (late_from, fails_checks) = (Some(0), true);
    let store = Arc::new(RefusingStore { late_from, fails_checks, ..RefusingStore::default() });
    let executor = store.executor();
    let writes: Vec<_> = (0..64).map(|n| large_write(n as u64, n, 30_000)).collect();
    let executions = executor.execute(&writes, Source::Replay).await;
    assert!(executions.iter().all(|e| matches!(e, Execution::Deferred { .. })), "{executions:?}");
    assert!(is_unavailable(&executor));
    assert_eq!(*store.calls.lock(), 1);
}
