//! One pass of the replay through the spool.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{AnomalyKey, Operation},
    spool::{SpoolError, Spooled},
    store::Shard,
};

/// Maximum number of operations of a page. Each page ends with a commit of the spool, which takes
/// about as long for many of them as for few.
pub(crate) const PAGE_OPERATIONS: usize = 1_024;

/// One pass through the spool, from its front to its end.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(crate) begun_at: Instant,
    /// The duration of the pass; absent before its end.
    pub(crate) took: Option<Duration>,
    /// The sequence of the next operation.
    pub(crate) next: u64,
    /// Anomalies with an operation before `next` that continues to wait. Their later operations
    /// wait too.
    pub(crate) held: HashSet<AnomalyKey>,
    /// True if another pass may find more to do: a shard answers again, slots have moved, or an
    /// operation had to wait although its shard answers.
    pub(crate) must_repeat: bool,
    /// The number of writes that each shard had taken when the pass began.
    pub(crate) taken: BTreeMap<Shard, u64>,
    /// True if the spool has failed, so that the pass has not read all of it.
    pub(crate) has_failed: bool,
}

impl Pass {
    pub(crate) fn begin(taken: BTreeMap<Shard, u64>) -> Self {
        Self {
            begun_at: Instant::now(),
            took: None,
            next: 0,
            held: HashSet::new(),
            must_repeat: false,
            taken,
            has_failed: false,
        }
    }

    /// Makes the operations of an anomaly wait for another pass, although its shard answers.
    pub(crate) fn hold(&mut self, key: AnomalyKey) {
        self.held.insert(key);
        self.must_repeat = true;
    }

    /// Notes that the spool has failed. Returns `None`, because nothing is settled.
    pub(crate) fn fail(&mut self, error: &SpoolError) -> Option<usize> {
        // The spool itself logs the beginning and the end of a time in which its disk can't be
        // used.
        if matches!(error, SpoolError::Full | SpoolError::Failed(_)) {
            tracing::error!(%error, "the spool can't be replayed; the replay is retried");
        }
        self.has_failed = true;
        self.must_repeat = true;
        None
    }
}

/// Divides a page into runs, each for one execution: operations of one kind, of which all may have
/// been sent, or none. Between two changes of a permanent fix, the occurrences come before the
/// repairs, which makes no difference to an anomaly: where both arrive in turns, each would be a
/// call of its own otherwise, and a replay would never keep up with the load.
pub(crate) fn runs(page: &mut [Spooled], is_sent: impl Fn(&Spooled) -> bool) -> Vec<&[Spooled]> {
    let is_fix =
        |spooled: &Spooled| matches!(spooled.operation, Operation::Mark(_) | Operation::Unmark(_));
    for part in page.chunk_by_mut(|a, b| is_fix(a) == is_fix(b)) {
        if !is_fix(&part[0]) {
            // What was sent comes first: of one anomaly, that are the earlier ones.
            part.sort_by_key(|spooled| {
                (matches!(spooled.operation, Operation::Repair(_)), !is_sent(spooled))
            });
        }
    }
    let are_alike = |a: &Spooled, b: &Spooled| {
        a.operation.kind() == b.operation.kind() && is_sent(a) == is_sent(b)
    };
    page.chunk_by(are_alike).collect()
}
