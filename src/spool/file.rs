//! The spool's redb file: operations that wait for the store, in order, those that the store has
//! rejected for good (`dead.rs`), and those that it had acknowledged last (`held.rs`). How it is
//! opened where it is damaged is in `opening.rs`.

use std::{io, path::Path};

use redb::{
    Database, Error, ReadTransaction, ReadableDatabase as _, ReadableTable as _, WriteTransaction,
};

use super::{
    contents::{
        COMMITS, FILE_ID, FileState, META, WAITING, make_room, mark_sent, meta, raise_settled,
        read, restore, verify_commits, verify_end,
    },
    dead::{self, DEAD, DeadLetter},
    error::{ReopenFault, SpoolError},
    held::{self, HELD, HELD_BY, HeldOnDisk},
    record::{NewerVersion, Place, SpoolWrite, decode, encode_letter, encode_waiting},
    salvage::Found,
    settled,
    settlement::{Rejection, Settlement, Spooled},
};
use crate::{
    commit_witness::CommitWitness,
    domain::Timestamp,
    redb_file::{Missing, OpenFault, OpenedFile, RedbFile, without_panic},
};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "spool.redb";
const PAGE_CACHE_BYTES: usize = 4 << 20;

/// The open file.
#[derive(Debug)]
pub(super) struct SpoolFile {
    database: Database,
    opened: OpenedFile,
    state: FileState,
    /// Absent while a new file is filled beside a damaged one.
    witness: Option<CommitWitness>,
}

/// A file that was read once.
pub(super) struct Opened {
    pub(super) file: SpoolFile,
    /// The sequence and the fault of each waiting record that can't be read.
    pub(super) damaged: Vec<(u64, String)>,
}

/// Why the file can't be used.
#[derive(Debug)]
pub(super) enum FileFault {
    Open(OpenFault),
    /// It is intact.
    Newer(NewerVersion),
}

/// The spool's file in `data_dir`.
pub(super) fn redb_file(data_dir: &Path) -> RedbFile {
    RedbFile::new(data_dir, FILE_NAME, PAGE_CACHE_BYTES).with_integrity_check()
}

fn witness_of(on_disk: &RedbFile, file_id: u64) -> CommitWitness {
    CommitWitness::open(&on_disk.path().with_extension("witness"), file_id)
}

impl SpoolFile {
    /// Opens the file. A new one gets the id `new_id`.
    pub(super) fn open(
        on_disk: &RedbFile,
        missing: Missing,
        new_id: u64,
    ) -> Result<Opened, FileFault> {
        let prepare = |database: &Database| {
            let file_id = meta(database, FILE_ID)?.unwrap_or(new_id);
            let witness = witness_of(on_disk, file_id);
            verify_commits(&witness, meta(database, COMMITS)?.unwrap_or(0))?;
            let verify = |state: &FileState| match witness.commits() {
                0 => verify_end(on_disk.path(), state),
                _ => Ok(()),
            };
            let contents = read(database, file_id, verify)?;
            Ok(contents.map(|(state, damaged)| (state, damaged, witness)))
        };
        let (database, prepared) = on_disk.open(missing, prepare).map_err(FileFault::Open)?;
        let (state, damaged, witness) = prepared.map_err(FileFault::Newer)?;
        let opened = OpenedFile::at(on_disk.path()).map_err(in_open)?;
        Ok(Opened { file: Self { database, opened, state, witness: Some(witness) }, damaged })
    }

    /// Creates a file that is to be filled beside a damaged one, whose witness stays as it is.
    pub(super) fn create_beside(on_disk: &RedbFile, new_id: u64) -> Result<Self, FileFault> {
        let prepare = |database: &Database| read(database, new_id, |_| Ok(()));
        let (database, prepared) =
            on_disk.open(Missing::Create, prepare).map_err(FileFault::Open)?;
        let (state, _) = prepared.map_err(FileFault::Newer)?;
        let opened = OpenedFile::at(on_disk.path()).map_err(in_open)?;
        Ok(Self { database, opened, state, witness: None })
    }

    /// Notes that the file is in its place.
    pub(super) fn use_witness(&mut self, on_disk: &RedbFile) {
        let witness = witness_of(on_disk, self.state.file_id);
        witness.note(self.state.commits);
        self.witness = Some(witness);
        self.opened.note_renamed(on_disk.path());
    }

    /// The file, as it is known by its path.
    pub(super) fn opened(&self) -> &OpenedFile {
        &self.opened
    }

    /// Opens the file again after a fault of the disk, just as it is.
    pub(super) fn reopen(data_dir: &Path, before: FileState) -> Result<Self, ReopenFault> {
        let opened = Self::open(&redb_file(data_dir), Missing::Fail, before.file_id);
        let mut file = match opened {
            Ok(opened) => opened.file,
            Err(FileFault::Open(OpenFault::Damaged(damage))) => {
                let is_lasting = matches!(damage, Error::Corrupted(_));
                return Err(ReopenFault { error: damaged_in_use(&damage.to_string()), is_lasting });
            }
            Err(FileFault::Open(fault)) => return Err(SpoolError::Failed(fault.to_string()).into()),
            Err(FileFault::Newer(newer)) => {
                return Err(SpoolError::Failed(newer.to_string()).into());
            }
        };
        file.state.sent_before = before.sent_before;
        // What was given out to an append that has failed may be in the file too.
        file.state.next_sequence = file.state.next_sequence.max(before.next_sequence);
        Ok(file)
    }

    pub(super) fn state(&self) -> FileState {
        self.state
    }

    /// Adds operations at the end. They are durable when this returns. Held writes and dead letters
    /// give way to them.
    ///
    /// # Errors
    /// If the waiting operations would take more than `max_bytes`.
    pub(super) fn append(
        &mut self,
        writes: &[SpoolWrite],
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for write in writes {
                let record = encode_waiting(state.next_position(), write)?;
                state.usage.waiting += record.len() as u64;
                if state.usage.waiting > max_bytes {
                    return Err(SpoolError::Full);
                }
                waiting.insert(state.next_sequence, record.as_slice())?;
                state.next_sequence += 1;
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })
    }

    /// Adds what was salvaged from a damaged file, each under its own sequence. All of them are
    /// below `next_sequence`. What is settled is not known before the last of them.
    pub(super) fn restore(
        &mut self,
        found: &[Found],
        next_sequence: u64,
    ) -> Result<(), SpoolError> {
        self.commit(|transaction, state| {
            state.next_sequence = state.next_sequence.max(next_sequence);
            found.iter().try_for_each(|found| restore(transaction, state, found))
        })
    }

    /// Notes what is settled, after the last of [`SpoolFile::restore`].
    pub(super) fn end_restoring(&mut self) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            dead::drop_oldest(transaction, &mut state.usage, u64::MAX)
        })
    }

    /// Returns up to `limit` waiting operations from `first` on, oldest first. Their records have
    /// `max_bytes` together, except that there is always one if any waits.
    pub(super) fn waiting(
        &self,
        first: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Spooled>, SpoolError> {
        self.read(|transaction| {
            let table = transaction.open_table(WAITING)?;
            let (mut found, mut bytes) = (Vec::new(), 0);
            for entry in table.range(first..)?.take(limit) {
                let (sequence, record) = entry?;
                let record = record.value();
                bytes += record.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                let SpoolWrite { operation, maybe_sent } = decode(record)?;
                let sequence = sequence.value();
                let maybe_sent = maybe_sent || sequence <= self.state.sent_before;
                found.push(Spooled { sequence, bytes: record.len(), operation, maybe_sent });
            }
            Ok(found)
        })
    }

    /// Removes the waiting operations from the sequence `first` on.
    pub(super) fn remove_from(&mut self, first: u64) -> Result<(), SpoolError> {
        let applied = self.read(|transaction| {
            let table = transaction.open_table(WAITING)?;
            let sequences = table.range(first..)?.map(|entry| Ok(entry?.0.value()));
            sequences.collect::<Result<Vec<_>, SpoolError>>()
        })?;
        let settlement = Settlement { applied, ..Settlement::default() };
        self.settle(&settlement, Timestamp::MIN, u64::MAX).map(|_| ())
    }

    /// Makes a commit that changes nothing.
    pub(super) fn prove_writable(&mut self) -> Result<(), SpoolError> {
        self.transact(|_, _| Ok(()))
    }

    /// Makes every operation up to `sequence` count as sent, for a later process.
    pub(super) fn mark_sent(&mut self, sequence: u64) -> Result<(), SpoolError> {
        if self.state.counts_as_sent(sequence) {
            return Ok(());
        }
        self.transact(|transaction, state| mark_sent(transaction, state, sequence))
    }

    /// Removes the operations that were applied, and moves the rejected ones to the dead letters.
    /// Returns the sequence up to which operations count as sent.
    pub(super) fn settle(
        &mut self,
        settlement: &Settlement,
        now: Timestamp,
        max_bytes: u64,
    ) -> Result<u64, SpoolError> {
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in &settlement.applied {
                let bytes = waiting.remove(sequence)?.map_or(0, |record| record.value().len());
                state.usage.waiting -= bytes as u64;
            }
            for Rejection { sequence, reason, maybe_sent } in &settlement.rejected {
                let Some(record) = waiting.remove(sequence)? else { continue };
                let record = record.value();
                state.usage.waiting -= record.len() as u64;
                let (reason, letter) = match decode(record) {
                    Ok(mut write) => {
                        write.maybe_sent = *maybe_sent;
                        ("", encode_letter(*sequence, now, reason, &write)?)
                    }
                    Err(_) => (reason.as_str(), record.to_vec()),
                };
                dead::bury(transaction, &mut state.usage, now, (*sequence, reason, &letter))?;
            }
            let first = waiting.first()?.map(|(sequence, _)| sequence.value());
            let rejected = settlement.rejected.iter().map(|rejection| rejection.sequence);
            let left = settlement.applied.iter().copied().chain(rejected);
            let out_of_order = left.filter(|left| first.is_some_and(|first| *left > first));
            settled::insert(transaction, Place::Queue, out_of_order)?;
            if let Some((first, limit, max_bytes)) = settlement.next_page {
                let (mut last, mut bytes) = (None, 0);
                for entry in waiting.range(first..)?.take(limit) {
                    let (sequence, record) = entry?;
                    bytes += record.value().len();
                    if bytes > max_bytes && last.is_some() {
                        break;
                    }
                    last = Some(sequence.value());
                }
                if let Some(last) = last {
                    mark_sent(transaction, state, last)?;
                }
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })?;
        Ok(self.state.sent_up_to)
    }

    /// Adds dead letters that have never waited.
    pub(super) fn bury(
        &mut self,
        rejected: &[(SpoolWrite, String)],
        now: Timestamp,
        max_bytes: u64,
    ) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            for (write, reason) in rejected {
                let sequence = state.next_sequence;
                state.next_sequence += 1;
                let record = encode_letter(sequence, now, reason, write)?;
                dead::bury(transaction, &mut state.usage, now, (sequence, "", &record))?;
            }
            make_room(transaction, &mut state.usage, max_bytes)
        })
    }

    /// Returns up to `limit` dead letters from the sequence `first` on, oldest first. Their records
    /// have `max_bytes` together, except that there is always one if there is any.
    pub(super) fn dead_letters(
        &self,
        first: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<DeadLetter>, SpoolError> {
        self.read(|transaction| {
            let (mut found, mut bytes) = (Vec::new(), 0);
            for entry in transaction.open_table(DEAD)?.range(first..)?.take(limit) {
                let (sequence, letter) = entry?;
                let (reason, record) = letter.value();
                bytes += record.len();
                if bytes > max_bytes && !found.is_empty() {
                    break;
                }
                found.push(dead::letter(sequence.value(), (reason, record)));
            }
            Ok(found)
        })
    }

    /// Returns which of these sequences are dead letters.
    pub(super) fn still_dead(&self, sequences: &[u64]) -> Result<Vec<u64>, SpoolError> {
        self.read(|transaction| {
            let table = transaction.open_table(DEAD)?;
            let mut dead = Vec::new();
            for sequence in sequences {
                if table.get(sequence)?.is_some() {
                    dead.push(*sequence);
                }
            }
            Ok(dead)
        })
    }

    pub(super) fn last_dead_letter(&self) -> Result<Option<u64>, SpoolError> {
        self.read(|transaction| {
            let table = transaction.open_table(DEAD)?;
            Ok(table.last()?.map(|(sequence, _)| sequence.value()))
        })
    }

    /// Puts dead letters back at the end of the queue. Returns which of these sequences there were.
    pub(super) fn revive_dead(
        &mut self,
        sequences: &[u64],
        max_bytes: u64,
    ) -> Result<Vec<u64>, SpoolError> {
        let mut revived = Vec::new();
        self.transact(|transaction, state| {
            let mut waiting = transaction.open_table(WAITING)?;
            for sequence in sequences {
                let Some(record) = dead::remove(transaction, &mut state.usage, *sequence)? else {
                    continue;
                };
                // A damaged record would only die again.
                let record = encode_waiting(state.next_position(), &decode(&record)?)?;
                state.usage.waiting += record.len() as u64;
                if state.usage.waiting > max_bytes {
                    return Err(SpoolError::Full);
                }
                waiting.insert(state.next_sequence, record.as_slice())?;
                state.next_sequence += 1;
                revived.push(*sequence);
            }
            Ok(())
        })?;
        Ok(revived)
    }

    /// Drops a dead letter. Returns false if there is none of this sequence.
    pub(super) fn drop_dead(&mut self, sequence: u64) -> Result<bool, SpoolError> {
        let mut dropped = false;
        self.transact(|transaction, state| {
            dropped = dead::remove(transaction, &mut state.usage, sequence)?.is_some();
            Ok(())
        })?;
        Ok(dropped)
    }

    /// Drops the dead letters that are too old.
    pub(super) fn expire_letters(&mut self, now: Timestamp) -> Result<(), SpoolError> {
        if self.state.usage.letters == 0 {
            return Ok(());
        }
        self.transact(|transaction, state| dead::expire(transaction, &mut state.usage, now))
    }

    /// Adds held writes.
    pub(super) fn hold(&mut self, held: &HeldOnDisk, max_bytes: u64) -> Result<(), SpoolError> {
        self.transact(|transaction, state| {
            held::add(transaction, &mut state.usage, max_bytes, held)
        })
    }

    /// Removes the held writes of these shards.
    pub(super) fn release(&mut self, shards: &[u16]) -> Result<(), SpoolError> {
        if self.state.usage.held == 0 {
            return Ok(());
        }
        self.transact(|transaction, state| {
            shards.iter().try_for_each(|shard| held::release(transaction, &mut state.usage, *shard))
        })
    }

    /// Returns the held writes of all shards.
    pub(super) fn held(&self) -> Result<Vec<HeldOnDisk>, SpoolError> {
        self.read(|transaction| {
            let mut found = Vec::<HeldOnDisk>::new();
            for entry in transaction.open_table(HELD)?.iter()? {
                let (key, row) = entry?;
                let (shard, _) = key.value();
                let (acknowledged_at, bytes) = row.value();
                let write = (Timestamp::from_micros(acknowledged_at), postcard::from_bytes(bytes)?);
                match found.last_mut() {
                    Some(last) if last.shard == shard => last.writes.push(write),
                    _ => found.push(HeldOnDisk { shard, identity: None, writes: vec![write] }),
                }
            }
            let held_by = transaction.open_table(HELD_BY)?;
            for held in &mut found {
                let identity = held_by.get(held.shard)?.map(|identity| identity.value().to_owned());
                held.identity = identity.filter(|identity| !identity.is_empty());
            }
            Ok(found)
        })
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        without_panic(|| read(&self.database.begin_read()?))
            .unwrap_or_else(|panic| Err(damaged_in_use(&panic)))
    }

    /// Makes a change, and notes up to where all is settled after it.
    fn transact(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &mut FileState) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        self.commit(|transaction, state| {
            change(transaction, state)?;
            raise_settled(transaction, state)
        })
    }

    /// Makes a change. Without a commit the state stays as it was, but for the sequences that were
    /// given out: their records may have come to disk.
    fn commit(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &mut FileState) -> Result<(), SpoolError>,
    ) -> Result<(), SpoolError> {
        let mut state = self.state;
        let committed = without_panic(|| {
            let transaction = self.database.begin_write()?;
            change(&transaction, &mut state)?;
            state.commits += 1;
            transaction.open_table(META)?.insert(COMMITS, state.commits)?;
            // The default durability is immediate: this returns after fsync.
            transaction.commit().map_err(|fault| SpoolError::from(fault).unconfirmed())
        });
        let committed = committed.unwrap_or_else(|panic| Err(damaged_in_use(&panic)));
        if committed.is_err() {
            self.state.next_sequence = state.next_sequence;
            return committed;
        }
        self.state = state;
        if let Some(witness) = &self.witness {
            witness.note(state.commits);
        }
        Ok(())
    }
}

/// The error of a page that is found damaged while the file is in use.
fn damaged_in_use(damage: &str) -> SpoolError {
    SpoolError::Failed(format!(
        "it is damaged ({damage}). Restart the service: it renames the file, and keeps all \
         readable records"
    ))
}

fn in_open(fault: io::Error) -> FileFault {
    FileFault::Open(OpenFault::Disk(fault))
}
