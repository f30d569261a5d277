//! The last acknowledged writes of shards that have become unavailable. They are kept apart,
//! because writes of other shards would push them out of the buffer; and on disk, because the
//! process may end before the shard answers again.

use std::{cmp::Reverse, collections::BTreeMap, mem, time::Duration};

use tokio::time::Instant;

use crate::{
    domain::{Operation, Timestamp},
    spool::{HeldOnDisk, Spool, SpoolError},
    store::Shard,
};

/// Maximum number and approximate size of the writes that are stored with one fsync.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    operations: usize,
    bytes: usize,
    /// The newest writes are the most likely to be forgotten, and time may run out.
    newest_first: bool,
}

/// While the service runs: writes that callers wait for are stored between two pieces.
pub(crate) const LIVE: Piece = Piece { operations: 1_000, bytes: 256 << 10, newest_first: false };
/// At shutdown, within a few seconds on a disk that may be slow.
pub(crate) const CLOSING: Piece = Piece { operations: 50_000, bytes: 8 << 20, newest_first: true };
/// At shutdown, if there is no space for a larger piece.
pub(crate) const CLOSING_SMALL: Piece = Piece { newest_first: true, ..LIVE };

/// Pause before writes are stored again after the disk had no space for them.
const STORE_RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Pause before writes are sent again that could be neither sent nor spooled.
const SEND_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The likelihood that the store has forgotten writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// There is no sign of it.
    #[default]
    None,
    /// The store has forgotten them, unless its server has the same identity as before.
    Suspected,
    Certain,
}

/// The held writes of one shard.
#[derive(Debug, Default)]
pub(crate) struct HeldWrites {
    pub(crate) writes: Vec<HeldWrite>,
    pub(crate) doubt: Doubt,
    /// True if the store has shown, since it answers again, that it still has them.
    pub(crate) are_present: bool,
    /// The identity of the server that acknowledged them; `None` if it is not known.
    pub(crate) identity: Option<String>,
    /// Number of `writes` that are not on disk.
    unstored: usize,
    /// The time until which writes are not stored, because there was no space for them.
    paused_until: Option<Instant>,
    /// The time until which writes are not sent again, because some could be neither sent nor
    /// spooled.
    sending_paused_until: Option<Instant>,
}

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldWrite {
    pub(crate) acknowledged_at: Timestamp,
    pub(crate) operation: Operation,
    /// True if it is on disk, held by the same shard.
    pub(crate) is_stored: bool,
}

impl HeldWrite {
    pub(crate) fn new((acknowledged_at, operation): (Timestamp, Operation)) -> Self {
        Self { acknowledged_at, operation, is_stored: false }
    }

    pub(crate) fn into_parts(self) -> (Timestamp, Operation) {
        (self.acknowledged_at, self.operation)
    }
}

impl HeldWrites {
    /// Creates an empty collection.
    pub(crate) fn of(identity: Option<String>) -> Self {
        Self { identity, ..Self::default() }
    }

    /// Creates the collection of writes that an earlier process left on disk.
    pub(crate) fn of_earlier_run(held: HeldOnDisk) -> Self {
        let write = |write| HeldWrite { is_stored: true, ..HeldWrite::new(write) };
        let mut writes: Vec<HeldWrite> = held.writes.into_iter().map(write).collect();
        // At shutdown, a process stores the newest writes first.
        writes.sort_by_key(|write| write.acknowledged_at);
        let doubt = Doubt::Suspected;
        Self { writes, doubt, identity: held.identity, ..Self::default() }
    }

    /// Notes that the store may have forgotten them. Sending is then no longer paused.
    pub(crate) fn note_doubt(&mut self, doubt: Doubt) {
        if doubt > Doubt::None {
            self.doubt = self.doubt.max(doubt);
            self.sending_paused_until = None;
        }
    }

    /// Notes that some writes could be neither sent nor spooled.
    pub(crate) fn pause_sending(&mut self, now: Instant) {
        self.sending_paused_until = Some(now + SEND_RETRY_PAUSE);
    }

    /// Returns true if writes must not be sent again at `now`.
    pub(crate) fn are_paused(&self, now: Instant) -> bool {
        self.sending_paused_until.is_some_and(|until| now < until)
    }

    /// Adds a write that `identity` acknowledged.
    pub(crate) fn push(&mut self, identity: Option<&str>, write: HeldWrite) {
        if self.writes.is_empty() {
            self.identity = identity.map(str::to_owned);
        } else if self.identity.as_deref() != identity {
            // The writes are from two servers, so that neither identity is sufficient.
            self.identity = None;
        }
        self.unstored += 1;
        self.writes.push(HeldWrite { is_stored: false, ..write });
    }

    /// Takes all writes.
    pub(crate) fn take(&mut self) -> Vec<HeldWrite> {
        self.unstored = 0;
        mem::take(&mut self.writes)
    }

    /// Puts back writes that were taken.
    pub(crate) fn put_back(&mut self, writes: Vec<HeldWrite>) {
        self.unstored = writes.iter().filter(|write| !write.is_stored).count();
        self.writes = writes;
    }

    /// Forgets the writes that were acknowledged before `oldest_kept`.
    pub(crate) fn forget_before(&mut self, oldest_kept: Timestamp) {
        let mut writes = self.take();
        writes.retain(|write| write.acknowledged_at >= oldest_kept);
        self.put_back(writes);
    }

    /// Returns true if writes must be stored at `now`.
    pub(crate) fn must_store(&self, now: Instant) -> bool {
        self.unstored > 0 && self.paused_until.is_none_or(|until| now >= until)
    }

    pub(crate) fn are_stored(&self) -> bool {
        self.unstored == 0
    }

    /// Stores the next piece of the writes that are not on disk yet.
    ///
    /// # Errors
    /// Fails if there is no space for them, or if the disk fails.
    pub(crate) async fn store(
        &mut self,
        spool: &Spool,
        shard: Shard,
        piece: Piece,
    ) -> Result<(), SpoolError> {
        let indexes = self.next_piece(piece);
        let write = |index: &usize| self.writes[*index].clone().into_parts();
        let writes = indexes.iter().map(write).collect();
        // If slots have moved or counts fell, the identity does not tell whether writes were lost.
        let identity = self.identity.clone().filter(|_| self.doubt != Doubt::Certain);
        spool.hold(HeldOnDisk { shard: shard.0, identity, writes }).await?;
        self.unstored -= indexes.len();
        for index in indexes {
            self.writes[index].is_stored = true;
        }
        Ok(())
    }

    /// Returns the indexes of the next writes to store, oldest first.
    fn next_piece(&self, piece: Piece) -> Vec<usize> {
        let mut bytes = 0;
        let mut is_next = |index: &usize| {
            let fits = bytes < piece.bytes;
            bytes += self.writes[*index].operation.bytes();
            fits
        };
        let unstored = (0..self.writes.len()).filter(|index| !self.writes[*index].is_stored);
        if piece.newest_first {
            let newest = unstored.rev().take(piece.operations).take_while(&mut is_next);
            let mut indexes: Vec<usize> = newest.collect();
            indexes.reverse();
            indexes
        } else {
            unstored.take(piece.operations).take_while(&mut is_next).collect()
        }
    }

    /// Notes that the disk had no space or failed. Returns true if that was not noted yet.
    pub(crate) fn pause_storing(&mut self, now: Instant) -> bool {
        self.paused_until.replace(now + STORE_RETRY_PAUSE).is_none()
    }

    /// Notes that none of the writes is on disk.
    pub(crate) fn mark_dropped(&mut self, now: Instant) {
        self.writes.iter_mut().for_each(|write| write.is_stored = false);
        self.unstored = self.writes.len();
        self.paused_until = Some(now + STORE_RETRY_PAUSE);
    }
}

/// Forgets the oldest held writes beyond `max_bytes`.
pub(crate) fn forget_oldest(held: &mut BTreeMap<Shard, HeldWrites>, max_bytes: usize) {
    let writes = held.values().flat_map(|held| &held.writes);
    let mut sizes: Vec<_> =
        writes.map(|write| (write.acknowledged_at, write.operation.bytes())).collect();
    sizes.sort_unstable_by_key(|(acknowledged_at, _)| Reverse(*acknowledged_at));
    let mut bytes = 0;
    let first_beyond = sizes.iter().find(|(_, size)| {
        bytes += size;
        bytes > max_bytes
    });
    if let Some((newest_forgotten, _)) = first_beyond {
        let oldest_kept = Timestamp::from_micros(newest_forgotten.as_micros() + 1);
        held.values_mut().for_each(|held| held.forget_before(oldest_kept));
    }
}

/// Removes the held writes of these shards from the disk.
pub(crate) async fn release_on_disk(spool: &Spool, shards: impl Iterator<Item = &Shard>) {
    let shards: Vec<u16> = shards.map(|shard| shard.0).collect();
    if !shards.is_empty()
        && let Err(error) = spool.release(shards).await
    {
        // They are sent again after the next start, which has no effect.
        tracing::warn!(%error, "held writes can't be removed from the disk");
    }
}

/// Reports that held writes can't be stored.
pub(crate) fn report_unstored(error: &SpoolError) {
    tracing::warn!(
        %error,
        "writes acknowledged before the outage are in memory only: if this process ends before \
         Redis is available, they are not sent again"
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        domain::{Actor, AnomalyKey, EventId, FixRemoval},
        spool::{SpoolConfig, SpoolWrite},
    };

    const SHARD: Shard = Shard(3);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
    }

    fn write(number: usize) -> HeldWrite {
        let id = EventId::parse(&number.to_string()).unwrap();
        let (key, actor) = (AnomalyKey::from_bits(7), Actor::default());
        let operation = Operation::Unmark(FixRemoval { key, id, at: at(0), reason: None, actor });
        HeldWrite::new((at(number as i64), operation))
    }

    fn spool(dir: &TempDir, max_bytes: u64) -> Spool {
        let config = SpoolConfig { max_bytes };
        Spool::open(dir.path(), config, Duration::from_secs(10), at(0), |_| {}).unwrap()
    }

    #[tokio::test]
    async fn held_writes_are_stored_in_pieces_and_found_by_the_next_process() {
        let dir = TempDir::new().unwrap();
        let store = spool(&dir, 1 << 20);
        let mut held = HeldWrites::default();
        for number in 0..2_500 {
            held.push(Some("server"), write(number));
        }
        let mut pieces = 0;
        while !held.are_stored() {
            held.store(&store, SHARD, LIVE).await.unwrap();
            pieces += 1;
        }
        assert_eq!(pieces, 3);
        drop(store);
        let found = spool(&dir, 1 << 20).held().await.unwrap();
        let [found] = <[HeldOnDisk; 1]>::try_from(found).unwrap();
        assert_eq!(found.shard, SHARD.0);
        let found = HeldWrites::of_earlier_run(found);
        assert_eq!(found.identity.as_deref(), Some("server"));
        assert_eq!(found.writes, held.writes);
        assert!(found.are_stored());
    }

    #[tokio::test]
    async fn held_writes_give_way_to_writes_that_wait() {
        let dir = TempDir::new().unwrap();
        let store = spool(&dir, 1_000);
        let mut held = HeldWrites::default();
        (0..5).for_each(|number| held.push(None, write(number)));
        held.store(&store, SHARD, LIVE).await.unwrap();
        let mut waiting = 0;
        let full = loop {
            let operation = write(waiting).operation;
            match store.append(vec![SpoolWrite { operation, maybe_sent: false }]).await {
                Ok(()) => waiting += 1,
                Err(full) => break SpoolError::from(full),
            }
        };
        assert_eq!(full, SpoolError::Full);
        assert_eq!(store.waiting(0, 100, usize::MAX).await.unwrap().len(), waiting);
        assert_eq!(store.held().await.unwrap(), []);
        assert_eq!(store.held_drops(), 1);
        let mut more = HeldWrites::default();
        (0..50).for_each(|number| more.push(None, write(number)));
        assert_eq!(more.store(&store, SHARD, LIVE).await, Err(SpoolError::Full));
    }

    #[tokio::test]
    async fn at_the_end_the_newest_are_stored_first_and_found_in_order() {
        let dir = TempDir::new().unwrap();
        let store = spool(&dir, 1 << 20);
        let mut held = HeldWrites::default();
        (0..2_500).for_each(|number| held.push(Some("server"), write(number)));
        held.store(&store, SHARD, CLOSING_SMALL).await.unwrap();
        let found = store.held().await.unwrap();
        assert_eq!(found[0].writes.last(), Some(&write(2_499).into_parts()));
        while !held.are_stored() {
            held.store(&store, SHARD, CLOSING_SMALL).await.unwrap();
        }
        let found = store.held().await.unwrap().pop().unwrap();
        assert_eq!(HeldWrites::of_earlier_run(found).writes, held.writes);

        let mut all_at_once = HeldWrites::default();
        (0..2_500).for_each(|number| all_at_once.push(Some("server"), write(number)));
        all_at_once.store(&store, Shard(4), CLOSING).await.unwrap();
        assert!(all_at_once.are_stored());
    }

    #[tokio::test]
    async fn what_the_disk_has_dropped_is_stored_again_after_a_pause() {
        let dir = TempDir::new().unwrap();
        let store = spool(&dir, 1_000);
        let mut held = HeldWrites::default();
        (0..5).for_each(|number| held.push(None, write(number)));
        held.store(&store, SHARD, LIVE).await.unwrap();
        let now = Instant::now();
        assert!(held.are_stored() && !held.must_store(now));
        held.mark_dropped(now);
        assert!(!held.must_store(now) && held.must_store(now + STORE_RETRY_PAUSE));
        assert!(!held.pause_storing(now), "it was reported before");
    }

    #[tokio::test]
    async fn a_doubt_that_is_certain_is_kept_for_the_next_process() {
        let dir = TempDir::new().unwrap();
        let store = spool(&dir, 1 << 20);
        let mut held = HeldWrites::default();
        held.push(Some("server"), write(1));
        held.store(&store, SHARD, LIVE).await.unwrap();
        held.doubt = Doubt::Certain;
        held.store(&store, SHARD, CLOSING).await.unwrap();
        let found = store.held().await.unwrap().pop().unwrap();
        assert_eq!(found.identity, None);
        assert_eq!(found.writes, [write(1).into_parts()]);
    }

    #[test]
    fn writes_of_two_servers_have_no_identity() {
        let mut held = HeldWrites::default();
        held.push(Some("a"), write(1));
        assert_eq!(held.identity.as_deref(), Some("a"));
        held.push(Some("b"), write(2));
        assert_eq!(held.identity, None);
    }
}
