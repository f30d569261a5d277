//! The writes that a shard had acknowledged last when it became unavailable. They are held apart,
//! because writes of other shards would push them out of the buffer, and on disk, because the
//! process may end before the shard answers again.

use std::mem;

use crate::{
    domain::{Operation, Timestamp},
    spool::{HeldOnDisk, Spool, SpoolError},
    store::Shard,
};

/// Maximum number and approximate size of the writes that are stored with one fsync: writes that
/// callers wait for are stored in between.
const PIECE_OPERATIONS: usize = 1_000;
const PIECE_BYTES: usize = 256 << 10;

/// How likely the store has forgotten writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Doubt {
    /// Nothing speaks for it.
    #[default]
    None,
    /// It has, unless the identity of its server is as before.
    Suspected,
    Certain,
}

/// The held writes of one shard.
#[derive(Debug, Default)]
pub(crate) struct HeldWrites {
    pub(crate) writes: Vec<HeldWrite>,
    pub(crate) doubt: Doubt,
    /// The identity of the server that has acknowledged them; `None` where it is not known.
    pub(crate) identity: Option<String>,
    /// The number of `writes` from the front that are on disk.
    stored: usize,
}

/// An acknowledged write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldWrite {
    pub(crate) acknowledged_at: Timestamp,
    pub(crate) operation: Operation,
}

impl HeldWrites {
    /// Holds nothing yet.
    pub(crate) fn of(identity: Option<String>) -> Self {
        Self { identity, ..Self::default() }
    }

    /// The writes that an earlier process has left on disk.
    pub(crate) fn of_earlier_run(held: HeldOnDisk) -> Self {
        let write = |(acknowledged_at, operation)| HeldWrite { acknowledged_at, operation };
        let writes: Vec<HeldWrite> = held.writes.into_iter().map(write).collect();
        let (doubt, stored) = (Doubt::Suspected, writes.len());
        Self { writes, doubt, identity: held.identity, stored }
    }

    /// Adds a write that `identity` has acknowledged.
    pub(crate) fn push(&mut self, identity: Option<&str>, write: HeldWrite) {
        if self.writes.is_empty() {
            self.identity = identity.map(str::to_owned);
        } else if self.identity.as_deref() != identity {
            // Of two servers: neither identity says enough.
            self.identity = None;
        }
        self.writes.push(write);
    }

    /// Takes those of the writes that are not `kept`.
    pub(crate) fn take_unless(&mut self, kept: impl Fn(&HeldWrite) -> bool) -> Vec<HeldWrite> {
        let stored = mem::take(&mut self.stored);
        let mut taken = Vec::new();
        for (index, write) in mem::take(&mut self.writes).into_iter().enumerate() {
            if kept(&write) {
                self.stored += usize::from(index < stored);
                self.writes.push(write);
            } else {
                taken.push(write);
            }
        }
        taken
    }

    pub(crate) fn are_stored(&self) -> bool {
        self.stored >= self.writes.len()
    }

    /// Stores the next piece of the writes that are not on disk.
    pub(crate) async fn store_piece(
        &mut self,
        spool: &Spool,
        shard: Shard,
    ) -> Result<(), SpoolError> {
        let mut bytes = 0;
        let piece: Vec<_> = self.writes[self.stored..]
            .iter()
            .take(PIECE_OPERATIONS)
            .take_while(|write| {
                let fits = bytes < PIECE_BYTES;
                bytes += approximate_bytes(&write.operation);
                fits
            })
            .map(|write| (write.acknowledged_at, write.operation.clone()))
            .collect();
        let count = piece.len();
        let identity = self.identity.clone();
        spool.hold(HeldOnDisk { shard: shard.0, identity, writes: piece }).await?;
        self.stored += count;
        Ok(())
    }

    /// Gives up storing what is not on disk.
    pub(crate) fn give_up_storing(&mut self) {
        self.stored = self.writes.len();
    }
}

fn approximate_bytes(operation: &Operation) -> usize {
    let text = match operation {
        Operation::Occurrence(occurrence) => occurrence.signature_json.bytes(),
        Operation::Mark(mark) => mark.description.len(),
        Operation::Repair(_) | Operation::Unmark(_) => 0,
    };
    text + 256
}

#[cfg(test)]
mod tests {
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
        let operation = Operation::Unmark(FixRemoval { key, id, at: at(0), actor });
        HeldWrite { acknowledged_at: at(number as i64), operation }
    }

    fn spool(dir: &TempDir, max_bytes: u64) -> Spool {
        Spool::open(dir.path(), SpoolConfig { max_bytes }, at(0), |_| {}).unwrap()
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
            held.store_piece(&store, SHARD).await.unwrap();
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
        held.store_piece(&store, SHARD).await.unwrap();
        let mut waiting = 0;
        let full = loop {
            let operation = write(waiting).operation;
            match store.append(vec![SpoolWrite { operation, maybe_sent: false }]).await {
                Ok(()) => waiting += 1,
                Err(full) => break full,
            }
        };
        assert_eq!(full, SpoolError::Full);
        assert_eq!(store.waiting(0, 100).await.unwrap().len(), waiting);
        assert_eq!(store.held().await.unwrap(), []);
        let mut more = HeldWrites::default();
        (0..50).for_each(|number| more.push(None, write(number)));
        assert_eq!(more.store_piece(&store, SHARD).await, Err(SpoolError::Full));
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
