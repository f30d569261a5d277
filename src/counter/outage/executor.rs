//! Executes writes on the store, past the breaker: writes that waited, and writes that the store
//! may have forgotten. Their ids make a second execution harmless. A call that the store refuses as
//! a whole says nothing about its writes: it is halved until a faulty write is alone and all others
//! are applied.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    applying::{Applied, Applier},
    execution::{execution, rejected},
    fallback::Fallback,
    refusals::MAX_UNWITNESSED,
    reported::Source,
};
use crate::{
    counter::{
        call_sizes::{CallSizes, MAX_CALL_BYTES, fitting},
        clock::Clock,
        health::{Health, Observation},
    },
    domain::{AnomalyKey, Moment, Operation, Timestamp},
    rules::Rules,
    spool::SpoolWrite,
    store::{Cause, FaultClass, Shard, Store, StoreError},
    telemetry::{LogSource, may_log},
};

pub(crate) use super::execution::Execution;

/// Maximum number of operations of one call to the store.
pub(crate) const BATCH_OPERATIONS: usize = 256;

/// Number of writes refused alone, with none taken, after which a run is no longer halved. A write
/// that the shard takes is then searched for elsewhere in the run.
const LONE_REFUSALS: usize = 3;
/// The same limit for a shard whose breaker is closed: it takes other writes, as far as is known.
const LONE_REFUSALS_OF_AVAILABLE: usize = 64;
/// Maximum number of anomalies of a run that are tried alone to find a write that is taken, if
/// there are too many to try them all.
const SAMPLES: usize = 5;

#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Arc<Health>,
    pub(crate) fallback: Option<Arc<Fallback>>,
    pub(crate) rules: Arc<Rules>,
    /// Number of searches for a write that is taken. Each search takes other samples than the one
    /// before.
    searches: AtomicUsize,
    pub(crate) call_sizes: Arc<CallSizes>,
}

/// The writes of a run, and their outcomes so far.
struct Run<'a> {
    writes: &'a [SpoolWrite],
    source: Source,
    executions: Vec<Execution>,
    /// Anomalies with a write that continues to wait although its shard answers. Later writes of
    /// these anomalies wait too.
    held: HashSet<AnomalyKey>,
    /// Shards that answered.
    answered: BTreeSet<Shard>,
    /// Shards that do not answer.
    failed: BTreeSet<Shard>,
    /// Shards that refused everything that was tried. Nothing more is tried on them.
    refusing: BTreeSet<Shard>,
    /// The writes that were tried alone in the search for a write that is taken.
    samples: HashSet<usize>,
    /// The writes that were refused alone, by shard, with the fault.
    alone: BTreeMap<Shard, Vec<(usize, StoreError)>>,
    /// The writes of calls that timed out: they may have been recorded.
    late: HashSet<usize>,
}

/// The writes of a call that must be divided.
#[derive(Debug, Default)]
struct Undecided {
    /// Writes of a call that was refused as a whole.
    refused: Vec<(usize, StoreError)>,
    /// Writes of a call that was too large to complete in time.
    late: Vec<usize>,
}

impl Executor {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        health: Arc<Health>,
        fallback: Option<Arc<Fallback>>,
        rules: Arc<Rules>,
    ) -> Self {
        let (searches, call_sizes) = (AtomicUsize::new(0), Arc::default());
        Self { store, clock, health, fallback, rules, searches, call_sizes }
    }

    pub(crate) fn shard(&self, operation: &Operation) -> Shard {
        self.store.shard(operation.key())
    }

    /// Executes writes in order. All are of one kind, and either all or none may have been sent
    /// before.
    pub(crate) async fn execute(&self, writes: &[SpoolWrite], source: Source) -> Vec<Execution> {
        let mut run = Run {
            writes,
            source,
            executions: vec![Execution::Deferred { maybe_sent: false }; writes.len()],
            held: HashSet::new(),
            answered: BTreeSet::new(),
            failed: BTreeSet::new(),
            refusing: BTreeSet::new(),
            samples: HashSet::new(),
            alone: BTreeMap::new(),
            late: HashSet::new(),
        };
        let mut parts = self.parts(writes);
        while let Some(mut part) = parts.pop() {
            part.retain(|index| self.is_due(&run, *index));
            let Undecided { refused, late } = self.execute_part(&mut run, &part).await;
            parts.extend(halves(late));
            match refused.as_slice() {
                [] => {}
                [(alone, fault)] if part.len() == 1 => {
                    let shard = self.note_alone(&mut run, *alone, fault);
                    let enough = match self.health.is_unavailable(shard) {
                        true => LONE_REFUSALS,
                        false => LONE_REFUSALS_OF_AVAILABLE,
                    };
                    if run.alone[&shard].len() >= enough && !run.answered.contains(&shard) {
                        self.search(&mut run, shard, &parts).await;
                    }
                }
                _ => parts.extend(halves(refused.into_iter().map(|(index, _)| index).collect())),
            }
        }
        self.judge_refusals(&mut run).await;
        run.executions
    }

    /// Divides writes into the parts of one call each. The last part is executed next.
    fn parts(&self, writes: &[SpoolWrite]) -> Vec<Vec<usize>> {
        let max_elements = match writes.first().map(|write| &write.operation) {
            Some(Operation::Mark(_) | Operation::Unmark(_)) => 1,
            _ => BATCH_OPERATIONS,
        };
        let shards: BTreeSet<Shard> = writes.iter().map(|w| self.shard(&w.operation)).collect();
        let max_bytes = shards.into_iter().map(|shard| self.call_sizes.max_bytes(shard)).min();
        let mut parts = Vec::new();
        let mut next = 0;
        while next < writes.len() {
            let sizes = writes[next..].iter().map(|write| write.operation.bytes());
            let length = fitting(sizes, max_elements, max_bytes.unwrap_or(MAX_CALL_BYTES));
            parts.push((next..next + length).collect());
            next += length;
        }
        parts.reverse();
        parts
    }

    fn is_due(&self, run: &Run<'_>, index: usize) -> bool {
        let operation = &run.writes[index].operation;
        let shard = self.shard(operation);
        !run.samples.contains(&index)
            && !run.held.contains(&operation.key())
            && !run.failed.contains(&shard)
            && !run.refusing.contains(&shard)
    }

    /// Executes a part of a run with one call. Returns the writes whose outcome is still undecided.
    async fn execute_part(&self, run: &mut Run<'_>, part: &[usize]) -> Undecided {
        let mut undecided = Undecided::default();
        if part.is_empty() {
            return undecided;
        }
        let (moment, begun_at) = (self.clock.moment(), Instant::now());
        let results = self.call(moment, run, part).await;
        let too_large = self.too_large(run, part, begun_at.elapsed(), &results).await;
        for (index, result) in part.iter().zip(results) {
            let key = run.writes[*index].operation.key();
            let shard = self.store.shard(key);
            let fault = match result {
                Ok(applied) => {
                    self.note_answer(run, moment.now, shard);
                    let operation = &run.writes[*index].operation;
                    run.executions[*index] = execution(run.source, operation, &applied);
                    continue;
                }
                Err(fault) => fault,
            };
            if fault.class() == FaultClass::Indeterminate {
                run.executions[*index] = Execution::Deferred { maybe_sent: true };
            }
            if too_large.contains(&shard) {
                run.late.insert(*index);
                match part {
                    // The other writes continue without it.
                    [_] => drop(run.held.insert(key)),
                    _ => undecided.late.push(*index),
                }
            } else if is_refusal(&fault) {
                undecided.refused.push((*index, fault));
            } else if fault.is_outage() {
                self.health.observe(moment.now, shard, Observation::WriteFault(&fault));
                run.failed.insert(shard);
            } else if fault.is_temporary() {
                run.held.insert(key);
            } else {
                self.note_answer(run, moment.now, shard);
                run.executions[*index] = rejected(fault.to_string());
            }
        }
        undecided
    }

    /// Notes the outcome of the call of a part. Returns the shards that answer, but not in time for
    /// a call of this size.
    async fn too_large(
        &self,
        run: &Run<'_>,
        part: &[usize],
        took: Duration,
        results: &[Result<Applied, StoreError>],
    ) -> BTreeSet<Shard> {
        let mut by_shard = BTreeMap::<Shard, (usize, Option<&StoreError>)>::new();
        for (index, result) in part.iter().zip(results) {
            let operation = &run.writes[*index].operation;
            let (bytes, fault) = by_shard.entry(self.shard(operation)).or_default();
            *bytes += operation.bytes();
            *fault = fault.or(result.as_ref().err());
        }
        let mut too_large = BTreeSet::new();
        for (shard, (bytes, fault)) in by_shard {
            if self.call_sizes.note(shard, bytes, took, fault)
                && self.store.check(shard).await.is_ok()
            {
                too_large.insert(shard);
            }
        }
        too_large
    }

    fn note_answer(&self, run: &mut Run<'_>, now: Timestamp, shard: Shard) {
        if run.answered.insert(shard) {
            self.health.observe(now, shard, Observation::Taken);
        }
    }

    async fn call(
        &self,
        moment: Moment,
        run: &Run<'_>,
        part: &[usize],
    ) -> Vec<Result<Applied, StoreError>> {
        let operations: Vec<_> = part.iter().map(|index| &run.writes[*index].operation).collect();
        // All writes of a part are alike: a part is divided into those that timed out, and the
        // others.
        let is_again = part
            .first()
            .is_some_and(|index| run.writes[*index].maybe_sent || run.late.contains(index));
        let applier = Applier {
            store: &*self.store,
            clock: &*self.clock,
            fallback: self.fallback.as_deref(),
            rules: &self.rules,
            source: run.source,
            is_again,
        };
        applier.apply(moment, &operations).await
    }

    fn note_alone(&self, run: &mut Run<'_>, index: usize, fault: &StoreError) -> Shard {
        let operation = &run.writes[index].operation;
        let shard = self.shard(operation);
        run.held.insert(operation.key());
        run.alone.entry(shard).or_default().push((index, fault.clone()));
        shard
    }

    /// Searches for a write that a shard takes after it has refused several alone. If there is one,
    /// the refused writes are faulty, and halving continues. Halving the whole run would take two
    /// calls for each write, again and again, if the server itself refuses.
    async fn search(&self, run: &mut Run<'_>, shard: Shard, parts: &[Vec<usize>]) {
        // The first write of each anomaly, so that the anomaly's writes are applied in order.
        let mut anomalies = HashSet::new();
        let mut heads: Vec<usize> = parts.iter().flatten().copied().collect();
        heads.sort_unstable();
        heads.retain(|index| {
            let key = run.writes[*index].operation.key();
            self.store.shard(key) == shard && self.is_due(run, *index) && anomalies.insert(key)
        });
        let refused = run.alone.get(&shard).map_or(0, Vec::len);
        for index in self.samples(&heads, refused) {
            run.samples.insert(index);
            let Undecided { refused, .. } = self.execute_part(run, &[index]).await;
            for (alone, fault) in refused {
                self.note_alone(run, alone, &fault);
            }
            if run.answered.contains(&shard) || run.failed.contains(&shard) {
                return;
            }
        }
        run.refusing.insert(shard);
    }

    /// Returns the writes to try: the last one first, because faulty writes often arrived together.
    /// Returns all of them if they are few enough to be faulty themselves.
    fn samples(&self, heads: &[usize], refused: usize) -> Vec<usize> {
        if heads.len() <= SAMPLES || refused + heads.len() <= MAX_UNWITNESSED {
            return heads.iter().rev().copied().collect();
        }
        let turn = self.searches.fetch_add(1, Ordering::Relaxed);
        let sample =
            |number| (heads.len() - 1 + turn + number * heads.len() / SAMPLES) % heads.len();
        (0..SAMPLES).map(|number| heads[sample(number)]).collect()
    }

    /// Returns true if a refusing shard has writes of anomalies that were not tried alone.
    fn has_untried(&self, run: &Run<'_>, shard: Shard) -> bool {
        let mut keys = run.writes.iter().map(|write| write.operation.key());
        run.refusing.contains(&shard)
            && keys.any(|key| self.store.shard(key) == shard && !run.held.contains(&key))
    }

    /// Decides whether writes or their shard are at fault. A shard that takes any other write is
    /// not at fault. If there was no other write, the shard may still answer a probe, and the
    /// sender of the writes decides ([`Refusals`](super::refusals::Refusals)).
    async fn judge_refusals(&self, run: &mut Run<'_>) {
        for (shard, alone) in mem::take(&mut run.alone) {
            let Some((_, fault)) = alone.first() else { continue };
            if run.failed.contains(&shard) && !run.answered.contains(&shard) {
                continue;
            }
            // A resend has no later pages in which another write may be taken.
            let has_tried_enough = run.source == Source::Replay || !self.has_untried(run, shard);
            let takes_others = run.answered.contains(&shard)
                || has_tried_enough && self.store.check(shard).await.is_ok();
            if takes_others {
                for (index, fault) in alone {
                    run.executions[index] = Execution::RefusedAlone(fault);
                }
            } else {
                self.health.observe(self.clock.now(), shard, Observation::WriteFault(fault));
                run.failed.insert(shard);
            }
        }
        for (write, execution) in run.writes.iter().zip(&mut run.executions) {
            let (key, shard) = (write.operation.key(), self.shard(&write.operation));
            if let Execution::Deferred { maybe_sent } = *execution
                && !run.failed.contains(&shard)
            {
                *execution = match run.held.contains(&key) {
                    true => Execution::Held { maybe_sent },
                    false => Execution::NotTried { maybe_sent },
                };
            }
        }
    }
}

/// Returns the halves of a part, the second half first.
fn halves(mut part: Vec<usize>) -> impl Iterator<Item = Vec<usize>> {
    let second = part.split_off(part.len().div_ceil(2));
    [second, part].into_iter().filter(|half| !half.is_empty())
}

/// Logs a write that the store refuses for good, unless the limit of such lines per minute is
/// reached: an outage may end with many thousands of them.
pub(crate) fn log_refusal(operation: &Operation, reason: &str) {
    if may_log("the store refuses a write", LogSource::Anyone, Instant::now()) {
        let (kind, key) = (operation.kind(), operation.key());
        tracing::error!(%key, reason, "the store refuses a {kind} of anomaly {key}");
    }
}

/// Returns true if the server refused a whole call with an error that names no state of the server.
fn is_refusal(fault: &StoreError) -> bool {
    fault.class() == FaultClass::Indeterminate && fault.cause() == Cause::Refused
}
