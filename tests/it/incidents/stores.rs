//! The stores against the naive reference: every answer to random alerts, in batches, with marks
//! and restarts between them.

use std::cell::RefCell;

use anomaly_counter::{
    domain::{AlertPolicy, AnomalyKey, CountBy, Occurrence},
    store::{RecordOutcome, RecordingConfig},
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;

use super::{
    histories::{Timed, alert, alert_of_delivery, any_steps, at, order, timed},
    naive::{Delivery, Naive, State},
    rules::policies,
};
use crate::support::{
    CheckpointingFixture, ClusterFixture, EXACT_EVENTS, EmbeddedFixture, Fixture, RedisFixture,
    fix_mark, keeping, occurrence,
};

pub(crate) fn name(outcome: RecordOutcome) -> &'static str {
    match outcome {
        RecordOutcome::Counted => "counted",
        RecordOutcome::Duplicate => "duplicate",
        RecordOutcome::TooOld => "too_old",
        RecordOutcome::Unrecognisable => "unrecognisable",
        RecordOutcome::Ongoing => "ongoing",
        RecordOutcome::SameIncident => "same_incident",
        RecordOutcome::Resolved => "resolved",
        RecordOutcome::Stale => "stale",
    }
}

/// Returns an occurrence that is no alert, which makes the anomaly known.
fn plain(key: u64, now: i64) -> Occurrence {
    occurrence(key, &format!("plain-{now}"), at(now))
}

async fn record(
    fixture: &mut impl Fixture,
    policy: AlertPolicy,
    (key, now): (u64, i64),
    batch: &mut Vec<Delivery>,
    naive: &mut Naive,
) {
    let of_delivery = policy.count == CountBy::Delivery;
    let make = if of_delivery { alert_of_delivery } else { alert };
    let alerts: Vec<Occurrence> = batch.iter().map(|delivery| make(key, *delivery)).collect();
    let before = naive.counted;
    let results = fixture.store().record(at(now).into(), alerts).await;
    for (delivery, result) in batch.drain(..).zip(results) {
        assert_eq!(name(result.unwrap().outcome), naive.deliver(delivery), "{delivery:?}");
    }
    assert!(naive.counted >= before);
}

async fn compare(
    fixture: &mut impl Fixture,
    policy: AlertPolicy,
    key: u64,
    steps: &[(i64, Timed)],
    batch_size: usize,
) {
    let mut naive = Naive::new(policy, order);
    let (mut batch, mut last) = (Vec::new(), 0);
    fixture.store().record(at(0).into(), vec![plain(key, 0)]).await.pop().unwrap().unwrap();
    for (number, (now, step)) in steps.iter().enumerate() {
        last = *now;
        match step {
            Timed::Deliver(delivery) => batch.push(*delivery),
            Timed::Mark => {
                record(fixture, policy, (key, last), &mut batch, &mut naive).await;
                let mark = fix_mark(key, &format!("mark-{number}"), at(*now));
                fixture.store().mark_fixed(at(*now).into(), mark).await.unwrap();
                naive.fixed = Some(*now);
            }
        }
        if batch.len() >= batch_size {
            record(fixture, policy, (key, last), &mut batch, &mut naive).await;
        }
        if number % 11 == 10 && batch_size < 10 {
            fixture.reopen().await;
        }
    }
    record(fixture, policy, (key, last), &mut batch, &mut naive).await;
    let key = AnomalyKey::from_bits(key);
    let details = fixture.store().details(at(last).into(), key).await.unwrap().unwrap();
    assert_eq!(details.stats.counts.month, naive.counted as u64 + 1);
    let firing = details.firing.map(|firing| (firing.episodes, firing.since));
    assert_eq!(firing, naive.firing(last).map(|(episodes, since)| (episodes, at(since))));
}

fn check<F: Fixture>(cases: u32) {
    let runtime = Runtime::new().unwrap();
    for policy in policies() {
        let recording = RecordingConfig { alerts: policy, ..keeping(EXACT_EVENTS) };
        let fixture = RefCell::new(runtime.block_on(F::recording(recording)));
        let key = RefCell::new(0);
        let config =
            ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
        TestRunner::new(config)
            .run(&(any_steps(), 1..6_usize), |(steps, batch_size)| {
                *key.borrow_mut() += 1;
                let (fixture, key) = (&mut *fixture.borrow_mut(), *key.borrow());
                runtime.block_on(compare(fixture, policy, key, &timed(&steps), batch_size));
                Ok(())
            })
            .unwrap();
    }
}

#[test]
fn the_embedded_store_counts_alerts_as_the_reference() {
    check::<EmbeddedFixture>(100);
    check::<CheckpointingFixture>(30);
}

#[test]
fn redis_counts_alerts_as_the_reference() {
    check::<RedisFixture>(100);
}

#[test]
fn a_cluster_counts_alerts_as_the_reference() {
    check::<ClusterFixture>(25);
}

/// Compares a store with the reference for more alerts of an anomaly than are remembered.
async fn the_limit_of_alerts_is_that_of_the_reference<F: Fixture>() {
    let mut fixture = F::new().await;
    let policy = keeping(1).alerts;
    let deliver = |alert, starts, delivered, state| {
        (delivered, Timed::Deliver(Delivery { alert, starts: Some(starts), delivered, state }))
    };
    let ended = |ends| State::Resolved { ends: Some(ends) };
    let mut steps: Vec<_> = (0..1_020).map(|n| deliver(n, 0, 10, State::Firing)).collect();
    steps.extend((500..520).map(|n| deliver(n, 0, i64::from(1_000 - n), ended(20))));
    steps.extend((2_000..2_025).map(|n| deliver(n, 600, 610, State::Firing)));
    steps.extend((0..1_020).map(|n| deliver(n, 0, 700, ended(650))));
    steps.extend((3_000..3_010).map(|n| deliver(n, 800, 810, State::Firing)));
    compare(&mut fixture, policy, 1, &steps, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_alerts_is_that_of_the_reference_on_every_store() {
    the_limit_of_alerts_is_that_of_the_reference::<EmbeddedFixture>().await;
    the_limit_of_alerts_is_that_of_the_reference::<RedisFixture>().await;
    the_limit_of_alerts_is_that_of_the_reference::<ClusterFixture>().await;
}
