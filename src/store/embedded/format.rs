//! The tables of the embedded store's file, their verification, and the conversion of the tables
//! that commit 8c08e13 wrote.
//!
//! A program of that commit would treat a file without its table `anomalies_v2` as empty. So every
//! file has a table of this name with another type of values: redb refuses to open it as the old
//! one, and the old program refuses the file.

use std::ops::RangeInclusive;

use redb::{Database, Error, Key, ReadableTable as _, Table, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    anomaly::{Anomaly, AnomalyV2},
    audit_v1::AuditEntryV1,
    error::FileError,
    journal::{JournalRow, JournalRowV1},
    journal_file::FramedRow,
    row::{self, AnomalyRow, AnomalyRows, Kind},
};
use crate::{
    domain::{AUDIT_ENTRIES, AnomalyKey, AuditEntry},
    redb_file::table_names,
};

/// A table from an anomaly's key to its [`AnomalyRow`].
pub(super) const ANOMALIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("anomalies");
/// A table from an anomaly's key to its [`row::SignatureRow`], the object of the first post. It has
/// a row of its own, because it never changes and is not kept in memory.
pub(super) const SIGNATURES: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("signatures_v1");
/// A table from an [`AuditKey`] to its [`AuditEntry`]. It is only on disk, because entries are few
/// and rarely read.
pub(super) const AUDIT: TableDefinition<'_, AuditKey, &[u8]> = TableDefinition::new("audit");
/// A table from a sequence to its [`JournalRow`]. The newest rows are in a file of their own
/// (`journal_file.rs`).
pub(super) const JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal");

/// Nothing → the id of that file, while it is in use.
const JOURNAL_FILE: TableDefinition<'_, (), u64> = TableDefinition::new("journal_file");

/// The sequence of a row of the journal → the limits by which this one and the next were written:
/// how many events are kept exactly, and how many ids of operations are remembered.
pub(super) const LIMITS: TableDefinition<'_, u64, (u32, u32)> = TableDefinition::new("limits");

/// A table of rows.
pub(super) type Rows<'a, K> = TableDefinition<'a, K, &'static [u8]>;

/// The key of an anomaly, the sequence in the journal, and the index in the batch.
pub(super) type AuditKey = (u64, u64, u32);

/// Prevents a program of commit 8c08e13 from opening the file.
const BARRIER: TableDefinition<'_, &str, &str> = TableDefinition::new("anomalies_v2");

/// The tables of commit 8c08e13, whose rows have no version.
pub(super) const OLD_ANOMALIES: TableDefinition<'_, u64, &[u8]> =
    TableDefinition::new("anomalies_v2");
pub(super) const OLD_AUDIT: TableDefinition<'_, AuditKey, &[u8]> = TableDefinition::new("audit_v1");
pub(super) const OLD_JOURNAL: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("journal_v1");

/// The sequences of a file's journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sequences {
    /// The sequence of its oldest row.
    pub(super) oldest: u64,
    /// The sequence of its next row.
    pub(super) next: u64,
    /// The id of the file with its newest rows, while that is in use.
    pub(super) file_id: Option<u64>,
}

/// Creates the tables of an empty file, converts those of commit 8c08e13, and returns the sequences
/// of the journal. All of it is one transaction, and nothing changes if it fails.
pub(super) fn prepare(database: &Database) -> Result<Result<Sequences, FileError>, Error> {
    let transaction = database.begin_write()?;
    let prepared = prepare_tables(&transaction);
    match prepared {
        Ok(sequences) => {
            transaction.commit()?;
            Ok(Ok(sequences))
        }
        Err(FileError::Database(fault)) => Err(fault),
        Err(fault) => Ok(Err(fault)),
    }
}

fn prepare_tables(transaction: &WriteTransaction) -> Result<Sequences, FileError> {
    let tables = table_names(transaction)?;
    let has = |name: &str| tables.iter().any(|table| table == name);
    if has("anomalies") {
        verify_unread(transaction)?;
    } else if has("anomalies_v2") {
        convert(transaction)?;
    } else if !tables.is_empty() {
        return Err(FileError::UnknownFormat { tables });
    }
    open(transaction, BARRIER)?;
    open(transaction, ANOMALIES)?;
    open(transaction, SIGNATURES)?;
    open(transaction, AUDIT)?;
    open(transaction, LIMITS)?;
    let journal = transaction.open_table(JOURNAL).map_err(Error::from)?;
    let oldest = journal.first().map_err(Error::from)?.map(|(sequence, _)| sequence.value());
    let last = journal.last().map_err(Error::from)?.map(|(sequence, _)| sequence.value());
    let file = transaction.open_table(JOURNAL_FILE).map_err(Error::from)?;
    let file_id = file.get(()).map_err(Error::from)?.map(|id| id.value());
    let (oldest, next) = (oldest.unwrap_or(1), last.map_or(1, |last| last + 1));
    Ok(Sequences { oldest, next, file_id })
}

fn open<K: Key + 'static, V: redb::Value + 'static>(
    transaction: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), Error> {
    transaction.open_table(table)?;
    Ok(())
}

/// Verifies the rows that a start does not read. Anomalies and the journal are read at every start,
/// which fails if they are damaged.
fn verify_unread(transaction: &WriteTransaction) -> Result<(), FileError> {
    let audit = transaction.open_table(AUDIT).map_err(Error::from)?;
    for entry in audit.iter().map_err(Error::from)? {
        let (key, entry) = entry.map_err(Error::from)?;
        row::decode_audit(&key.value(), entry.value())?;
    }
    let signatures = transaction.open_table(SIGNATURES).map_err(Error::from)?;
    for entry in signatures.iter().map_err(Error::from)? {
        let (key, signature) = entry.map_err(Error::from)?;
        row::decode_signature(key.value(), signature.value())?;
    }
    Ok(())
}

fn convert(transaction: &WriteTransaction) -> Result<(), FileError> {
    tracing::info!("converting the embedded store's file to this version's format");
    let of_anomaly = |row: AnomalyRow<AnomalyV2>| AnomalyRow::<Anomaly>::from(row);
    let anomalies =
        convert_table(transaction, Kind::Anomaly, (OLD_ANOMALIES, ANOMALIES), of_anomaly)?;
    let of_journal = |row: JournalRowV1| JournalRow::from(row);
    let journal = convert_table(transaction, Kind::Journal, (OLD_JOURNAL, JOURNAL), of_journal)?;
    let of_audit = |entry: AuditEntryV1| AuditEntry::from(entry);
    convert_table(transaction, Kind::Audit, (OLD_AUDIT, AUDIT), of_audit)?;
    tracing::info!(anomalies, journal, "converted the embedded store's file");
    Ok(())
}

/// Moves the rows of a table to a new one, each in a frame. They are moved one by one, because
/// there may be a million, and a damaged one must fail before anything changes. Returns their
/// number.
fn convert_table<K, Old, New>(
    transaction: &WriteTransaction,
    kind: Kind,
    (old, new): (Rows<'_, K>, Rows<'_, K>),
    convert: impl Fn(Old) -> New,
) -> Result<u64, FileError>
where
    K: Key + 'static,
    for<'k> K::SelfType<'k>: Serialize,
    Old: DeserializeOwned,
    New: Serialize,
{
    let mut count = 0;
    {
        let old = transaction.open_table(old).map_err(Error::from)?;
        let mut new = transaction.open_table(new).map_err(Error::from)?;
        for entry in old.iter().map_err(Error::from)? {
            let (key, value) = entry.map_err(Error::from)?;
            let value = convert(row::whole(value.value())?);
            let row = row::encode(kind, key.value(), &value)?;
            new.insert(key.value(), row.as_slice()).map_err(Error::from)?;
            count += 1;
        }
    }
    transaction.delete_table(old).map_err(Error::from)?;
    Ok(count)
}

/// Returns the range of keys of an anomaly's entries in the audit.
pub(super) fn audit_of(key: u64) -> RangeInclusive<AuditKey> {
    (key, 0, 0)..=(key, u64::MAX, u32::MAX)
}

/// Notes the id of the file with the journal's newest rows, or that none is in use.
pub(super) fn note_journal_file(
    transaction: &WriteTransaction,
    id: Option<u64>,
) -> Result<(), Error> {
    let mut file = transaction.open_table(JOURNAL_FILE)?;
    match id {
        Some(id) => file.insert((), id)?,
        None => file.remove(())?,
    };
    Ok(())
}

/// Adds rows to the journal.
pub(super) fn insert_journal(
    transaction: &WriteTransaction,
    rows: &[FramedRow],
) -> Result<(), Error> {
    let mut journal = transaction.open_table(JOURNAL)?;
    for (sequence, row) in rows {
        journal.insert(sequence, row.as_slice())?;
    }
    Ok(())
}

/// Adds entries to the audits of anomalies, which keep their newest.
pub(super) fn insert_audit(
    transaction: &WriteTransaction,
    entries: &[(AuditKey, Vec<u8>)],
) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut audit = transaction.open_table(AUDIT)?;
    for (key, entry) in entries {
        audit.insert(key, entry.as_slice())?;
        trim_audit(&mut audit, key.0)?;
    }
    Ok(())
}

/// Writes rows of anomalies, and their signatures.
pub(super) fn insert(transaction: &WriteTransaction, rows: &AnomalyRows) -> Result<(), Error> {
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    for (key, row) in &rows.rows {
        anomalies.insert(key.to_bits(), row.as_slice())?;
    }
    let mut signatures = transaction.open_table(SIGNATURES)?;
    for (key, row) in &rows.signatures {
        signatures.insert(key.to_bits(), row.as_slice())?;
    }
    Ok(())
}

/// Removes the rows of anomalies, with their signatures and audits.
pub(super) fn remove(transaction: &WriteTransaction, keys: &[AnomalyKey]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let mut anomalies = transaction.open_table(ANOMALIES)?;
    let mut signatures = transaction.open_table(SIGNATURES)?;
    let mut audit = transaction.open_table(AUDIT)?;
    for key in keys {
        anomalies.remove(key.to_bits())?;
        signatures.remove(key.to_bits())?;
        audit.retain_in(audit_of(key.to_bits()), |_, _| false)?;
    }
    Ok(())
}

/// Removes all entries of an anomaly except the newest ones.
fn trim_audit(audit: &mut Table<'_, AuditKey, &'static [u8]>, key: u64) -> Result<(), Error> {
    let oldest = audit.range(audit_of(key))?.rev().nth(AUDIT_ENTRIES).transpose()?;
    let Some(oldest) = oldest.map(|(key, _)| key.value()) else { return Ok(()) };
    audit.retain_in((key, 0, 0)..=oldest, |_, _| false)?;
    Ok(())
}
