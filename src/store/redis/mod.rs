//! The store on Redis, shared by any number of instances and by older writers: the key layout is
//! fixed, see docs/design/redis.md. Each batch is one call of one Lua script; on a cluster, it is
//! one call for each slot, sent concurrently. fred's types are not used outside this folder.
#![cfg_attr(doc, doc = include_str!("../../../docs/design/redis.md"))]

mod asks;
mod audit;
mod calls;
mod client;
mod cluster;
mod command;
mod config;
mod examination;
mod explanation;
mod fault;
mod fixes;
mod history;
mod identity;
mod known_calls;
mod known_timelines;
mod link;
mod reading;
mod recording;
mod renewal;
mod reply;
mod script;
mod servers;
mod shared_rows;
mod slots;
mod time;
mod tls;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::watch;

use self::{
    calls::Calls, known_timelines::KnownTimelines, link::ClientConfig, renewal::Renewals,
    reply::Reply, script::Call, servers::Servers,
};
use super::{
    AnomalyDetails, AnomalyHistory, Judged, Recorded, RecordingConfig, RepairRecorded, Resets,
    SeriesSpan, Shard, SharedRows, Store, StoreError, is_audited, keys::KeyNames,
};
use crate::domain::{
    AnomalyKey, AnomalyStats, AuditEntry, FixMark, FixRemoval, Moment, Occurrence, PermanentFix,
    RepairAttempt, RepairHistory, Timestamp,
};

pub use config::{InvalidRedisUrl, RedisConfig, RedisUrl};
pub use examination::{RedisExamination, RedisReport};
pub use tls::{RedisTlsConfig, RedisTlsError};

/// Maximum number of anomalies of one call of `series.lua`, each of which takes some 20 µs.
const SERIES_OF_CALL: usize = 50;

/// A store on Redis (or Valkey): one server or a cluster.
pub struct RedisStore {
    servers: Servers,
    /// Grows when a server may have forgotten its last writes.
    resets: Arc<watch::Sender<Resets>>,
    calls: Calls,
    concurrent_batches: usize,
    batch_items: usize,
    renewals: Renewals,
    timelines: KnownTimelines,
}

impl RedisStore {
    /// Starts to connect, and keeps trying while the store exists: without Redis, each call fails
    /// as transient, at once. Returns when it is connected, or after about a second.
    ///
    /// # Errors
    /// Fails if the files for TLS can't be used.
    pub async fn connect(
        config: &RedisConfig,
        recording: RecordingConfig,
        url: &RedisUrl,
    ) -> Result<Self, RedisTlsError> {
        let resets = Arc::new(watch::Sender::default());
        let renewals = Renewals::new(resets.subscribe());
        let client = ClientConfig::new(config, url)?;
        let servers = Box::pin(Servers::connect(client, Arc::clone(&resets))).await;
        let in_braces = matches!(servers, Servers::Cluster(_));
        let names = KeyNames::new(&config.key_prefix, in_braces);
        Ok(Self {
            servers,
            resets,
            calls: Calls { names, recording },
            concurrent_batches: config.concurrent_batches.get().into(),
            batch_items: config.batch_items.get().into(),
            renewals,
            timelines: KnownTimelines::default(),
        })
    }

    /// Runs a script that takes any number of elements: see [`Self::run_by_slot`]. `read` gets each
    /// element's index and reply. Returns one result for each of `elements`, in order.
    async fn run_batch<T: Sync, R>(
        &self,
        elements: &[T],
        key_of: impl Fn(&T) -> AnomalyKey,
        begin: impl Fn(&[&T]) -> Call,
        add: impl Fn(&mut Call, &T),
        read: impl Fn(usize, Reply) -> Result<R, StoreError>,
    ) -> Vec<Result<R, StoreError>> {
        let mut replies = self.run_by_slot(elements, key_of, begin, add).await;
        replies.sort_unstable_by_key(|(index, _)| *index);
        let read = |(index, reply): (usize, Result<Reply, _>)| read(index, reply?);
        replies.into_iter().map(read).collect()
    }

    /// Runs a script that takes any number of elements. For the elements of each slot, `begin`,
    /// which gets all of them, and then `add` make a call. Returns the index of each of `elements`
    /// with its reply, in the order of the slots.
    async fn run_by_slot<T: Sync>(
        &self,
        elements: &[T],
        key_of: impl Fn(&T) -> AnomalyKey,
        begin: impl Fn(&[&T]) -> Call,
        add: impl Fn(&mut Call, &T),
    ) -> Vec<(usize, Result<Reply, StoreError>)> {
        let mut by_slot: Vec<(u16, usize)> = elements
            .iter()
            .enumerate()
            .map(|(index, element)| (self.servers.slot(key_of(element)), index))
            .collect();
        // Sorted by slot, and in the order of the elements within each slot.
        by_slot.sort_unstable();
        let calls = by_slot.chunk_by(|(slot, _), (other, _)| slot == other).map(|group| {
            let group_elements: Vec<&T> =
                group.iter().map(|(_, index)| &elements[*index]).collect();
            let mut call = begin(&group_elements);
            group_elements.iter().for_each(|element| add(&mut call, element));
            self.replies(group[0].0, call, group.len())
        });
        let replies = join_all(calls.collect::<Vec<_>>()).await.into_iter().flatten();
        by_slot.into_iter().map(|(_, index)| index).zip(replies).collect()
    }

    /// Runs a script that returns one reply for each of `count` elements.
    async fn replies(&self, slot: u16, call: Call, count: usize) -> Vec<Result<Reply, StoreError>> {
        match self.servers.run(slot, call).await.and_then(Reply::elements) {
            Ok(replies) if replies.len() == count => replies.into_iter().map(Ok).collect(),
            Ok(_) => {
                let fault = reply::unexpected("a wrong number of results");
                vec![Err(fault); count]
            }
            Err(fault) => vec![Err(fault); count],
        }
    }

    async fn run_one(&self, key: AnomalyKey, call: Call) -> Result<Reply, StoreError> {
        Reply::one(self.servers.run(self.servers.slot(key), call).await?)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("names", &self.calls.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedisStore {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn concurrent_batches(&self) -> usize {
        self.concurrent_batches
    }

    fn batch_items(&self) -> usize {
        self.batch_items
    }

    async fn record(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        self.record_occurrences(moment, &occurrences, false).await
    }

    async fn record_again(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        self.record_occurrences(moment, &occurrences, true).await
    }

    async fn stats_by_rule(
        &self,
        moment: Moment,
        anomalies: Vec<Judged>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>> {
        self.read_stats(moment, &anomalies).await
    }

    async fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, StoreError> {
        let mut reply = self.run_one(key, self.calls.signature(key)).await?;
        match reply.tag()? {
            "signature" => reply.text(),
            other => Err(reply::unexpected(other)),
        }
    }

    async fn series(
        &self,
        moment: Moment,
        span: SeriesSpan,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Vec<u64>>, StoreError>> {
        let begin = |_: &[&AnomalyKey]| self.calls.series(moment.now, span);
        let add = |call: &mut Call, key: &AnomalyKey| self.calls.add_keys(call, *key);
        let read = |_, mut reply: Reply| {
            reply.if_known("known", |reply| reply.series(span.buckets.into()))
        };
        let mut series = Vec::with_capacity(keys.len());
        for keys in keys.chunks(SERIES_OF_CALL) {
            series.extend(self.run_batch(keys, |key| *key, begin, add, read).await);
        }
        series
    }

    async fn details_by_rule(
        &self,
        moment: Moment,
        anomaly: Judged,
    ) -> Result<Option<AnomalyDetails>, StoreError> {
        let call = self.calls.details(moment.now, &anomaly);
        self.run_one(anomaly.key, call).await?.if_known("known", |reply| {
            let stats = reply.stats(moment.now, anomaly.rule.as_ref(), None, None)?;
            let signature_json = reply.text()?;
            let known_since = reply.iso8601()?;
            let description = reply.text()?;
            let fixed_by = reply.text()?;
            let firing = reply.firing()?;
            let recent = reply.repair_attempts()?;
            let fix =
                stats.fixed_at.map(|marked_at| PermanentFix { description, fixed_by, marked_at });
            let repairs = RepairHistory { total: stats.repair_attempts, recent };
            Ok(AnomalyDetails { signature_json, known_since, stats, fix, repairs, firing })
        })
    }

    async fn record_repairs(
        &self,
        moment: Moment,
        attempts: Vec<RepairAttempt>,
    ) -> Vec<Result<Option<RepairRecorded>, StoreError>> {
        let begin = |_: &[&RepairAttempt]| self.calls.repair(moment);
        let add = |call: &mut Call, attempt: &RepairAttempt| self.calls.add_attempt(call, attempt);
        let read = |_, mut reply: Reply| {
            let counted = match reply.tag()? {
                "counted" => true,
                "duplicate" => false,
                "unknown" => return Ok(None),
                other => return Err(reply::unexpected(other)),
            };
            let total = reply.repair_count()?;
            let recent = reply.repair_attempts()?;
            Ok(Some(RepairRecorded { counted, history: RepairHistory { total, recent } }))
        };
        self.run_batch(&attempts, |attempt| attempt.key, begin, add, read).await
    }

    async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, StoreError> {
        self.run_one(key, self.calls.audit(key)).await?.if_known("known", |reply| {
            let texts = reply.texts()?;
            let entries = texts.iter().filter_map(|entry| audit::from_json(entry));
            Ok(entries.filter(|entry| is_audited(moment, entry)).collect())
        })
    }

    async fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        times: &[Timestamp],
    ) -> Result<Option<AnomalyHistory>, StoreError> {
        let mut reply = self.run_one(key, self.calls.history(key, times)).await?;
        reply.if_known("known", |reply| history::read(moment, times, reply))
    }

    async fn mark_fixed(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError> {
        self.mark(moment, mark).await
    }

    async fn unmark_fixed(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError> {
        self.unmark(moment, removal).await
    }

    async fn forget(&self, moment: Moment, key: AnomalyKey) -> Result<bool, StoreError> {
        let known = match self.run_one(key, self.calls.forget(key)).await?.tag()? {
            "forgotten" => true,
            "unknown" => false,
            other => return Err(reply::unexpected(other)),
        };
        self.renewals.remove(moment.now, key);
        Ok(known)
    }

    fn shared_rows(&self) -> Option<&dyn SharedRows> {
        Some(self)
    }

    fn shard(&self, key: AnomalyKey) -> Shard {
        self.servers.shard(key)
    }

    fn shards(&self) -> Vec<Shard> {
        self.servers.shards()
    }

    fn resets(&self) -> Option<watch::Receiver<Resets>> {
        Some(self.resets.subscribe())
    }

    async fn identity(&self, shard: Shard) -> Option<String> {
        self.servers.identity(shard).await
    }

    async fn check(&self, shard: Shard) -> Result<(), StoreError> {
        self.servers.check(shard, &self.calls).await
    }

    async fn maintain(&self, _moment: Moment) -> Result<(), StoreError> {
        // Redis expires keys by itself, and the scripts remove expired events when they write.
        Ok(())
    }

    async fn close(&self) {
        self.servers.close().await;
    }
}
