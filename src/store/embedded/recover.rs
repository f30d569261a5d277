//! The recovery of a damaged file: renames it, and puts a new file with every intact row in its
//! place. The new file is complete before it gets the name, and the damaged file has another name
//! before it loses its own: so a recovery that is interrupted, or for which there is no space,
//! leaves everything as it was, and can be run again.

use std::{
    fmt,
    fs::{self, File, TryLockError},
    io,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use super::{
    acknowledged,
    error::{FileError, JournalFault, OpenError},
    file::StoreFile,
    format::AuditKey,
    journal::JournalRow,
    journal_file,
    limits::Limits,
    loading::Loading,
    old_rows,
    row::{AnomalyRows, Kind},
    salvage::{Salvage, SalvageError},
    state::State,
};
use crate::{
    domain::{AnomalyKey, Timestamp},
    redb_file::{ReadableFile, sync_folder},
    store::RecordingConfig,
};

/// Size of anomalies in bytes, and number of audit entries, that one transaction writes.
const TRANSACTION_BYTES: usize = 8 << 20;
const TRANSACTION_ENTRIES: usize = 10_000;

/// The outcome of a recovery.
#[derive(Debug)]
pub enum Recovery {
    /// The file is intact, and was not changed.
    Intact {
        /// The path of the file.
        file: PathBuf,
    },
    /// The file was damaged and was replaced.
    Replaced(Box<Replaced>),
}

/// The result of replacing a file.
#[derive(Debug)]
pub struct Replaced {
    file: PathBuf,
    /// The new name of the damaged file.
    damaged: PathBuf,
    /// The new name of the journal, if it had rows.
    journal: Option<PathBuf>,
    reason: FileError,
    taken: Taken,
    damaged_rows: Vec<(Option<Kind>, u64)>,
    /// The number of rows without a checksum of their own.
    old_rows: u64,
    /// The number of blocks of 4 KiB that the disk could not read.
    unreadable_blocks: usize,
    missing: Missing,
}

/// The numbers of rows that the new file received.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    anomalies: usize,
    signatures: usize,
    audit_entries: usize,
    batches: usize,
}

/// The data that the newest row of the journal expects and that were not found.
#[derive(Clone, Copy, Debug)]
struct Missing {
    anomalies: u64,
    batches: u64,
    /// True if no row of the journal was found.
    is_journal: bool,
}

/// Recovers the store's file in `data_dir` if it is damaged.
///
/// # Errors
/// Fails if it is missing, in use or of another version, if nothing in it is intact, or if the disk
/// fails or is full. The file then stays as it was.
pub fn recover(
    data_dir: &Path,
    recording: RecordingConfig,
    now: Timestamp,
) -> Result<Recovery, OpenError> {
    let file = StoreFile::path(data_dir);
    let in_data_dir = |source| OpenError::DataDir { dir: data_dir.to_owned(), source };
    if !fs::exists(&file).map_err(in_data_dir)? {
        return Err(OpenError::Missing { file });
    }
    let acknowledged = acknowledged::last(data_dir).unwrap_or_default();
    let reason = match verify(data_dir) {
        Ok(()) => return Ok(Recovery::Intact { file }),
        Err(OpenError::Unreadable { source, .. }) => source,
        Err(fault) => return Err(fault),
    };
    let mut old = Salvage::default();
    let old_rows = old_rows::add_to(&mut old, &file);
    // Locked, so that no service starts with it meanwhile.
    let damaged = ReadableFile::open(&file).map_err(in_data_dir)?;
    match damaged.file().try_lock() {
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { file }),
        Err(TryLockError::Error(source)) => return Err(in_data_dir(source)),
        Ok(()) => {}
    }
    let in_file = |fault: SalvageError| fault.into_open_error(&file, in_data_dir);
    let mut salvage = old.add(&damaged).map_err(in_file)?;
    let journal = match ReadableFile::open(&journal_file::path(data_dir)) {
        _ if matches!(reason, FileError::Journal(JournalFault::Foreign)) => None,
        Err(fault) if fault.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened.map_err(in_data_dir)?),
    };
    if let Some(journal) = &journal {
        salvage = salvage.add(journal).map_err(in_file)?;
    }
    if salvage.is_empty() {
        return Err(OpenError::NothingFound { file, source: reason });
    }
    let missing = missing(&salvage, acknowledged);
    let damaged_rows = salvage.damaged.iter().map(|(kind, rows)| (*kind, *rows)).collect();
    let mut taken = Taken::default();
    let new = StoreFile::create_with(data_dir, |file| {
        taken = fill(file, salvage, recording)?;
        Ok(())
    })?;
    let unreadable_blocks =
        damaged.unreadable_blocks() + journal.as_ref().map_or(0, ReadableFile::unreadable_blocks);
    let damaged = set_aside(&file, now).map_err(|fault| {
        // This file itself may have filled the disk.
        let _ = fs::remove_file(&new);
        in_data_dir(fault)
    })?;
    fs::rename(new, &file).and_then(|()| sync_folder(&file)).map_err(in_data_dir)?;
    let journal = journal_file::set_aside(data_dir, 0).map_err(in_data_dir)?;
    let missing =
        Missing { anomalies: missing.anomalies.saturating_sub(taken.anomalies as u64), ..missing };
    Ok(Recovery::Replaced(Box::new(Replaced {
        file,
        damaged,
        journal,
        reason,
        taken,
        damaged_rows,
        old_rows,
        unreadable_blocks,
        missing,
    })))
}

fn verify(data_dir: &Path) -> Result<(), OpenError> {
    let file = StoreFile::open_existing(data_dir)?;
    let read = file.read_anomalies(|_, _| {}).and_then(|()| file.read_journal(|_, _, _| {}));
    read.map_err(|fault| StoreFile::unreadable(data_dir, fault))
}

/// Returns the data that the newest row of the journal expects, minus what was found, and the
/// batches after it up to the sequence `acknowledged`, which is 0 if it is not known.
fn missing(salvage: &Salvage, acknowledged: u64) -> Missing {
    let Some((&(newest, _), row)) = salvage.journal.last_key_value() else {
        let newest = salvage.anomalies.values().map(|row| row.as_of).max().unwrap_or_default();
        let batches = acknowledged.saturating_sub(newest);
        return Missing { anomalies: 0, batches, is_journal: true };
    };
    let later = acknowledged.saturating_sub(newest);
    let oldest = row.should_hold.oldest;
    if oldest == 0 {
        // A row of version 1, which does not contain this information.
        return Missing { anomalies: 0, batches: later, is_journal: false };
    }
    let mut found: Vec<u64> =
        salvage.journal.range((oldest, 0)..).map(|(&(sequence, _), _)| sequence).collect();
    found.dedup();
    let expected = (newest + 1).saturating_sub(oldest);
    let batches = expected.saturating_sub(found.len() as u64) + later;
    Missing { anomalies: row.should_hold.anomalies, batches, is_journal: false }
}

/// Writes the rows that were found to a new file.
fn fill(
    file: &mut StoreFile,
    salvage: Salvage,
    recording: RecordingConfig,
) -> Result<Taken, FileError> {
    let Salvage { anomalies, mut signatures, audit, journal, .. } = salvage;
    let newest_row = anomalies.values().map(|row| row.as_of).max().unwrap_or_default();
    let newest_batch = journal.last_key_value().map_or(0, |(&(sequence, _), _)| sequence);
    let as_of = newest_row.max(newest_batch);
    let mut taken = Taken { batches: journal.len(), ..Taken::default() };

    // The limits of the rows are in a table, of which a damaged file gives nothing.
    // Expired data stay: the service forgets them by a clock that it trusts.
    let mut loading = Loading::into(State::new(recording, NonZeroUsize::MAX), Limits::default());
    for (key, row) in anomalies {
        loading.anomaly(key, row);
    }
    for ((sequence, _), row) in &journal {
        loading.journal(*sequence, row);
    }
    let state = loading.finish();

    file.continue_after(as_of);
    let mut rows = AnomalyRows::default();
    for (key, anomaly) in state.anomalies() {
        rows.add(as_of, key, anomaly)?;
        taken.anomalies += 1;
        let is_new = anomaly.new_signature_json().is_some();
        let known = signatures.remove(&key).filter(|_| !is_new);
        taken.signatures += usize::from(is_new || known.is_some());
        if let Some(signature) = known {
            rows.add_signature(signature.as_of, key, &signature.json)?;
        }
        if rows.bytes >= TRANSACTION_BYTES {
            file.write_anomalies(&std::mem::take(&mut rows))?;
        }
    }
    file.write_anomalies(&rows)?;
    let is_known = |key: &AuditKey| state.anomaly(AnomalyKey::from_bits(key.0)).is_some();
    let entries: Vec<_> = audit.into_iter().filter(|(key, _)| is_known(key)).collect();
    for entries in entries.chunks(TRANSACTION_ENTRIES) {
        file.write_audit(entries)?;
    }
    taken.audit_entries = entries.len();
    // The next sequence follows from it.
    file.append(&JournalRow::empty(file.should_hold(state.size())), &[])?;
    Ok(taken)
}

/// Gives the file another name next to its own. Returns the new name.
fn set_aside(file: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let mut second = now.as_micros() / 1_000_000;
    loop {
        let aside = file.with_extension(format!("damaged-{second}"));
        match fs::hard_link(file, &aside) {
            // Left by an interrupted recovery.
            Err(fault) if fault.kind() == io::ErrorKind::AlreadyExists => second += 1,
            Ok(()) => {
                sync_folder(file)?;
                return Ok(aside);
            }
            // Some file systems have no hard links.
            Err(_) if aside.try_exists()? => second += 1,
            Err(_) => return copy(file, &aside).map(|()| aside),
        }
    }
}

/// Copies a file durably. A copy for which there is no space is removed.
fn copy(file: &Path, to: &Path) -> io::Result<()> {
    let copied = fs::copy(file, to).and_then(|_| File::open(to)?.sync_all());
    if copied.is_err() {
        let _ = fs::remove_file(to);
    }
    copied.and_then(|()| sync_folder(to))
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intact { file } => {
                writeln!(f, "{} is not damaged: there is nothing to recover", file.display())
            }
            Self::Replaced(replaced) => replaced.fmt(f),
        }
    }
}

impl fmt::Display for Replaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            damaged,
            journal,
            reason,
            taken,
            damaged_rows,
            old_rows,
            unreadable_blocks,
            missing,
        } = self;
        writeln!(f, "{} was damaged: {reason}", file.display())?;
        writeln!(
            f,
            "recovered: {} anomalies, {} signatures, {} audit entries, {} batches of the journal",
            taken.anomalies, taken.signatures, taken.audit_entries, taken.batches
        )?;
        if *old_rows > 0 {
            writeln!(
                f,
                "{old_rows} rows have the format of an older version, without a checksum: some may \
                 be wrong"
            )?;
        }
        if *unreadable_blocks > 0 {
            writeln!(
                f,
                "unreadable: {unreadable_blocks} blocks of 4 KiB, on which the disk fails"
            )?;
        }
        for (kind, rows) in damaged_rows {
            let what = kind.map_or("of unknown kind", Kind::plural);
            writeln!(f, "damaged and left out: {rows} rows ({what}), including older copies")?;
        }
        if missing.is_journal {
            writeln!(f, "not found: the journal, which has the newest events")?;
        }
        if missing.anomalies > 0 {
            writeln!(f, "not found: {} anomalies", missing.anomalies)?;
        }
        if missing.batches > 0 {
            writeln!(f, "not found: {} batches of the journal", missing.batches)?;
        }
        writeln!(
            f,
            "counts may be too low if a row was damaged or not found; the damaged file is {}",
            damaged.display()
        )?;
        match journal {
            Some(journal) => writeln!(f, "its journal is {}", journal.display()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_copy_is_whole_or_not_there() {
        let dir = TempDir::new().unwrap();
        let (file, to) = (dir.path().join("file"), dir.path().join("copy"));
        fs::write(&file, "content").unwrap();
        copy(&file, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"content");
        // The copy fails after it was begun, as on a full disk.
        let half = dir.path().join("half");
        assert!(copy(Path::new("/proc/self/mem"), &half).is_err());
        assert!(!half.exists());
    }
}
