//! Applies the operations of the spool once the store answers again: in order, in batches, at a
//! bounded pace. Those of a shard that is still unavailable are passed over. If the process dies in
//! between, the last page is applied again, which the operations' ids make harmless.

use std::{
    collections::{BTreeSet, HashSet},
    future::pending,
    mem,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    config::DegradedConfig,
    executor::{BATCH_OPERATIONS, Execution, Executor},
    resend::Resender,
};
use crate::{
    counter::health::Observation,
    domain::{AnomalyKey, Operation},
    spool::{SpoolError, Spooled},
    store::Shard,
    telemetry,
};

/// Interval of logging the progress of a long replay.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// The task that replays the spool and ends outages.
#[derive(Debug)]
pub(crate) struct Replay {
    executor: Executor,
    /// Absent where the store forgets no write.
    resender: Option<Resender>,
    /// Changes whenever a breaker opens.
    outages: watch::Receiver<u64>,
    /// Shards that have answered a probe.
    probes: mpsc::Receiver<Shard>,
    /// Those received from `probes` that are not handled yet.
    answered: BTreeSet<Shard>,
    config: DegradedConfig,
}

/// One pass through the spool, from its front to its end.
#[derive(Debug)]
struct Pass {
    begun_at: Instant,
    /// How long it took; absent before its end.
    took: Option<Duration>,
    /// The sequence of the next operation.
    next: u64,
    /// Anomalies with an operation before `next` that waits on: those that follow wait too.
    held: HashSet<AnomalyKey>,
    /// Whether another pass may find more to do: a shard has come back, slots have moved, or an
    /// operation had to wait though its shard answers.
    must_repeat: bool,
}

impl Pass {
    fn begin() -> Self {
        Self {
            begun_at: Instant::now(),
            took: None,
            next: 0,
            held: HashSet::new(),
            must_repeat: false,
        }
    }
}

/// The operations of a page that wait no longer.
#[derive(Debug, Default)]
struct Settled {
    /// Sequences.
    applied: Vec<u64>,
    /// Sequences with reasons.
    rejected: Vec<(u64, String)>,
    all: Vec<Spooled>,
}

impl Replay {
    /// Replays for as long as the service runs. `probes` has the shards that have answered a probe.
    pub(crate) fn start(
        executor: Executor,
        resender: Option<Resender>,
        probes: mpsc::Receiver<Shard>,
        config: DegradedConfig,
    ) {
        let waiting = executor.fallback.as_ref().map_or(0, |fallback| fallback.waiting());
        if waiting > 0 {
            tracing::info!(waiting, "{waiting} operations of an earlier run wait");
            executor.health.begin_replay(executor.clock.now());
        }
        let outages = executor.health.outages();
        let answered = BTreeSet::new();
        tokio::spawn(Self { executor, resender, outages, probes, answered, config }.run());
    }

    async fn run(mut self) {
        let probe_interval = self.config.probe_interval();
        let mut logged_at = Instant::now();
        let mut pass = Pass::begin();
        let mut repeat_at = Instant::now();
        loop {
            pass.must_repeat |= self.end_outages().await;
            let began_at = Instant::now();
            let settled = self.replay_page(&mut pass).await;
            let waiting = self.executor.fallback.as_ref().map_or(0, |fallback| fallback.waiting());
            let (health, now) = (&self.executor.health, self.executor.clock.now());
            if waiting == 0 {
                health.settle(now)
            } else {
                health.begin_replay(now)
            }
            if let Some(settled) = settled {
                if settled > 0 && logged_at.elapsed() > PROGRESS_INTERVAL {
                    logged_at = Instant::now();
                    tracing::info!(waiting, "replaying: {waiting} operations wait");
                }
                // A store that has just come back must not be overloaded.
                let pace = f64::from(self.config.replay_per_second.get());
                sleep_until(began_at + Duration::from_secs_f64(settled as f64 / pace)).await;
            } else if waiting == 0 {
                self.wait_for_work().await;
                pass = Pass::begin();
            } else if (pass.must_repeat || health.unavailable().is_empty())
                && Instant::now() >= repeat_at
            {
                // A store that answers probes and accepts no write must not cause constant reading.
                let took = pass.took.unwrap_or_else(|| pass.begun_at.elapsed());
                let pause = probe_interval.max(took * 4);
                repeat_at = Instant::now() + pause;
                pass = Pass::begin();
            } else {
                pass.took.get_or_insert_with(|| pass.begun_at.elapsed());
                let _ = timeout(probe_interval, self.wait_for_work()).await;
            }
        }
    }

    /// Completes when there may be something to do.
    async fn wait_for_work(&mut self) {
        let filled = async {
            match &self.executor.fallback {
                Some(fallback) => fallback.filled().await,
                None => pending().await,
            }
        };
        let reset = async {
            match &mut self.resender {
                Some(resender) => resender.reset().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = filled => {}
            () = reset => {}
            Some(shard) = self.probes.recv() => { self.answered.insert(shard); }
            _ = self.outages.changed() => {}
        }
    }

    /// Ends the outages of the shards that answer again, once the writes that they may have
    /// forgotten were sent again: those come before the writes that they have never had. Returns
    /// whether operations may now be applied that could not be before.
    async fn end_outages(&mut self) -> bool {
        let health = &self.executor.health;
        while let Ok(shard) = self.probes.try_recv() {
            self.answered.insert(shard);
        }
        self.outages.mark_unchanged();
        let unavailable = health.unavailable();
        let mut back = &mem::take(&mut self.answered) & &unavailable;
        let mut has_changed = !back.is_empty();
        if let Some(resender) = &mut self.resender {
            let still_unavailable = &unavailable - &back;
            has_changed |= resender.update(&self.executor, &unavailable, &still_unavailable);
            back = &back - &resender.send(&self.executor).await;
        }
        for shard in back {
            health.observe(self.executor.clock.now(), shard, Observation::Recovery);
        }
        has_changed
    }

    /// Applies the next page of the spool, except for operations that must wait on. Returns how
    /// many are settled; `None` at the end of the spool.
    async fn replay_page(&self, pass: &mut Pass) -> Option<usize> {
        let fallback = self.executor.fallback.as_ref()?;
        // At least four pages per second, however slow the pace: outages end between pages.
        let per_page = self.config.replay_per_second.get() as usize / 4;
        let limit = per_page.clamp(1, BATCH_OPERATIONS);
        let page = match fallback.spool().waiting(pass.next, limit).await {
            Ok(page) => page,
            Err(error) => return spool_failed(&error),
        };
        let last = page.last()?;
        let mut settled = Settled::default();
        for run in page.chunk_by(|a, b| a.operation.kind() == b.operation.kind()) {
            self.replay_run(run, pass, &mut settled).await;
        }
        if !settled.all.is_empty() {
            let (applied, rejected) = (settled.applied.len(), settled.rejected.len());
            if let Err(error) = fallback.spool().settle(settled.applied, settled.rejected).await {
                // They are applied again, which changes nothing.
                return spool_failed(&error);
            }
            fallback.remove_settled(&settled.all);
            telemetry::replayed(applied, rejected);
        }
        pass.next = last.sequence + 1;
        Some(settled.all.len())
    }

    /// Applies operations of one kind.
    async fn replay_run(&self, run: &[Spooled], pass: &mut Pass, settled: &mut Settled) {
        let mut due = Vec::with_capacity(run.len());
        for spooled in run {
            let operation = &spooled.operation;
            if pass.held.contains(&operation.key())
                || self.executor.health.is_unavailable(self.executor.shard(operation))
            {
                pass.held.insert(operation.key());
            } else {
                due.push(spooled);
            }
        }
        let operations: Vec<Operation> = due.iter().map(|s| s.operation.clone()).collect();
        let executions = self.executor.execute(&operations).await;
        for ((spooled, operation), execution) in due.into_iter().zip(operations).zip(executions) {
            let key = operation.key();
            match execution {
                Execution::Deferred => {
                    pass.held.insert(key);
                    pass.must_repeat |=
                        !self.executor.health.is_unavailable(self.executor.store.shard(key));
                    continue;
                }
                Execution::Applied => {
                    settled.applied.push(spooled.sequence);
                    if let Some(resender) = &self.resender {
                        resender.push(self.executor.clock.now(), operation);
                    }
                }
                Execution::Rejected(reason) => {
                    let kind = operation.kind();
                    tracing::error!(%key, reason, "the store refuses a {kind} of anomaly {key}");
                    settled.rejected.push((spooled.sequence, reason));
                }
            }
            settled.all.push(spooled.clone());
        }
    }
}

fn spool_failed(error: &SpoolError) -> Option<usize> {
    tracing::error!(%error, "the spool can't be replayed; it is retried");
    None
}
