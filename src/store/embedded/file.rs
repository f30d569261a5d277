//! The files of the embedded store: redb's, with a row for each anomaly as of some sequence of the
//! journal, and the journal of batches since, whose newest rows are in a file of their own. Each
//! change is durable when it returns.

use std::path::{Path, PathBuf};

use redb::{
    Database, Error, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::{
    acknowledged::Acknowledged,
    anomaly::Anomaly,
    error::{FileError, JournalFault, OpenError},
    format::{
        ANOMALIES, AUDIT, AuditKey, JOURNAL, SIGNATURES, Sequences, audit_of, insert, insert_audit,
        insert_journal, note_journal_file, remove,
    },
    journal::{Change, JournalRow, ShouldHold},
    journal_file::{FramedRow, JournalFile},
    row::{self, AnomalyRow, AnomalyRows, Kind, encode},
};
use crate::{
    domain::{AnomalyKey, AuditEntry},
    redb_file::{Absence, OpenedFile, without_panic},
    store::StoreSize,
};

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "anomalies.redb";

/// The open files.
#[derive(Debug)]
pub(super) struct StoreFile {
    pub(super) database: Database,
    pub(super) opened: OpenedFile,
    pub(super) sequences: Sequences,
    /// Absent in a file that is not the store's yet: redb gets all rows then.
    pub(super) journal: Option<JournalFile>,
    /// The newest rows of the journal, which redb has not got yet.
    pub(super) unmoved: Vec<FramedRow>,
    pub(super) acknowledged: Acknowledged,
}

impl StoreFile {
    /// Returns the file as identified at its path.
    pub(super) fn opened(&self) -> &OpenedFile {
        &self.opened
    }

    /// Checks that the journal's file is at its path.
    pub(super) fn verify_journal(&self) -> Result<(), Absence> {
        self.journal.as_ref().map_or(Ok(()), JournalFile::verify)
    }

    /// Returns the path of the store's file.
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE_NAME)
    }

    /// Returns the error of a file in `data_dir` that was opened but can't be read.
    pub(super) fn unreadable(data_dir: &Path, fault: FileError) -> OpenError {
        OpenError::of_file(&Self::path(data_dir), fault)
    }

    /// Closes the files so that redb's is complete by itself: a copy of it is a backup.
    pub(super) fn close(mut self) -> Result<(), FileError> {
        let Some(journal) = self.journal.take() else { return Ok(()) };
        self.transact(|transaction| {
            insert_journal(transaction, &self.unmoved)?;
            note_journal_file(transaction, None)
        })?;
        journal.remove();
        Ok(())
    }

    /// Closes a failed file, on which redb may panic again.
    pub(super) fn discard(self) {
        let _ = without_panic(|| drop(self));
    }

    /// Calls `take` with every anomaly's row.
    pub(super) fn read_anomalies(
        &self,
        mut take: impl FnMut(AnomalyKey, AnomalyRow<Anomaly>),
    ) -> Result<(), FileError> {
        self.read(ANOMALIES, |key, bytes| {
            let row = row::decode_anomaly(key, bytes)?;
            // The next rows of the journal would be taken for older than it.
            if row.as_of > self.last_sequence() {
                return Err(JournalFault::Behind.into());
            }
            take(AnomalyKey::from_bits(key), row);
            Ok(())
        })
    }

    /// Calls `take` with every row of the journal, its sequence and its size in bytes, in order.
    pub(super) fn read_journal(
        &self,
        mut take: impl FnMut(u64, usize, JournalRow),
    ) -> Result<(), FileError> {
        let mut take_row = |sequence, bytes: &[u8]| -> Result<(), FileError> {
            take(sequence, bytes.len(), row::decode_journal(sequence, bytes)?);
            Ok(())
        };
        self.read(JOURNAL, &mut take_row)?;
        self.unmoved.iter().try_for_each(|(sequence, bytes)| take_row(*sequence, bytes.as_slice()))
    }

    /// Calls `take` with every anomaly's signature, in the order of the keys.
    pub(super) fn read_signatures(
        &self,
        mut take: impl FnMut(AnomalyKey, &str),
    ) -> Result<(), FileError> {
        self.read(SIGNATURES, |key, bytes| {
            take(AnomalyKey::from_bits(key), &row::decode_signature(key, bytes)?);
            Ok(())
        })
    }

    /// Adds a row to the journal, and its entries to the audit. They are durable when this returns.
    /// Returns the row's size in bytes.
    pub(super) fn append(
        &mut self,
        row: &JournalRow,
        audit: &[(AnomalyKey, AuditEntry)],
    ) -> Result<usize, FileError> {
        let sequence = self.sequences.next;
        let bytes = encode(Kind::Journal, sequence, row)?;
        let length = bytes.len();
        let forgotten: Vec<_> = row.changes.iter().filter_map(Change::forgotten).collect();
        let is_plain = audit.is_empty() && forgotten.is_empty();
        match self.journal.as_mut().filter(|journal| is_plain && journal.has_room_for(&bytes)) {
            Some(journal) => {
                journal.append(&bytes).map_err(Error::from)?;
                self.unmoved.push((sequence, bytes));
            }
            None => {
                self.unmoved.push((sequence, bytes));
                self.move_rows(&forgotten, audit)?;
            }
        }
        self.acknowledged.note(sequence);
        self.sequences.next += 1;
        Ok(length)
    }

    /// Moves the newest rows of the journal to redb, with what the last one changes besides.
    fn move_rows(
        &mut self,
        forgotten: &[AnomalyKey],
        audit: &[(AnomalyKey, AuditEntry)],
    ) -> Result<(), FileError> {
        let sequence = self.sequences.next;
        let mut entries = Vec::with_capacity(audit.len());
        for (index, (key, entry)) in (0_u32..).zip(audit) {
            let key = (key.to_bits(), sequence, index);
            entries.push((key, encode(Kind::Audit, key, entry)?));
        }
        self.transact(|transaction| {
            insert_journal(transaction, &self.unmoved)?;
            // Removed together with the change itself, because the journal is trimmed: remaining
            // rows would come back.
            remove(transaction, forgotten)?;
            insert_audit(transaction, &entries)
        })?;
        self.unmoved.clear();
        if let Some(journal) = &mut self.journal {
            journal.restart();
        }
        Ok(())
    }

    /// Returns the sequence of the journal's newest row; 0 before the first row.
    pub(super) fn last_sequence(&self) -> u64 {
        self.sequences.next - 1
    }

    /// Returns the expected content of the file for the journal's next row, given the size of the
    /// store.
    pub(super) fn should_hold(&self, size: StoreSize) -> ShouldHold {
        ShouldHold { oldest: self.sequences.oldest, anomalies: size.anomalies as u64 }
    }

    /// Writes anomalies' rows and their signatures.
    pub(super) fn write_anomalies(&self, rows: &AnomalyRows) -> Result<(), FileError> {
        self.transact(|transaction| insert(transaction, rows))
    }

    /// Writes entries of several audits.
    pub(super) fn write_audit(&self, entries: &[(AuditKey, AuditEntry)]) -> Result<(), FileError> {
        let row = |(key, entry): &(AuditKey, AuditEntry)| {
            encode(Kind::Audit, *key, entry).map(|row| (*key, row))
        };
        let rows = entries.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        self.transact(|transaction| {
            let mut audit = transaction.open_table(AUDIT)?;
            for (key, row) in &rows {
                audit.insert(key, row.as_slice())?;
            }
            Ok(())
        })
    }

    /// Makes the journal of a new file begin after a sequence.
    pub(super) fn continue_after(&mut self, sequence: u64) {
        let next = sequence + 1;
        self.sequences = Sequences { oldest: next, next, file_id: None };
    }

    /// Returns the object that made an anomaly known, as JSON.
    pub(super) fn signature_json(&self, key: AnomalyKey) -> Result<Option<String>, FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let signatures = transaction.open_table(SIGNATURES).map_err(Error::from)?;
            let row = signatures.get(key.to_bits()).map_err(Error::from)?;
            Ok(row.map(|row| row::decode_signature(key.to_bits(), row.value())).transpose()?)
        })
    }

    /// Returns the audit of an anomaly, newest first.
    pub(super) fn audit(&self, key: AnomalyKey) -> Result<Vec<AuditEntry>, FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let audit = transaction.open_table(AUDIT).map_err(Error::from)?;
            let mut entries = Vec::new();
            for row in audit.range(audit_of(key.to_bits())).map_err(Error::from)?.rev() {
                let (key, entry) = row.map_err(Error::from)?;
                entries.push(row::decode_audit(&key.value(), entry.value())?);
            }
            Ok(entries)
        })
    }

    /// Removes up to `limit` of the journal's oldest rows before `first_kept`. Returns true if
    /// there may be more. The newest row that redb has is always kept, because the next sequence
    /// follows from it.
    pub(super) fn trim_journal(
        &mut self,
        first_kept: u64,
        limit: usize,
    ) -> Result<bool, FileError> {
        let newest_moved = self.last_sequence() - self.unmoved.len() as u64;
        let first_kept = first_kept.min(newest_moved);
        let mut more = true;
        let mut removed = None;
        self.transact(|transaction| {
            let mut journal = transaction.open_table(JOURNAL)?;
            for _ in 0..limit {
                let oldest = journal.first()?.map(|(sequence, _)| sequence.value());
                let Some(oldest) = oldest.filter(|oldest| *oldest < first_kept) else {
                    more = false;
                    break;
                };
                journal.remove(oldest)?;
                removed = Some(oldest);
            }
            Ok(())
        })?;
        self.sequences.oldest = removed.map_or(self.sequences.oldest, |removed| removed + 1);
        Ok(more)
    }

    fn read(
        &self,
        table: TableDefinition<'_, u64, &[u8]>,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_read().map_err(Error::from)?;
            let table = transaction.open_table(table).map_err(Error::from)?;
            for entry in table.iter().map_err(Error::from)? {
                let (key, bytes) = entry.map_err(Error::from)?;
                take(key.value(), bytes.value())?;
            }
            Ok(())
        })
    }

    /// Makes a change of redb's file durable.
    pub(super) fn transact(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), Error>,
    ) -> Result<(), FileError> {
        unless_panicked(|| {
            let transaction = self.database.begin_write().map_err(Error::from)?;
            change(&transaction)?;
            // The default durability is immediate: this returns after the fsync.
            transaction.commit().map_err(Error::from)?;
            Ok(())
        })
    }
}

/// Runs a call of redb, which may panic on a page that was damaged after the file was verified.
/// After a panic, the file must be opened again.
pub(super) fn unless_panicked<T>(
    call: impl FnOnce() -> Result<T, FileError>,
) -> Result<T, FileError> {
    without_panic(call).unwrap_or(Err(FileError::Panicked))
}
