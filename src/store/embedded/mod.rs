//! The store that needs nothing installed. All anomalies are in memory, except for their
//! signatures, and every change is on disk before it is acknowledged. One writer thread turns each
//! batch into one row of the journal (one fdatasync). Reads use memory and do not wait for the
//! disk, so they may see a batch a moment before it is durable. While the file fails or the disk
//! does not answer in time, reads are refused.
#![cfg_attr(doc, doc = include_str!("../../../docs/design/embedded-store.md"))]

mod acknowledged;
mod anomaly;
mod audit_v1;
mod checkpoint;
mod condition;
mod config;
mod error;
mod file;
mod format;
mod journal;
mod journal_file;
mod limits;
mod loading;
mod old_rows;
mod opening;
mod recover;
mod row;
mod salvage;
mod state;
mod writer;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLockReadGuard;

use self::{
    file::StoreFile,
    state::{SharedState, State},
    writer::Writer,
};
use super::{
    AnomalyDetails, AnomalyHistory, Judged, Recorded, RecordingConfig, RepairRecorded, Scanned,
    SeriesSpan, Shard, Store, StoreError, StoreSize, is_audited,
};
use crate::domain::{
    AnomalyKey, AnomalyStats, AuditEntry, FixMark, FixRemoval, Moment, Occurrence, PermanentFix,
    RepairAttempt, RepairHistory, Timestamp,
};

pub use checkpoint::CheckpointLimits;
pub use config::StoreConfig;
pub use error::OpenError as EmbeddedOpenError;
pub use file::FILE_NAME as EMBEDDED_FILE_NAME;
pub use recover::{Recovery, recover};

/// Maximum number of anomalies that a scan reads under one lock: this takes well below a
/// millisecond, because a batch waits meanwhile.
const SCANNED_ANOMALIES: usize = 1_000;

/// A store in `data_dir`, owned by one process.
#[derive(Debug)]
pub struct EmbeddedStore {
    state: Arc<SharedState>,
    writer: writer::Handle,
}

impl EmbeddedStore {
    /// Opens the store in `data_dir`, which is created if it is missing, and reads it into memory.
    /// Blocks until that is done. A file of commit 8c08e13 is converted.
    ///
    /// # Errors
    /// Fails if the folder can't be written, another process has the file open, or the file is
    /// damaged or has a format that this version can't read.
    pub fn open(
        data_dir: &Path,
        recording: RecordingConfig,
        config: StoreConfig,
    ) -> Result<Self, EmbeddedOpenError> {
        Self::open_with(data_dir, recording, config, CheckpointLimits::default())
    }

    /// Reads the file in `data_dir` as [`EmbeddedStore::open`] does, without changing it. Succeeds
    /// if there is no file, or if another process has it open.
    ///
    /// # Errors
    /// Fails if opening it would fail.
    pub fn try_open(data_dir: &Path) -> Result<(), EmbeddedOpenError> {
        StoreFile::try_open(data_dir)
    }

    /// Opens the store as [`EmbeddedStore::open`] does, with other limits of checkpoints.
    ///
    /// # Errors
    /// Fails as [`EmbeddedStore::open`] does.
    pub fn open_with(
        data_dir: &Path,
        recording: RecordingConfig,
        config: StoreConfig,
        limits: CheckpointLimits,
    ) -> Result<Self, EmbeddedOpenError> {
        let state = Arc::new(SharedState::new(State::new(recording, config.max_anomalies)));
        let writer = Writer::open(data_dir, limits, Arc::clone(&state))?;
        Ok(Self { state, writer: writer.start(config.write_timeout()) })
    }

    /// Returns the state, if it holds only durable data.
    fn state(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        self.writer.is_reliable()?;
        Ok(self.state.read())
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn concurrent_batches(&self) -> usize {
        // One file has one writer: a second batch would only wait in another queue.
        1
    }

    fn batch_items(&self) -> usize {
        // A batch waits for the disk once, whatever its size.
        2_000
    }

    async fn record(
        &self,
        moment: Moment,
        occurrences: Vec<Occurrence>,
    ) -> Vec<Result<Recorded, StoreError>> {
        let elements = occurrences.len();
        let written = self.writer.write(moment, move |state| {
            occurrences.iter().map(|occurrence| state.record(moment, occurrence)).collect()
        });
        for_each_element(elements, written.await).into_iter().map(Result::flatten).collect()
    }

    async fn stats_by_rule(
        &self,
        moment: Moment,
        anomalies: Vec<Judged>,
    ) -> Vec<Result<Option<AnomalyStats>, StoreError>> {
        match self.state() {
            Ok(state) => anomalies.iter().map(|anomaly| Ok(state.stats(moment, anomaly))).collect(),
            Err(fault) => vec![Err(fault); anomalies.len()],
        }
    }

    fn stats_from_memory(&self) -> bool {
        true
    }

    async fn series(
        &self,
        moment: Moment,
        span: SeriesSpan,
        keys: Vec<AnomalyKey>,
    ) -> Vec<Result<Option<Vec<u64>>, StoreError>> {
        let SeriesSpan { step_seconds, buckets } = span;
        match self.state() {
            Ok(state) => keys
                .into_iter()
                .map(|key| Ok(state.series(moment, key, step_seconds, buckets)))
                .collect(),
            Err(fault) => vec![Err(fault); keys.len()],
        }
    }

    fn is_scannable(&self) -> bool {
        true
    }

    fn scan(
        &self,
        moment: Moment,
        after: Option<AnomalyKey>,
        visit: &mut dyn FnMut(&Scanned<'_>),
    ) -> Result<Option<AnomalyKey>, StoreError> {
        Ok(self.state()?.scan(moment, after, SCANNED_ANOMALIES, visit))
    }

    async fn details_by_rule(
        &self,
        moment: Moment,
        anomaly: Judged,
    ) -> Result<Option<AnomalyDetails>, StoreError> {
        let details = self.state()?.details(moment, &anomaly);
        match details {
            Some(details) if details.signature_json.is_none() => {
                let signature_json = self.writer.signature_json(anomaly.key).await?;
                Ok(Some(AnomalyDetails { signature_json, ..details }))
            }
            details => Ok(details),
        }
    }

    async fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, StoreError> {
        let new = self
            .state()?
            .anomaly(key)
            .map(|anomaly| anomaly.new_signature_json().map(str::to_owned));
        match new {
            None => Ok(None),
            Some(None) => self.writer.signature_json(key).await,
            Some(new) => Ok(new),
        }
    }

    async fn repairs(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<RepairHistory>, StoreError> {
        Ok(self.state()?.repairs(moment, key))
    }

    async fn record_repairs(
        &self,
        moment: Moment,
        attempts: Vec<RepairAttempt>,
    ) -> Vec<Result<Option<RepairRecorded>, StoreError>> {
        let elements = attempts.len();
        let written = self.writer.write(moment, move |state| {
            attempts.iter().map(|attempt| state.record_repair(moment, attempt)).collect()
        });
        for_each_element(elements, written.await)
    }

    async fn audit(
        &self,
        moment: Moment,
        key: AnomalyKey,
    ) -> Result<Option<Vec<AuditEntry>>, StoreError> {
        if !self.state()?.is_known(moment, key) {
            return Ok(None);
        }
        let mut entries = self.writer.audit(key).await?;
        entries.retain(|entry| is_audited(moment, entry));
        Ok(Some(entries))
    }

    async fn history(
        &self,
        moment: Moment,
        key: AnomalyKey,
        times: &[Timestamp],
    ) -> Result<Option<AnomalyHistory>, StoreError> {
        let Some(history) = self.state()?.history(moment, key, times) else { return Ok(None) };
        let audit = self.writer.audit(key).await?;
        let audit = audit.into_iter().filter(|entry| is_audited(moment, entry)).collect();
        Ok(Some(AnomalyHistory { audit, ..history }))
    }

    async fn mark_fixed(
        &self,
        moment: Moment,
        mark: FixMark,
    ) -> Result<Option<PermanentFix>, StoreError> {
        self.writer.write(moment, move |state| state.mark_fixed(moment, mark)).await
    }

    async fn unmark_fixed(
        &self,
        moment: Moment,
        removal: FixRemoval,
    ) -> Result<Option<bool>, StoreError> {
        self.writer.write(moment, move |state| state.unmark_fixed(moment, &removal)).await
    }

    async fn forget(&self, moment: Moment, key: AnomalyKey) -> Result<bool, StoreError> {
        self.writer.write(moment, move |state| state.forget(moment, key)).await
    }

    async fn check(&self, _shard: Shard) -> Result<(), StoreError> {
        self.writer.check()
    }

    fn size(&self) -> Option<StoreSize> {
        Some(self.state.read().size())
    }

    async fn maintain(&self, moment: Moment) -> Result<(), StoreError> {
        self.writer.forget_expired(moment).await
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}

/// Returns one result for each element: a commit succeeds or fails as a whole.
fn for_each_element<R>(
    elements: usize,
    written: Result<Vec<R>, StoreError>,
) -> Vec<Result<R, StoreError>> {
    match written {
        Ok(results) => results.into_iter().map(Ok).collect(),
        Err(fault) => (0..elements).map(|_| Err(fault.clone())).collect(),
    }
}
