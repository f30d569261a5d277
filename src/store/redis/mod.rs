//! The store on Redis, shared by any number of instances and by older writers: the key layout is
//! fixed, see "On Redis" in ARCHITECTURE.md. Each batch is one call of one Lua script.
//! fred's types go no further than this folder.

mod client;
mod config;
mod reply;
mod script;
mod time;
mod tls;

use std::fmt;

use async_trait::async_trait;
use fred::types::Value;
use tokio::sync::watch;

use self::{
    client::Client,
    reply::Reply,
    script::{Call, Script},
    time::{to_iso8601, to_unix_seconds},
};
use super::{
    Dossier, KEPT_SECONDS, RecordOutcome, Recorded, RepairRecorded, Shard, Store, StoreError,
    keys::KeyNames,
};
use crate::domain::{
    AnomalyKey, EventId, FIX_VALIDITY_SECONDS, FixMark, FixRemoval, Occurrence, PermanentFix,
    RepairAttempt, RepairHistory, Tally, Timestamp, Window,
};

pub use config::{InvalidRedisUrl, RedisConfig, RedisUrl};
pub use tls::{RedisTlsConfig, RedisTlsError};

/// A store on a Redis (or Valkey) server.
pub struct RedisStore {
    client: Client,
    names: KeyNames,
    concurrent_batches: usize,
}

impl RedisStore {
    /// Begins to connect, and goes on trying for as long as the store lives: without Redis the
    /// calls fail as transient, each at once. Returns when it is connected or the time of a command
    /// has passed.
    ///
    /// # Errors
    /// When the files for TLS can't be used.
    pub async fn connect(config: &RedisConfig, url: &RedisUrl) -> Result<Self, RedisTlsError> {
        Ok(Self {
            client: Client::connect(config, url).await?,
            names: KeyNames::new(config.key_prefix.as_str()),
            concurrent_batches: config.concurrent_batches.get().into(),
        })
    }

    /// The keys by which every script but `record` and `repair` knows an anomaly.
    fn all_names(&self, key: AnomalyKey) -> [String; 5] {
        [
            self.names.timeline(key),
            self.names.repair_count(key),
            self.names.permanent_fix(key),
            self.names.metadata(key),
            self.names.repair_history(key),
        ]
    }

    /// A call about one anomaly that takes effect once by its id.
    fn identified(&self, script: Script, now: Timestamp, key: AnomalyKey, id: &EventId) -> Call {
        let mut call = Call::new(script);
        call.keys(self.all_names(key));
        call.key(self.names.operation_ids(key));
        call.argument(KEPT_SECONDS);
        call.argument(to_unix_seconds(now));
        call.argument(id.as_str());
        call
    }

    /// Runs a script that answers with one reply for each of `elements`.
    async fn run_batch<R>(
        &self,
        call: Call,
        elements: usize,
        read: impl Fn(Reply) -> Result<R, StoreError>,
    ) -> Vec<Result<R, StoreError>> {
        let replies = match self.client.run(call).await.and_then(Reply::elements) {
            Ok(replies) => replies,
            Err(fault) => return (0..elements).map(|_| Err(fault.clone())).collect(),
        };
        if replies.len() != elements {
            let fault = reply::unexpected("another number of results than was asked for");
            return (0..elements).map(|_| Err(fault.clone())).collect();
        }
        replies.into_iter().map(read).collect()
    }

    async fn run_one(&self, call: Call) -> Result<Reply, StoreError> {
        Reply::one(self.client.run(call).await?)
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("names", &self.names).finish_non_exhaustive()
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

    async fn record(
        &self,
        now: Timestamp,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        let mut call = Call::new(Script::Record);
        call.arguments(window_starts(now));
        call.argument(KEPT_SECONDS);
        let elements = occurrences.len();
        for occurrence in occurrences {
            let key = occurrence.key;
            call.key(self.names.timeline(key));
            call.key(self.names.repair_count(key));
            call.key(self.names.permanent_fix(key));
            call.key(self.names.metadata(key));
            call.argument(occurrence.id.as_str());
            call.argument(to_unix_seconds(occurrence.at));
            call.argument(to_iso8601(occurrence.at));
            call.argument(&*occurrence.signature_json);
        }
        self.run_batch(call, elements, |mut reply| {
            let outcome = match reply.tag()?.as_str() {
                "counted" => RecordOutcome::Counted,
                "duplicate" => RecordOutcome::Duplicate,
                "too_old" => RecordOutcome::TooOld,
                other => return Err(reply::unexpected(other)),
            };
            let previous_count_24h = reply.number()?;
            Ok(Recorded { outcome, previous_count_24h, tally: reply.tally(now)? })
        })
        .await
    }

    async fn tallies(
        &self,
        now: Timestamp,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Tally>, StoreError>> {
        let mut call = Call::new(Script::Tallies);
        call.arguments(window_starts(now));
        for key in &keys {
            call.keys(self.all_names(*key));
        }
        self.run_batch(call, keys.len(), |mut reply| {
            reply.if_known("known", |reply| reply.tally(now))
        })
        .await
    }

    async fn dossier(
        &self,
        now: Timestamp,
        key: AnomalyKey,
    ) -> Result<Option<Dossier>, StoreError> {
        let mut call = Call::new(Script::Dossier);
        call.keys(self.all_names(key));
        call.arguments(window_starts(now));
        self.run_one(call).await?.if_known("known", |reply| {
            let signature_json = reply.text()?;
            let known_since = reply.iso8601()?;
            let description = reply.text()?;
            let fixed_by = reply.text()?;
            let recent = reply.repair_attempts()?;
            let tally = reply.tally(now)?;
            let fix =
                tally.fixed_at.map(|marked_at| PermanentFix { description, fixed_by, marked_at });
            let repairs = RepairHistory { total: tally.repair_attempts, recent };
            Ok(Dossier { signature_json, known_since, tally, fix, repairs })
        })
    }

    async fn record_repairs(
        &self,
        now: Timestamp,
        attempts: Vec<RepairAttempt>,
    ) -> Vec<Result<Option<RepairRecorded>, StoreError>> {
        let mut call = Call::new(Script::Repair);
        call.argument(KEPT_SECONDS);
        call.argument(to_unix_seconds(now));
        for attempt in &attempts {
            call.keys(self.all_names(attempt.key));
            call.key(self.names.operation_ids(attempt.key));
            call.argument(attempt.id.as_str());
            call.argument(reply::repair_attempt_json(attempt));
        }
        self.run_batch(call, attempts.len(), |mut reply| {
            let counted = match reply.tag()?.as_str() {
                "counted" => true,
                "duplicate" => false,
                "unknown" => return Ok(None),
                other => return Err(reply::unexpected(other)),
            };
            let total = reply.number()?;
            let recent = reply.repair_attempts()?;
            Ok(Some(RepairRecorded { counted, history: RepairHistory { total, recent } }))
        })
        .await
    }

    async fn mark_fixed(
        &self,
        now: Timestamp,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError> {
        let mut call = self.identified(Script::MarkFixed, now, mark.key, &mark.id);
        call.argument(remaining_validity_seconds(now, mark.at));
        call.argument(to_iso8601(mark.at));
        call.argument(mark.description.as_str());
        call.argument(mark.fixed_by.as_deref().unwrap_or_default());
        self.run_one(call).await?.if_known("marked", |_| Ok(mark.into()))
    }

    async fn unmark_fixed(
        &self,
        now: Timestamp,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError> {
        let call = self.identified(Script::UnmarkFixed, now, removal.key, &removal.id);
        match self.run_one(call).await?.tag()?.as_str() {
            "unmarked" => Ok(Some(true)),
            "not_marked" => Ok(Some(false)),
            "unknown" => Ok(None),
            other => Err(reply::unexpected(other)),
        }
    }

    fn resets(&self) -> Option<watch::Receiver<u64>> {
        Some(self.client.resets())
    }

    async fn check(&self, _shard: Shard) -> Result<(), StoreError> {
        self.client.ping().await
    }

    async fn maintain(&self, _now: Timestamp) -> Result<(), StoreError> {
        // Redis expires keys by itself, and the scripts forget events as they go.
        Ok(())
    }

    async fn close(&self) {
        self.client.close().await;
    }
}

/// How long a mark that was made at `at` holds from now on; never nothing, which `SET` refuses.
fn remaining_validity_seconds(now: Timestamp, at: Timestamp) -> i64 {
    let age_seconds = (now.as_micros() - at.as_micros()) / 1_000_000;
    (FIX_VALIDITY_SECONDS - age_seconds).clamp(1, FIX_VALIDITY_SECONDS)
}

/// The first ARGV of every script that tallies.
fn window_starts(now: Timestamp) -> [Value; 4] {
    [Window::Month, Window::Week, Window::Day, Window::Hour]
        .map(|window| to_unix_seconds(window.start(now)).into())
}
