//! Applies the operations of the spool when the store answers again: in order, in batches, at a
//! limited rate. Operations of a shard that is still unavailable are skipped. If the process ends
//! in between, the last page is applied again, which the ids of the operations make harmless.
//!
//! A shard that answers a probe is on trial: its breaker stays open until one of the writes that
//! wait for it is applied.

use std::{
    collections::{BTreeSet, HashSet},
    future::pending,
    mem,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    config::DegradedConfig,
    executor::{Execution, Executor, log_refusal},
    fallback::Fallback,
    pass::{PAGE_OPERATIONS, Pass, runs},
    progress::Progress,
    refusals::Refusals,
    reported::Source,
    resend::Resender,
    trials::Trials,
    unsettled::{Ended, Settled, Unsettled},
    vital_task,
};
use crate::{
    counter::{call_sizes::MAX_CALL_BYTES, health::Observation},
    spool::{CallError, Rejection, Settlement, SpoolError, SpoolWrite, Spooled},
    store::Shard,
    telemetry,
};

/// Maximum pause between two passes, even after a pass that the rate limit made long.
const MAX_PASS_PAUSE: Duration = Duration::from_secs(5);

/// The task that replays the spool and ends outages.
#[derive(Debug)]
pub(crate) struct Replay {
    executor: Executor,
    /// Absent if the store never forgets a write.
    resender: Option<Resender>,
    /// Changes whenever a breaker opens.
    outages: watch::Receiver<u64>,
    /// Shards that have answered a probe.
    probes: mpsc::Receiver<Shard>,
    /// The shards received from `probes` that are not handled yet.
    answered: BTreeSet<Shard>,
    trials: Trials,
    refusals: Refusals,
    unsettled: Unsettled,
    /// Operations that this process may have sent, by sequence.
    sent: HashSet<u64>,
    /// The sequence up to which the spool counts operations as sent.
    marked_up_to: u64,
    /// Receives the request to end.
    closing: mpsc::Receiver<oneshot::Sender<()>>,
    progress: Progress,
    config: DegradedConfig,
}

impl Replay {
    /// Replays until it is asked to end. `probes` receives the shards that have answered a probe.
    pub(crate) fn start(
        executor: Executor,
        resender: Option<Resender>,
        probes: mpsc::Receiver<Shard>,
        closing: mpsc::Receiver<oneshot::Sender<()>>,
        config: DegradedConfig,
    ) {
        let waiting = executor.fallback.as_ref().map_or(0, |fallback| fallback.waiting());
        if waiting > 0 {
            tracing::info!(waiting, "{waiting} operations of an earlier run wait");
            executor.health.begin_replay(executor.clock.now());
        }
        let replay = Self {
            outages: executor.health.outages(),
            executor,
            resender,
            probes,
            answered: BTreeSet::new(),
            trials: Trials::default(),
            refusals: Refusals::default(),
            unsettled: Unsettled::default(),
            sent: HashSet::new(),
            marked_up_to: 0,
            closing,
            progress: Progress::default(),
            config,
        };
        vital_task::spawn("replay", replay.run());
    }

    async fn run(mut self) {
        let probe_interval = self.config.probe_interval();
        let mut pass = self.begin_pass();
        let mut repeat_at = Instant::now();
        if let Some(resender) = &mut self.resender {
            resender.load().await;
        }
        loop {
            if let Ok(closed) = self.closing.try_recv() {
                return self.close(closed).await;
            }
            pass.must_repeat |= self.end_outages().await;
            let began_at = Instant::now();
            let settled = self.replay_page(&mut pass).await;
            let stores_more = self.store_held().await;
            let waiting = self.executor.fallback.as_ref().map_or(0, |fallback| fallback.waiting());
            let has_ended = settled.is_none() && (!pass.has_failed || !self.is_spool_usable());
            if has_ended || self.refusals.are_many() {
                self.judge_refusals(&pass).await;
            }
            if has_ended {
                self.end_trials(waiting, &mut pass).await;
            }
            self.update_state(waiting);
            if let Some(settled) = settled {
                self.progress.log(waiting);
                // A store that has just recovered must not be overloaded.
                let pace = f64::from(self.config.replay_per_second.get());
                sleep_until(began_at + Duration::from_secs_f64(settled as f64 / pace)).await;
            } else if stores_more {
                // New appends run between two pieces.
                tokio::task::yield_now().await;
            } else if waiting == 0 {
                if let Some(closed) = self.wait_for_work().await {
                    return self.close(closed).await;
                }
                pass = self.begin_pass();
            } else if (pass.must_repeat || self.executor.health.unavailable().is_empty())
                && Instant::now() >= repeat_at
            {
                // A store that takes no write must not cause constant reads of the spool.
                let took = pass.took.unwrap_or_else(|| pass.begun_at.elapsed());
                let pause = (took * 4).min(MAX_PASS_PAUSE).max(probe_interval);
                repeat_at = Instant::now() + pause;
                pass = self.begin_pass();
            } else {
                pass.took.get_or_insert_with(|| pass.begun_at.elapsed());
                if let Ok(Some(closed)) = timeout(probe_interval, self.wait_for_work()).await {
                    return self.close(closed).await;
                }
            }
        }
    }

    fn begin_pass(&mut self) -> Pass {
        self.trials.begin_pass();
        Pass::begin(self.executor.health.taken())
    }

    fn update_state(&mut self, waiting: usize) {
        let (health, now) = (&self.executor.health, self.executor.clock.now());
        if waiting > 0 {
            return health.begin_replay(now);
        }
        health.settle(now, self.progress.replayed());
        if health.since().is_none() {
            self.progress.reset();
            if let Some(fallback) = &self.executor.fallback {
                fallback.end_outage();
            }
        }
    }

    async fn close(mut self, closed: oneshot::Sender<()>) {
        if let Some(resender) = &mut self.resender {
            resender.close(&self.executor).await;
        }
        let _ = closed.send(());
    }

    async fn store_held(&mut self) -> bool {
        match &mut self.resender {
            Some(resender) => resender.store_piece().await,
            None => false,
        }
    }

    /// Completes when there may be work. Returns the request to end, if there is one.
    async fn wait_for_work(&mut self) -> Option<oneshot::Sender<()>> {
        let filled = async {
            match &self.executor.fallback {
                Some(fallback) => fallback.filled().await,
                None => pending().await,
            }
        };
        // Stragglers are searched for while writes are held.
        let holds = self.resender.as_ref().is_some_and(Resender::holds);
        let straggler = async {
            match holds {
                true => tokio::time::sleep(self.config.probe_interval()).await,
                false => pending().await,
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
            () = straggler => {}
            () = reset => {}
            Some(shard) = self.probes.recv() => { self.answered.insert(shard); }
            _ = self.outages.changed() => {}
            Some(closed) = self.closing.recv() => return Some(closed),
        }
        None
    }

    /// Ends the outages of the shards that answer again. Before that, the writes that they may have
    /// forgotten are sent again, because these precede the writes that they never had. Returns true
    /// if operations may now be applied that could not be applied before.
    async fn end_outages(&mut self) -> bool {
        while let Ok(shard) = self.probes.try_recv() {
            self.answered.insert(shard);
        }
        self.outages.mark_unchanged();
        let unavailable = self.executor.health.unavailable();
        let back = &mem::take(&mut self.answered) & &unavailable;
        let mut has_changed = !back.is_empty();
        let mut failed = BTreeSet::new();
        let mut recovered = BTreeSet::new();
        let closing = &self.closing;
        if let Some(resender) = &mut self.resender {
            has_changed |= resender.update(&self.executor, &unavailable, &back).await;
            let resent = resender.send(&self.executor, &|| !closing.is_empty()).await;
            failed = resent.failed;
            recovered = &(&resent.answered & &back) - &failed;
        }
        for shard in &back - &failed {
            if recovered.contains(&shard) {
                self.recover(shard).await;
            } else {
                self.trials.begin(shard);
            }
        }
        has_changed
    }

    /// Closes the breaker of a shard that takes writes again.
    async fn recover(&mut self, shard: Shard) {
        self.trials.end(shard);
        self.executor.health.observe(self.executor.clock.now(), shard, Observation::Recovery);
        if let Some(resender) = &mut self.resender {
            resender.release(&self.executor, shard).await;
        }
    }

    /// Decides whether the shards that refused operations in this pass and took none are at fault.
    /// A shard is not at fault if it takes a probe and has refused few anomalies.
    async fn judge_refusals(&mut self, pass: &Pass) {
        let health = &self.executor.health;
        for (shard, refusing) in self.refusals.take_shards() {
            let has_taken = health.taken().get(&shard) > pass.taken.get(&shard);
            let is_known = health.is_unavailable(shard) && !self.trials.contains(shard);
            if has_taken || is_known {
                continue;
            }
            let takes_probes = refusing.are_few() && self.executor.store.check(shard).await.is_ok();
            let now = self.executor.clock.now();
            if takes_probes {
                health.observe(now, shard, Observation::Taken);
            } else {
                health.observe(now, shard, Observation::WriteFault(&refusing.fault));
                self.trials.end(shard);
            }
        }
    }

    fn is_spool_usable(&self) -> bool {
        self.executor.fallback.as_ref().is_none_or(|fallback| fallback.spool().is_usable())
    }

    /// Ends the trials of shards that no operation waits for, at the end of a pass. Ends all trials
    /// if the spool can't be used, because that alone must not make other calls fail.
    async fn end_trials(&mut self, waiting: usize, pass: &mut Pass) {
        for shard in self.trials.end_pass(waiting == 0 || pass.has_failed) {
            self.recover(shard).await;
        }
        pass.must_repeat |= self.trials.must_repeat();
    }

    /// Applies the next page of the spool, except for operations that must continue to wait.
    /// Returns the number of settled operations; `None` at the end of the spool.
    async fn replay_page(&mut self, pass: &mut Pass) -> Option<usize> {
        let fallback = self.executor.fallback.clone()?;
        self.progress.begin_page();
        match self.unsettled.take_late() {
            None => {}
            Some(Ended::No) => {
                pass.has_failed = true;
                pass.must_repeat = true;
                return None;
            }
            Some(Ended::Yes(settled, result)) => {
                if let Err(error) = self.note_settled(&fallback, settled, result) {
                    return pass.fail(&error);
                }
            }
        }
        let Executor { store, health, .. } = &self.executor;
        if fallback.waiting() == 0 || !self.trials.allow_any(&store.shards(), &health.unavailable())
        {
            return None;
        }
        // At least four pages per second, even at a low rate: outages end between pages.
        let per_page = self.config.replay_per_second.get() as usize / 4;
        let limit = per_page.clamp(1, PAGE_OPERATIONS);
        let mut page = match fallback.spool().waiting(pass.next, limit, MAX_CALL_BYTES).await {
            Ok(page) => page,
            Err(error) => return pass.fail(&error),
        };
        let gone = self.unsettled.take_gone(pass.next, &page);
        fallback.remove_settled(self.executor.clock.now(), &gone);
        let last = page.last()?.sequence;
        let mut settled = Settled::default();
        // The flags do not change before the page ends.
        for run in runs(&mut page, |spooled| self.is_sent(spooled)) {
            if let Err(error) = self.replay_run(run, last, pass, &mut settled).await {
                return pass.fail(&error);
            }
        }
        let count = settled.all.len();
        if count > 0 {
            settled.settlement.next_page = Some((last + 1, limit, MAX_CALL_BYTES));
            let (settlement, now) = (settled.settlement.clone(), self.executor.clock.now());
            let result = match fallback.spool().settle(settlement, now).await {
                Ok(marked_up_to) => Ok(marked_up_to),
                Err(CallError::Failed(error)) => Err(error),
                Err(CallError::Late(late)) => {
                    let error = late.error();
                    self.unsettled.wait_for(late, settled);
                    return pass.fail(&error);
                }
            };
            if let Err(error) = self.note_settled(&fallback, settled, result) {
                return pass.fail(&error);
            }
        }
        pass.next = last + 1;
        Some(count)
    }

    /// Notes the outcome of a settlement.
    fn note_settled(
        &mut self,
        fallback: &Fallback,
        settled: Settled,
        result: Result<u64, SpoolError>,
    ) -> Result<(), SpoolError> {
        match result {
            Ok(marked_up_to) => self.marked_up_to = marked_up_to,
            Err(error) => {
                // They are applied again, which has no effect.
                self.sent.extend(settled.all.iter().map(|spooled| spooled.sequence));
                if matches!(error, SpoolError::Unconfirmed(_)) {
                    self.unsettled.doubt(settled.all);
                }
                return Err(error);
            }
        }
        fallback.remove_settled(self.executor.clock.now(), &settled.all);
        for spooled in &settled.all {
            self.sent.remove(&spooled.sequence);
            self.refusals.forget(spooled.sequence);
        }
        let Settlement { applied, rejected, .. } = &settled.settlement;
        telemetry::replayed(applied.len(), rejected.len());
        self.progress.note(applied.len(), rejected.len());
        Ok(())
    }

    fn is_sent(&self, spooled: &Spooled) -> bool {
        spooled.maybe_sent || self.sent.contains(&spooled.sequence)
    }

    /// Applies operations of one kind. `last` is the sequence of the page's last operation.
    async fn replay_run(
        &mut self,
        run: &[Spooled],
        last: u64,
        pass: &mut Pass,
        settled: &mut Settled,
    ) -> Result<(), SpoolError> {
        let mut due = Vec::with_capacity(run.len());
        for spooled in run {
            let operation = &spooled.operation;
            let shard = self.executor.shard(operation);
            let is_unavailable =
                self.executor.health.is_unavailable(shard) && !self.trials.contains(shard);
            if pass.held.contains(&operation.key()) || is_unavailable {
                pass.held.insert(operation.key());
            } else {
                due.push(spooled);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        if last > self.marked_up_to
            && let Some(fallback) = &self.executor.fallback
        {
            fallback.spool().mark_sent(last).await?;
            self.marked_up_to = last;
        }
        let writes: Vec<SpoolWrite> = due
            .iter()
            .map(|spooled| SpoolWrite {
                operation: spooled.operation.clone(),
                maybe_sent: self.is_sent(spooled),
            })
            .collect();
        let executions = self.executor.execute(&writes, Source::Replay).await;
        // A shard that took some of them may have failed since, and then it has not recovered.
        for (spooled, execution) in due.iter().zip(&executions) {
            if matches!(execution, Execution::Deferred { .. }) {
                self.trials.end(self.executor.shard(&spooled.operation));
            }
        }
        for ((spooled, write), execution) in due.into_iter().zip(writes).zip(executions) {
            self.settle(spooled, write, execution, pass, settled).await;
        }
        Ok(())
    }

    /// Decides what follows from the outcome of an operation.
    async fn settle(
        &mut self,
        spooled: &Spooled,
        write: SpoolWrite,
        execution: Execution,
        pass: &mut Pass,
        settled: &mut Settled,
    ) {
        let SpoolWrite { operation, maybe_sent } = write;
        let (key, sequence) = (operation.key(), spooled.sequence);
        let shard = self.executor.shard(&operation);
        let reason = match execution {
            Execution::Applied { .. } => None,
            Execution::Rejected { reason, retry_counts } => {
                Some((reason, maybe_sent && !retry_counts))
            }
            Execution::RefusedAlone(fault) => {
                self.sent.insert(sequence);
                self.trials.note_refusal(shard);
                self.refusals.note_refused(shard, key, &fault);
                let taken = self.executor.health.taken().get(&shard).copied().unwrap_or_default();
                if !self.refusals.are_enough(Instant::now(), sequence, taken) {
                    pass.hold(key);
                    return;
                }
                Some((format!("refused alone, while other writes were accepted: {fault}"), true))
            }
            Execution::Held { maybe_sent } | Execution::NotTried { maybe_sent } => {
                if maybe_sent {
                    self.sent.insert(sequence);
                }
                if matches!(execution, Execution::NotTried { .. }) {
                    self.refusals.note_untried(shard, key);
                }
                pass.hold(key);
                return;
            }
            Execution::Deferred { maybe_sent } => {
                if maybe_sent {
                    self.sent.insert(sequence);
                }
                pass.held.insert(key);
                pass.must_repeat |= !self.executor.health.is_unavailable(shard);
                return;
            }
        };
        match reason {
            None => {
                if self.trials.contains(shard) {
                    self.recover(shard).await;
                }
                settled.settlement.applied.push(sequence);
                if let Some(resender) = &self.resender {
                    resender.push(&self.executor, operation);
                }
            }
            Some((reason, maybe_sent)) => {
                log_refusal(&operation, &reason);
                settled.settlement.rejected.push(Rejection { sequence, reason, maybe_sent });
            }
        }
        settled.all.push(spooled.clone());
    }
}
