//! The rows of version 1 and of commit 8c08e13 in a damaged file. They have neither a frame, by
//! which they could be found, nor a checksum: redb reads them as far as possible, which is not at
//! all in a file that was not closed.

use std::path::Path;

use redb::{Builder, Error, Key, ReadOnlyDatabase, ReadableDatabase as _, ReadableTable as _};

use super::{
    anomaly::AnomalyV2,
    audit_v1::AuditEntryV1,
    file::unless_panicked,
    format::{ANOMALIES, AUDIT, JOURNAL, OLD_ANOMALIES, OLD_AUDIT, OLD_JOURNAL, Rows, SIGNATURES},
    journal::JournalRowV1,
    row::{AnomalyRow, SignatureRow, VERSION_1, decode_signature, whole},
    salvage::Salvage,
};
use crate::domain::AnomalyKey;

/// Adds the readable rows of these versions. Returns their number.
pub(super) fn add_to(salvage: &mut Salvage, file: &Path) -> u64 {
    let Ok(database) = unless_panicked(|| {
        Ok(Builder::new().set_cache_size(8 << 20).open_read_only(file).map_err(Error::from)?)
    }) else {
        return 0;
    };
    let mut found = 0;
    for (table, version) in [(ANOMALIES, Some(VERSION_1)), (OLD_ANOMALIES, None)] {
        for_each(&database, table, |key, row| {
            if let Some(Ok(row)) = value(row, version).map(whole::<AnomalyRow<AnomalyV2>>) {
                found += 1;
                salvage.anomalies.entry(AnomalyKey::from_bits(key)).or_insert_with(|| row.into());
            }
        });
    }
    for (table, version) in [(JOURNAL, Some(VERSION_1)), (OLD_JOURNAL, None)] {
        for_each(&database, table, |sequence, row| {
            if let Some(Ok(row)) = value(row, version).map(whole::<JournalRowV1>) {
                found += 1;
                salvage.journal.entry((sequence, 0)).or_insert_with(|| row.into());
            }
        });
    }
    for (table, version) in [(AUDIT, Some(VERSION_1)), (OLD_AUDIT, None)] {
        for_each(&database, table, |key, row| {
            if let Some(Ok(entry)) = value(row, version).map(whole::<AuditEntryV1>) {
                found += 1;
                salvage.audit.entry(key).or_insert_with(|| entry.into());
            }
        });
    }
    for_each(&database, SIGNATURES, |key, row| {
        if row.first() == Some(&b'{')
            && let Ok(json) = decode_signature(key, row)
        {
            found += 1;
            let row = SignatureRow { as_of: 0, json };
            salvage.signatures.entry(AnomalyKey::from_bits(key)).or_insert(row);
        }
    });
    found
}

/// Returns the value in a row of the version, or of commit 8c08e13, whose rows have no version.
fn value(row: &[u8], version: Option<u8>) -> Option<&[u8]> {
    match version {
        Some(version) => row.split_first().filter(|(first, _)| **first == version).map(|it| it.1),
        None => Some(row),
    }
}

/// Passes on the rows of a table, up to the first row that redb can't read.
fn for_each<K: Key + 'static>(
    database: &ReadOnlyDatabase,
    table: Rows<'_, K>,
    mut take: impl for<'k> FnMut(K::SelfType<'k>, &[u8]),
) {
    // An error here is the already known damage, or a missing table.
    let _ = unless_panicked(|| {
        let transaction = database.begin_read().map_err(Error::from)?;
        let table = transaction.open_table(table).map_err(Error::from)?;
        for entry in table.iter().map_err(Error::from)? {
            let (key, row) = entry.map_err(Error::from)?;
            take(key.value(), row.value());
        }
        Ok(())
    });
}
