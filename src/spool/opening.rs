//! Opens the spool's file at the start. A damaged one is salvaged: what can be read of it is
//! written to a new file beside it, and only then is it set aside and the new one put in its place.
//! A process that ends in between leaves one of these, and the next one goes on from there:
//!
//! - the damaged file in its place: it is salvaged anew, whatever is beside it;
//! - none in its place, and the new one beside it, complete: it is put in its place.

use std::{
    fs, io,
    ops::ControlFlow,
    path::Path,
    time::{Duration, Instant},
};

use redb::Error;

use super::{
    error::{SpoolError, SpoolOpenError},
    file::{FileFault, Opened, SpoolFile, redb_file},
    record::NewerVersion,
    salvage::{Found, SalvageError, Survey},
    settled::Sequences,
    settlement::{Rejection, Settlement},
};
use crate::{
    domain::Timestamp,
    redb_file::{Missing, OpenFault, ReadableFile, RedbFile},
};

/// Maximum number and size of the salvaged records that are written with one fsync.
const RESTORED_RECORDS: usize = 10_000;
const RESTORED_BYTES: usize = 4 << 20;

/// A file of this size takes long enough to read that the log says so.
const LARGE_BYTES: u64 = 64 << 20;

/// Interval of logging the progress of a long start.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);

/// Logs how far a start has come that takes long.
#[derive(Debug)]
pub(super) struct Progress {
    logged_at: Instant,
    records: u64,
}

impl Progress {
    pub(super) fn begin() -> Self {
        Self { logged_at: Instant::now(), records: 0 }
    }

    pub(super) fn add(&mut self, records: usize, what: &str) {
        self.records += records as u64;
        if self.logged_at.elapsed() >= PROGRESS_INTERVAL {
            self.logged_at = Instant::now();
            tracing::info!(records = self.records, "{what}: {} records so far", self.records);
        }
    }
}

/// Opens the file in `data_dir`, and creates both where they are missing. A damaged one is set
/// aside under a name with the time `now`, and what can be read of it waits in the new one.
pub(super) fn open(data_dir: &Path, now: Timestamp) -> Result<SpoolFile, SpoolOpenError> {
    let in_data_dir = |source| SpoolOpenError::DataDir { dir: data_dir.to_owned(), source };
    fs::create_dir_all(data_dir).map_err(in_data_dir)?;
    let on_disk = redb_file(data_dir);
    let beside = on_disk.beside("salvaged");
    put_in_place(&beside, &on_disk).map_err(in_data_dir)?;
    let length = fs::metadata(on_disk.path()).map_or(0, |metadata| metadata.len());
    if length >= LARGE_BYTES {
        let (file, megabytes) = (on_disk.path().display(), length / 1_000_000);
        tracing::info!("{file} is verified and read: it has {megabytes} MB");
    }
    let file = match SpoolFile::open(&on_disk, Missing::Create, file_id(now)) {
        Ok(Opened { mut file, damaged }) => {
            // A salvage that was broken off before the file was replaced by a whole one.
            let _ = fs::remove_file(beside.path());
            let fault = |source| SpoolOpenError::Fault { file: on_disk.path().to_owned(), source };
            bury_damaged(&mut file, damaged, now).map_err(fault)?;
            file
        }
        Err(FileFault::Newer(newer)) => return Err(newer_version(on_disk.path(), &newer)),
        Err(FileFault::Open(OpenFault::InUse)) => {
            return Err(SpoolOpenError::InUse { file: on_disk.path().to_owned() });
        }
        Err(FileFault::Open(OpenFault::Disk(source))) => return Err(in_data_dir(source)),
        Err(FileFault::Open(OpenFault::Damaged(damage))) => {
            salvage(&on_disk, &beside, now, &damage)?
        }
    };
    Ok(file)
}

fn file_id(now: Timestamp) -> u64 {
    now.as_micros().unsigned_abs()
}

/// Ends a salvage that was broken off after the damaged file was set aside.
fn put_in_place(beside: &RedbFile, on_disk: &RedbFile) -> io::Result<()> {
    if beside.path().try_exists()? && !on_disk.path().try_exists()? {
        beside.rename_to(on_disk)?;
    }
    Ok(())
}

/// Makes damaged records dead letters, because they must not hold up those behind them.
fn bury_damaged(
    file: &mut SpoolFile,
    damaged: Vec<(u64, String)>,
    now: Timestamp,
) -> Result<(), SpoolError> {
    if damaged.is_empty() {
        return Ok(());
    }
    tracing::error!(records = damaged.len(), "damaged records of the spool became dead letters");
    let rejected = damaged.into_iter().map(|(sequence, reason)| Rejection {
        sequence,
        reason,
        maybe_sent: true,
    });
    let settlement = Settlement { rejected: rejected.collect(), ..Settlement::default() };
    file.settle(&settlement, now, u64::MAX).map(|_| ())
}

fn newer_version(path: &Path, newer: &NewerVersion) -> SpoolOpenError {
    SpoolOpenError::NewerVersion { file: path.to_owned(), found: newer.found }
}

/// Replaces a damaged file by a new one with what can be read of it.
fn salvage(
    on_disk: &RedbFile,
    beside: &RedbFile,
    now: Timestamp,
    damage: &Error,
) -> Result<SpoolFile, SpoolOpenError> {
    let path = on_disk.path();
    tracing::error!(error = %damage, "the spool's file {} is damaged: {damage}", path.display());
    let filled = fill(path, beside, now);
    let replaced = filled.and_then(|filled| {
        let aside = on_disk.set_aside(&format!("damaged-{}", now.as_micros()))?;
        beside.rename_to(on_disk)?;
        Ok((filled, aside))
    });
    let (filled, aside) = match replaced {
        Ok(replaced) => replaced,
        Err(Unfilled::InUse) => return Err(SpoolOpenError::InUse { file: path.to_owned() }),
        Err(Unfilled::Newer(newer)) => return Err(newer_version(path, &newer)),
        Err(Unfilled::Failed(reason)) => {
            if path.exists() {
                // It takes the room that the operator is to make.
                let _ = fs::remove_file(beside.path());
            }
            let bytes = fs::metadata(path).map_or(0, |metadata| metadata.len());
            return Err(SpoolOpenError::Salvage { file: path.to_owned(), reason, bytes });
        }
    };
    let Filled { mut file, waiting, letters, missing, unreadable_blocks } = filled;
    file.use_witness(on_disk);
    tracing::error!(
        set_aside = %aside.display(),
        waiting,
        letters,
        missing,
        unreadable_blocks,
        "the spool's file is damaged, and is renamed to {}. All readable records are kept: \
         {waiting} operations wait again, and there are {letters} dead letters. Up to {missing} \
         can't be read",
        aside.display(),
    );
    Ok(file)
}

/// A new file that is not in its place, and what it has.
struct Filled {
    file: SpoolFile,
    waiting: usize,
    letters: usize,
    missing: usize,
    /// Blocks of 4 KiB that the disk could not read.
    unreadable_blocks: usize,
}

/// Why a new file can't be filled.
#[derive(Debug)]
enum Unfilled {
    InUse,
    Newer(NewerVersion),
    Failed(String),
}

impl From<io::Error> for Unfilled {
    fn from(fault: io::Error) -> Self {
        Self::Failed(fault.to_string())
    }
}

impl From<SalvageError> for Unfilled {
    fn from(fault: SalvageError) -> Self {
        match fault {
            SalvageError::Read(fault) => fault.into(),
            SalvageError::Newer(newer) => Self::Newer(newer),
        }
    }
}

impl From<FileFault> for Unfilled {
    fn from(fault: FileFault) -> Self {
        match fault {
            FileFault::Open(OpenFault::InUse) => Self::InUse,
            FileFault::Open(fault) => Self::Failed(fault.to_string()),
            FileFault::Newer(newer) => Self::Newer(newer),
        }
    }
}

/// Fills a new file with what can be read of the one at `damaged`.
fn fill(damaged: &Path, beside: &RedbFile, now: Timestamp) -> Result<Filled, Unfilled> {
    let source = ReadableFile::open(damaged)?;
    let survey = Survey::of(&source)?;
    if beside.path().try_exists()? {
        if matches!(beside.open(Missing::Fail, |_| Ok(())), Err(OpenFault::InUse)) {
            return Err(Unfilled::InUse);
        }
        fs::remove_file(beside.path())?;
    }
    let mut file = SpoolFile::create_beside(beside, file_id(now))?;
    let (mut batch, mut batch_bytes) = (Vec::new(), 0);
    let (mut waiting, mut letters) = (Sequences::default(), Sequences::default());
    let (mut waiting_count, mut letter_count) = (0, 0);
    let mut progress = Progress::begin();
    let ended = survey.unsettled(&source, |found, bytes| {
        match &found {
            Found::Waiting { sequence, .. } => {
                waiting_count += usize::from(waiting.insert(*sequence));
            }
            Found::Letter { sequence, .. } => {
                letter_count += usize::from(letters.insert(*sequence));
            }
        }
        batch.push(found);
        batch_bytes += bytes;
        if batch.len() < RESTORED_RECORDS && batch_bytes < RESTORED_BYTES {
            return ControlFlow::Continue(());
        }
        let restored = file.restore(&batch, survey.next_sequence());
        progress.add(batch.len(), "salvaging the spool's file");
        batch.clear();
        batch_bytes = 0;
        restored.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    })?;
    let restored = match ended {
        ControlFlow::Break(fault) => Err(fault),
        ControlFlow::Continue(()) => {
            file.restore(&batch, survey.next_sequence()).and_then(|()| file.end_restoring())
        }
    };
    restored.map_err(|fault| Unfilled::Failed(fault.to_string()))?;
    let missing = survey.missing(&waiting);
    let unreadable_blocks = source.unreadable_blocks();
    Ok(Filled { file, waiting: waiting_count, letters: letter_count, missing, unreadable_blocks })
}
