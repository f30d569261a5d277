//! The store calls that are made in batches.

use futures_util::future::BoxFuture;

use crate::{
    counter::health::CallKind,
    domain::{AnomalyStats, Moment, Occurrence, RepairAttempt},
    store::{Judged, Recorded, RepairRecorded, Store, StoreError},
};

/// Approximate size of an element without long texts.
const SMALL_ITEM_BYTES: usize = 512;

/// A store call that is made in batches.
pub(crate) trait BatchedCall: Sized + 'static {
    /// An element of a batch.
    type Item: Send + 'static;
    /// The answer to an element.
    type Answer: Send + 'static;

    /// The name of the call in metrics and traces.
    const NAME: &'static str;
    const KIND: CallKind;

    /// Returns the approximate size of an element in the call, in bytes.
    fn bytes(_item: &Self::Item) -> usize {
        SMALL_ITEM_BYTES
    }

    /// Makes the call. Returns one result for each item, in order.
    fn call(store: &dyn Store, moment: Moment, items: Vec<Self::Item>) -> Results<'_, Self>;

    /// Returns true if gathering calls into batches gains nothing.
    fn skips_batches(_store: &dyn Store) -> bool {
        false
    }
}

/// The results of a batch, as the store's own future, so that no other box is needed.
pub(crate) type Results<'a, C> = BoxFuture<'a, Vec<Result<<C as BatchedCall>::Answer, StoreError>>>;

pub(crate) enum RecordCall {}

impl BatchedCall for RecordCall {
    type Item = Occurrence;
    type Answer = Recorded;
    const NAME: &'static str = "record";
    const KIND: CallKind = CallKind::Write;

    fn bytes(item: &Occurrence) -> usize {
        item.bytes()
    }

    fn call(store: &dyn Store, moment: Moment, items: Vec<Occurrence>) -> Results<'_, Self> {
        store.record(moment, items)
    }
}

/// Reads the stats of anomalies.
pub(crate) enum StatsCall {}

impl BatchedCall for StatsCall {
    type Item = Judged;
    type Answer = Option<AnomalyStats>;
    // Metrics and traces have always had this name.
    const NAME: &'static str = "tally";
    const KIND: CallKind = CallKind::Read;

    fn call(store: &dyn Store, moment: Moment, items: Vec<Judged>) -> Results<'_, Self> {
        store.stats_by_rule(moment, items)
    }

    fn skips_batches(store: &dyn Store) -> bool {
        store.stats_from_memory()
    }
}

pub(crate) enum RepairCall {}

impl BatchedCall for RepairCall {
    type Item = RepairAttempt;
    type Answer = Option<RepairRecorded>;
    const NAME: &'static str = "repair";
    const KIND: CallKind = CallKind::Write;

    fn call(store: &dyn Store, moment: Moment, items: Vec<RepairAttempt>) -> Results<'_, Self> {
        store.record_repairs(moment, items)
    }
}
