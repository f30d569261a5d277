//! Tests of the resend, on a store that refuses writes, with a full spool.

use std::{collections::BTreeSet, sync::Arc};

use tempfile::TempDir;

use super::{
    executor::Executor,
    fallback_tests::{degraded, open},
    refusing_store::RefusingStore,
    resend::Resender,
};
use crate::{
    counter::clock::SystemClock,
    domain::{AnomalyKey, EventId, Occurrence, Operation},
};

fn event(key: u64, id: &str) -> Operation {
    let (key, id) = (AnomalyKey::from_bits(key), EventId::parse(id).unwrap());
    let at = SystemClock.now();
    let (signature_json, episode, rule) = ("{}".into(), None, None);
    Operation::Occurrence(Occurrence { key, id, at, signature_json, episode, rule })
}

/// Sends the writes that are due, as the replay does.
async fn look(resender: &mut Resender, executor: &Executor) {
    let none = BTreeSet::new();
    resender.update(executor, &none, &none).await;
    resender.send(executor, &|| false).await;
}

#[tokio::test]
async fn what_is_left_waits_for_its_pause_or_for_a_reset_and_hides_no_other_write() {
    let dir = TempDir::new().unwrap();
    let refused_ids = vec!["poison".to_owned()];
    let late_from = Some(usize::MAX);
    let store = Arc::new(RefusingStore { refused_ids, late_from, ..RefusingStore::default() });
    let mut executor = store.executor();
    executor.fallback = Some(open(&dir, 1));
    let mut resender = Resender::new(&executor, degraded()).unwrap();
    let reset = || store.resets.send_modify(|resets| resets.certain += 1);

    resender.push(&executor, event(7, "poison"));
    reset();
    look(&mut resender, &executor).await;
    assert!(resender.holds(), "it could neither be sent nor spooled");
    let calls = *store.calls.lock();
    assert!(calls > 0);
    for _ in 0..3 {
        look(&mut resender, &executor).await;
    }
    assert_eq!(*store.calls.lock(), calls, "it is not sent all the time");

    resender.push(&executor, event(8, "later"));
    look(&mut resender, &executor).await;
    assert_eq!(store.counted.lock().get(&AnomalyKey::from_bits(8)), None, "without a reset");
    reset();
    look(&mut resender, &executor).await;
    let counted = store.counted.lock().get(&AnomalyKey::from_bits(8)).cloned();
    assert_eq!(counted, Some(vec!["later".to_owned()]));
    assert!(*store.calls.lock() > calls && resender.holds(), "what is left was tried too");
}
