//! Resends acknowledged writes that the store may have forgotten, when it answers again. The state
//! of the connections shows that a reset is possible; the identity of the server decides. If the
//! identity is the same as before, a single write shows whether the server was emptied; if it was
//! not, nothing more is sent again.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    mem,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    config::DegradedConfig,
    executor::Executor,
    held_writes::{
        CLOSING, CLOSING_SMALL, Doubt, HeldWrite, HeldWrites, LIVE, forget_oldest, release_on_disk,
        report_unstored,
    },
    resend_buffer::{RememberLimits, ResendBuffer},
    resent::{Trace, bury, spool, trace},
    sending::{Resent, Sending},
};
use crate::{
    domain::Operation,
    spool::Spool,
    store::{Resets, Shard},
    telemetry,
};

/// Interval of searching for stragglers: writes that were acknowledged just before their shard
/// became unavailable, and whose reply arrived just after that was noticed.
const STRAGGLER_INTERVAL: Duration = Duration::from_secs(1);

/// Pause before the held writes on disk are read again after a failed read.
const LOAD_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// The last acknowledged writes, and the writes among them that must be sent again.
#[derive(Debug)]
pub(crate) struct Resender {
    buffer: Arc<ResendBuffer>,
    /// Changes when the store may have forgotten writes in `buffer`.
    resets: watch::Receiver<Resets>,
    resets_seen: Resets,
    /// Changes when counts show that the store has forgotten writes.
    lost_writes: Option<watch::Receiver<u64>>,
    /// The identities of the servers that acknowledged the writes in `buffer`.
    identities: BTreeMap<Shard, Option<String>>,
    /// The last writes of the shards that are unavailable, taken from `buffer`.
    held: BTreeMap<Shard, HeldWrites>,
    /// Maximum size of all writes in `held`, in bytes.
    max_held_bytes: usize,
    held_at: Instant,
    /// The shards whose held writes must be sent now, and whether each is unavailable.
    due_held: BTreeMap<Shard, bool>,
    /// The writes of other shards that must be sent now.
    due: Vec<HeldWrite>,
    /// Shards whose writes on disk are no longer needed.
    released: BTreeSet<Shard>,
    spool: Option<Spool>,
    /// The last seen number of times that the spool has dropped all held writes.
    drops_seen: u64,
    /// True after the writes that an earlier process left on disk were added to `held`.
    is_loaded: bool,
    /// The time of the next attempt to load them.
    load_at: Instant,
}

impl Resender {
    /// Returns `None` if the store never forgets a write.
    pub(crate) fn new(executor: &Executor, config: DegradedConfig) -> Option<Self> {
        let mut resets = executor.store.resets()?;
        let resets_seen = *resets.borrow_and_update();
        let limits = RememberLimits {
            seconds: config.remember_seconds.into(),
            operations: config.remember_operations,
            bytes: config.remember_bytes,
        };
        let fallback = executor.fallback.as_ref();
        Some(Self {
            buffer: Arc::new(ResendBuffer::new(limits)),
            max_held_bytes: config.remember_bytes,
            resets,
            resets_seen,
            lost_writes: fallback.map(|fallback| fallback.lost_writes().losses()),
            identities: BTreeMap::new(),
            held: BTreeMap::new(),
            held_at: Instant::now(),
            due_held: BTreeMap::new(),
            due: Vec::new(),
            released: BTreeSet::new(),
            spool: fallback.map(|fallback| fallback.spool().clone()),
            drops_seen: 0,
            is_loaded: false,
            load_at: Instant::now(),
        })
    }

    pub(crate) fn buffer(&self) -> Arc<ResendBuffer> {
        Arc::clone(&self.buffer)
    }

    /// Loads the writes that an earlier process held. Nothing is stored before, because the server
    /// of the loaded writes would be taken for that of the new ones.
    pub(crate) async fn load(&mut self) {
        let Some(spool) = &self.spool else { return };
        let earlier = match spool.held().await {
            Ok(earlier) => earlier,
            Err(error) => {
                self.load_at = Instant::now() + LOAD_RETRY_PAUSE;
                return tracing::error!(%error, "the held writes can't be read; reading is retried");
            }
        };
        self.is_loaded = true;
        let writes: usize = earlier.iter().map(|held| held.writes.len()).sum();
        if writes > 0 {
            tracing::info!(
                writes,
                "{writes} writes that were acknowledged before this service last stopped are sent \
                 again if Redis has lost them"
            );
        }
        for held in earlier {
            let newer = self.held.entry(Shard(held.shard)).or_default();
            let (identity, doubt) = (newer.identity.take(), newer.doubt);
            let writes = newer.take();
            *newer = HeldWrites::of_earlier_run(held);
            newer.note_doubt(doubt);
            writes.into_iter().for_each(|write| newer.push(identity.as_deref(), write));
        }
    }

    pub(crate) fn push(&self, executor: &Executor, acknowledged: Operation) {
        self.buffer.push(executor.clock.now(), std::iter::once(acknowledged));
    }

    /// Returns true if writes of an unavailable shard are held.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Completes when the store may have forgotten writes since the last update.
    pub(crate) async fn reset(&mut self) {
        if *self.resets.borrow_and_update() != self.resets_seen {
            return;
        }
        let lost_writes = async {
            match &mut self.lost_writes {
                Some(lost_writes) => lost_writes.changed().await.is_ok(),
                None => pending().await,
            }
        };
        let is_open = tokio::select! {
            changed = self.resets.changed() => changed.is_ok(),
            is_open = lost_writes => {
                if let Some(lost_writes) = &mut self.lost_writes {
                    lost_writes.mark_changed();
                }
                is_open
            }
        };
        if !is_open {
            // The store is closed.
            pending::<()>().await;
        }
    }

    /// Holds the writes of unavailable shards, and decides which writes of the others must be sent
    /// again. `back` are the unavailable shards that answer again. Returns true if the store may
    /// have forgotten writes.
    pub(crate) async fn update(
        &mut self,
        executor: &Executor,
        unavailable: &BTreeSet<Shard>,
        back: &BTreeSet<Shard>,
    ) -> bool {
        let doubt = self.new_doubt();
        let still_unavailable = unavailable - back;
        self.hold(executor, unavailable);
        // Writes that were acknowledged just before a breaker opened may have been added to the
        // buffer since. They are decided together with the held writes. So are the writes of an
        // available shard of which some are held because they could not be sent.
        let mut together = back.clone();
        if doubt > Doubt::None {
            together.extend(self.held.keys());
        }
        self.hold_buffered(executor, |shard| together.contains(&shard));
        for held in self.held.values_mut() {
            held.note_doubt(doubt);
        }
        let now = Instant::now();
        let is_decided = |(shard, held): &(&Shard, &HeldWrites)| {
            !still_unavailable.contains(shard)
                && (unavailable.contains(shard) || !held.are_paused(now))
        };
        let held: Vec<Shard> = self.held.iter().filter(is_decided).map(|(s, _)| *s).collect();
        for shard in &held {
            self.decide_held(executor, *shard, unavailable.contains(shard)).await;
        }
        for shard in executor.store.shards() {
            if !unavailable.contains(&shard) && !held.contains(&shard) {
                self.decide_buffered(executor, shard, doubt).await;
            }
        }
        doubt > Doubt::None
    }

    fn new_doubt(&mut self) -> Doubt {
        let resets = *self.resets.borrow_and_update();
        let seen = mem::replace(&mut self.resets_seen, resets);
        let has_lost = self.lost_writes.as_mut().is_some_and(|lost_writes| {
            let has_changed = lost_writes.has_changed().unwrap_or(false);
            lost_writes.mark_unchanged();
            has_changed
        });
        if has_lost || resets.certain != seen.certain {
            Doubt::Certain
        } else if resets.suspected != seen.suspected {
            Doubt::Suspected
        } else {
            Doubt::None
        }
    }

    fn hold(&mut self, executor: &Executor, unavailable: &BTreeSet<Shard>) {
        let is_new = unavailable.iter().any(|shard| !self.held.contains_key(shard));
        if unavailable.is_empty() || !is_new && self.held_at.elapsed() < STRAGGLER_INTERVAL {
            return;
        }
        self.held_at = Instant::now();
        for shard in unavailable {
            let identity = || HeldWrites::of(self.identities.get(shard).cloned().flatten());
            self.held.entry(*shard).or_insert_with(identity);
        }
        self.hold_buffered(executor, |shard| unavailable.contains(&shard));
    }

    fn hold_buffered(&mut self, executor: &Executor, is_held: impl Fn(Shard) -> bool) {
        for write in self.buffer.take(|operation| is_held(executor.shard(operation))) {
            // Slots may have moved since then.
            let shard = executor.shard(&write.1);
            let identity = self.identities.get(&shard).and_then(Option::as_deref);
            let held = self.held.entry(shard).or_default();
            held.push(identity, HeldWrite::new(write));
        }
        forget_oldest(&mut self.held, self.max_held_bytes);
    }

    /// Decides about the held writes of a shard that answers again, or that has never failed in
    /// this process.
    async fn decide_held(&mut self, executor: &Executor, shard: Shard, was_unavailable: bool) {
        let identity = executor.store.identity(shard).await;
        let Some(held) = self.held.get_mut(&shard) else { return };
        let is_due = must_send(held.doubt, identity.as_deref(), held.identity.as_deref());
        self.identities.insert(shard, identity);
        // Before anything that waits is applied, because these writes precede it.
        if is_due || !are_present(executor, held).await {
            self.due_held.insert(shard, was_unavailable);
            return;
        }
        held.doubt = Doubt::None;
        // A shard that was unavailable may not take writes yet. Its writes stay held until it does.
        if !was_unavailable {
            self.put_back(executor, shard);
        }
    }

    /// Decides about the buffered writes of an available shard.
    async fn decide_buffered(&mut self, executor: &Executor, shard: Shard, doubt: Doubt) {
        let before = self.identities.get(&shard);
        if doubt == Doubt::None && before.is_some() {
            return;
        }
        let identity = executor.store.identity(shard).await;
        let before = before.and_then(Option::as_deref);
        if must_send(doubt, identity.as_deref(), before) {
            let taken = self.buffer.take(|operation| executor.shard(operation) == shard);
            self.due.extend(taken.into_iter().map(HeldWrite::new));
        }
        // If a reset happened in the meantime, the identity belongs to another server than that of
        // the first writes.
        if doubt > Doubt::None || *self.resets.borrow() == self.resets_seen {
            self.identities.insert(shard, identity);
        }
    }

    /// Puts the held writes of a shard back into the buffer, because the shard takes writes again;
    /// unless it has lost them, or may have: then they are sent again.
    pub(crate) async fn release(&mut self, executor: &Executor, shard: Shard) {
        if let Some(held) = self.held.get_mut(&shard)
            && !held.are_present
            && !are_present(executor, held).await
        {
            return;
        }
        self.put_back(executor, shard);
    }

    fn put_back(&mut self, executor: &Executor, shard: Shard) {
        if let Some(held) = self.held.remove(&shard) {
            let operations = held.writes.into_iter().map(|write| write.operation);
            self.buffer.put_back(executor.clock.now(), operations);
            self.released.insert(shard);
        }
    }

    /// Sends the writes that are due, until the process ends.
    pub(crate) async fn send(
        &mut self,
        executor: &Executor,
        is_closing: &(dyn Fn() -> bool + Sync),
    ) -> Resent {
        let (due, due_held) = (mem::take(&mut self.due), mem::take(&mut self.due_held));
        let mut sending = Sending::begin(executor, is_closing);
        // A server that is known to be another one may well lack the last writes.
        let mut is_surprising = false;
        for shard in due_held.keys() {
            if let Some(held) = self.held.get_mut(shard) {
                is_surprising |= held.doubt == Doubt::Certain || held.identity.is_none();
                let kept = sending.send(held.take()).await;
                held.put_back(kept);
            }
        }
        let kept = sending.send(due).await;
        let Sending { resent, count, lost, refused, suspects, .. } = sending;
        for (shard, was_unavailable) in due_held {
            self.keep_held(executor, shard, was_unavailable, &resent.failed);
        }
        self.keep(executor, kept, &resent.failed);
        if count > 0 {
            telemetry::resent(count);
            tracing::debug!(count, "{count} acknowledged writes were sent again");
        }
        if lost > 0 && is_surprising {
            tracing::warn!(
                count,
                lost,
                "the store has lost writes: of {count} that it had acknowledged and that were sent \
                 again, {lost} were gone"
            );
        }
        let buried = bury(executor, self.spool.as_ref(), refused).await;
        let left = [buried, spool(executor, suspects).await];
        self.keep_left(executor, left.concat());
        resent
    }

    /// Keeps the held writes of a shard that were sent, for the next reset.
    fn keep_held(
        &mut self,
        executor: &Executor,
        shard: Shard,
        was_unavailable: bool,
        failed: &BTreeSet<Shard>,
    ) {
        let Some(held) = self.held.get_mut(&shard) else { return };
        // Slots may have moved to a shard that fails.
        let (kept, moved): (Vec<_>, Vec<_>) = held.take().into_iter().partition(|write| {
            let current = executor.shard(&write.operation);
            current == shard || !failed.contains(&current)
        });
        held.put_back(kept);
        if !failed.contains(&shard) {
            held.doubt = Doubt::None;
            // This server has acknowledged all of them.
            held.identity = self.identities.get(&shard).cloned().flatten();
            if !was_unavailable {
                self.put_back(executor, shard);
            }
        }
        self.keep(executor, moved, failed);
    }

    /// Keeps writes that were sent, for the next reset.
    fn keep(&mut self, executor: &Executor, sent: Vec<HeldWrite>, failed: &BTreeSet<Shard>) {
        let mut kept = Vec::new();
        for write in sent {
            let shard = executor.shard(&write.operation);
            if failed.contains(&shard) {
                // All of its writes are held, because a failing shard may forget the writes that it
                // has applied. Another server acknowledged them first.
                let held = self.held.entry(shard).or_default();
                held.push(None, write);
                held.doubt = held.doubt.max(Doubt::Suspected);
            } else {
                kept.push(write.operation);
            }
        }
        self.buffer.put_back(executor.clock.now(), kept.into_iter());
    }

    /// Holds writes that could be neither sent nor spooled. They are sent again after a pause.
    fn keep_left(&mut self, executor: &Executor, left: Vec<Operation>) {
        let now = executor.clock.now();
        let shards: BTreeSet<Shard> =
            left.iter().map(|operation| executor.shard(operation)).collect();
        let left = left.into_iter().map(|operation| HeldWrite::new((now, operation)));
        self.keep(executor, left.collect(), &shards);
        let now = Instant::now();
        for shard in &shards {
            self.held.entry(*shard).or_default().pause_sending(now);
        }
    }

    /// Stores the next piece of the held writes on disk. Returns true if there is more to store.
    pub(crate) async fn store_piece(&mut self) -> bool {
        let now = Instant::now();
        if !self.is_loaded && now >= self.load_at {
            self.load().await;
        }
        let Some(spool) = self.spool.clone().filter(|_| self.is_loaded) else { return false };
        if spool.held_drops() != self.drops_seen {
            self.drops_seen = spool.held_drops();
            self.held.values_mut().for_each(|held| held.mark_dropped(now));
            // Some of them may have been stored since.
            release_on_disk(&spool, self.held.keys()).await;
        }
        if let Some((shard, held)) = self.held.iter_mut().find(|(_, held)| held.must_store(now)) {
            if let Err(error) = held.store(&spool, *shard, LIVE).await
                && held.pause_storing(now)
            {
                report_unstored(&error);
            }
            return true;
        }
        // Released only when the writes that moved to another shard are stored there.
        if self.held.values().all(HeldWrites::are_stored) {
            let mut released = mem::take(&mut self.released);
            released.retain(|shard| !self.held.contains_key(shard));
            release_on_disk(&spool, released.iter()).await;
        }
        false
    }

    /// Stores the writes that must be sent again if Redis is another server at the next start.
    pub(crate) async fn close(&mut self, executor: &Executor) {
        self.buffer.expire(executor.clock.now());
        self.hold_buffered(executor, |_| true);
        let Some(spool) = self.spool.clone().filter(|_| self.is_loaded) else { return };
        for (shard, held) in &mut self.held {
            // The writes on disk may have the identity of a server that was replaced since.
            let mut must_rewrite = held.doubt == Doubt::Certain;
            while !held.are_stored() || mem::take(&mut must_rewrite) {
                let Err(error) = held.store(&spool, *shard, CLOSING).await else { continue };
                if held.store(&spool, *shard, CLOSING_SMALL).await.is_err() {
                    report_unstored(&error);
                    break;
                }
            }
        }
    }
}

/// Returns false if the store has lost held writes, or may have: they are sent again then.
async fn are_present(executor: &Executor, held: &mut HeldWrites) -> bool {
    let trace = trace(executor, held).await;
    held.are_present = trace == Trace::Present;
    let are_lost = matches!(trace, Trace::Lost | Trace::Unknown);
    if are_lost {
        held.doubt = Doubt::Certain;
    }
    !are_lost
}

/// Returns true if writes must be sent to a server with the identity `now`. They were acknowledged
/// by the same or another server, which had the identity `before`. `None` stands for an unknown
/// identity.
fn must_send(doubt: Doubt, now: Option<&str>, before: Option<&str>) -> bool {
    match (doubt, now, before) {
        (Doubt::Certain, _, _) => true,
        (_, Some(now), Some(before)) => now != before,
        (doubt, _, _) => doubt == Doubt::Suspected,
    }
}
