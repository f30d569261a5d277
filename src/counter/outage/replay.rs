//! Carries out what has waited once the store answers again: in order, in batches, at a bounded pace.
//! What is about a part of the store that is still away is passed over. Whatever it was doing when the
//! process died it does again, and the ids make that harmless.

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
    DegradedConfig,
    executor::{BATCH_OPERATIONS, Execution, Executor},
    resend::Resender,
};
use crate::{
    domain::{AnomalyKey, Operation},
    spool::{SpoolError, Spooled},
    store::Shard,
    telemetry,
};

/// How often a long replay tells of its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Everything that replaying needs.
#[derive(Debug)]
pub(super) struct Replay {
    executor: Executor,
    /// Absent where the store forgets nothing.
    resend: Option<Resender>,
    /// Grows with each part of the store that falls away.
    outages: watch::Receiver<u64>,
    /// Parts of the store that have answered a probe,
    answering: mpsc::Receiver<Shard>,
    /// and those of them that were taken from there.
    answered: BTreeSet<Shard>,
    config: DegradedConfig,
}

/// One time through the spool, from the front to the end.
#[derive(Debug)]
struct Pass {
    begun_at: Instant,
    /// How long it took; absent before its end.
    took: Option<Duration>,
    next: u64,
    /// Anomalies of which something before `next` waits on: what follows about them waits too.
    held: HashSet<AnomalyKey>,
    /// Whether another pass may find more to do: a part of the store has come back, slots have moved,
    /// or something had to wait though its part of the store answers.
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

/// What has become of a page.
#[derive(Debug, Default)]
struct Settled {
    done: Vec<u64>,
    refused: Vec<(u64, String)>,
    all: Vec<Spooled>,
}

impl Replay {
    pub(super) fn new(
        executor: Executor,
        resend: Option<Resender>,
        answering: mpsc::Receiver<Shard>,
        config: DegradedConfig,
    ) -> Self {
        let outages = executor.health.outages();
        Self { executor, resend, outages, answering, answered: BTreeSet::new(), config }
    }

    /// Runs for as long as the service does.
    pub(super) async fn run(mut self) {
        let probe_interval = Duration::from_millis(self.config.probe_interval_ms.get());
        let mut told_at = Instant::now();
        let mut pass = Pass::begin();
        let mut repeat_at = Instant::now();
        loop {
            pass.must_repeat |= self.end_outages().await;
            let began_at = Instant::now();
            let settled = self.replay_page(&mut pass).await;
            let waiting = self.executor.fallback.as_ref().map_or(0, |fallback| fallback.depth().0);
            let (health, now) = (&self.executor.health, self.executor.clock.now());
            if waiting == 0 {
                health.settle(now)
            } else {
                health.begin_replay(now)
            }
            if let Some(settled) = settled {
                if settled > 0 && told_at.elapsed() > PROGRESS_INTERVAL {
                    told_at = Instant::now();
                    tracing::info!(waiting, "replaying: {waiting} operations wait");
                }
                // A store that has just come back is not to be knocked over.
                let pace = f64::from(self.config.replay_per_second.get());
                sleep_until(began_at + Duration::from_secs_f64(settled as f64 / pace)).await;
            } else if waiting == 0 {
                self.something_to_do().await;
                pass = Pass::begin();
            } else if (pass.must_repeat || health.away().is_empty()) && Instant::now() >= repeat_at
            {
                // A store that answers probes and takes nothing is no reason to read all the time.
                let took = pass.took.unwrap_or_else(|| pass.begun_at.elapsed());
                let pause = probe_interval.max(took * 4);
                repeat_at = Instant::now() + pause;
                pass = Pass::begin();
            } else {
                pass.took.get_or_insert_with(|| pass.begun_at.elapsed());
                let _ = timeout(probe_interval, self.something_to_do()).await;
            }
        }
    }

    /// Waits for a reason to look.
    async fn something_to_do(&mut self) {
        let filled = async {
            match &self.executor.fallback {
                Some(fallback) => fallback.filled().await,
                None => pending().await,
            }
        };
        let reset = async {
            match &mut self.resend {
                Some(resend) => resend.reset().await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = filled => {}
            () = reset => {}
            Some(shard) = self.answering.recv() => { self.answered.insert(shard); }
            _ = self.outages.changed() => {}
        }
    }

    /// Ends the outages of the parts of the store that answer again, once those have been sent again
    /// what they may have forgotten: that comes before what they have never been told. Says whether
    /// anything may now go where it could not go before.
    async fn end_outages(&mut self) -> bool {
        let health = &self.executor.health;
        while let Ok(shard) = self.answering.try_recv() {
            self.answered.insert(shard);
        }
        self.outages.mark_unchanged();
        let away: BTreeSet<Shard> = health.away();
        let mut back: BTreeSet<Shard> = &mem::take(&mut self.answered) & &away;
        let mut has_changed = !back.is_empty();
        if let Some(resend) = &mut self.resend {
            let still_away = &away - &back;
            has_changed |= resend.note(&self.executor, &away, &still_away);
            back = &back - &resend.send(&self.executor).await;
        }
        for shard in back {
            health.end_outage(shard);
        }
        has_changed
    }

    /// Carries out the next of what waits, but for what must wait on. Answers how many are settled;
    /// `None` at the end of the spool.
    async fn replay_page(&self, pass: &mut Pass) -> Option<usize> {
        let fallback = self.executor.fallback.as_ref()?;
        // Four a second at least, however slow the pace: outages are to be ended in between.
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
            let (done, refused) = (settled.done.len(), settled.refused.len());
            if let Err(error) = fallback.spool().settle(settled.done, settled.refused).await {
                // They are carried out again, which changes nothing.
                return spool_failed(&error);
            }
            fallback.forget(&settled.all);
            telemetry::replayed(done, refused);
        }
        pass.next = last.sequence + 1;
        Some(settled.all.len())
    }

    /// Carries out operations of one kind.
    async fn replay_run(&self, run: &[Spooled], pass: &mut Pass, settled: &mut Settled) {
        let mut due = Vec::with_capacity(run.len());
        for spooled in run {
            let operation = &spooled.operation;
            if pass.held.contains(&operation.key())
                || self.executor.health.is_away(self.executor.shard(operation))
            {
                pass.held.insert(operation.key());
            } else {
                due.push(spooled);
            }
        }
        let operations: Vec<Operation> = due.iter().map(|s| s.operation.clone()).collect();
        let ends = self.executor.execute(&operations).await;
        for ((spooled, operation), end) in due.into_iter().zip(operations).zip(ends) {
            let key = operation.key();
            match end {
                Execution::Deferred => {
                    pass.held.insert(key);
                    pass.must_repeat |=
                        !self.executor.health.is_away(self.executor.store.shard(key));
                    continue;
                }
                Execution::Applied => {
                    settled.done.push(spooled.sequence);
                    if let Some(resend) = &self.resend {
                        resend.remember(self.executor.clock.now(), operation);
                    }
                }
                Execution::Rejected(reason) => {
                    let kind = operation.kind();
                    tracing::error!(%key, reason, "the store refuses a {kind} of anomaly {key}");
                    settled.refused.push((spooled.sequence, reason));
                }
            }
            settled.all.push(spooled.clone());
        }
    }
}

fn spool_failed(error: &SpoolError) -> Option<usize> {
    tracing::error!(%error, "the spool can't be replayed; it is tried again");
    None
}
