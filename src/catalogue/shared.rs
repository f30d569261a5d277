//! The rows of a store that others write to, and their completeness.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::sleep};

use super::{
    noted::{Noted, NotedFiring},
    query::{Completeness, PartialReason},
    rows::Rows,
};
use crate::{
    domain::{AnomalyKey, Moment, Signature},
    rules::Rules,
    store::{Cause, Judged, SharedRows, Store, StoreError, StoredRow},
};

/// Returns the current moment.
pub(crate) type MomentOf = Arc<dyn Fn() -> Moment + Send + Sync>;

/// Maximum number of anomalies that are read at once.
const READ_AT_ONCE: usize = 50;
/// Maximum time between two calls.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The rows, and their completeness.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) rows: Rows,
    /// True once a walk through the store has completed.
    is_loaded: AtomicBool,
    /// True while the store does not permit walks.
    walk_is_denied: AtomicBool,
    /// True while the store does not permit this instance to write or read announcements.
    feed_is_denied: AtomicBool,
    /// The number of times that announcements were missed, and how many of them a later walk has
    /// made up for.
    missed: AtomicU64,
    caught_up: AtomicU64,
    /// Wakes the walker.
    pub(super) walk_wanted: Notify,
    /// The time at which the announcements of others were last read.
    heard_at: Mutex<Instant>,
}

/// The parts that the tasks need to read rows.
#[derive(Clone)]
pub(super) struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) shared: Arc<Shared>,
    pub(super) rules: Arc<Rules>,
    pub(super) moment: MomentOf,
}

impl Shared {
    pub(super) fn new(rows: Rows) -> Self {
        Self {
            rows,
            is_loaded: AtomicBool::new(false),
            walk_is_denied: AtomicBool::new(false),
            feed_is_denied: AtomicBool::new(false),
            missed: AtomicU64::new(0),
            caught_up: AtomicU64::new(0),
            walk_wanted: Notify::new(),
            heard_at: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn completeness(&self) -> Completeness {
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let reason = if is(&self.walk_is_denied) || is(&self.feed_is_denied) {
            PartialReason::Denied
        } else if !is(&self.is_loaded) {
            PartialReason::Loading
        } else if self.is_behind() || self.rows.has_overflowed() {
            PartialReason::Behind
        } else {
            return Completeness::Complete;
        };
        Completeness::Partial { reason, loaded: self.rows.len() as u64 }
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded.load(Ordering::Relaxed)
    }

    /// Notes that the announcements of others were read. Returns the time since they were last
    /// read.
    pub(super) fn note_heard(&self) -> Duration {
        std::mem::replace(&mut *self.heard_at.lock(), Instant::now()).elapsed()
    }

    /// Returns the time since the announcements of others were last read.
    pub(super) fn age(&self) -> Duration {
        self.heard_at.lock().elapsed()
    }

    /// Notes the outcome of a walk.
    pub(super) fn note_walk(&self, outcome: &Result<(), StoreError>) {
        if outcome.is_ok() {
            self.is_loaded.store(true, Ordering::Relaxed);
        }
        note_outcome(&self.walk_is_denied, outcome);
    }

    /// Notes the outcome of a tick of the feed.
    pub(super) fn note_feed(&self, outcome: &Result<(), StoreError>) {
        note_outcome(&self.feed_is_denied, outcome);
    }

    fn is_behind(&self) -> bool {
        self.missed() > self.caught_up.load(Ordering::Relaxed)
    }

    /// Returns the number of times that announcements were missed.
    pub(super) fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// Notes that a walk has made up for this many missed announcements.
    pub(super) fn note_caught_up(&self, missed: u64) {
        self.caught_up.store(missed, Ordering::Relaxed);
    }

    /// Notes that announcements were missed.
    pub(super) fn note_missed(&self) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.walk_wanted.notify_one();
    }
}

/// Notes whether a task is permitted. A fault here neither stops counting nor opens a breaker.
fn note_outcome(is_denied: &AtomicBool, outcome: &Result<(), StoreError>) {
    let Err(fault) = outcome else { return is_denied.store(false, Ordering::Relaxed) };
    if fault.cause() == Cause::Permission && !is_denied.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            error = %fault,
            "the Redis user may not scan its keys or read the announcements of other instances: \
             lists have only the anomalies that this instance has seen, and say so (`denied`). \
             docs/security.md has the permissions (ACL SETUSER)"
        );
    } else {
        tracing::debug!(error = %fault, "updating the catalogue failed");
    }
}

impl Reader {
    pub(super) fn shared_rows(&self) -> Option<&dyn SharedRows> {
        self.store.shared_rows()
    }

    /// Reads the rows of anomalies. The pause after each call is `pauses` times as long as the
    /// call. If they are news (`is_news`), differences are announced.
    pub(super) async fn read(
        &self,
        keys: &[AnomalyKey],
        pauses: u32,
        is_news: bool,
    ) -> Result<(), StoreError> {
        for keys in keys.chunks(READ_AT_ONCE) {
            // An anomaly whose fields were not known may have a rule that needs more counts.
            let again = self.read_some(keys, pauses, is_news).await?;
            if !again.is_empty() {
                self.read_some(&again, pauses, is_news).await?;
            }
        }
        Ok(())
    }

    /// Reads the rows of some anomalies. Returns those whose rules need more counts.
    async fn read_some(
        &self,
        keys: &[AnomalyKey],
        pauses: u32,
        is_news: bool,
    ) -> Result<Vec<AnomalyKey>, StoreError> {
        let mut again = Vec::new();
        let Some(shared_rows) = self.shared_rows() else { return Ok(again) };
        let (rows, rules, moment) = (&self.shared.rows, self.rules.in_force(), (self.moment)());
        let judged = |key: &AnomalyKey| {
            let known = rules.known_rule(*key);
            let rule = known.or_else(|| {
                rows.signature(*key).map(|fields| rules.rule_of_fields(*key, Some(&fields)))
            });
            Judged { key: *key, rule }
        };
        let judged: Vec<_> = keys.iter().map(judged).collect();
        let results = paced(pauses, shared_rows.read_rows(moment, &judged)).await;
        for (Judged { key, rule }, result) in judged.into_iter().zip(results) {
            match result {
                Ok(Some(StoredRow { stats, signature_json, firing })) => {
                    let signature = signature_json.as_deref().and_then(Signature::from_stored);
                    let needs_counts = rule.is_none() && {
                        let rule = rules.rule_of_fields(key, signature.as_ref());
                        rule.needs_counts(stats.counts)
                    };
                    again.extend(needs_counts.then_some(key));
                    let (as_of, firing) = (moment.now, NotedFiring::Read(firing));
                    let (began_at, rule, stats) = (None, rule.as_ref(), &stats);
                    let noted = Noted { key, began_at, as_of, stats, rule, firing, is_news };
                    rows.note(&noted, || signature);
                }
                Ok(None) => rows.remove_known_until(key, moment.now),
                Err(fault) if fault.is_temporary() => return Err(fault),
                // Only the data of this anomaly are at fault: the others go on.
                Err(_) => {}
            }
        }
        Ok(again)
    }
}

/// Makes a call, and then waits `pauses` times as long as it took. This limits the share of the
/// server's time that such calls take.
pub(super) async fn paced<T>(pauses: u32, call: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let result = call.await;
    sleep((begun.elapsed() * pauses).min(MAX_PAUSE)).await;
    result
}
