//! What a store that several programs write to offers to the catalogues of its instances: to go
//! through all of its anomalies, and to say to each other what has changed.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{Judged, Shard, StoreError};
use crate::domain::{AnomalyKey, AnomalyStats, Firing, Moment};

/// A store of which no process sees all anomalies. A fault of any of this is no outage: counting
/// goes on without it.
#[async_trait]
pub trait SharedRows: fmt::Debug + Send + Sync {
    /// Finds anomalies of a shard, some at a time: from the beginning with an empty cursor. One may
    /// be found twice; none is missed that is there throughout.
    ///
    /// # Errors
    /// When the store does not answer, or does not permit it.
    async fn find(&self, shard: Shard, cursor: &str) -> Result<Found, StoreError>;

    /// Returns the rows of anomalies, with the counts that their rules ask for; `None` for unknown
    /// ones.
    async fn read_rows(
        &self,
        moment: Moment,
        anomalies: &[Judged],
    ) -> Vec<Result<Option<StoredRow>, StoreError>>;

    /// Takes or renews the lease to go through the store for all instances. Returns false if
    /// another one has it.
    ///
    /// # Errors
    /// As above.
    async fn take_lease(&self, holder: &str, time: Duration) -> Result<bool, StoreError>;

    /// Announces changes to the other instances, which hear them for five minutes.
    ///
    /// # Errors
    /// As above.
    async fn announce(&self, changes: &[u8]) -> Result<(), StoreError>;

    /// Returns what was announced after a place, from now on without one.
    ///
    /// # Errors
    /// As above.
    async fn announced(&self, after: Option<&str>) -> Result<Announced, StoreError>;
}

/// Anomalies that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Their keys.
    pub keys: Vec<AnomalyKey>,
    /// The cursor to go on from; `None` at the end.
    pub next: Option<String>,
}

/// What a store keeps of an anomaly, as far as a list needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredRow {
    /// Its occurrences.
    pub stats: AnomalyStats,
    /// The object as it was first posted; absent where none was left.
    pub signature_json: Option<String>,
    /// Its alerts that fire; `None` if there are none.
    pub firing: Option<Firing>,
}

/// What other instances have announced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The announcements, oldest first.
    pub changes: Vec<Vec<u8>>,
    /// The place to go on from.
    pub next: String,
    /// True if there may be more.
    pub has_more: bool,
}
