//! The interface of a store that several programs write to, for the catalogues of its instances:
//! they scan all of its anomalies, and announce changes to each other.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{Judged, Shard, StoreError};
use crate::domain::{AnomalyKey, AnomalyStats, Firing, Moment};

/// A store in which no process sees all anomalies. A fault of these calls is not an outage:
/// counting continues without them.
#[async_trait]
pub trait SharedRows: fmt::Debug + Send + Sync {
    /// Finds anomalies of a shard, some at a time; an empty cursor starts at the beginning. An
    /// anomaly may be found twice, and none that is present throughout is missed.
    ///
    /// # Errors
    /// Fails if the store does not answer, or if it denies permission.
    async fn find(&self, shard: Shard, cursor: &str) -> Result<Found, StoreError>;

    /// Returns the rows of anomalies, with the counts that their rules need; `None` for unknown
    /// ones.
    async fn read_rows(
        &self,
        moment: Moment,
        anomalies: &[Judged],
    ) -> Vec<Result<Option<StoredRow>, StoreError>>;

    /// Takes or renews the lease for scanning the store for all instances. Returns false if another
    /// instance has it.
    ///
    /// # Errors
    /// Fails as [`SharedRows::find`] does.
    async fn take_lease(&self, holder: &str, time: Duration) -> Result<bool, StoreError>;

    /// Announces changes to the other instances, which can read them for five minutes.
    ///
    /// # Errors
    /// Fails as [`SharedRows::find`] does.
    async fn announce(&self, changes: &[u8]) -> Result<(), StoreError>;

    /// Returns the announcements after a position; without one, those from now on.
    ///
    /// # Errors
    /// Fails as [`SharedRows::find`] does.
    async fn announced(&self, after: Option<&str>) -> Result<Announced, StoreError>;
}

/// A part of the anomalies of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The keys of the anomalies.
    pub keys: Vec<AnomalyKey>,
    /// The cursor to continue from; `None` at the end.
    pub next: Option<String>,
}

/// The stored data of an anomaly that a list needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// The stats: occurrences, repairs and mark.
    pub stats: AnomalyStats,
    /// The object of the first post; absent if none was stored.
    pub signature_json: Option<String>,
    /// The firing alerts; `None` if there are none.
    pub firing: Option<Firing>,
}

/// The announcements of other instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The announcements, oldest first.
    pub changes: Vec<Vec<u8>>,
    /// The position to continue from.
    pub next: String,
    /// True if there may be more announcements.
    pub has_more: bool,
}
