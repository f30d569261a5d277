//! The tables of the spool's file with the operations that wait and the numbers, what is known of
//! the file without reading it, and the changes that keep the two the same.

use std::{fs::File, path::Path};

use redb::{
    Database, Error, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    WriteTransaction,
};

use super::{
    dead::{self, DEAD, DIED},
    error::SpoolError,
    held::{self, HELD_BY},
    record::{NewerVersion, Place, Position, RecordError, decode, encode_letter, encode_waiting},
    salvage::{Found, holds_later},
    settled,
    usage::Usage,
};
use crate::commit_witness::CommitWitness;

/// Sequence → record of a waiting operation.
pub(super) const WAITING: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("waiting_v1");
/// Name → number.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta_v1");
/// In `META`: every operation up to this sequence may have been sent to the store.
const SENT_UP_TO: &str = "sent_up_to";
/// In `META`: distinguishes the file from others that were at its place.
pub(super) const FILE_ID: &str = "file_id";
/// In `META`: how often the file was changed.
pub(super) const COMMITS: &str = "commits";

/// The state of the file, which is known without reading it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileState {
    pub(super) next_sequence: u64,
    /// As in `META`.
    pub(super) sent_up_to: u64,
    /// The value of `sent_up_to` when this process opened the file.
    pub(super) sent_before: u64,
    /// As in `META`.
    pub(super) file_id: u64,
    /// As in `META`.
    pub(super) commits: u64,
    /// The sequences below which all are settled, as the file says it.
    pub(super) queue_below: u64,
    pub(super) letters_below: u64,
    pub(super) usage: Usage,
}

impl FileState {
    /// Returns whether every operation up to `sequence` counts as sent.
    pub(super) fn counts_as_sent(&self, sequence: u64) -> bool {
        sequence <= self.sent_up_to
    }

    /// The position of the next operation that is appended.
    pub(super) fn next_position(&self) -> Position {
        Position { sequence: self.next_sequence, settled_below: self.queue_below }
    }
}

pub(super) fn restore(
    transaction: &WriteTransaction,
    state: &mut FileState,
    found: &Found,
) -> Result<(), SpoolError> {
    match found {
        Found::Waiting { sequence, write } => {
            let mut waiting = transaction.open_table(WAITING)?;
            let mut sequence = *sequence;
            if let Some(row) = waiting.get(sequence)? {
                if decode(row.value()).is_ok_and(|known| known.operation == write.operation) {
                    return Ok(());
                }
                // Of two with one sequence, one was never complete. Which, is not known.
                sequence = state.next_sequence;
                state.next_sequence += 1;
            }
            let record = encode_waiting(Position { sequence, settled_below: 0 }, write)?;
            state.usage.waiting += record.len() as u64;
            waiting.insert(sequence, record.as_slice())?;
        }
        Found::Letter { sequence, rejected_at, reason, write } => {
            if transaction.open_table(DEAD)?.get(*sequence)?.is_some() {
                return Ok(());
            }
            let record = encode_letter(*sequence, *rejected_at, reason, write)?;
            let letter = (*sequence, "", record.as_slice());
            dead::bury(transaction, &mut state.usage, *rejected_at, letter)?;
        }
    }
    Ok(())
}

/// Notes up to where all is settled.
pub(super) fn raise_settled(
    transaction: &WriteTransaction,
    state: &mut FileState,
) -> Result<(), SpoolError> {
    let first_waiting = transaction.open_table(WAITING)?.first()?.map(|(key, _)| key.value());
    let queue_below = first_waiting.unwrap_or(state.next_sequence);
    let first_letter = transaction.open_table(DEAD)?.first()?.map(|(key, _)| key.value());
    let letters_below = first_letter.map_or(queue_below, |first| first.min(queue_below));
    if queue_below > state.queue_below {
        settled::raise(transaction, Place::Queue, queue_below)?;
        state.queue_below = queue_below;
    }
    if letters_below > state.letters_below {
        settled::raise(transaction, Place::Letters, letters_below)?;
        state.letters_below = letters_below;
    }
    Ok(())
}

pub(super) fn mark_sent(
    transaction: &WriteTransaction,
    state: &mut FileState,
    sequence: u64,
) -> Result<(), SpoolError> {
    if !state.counts_as_sent(sequence) {
        transaction.open_table(META)?.insert(SENT_UP_TO, sequence)?;
        state.sent_up_to = sequence;
    }
    Ok(())
}

/// Drops what has the lowest priority until everything fits.
pub(super) fn make_room(
    transaction: &WriteTransaction,
    usage: &mut Usage,
    max_bytes: u64,
) -> Result<(), SpoolError> {
    if usage.total() > max_bytes && usage.held > 0 {
        held::drop_all(transaction, usage)?;
    }
    dead::drop_oldest(transaction, usage, max_bytes)
}

/// Returns a number of the file; `None` in one that was just created.
pub(super) fn meta(database: &Database, name: &str) -> Result<Option<u64>, Error> {
    match database.begin_read()?.open_table(META) {
        Ok(table) => Ok(table.get(name)?.map(|number| number.value())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(fault) => Err(fault.into()),
    }
}

/// Checks that the file has all the commits that its witness knows of.
pub(super) fn verify_commits(witness: &CommitWitness, commits: u64) -> Result<(), Error> {
    let lacking = witness.commits().saturating_sub(commits);
    if lacking == 0 {
        return Ok(());
    }
    Err(Error::Corrupted(format!("it lacks the last commits, {lacking} of them")))
}

/// Checks, where there is no witness, that no record has come to disk after those that the file
/// knows.
pub(super) fn verify_end(path: &Path, state: &FileState) -> Result<(), Error> {
    let has_later = holds_later(&File::open(path)?, state.next_sequence)?;
    if has_later {
        return Err(Error::Corrupted("it lacks the last commit".to_owned()));
    }
    Ok(())
}

/// The state of a file, and its waiting records that can't be read.
pub(super) type Contents = (FileState, Vec<(u64, String)>);

/// Reads the file, creates the tables of an empty one, and lets `verify` see the state before
/// anything is written.
pub(super) fn read(
    database: &Database,
    file_id: u64,
    verify: impl FnOnce(&FileState) -> Result<(), Error>,
) -> Result<Result<Contents, NewerVersion>, Error> {
    let transaction = database.begin_write()?;
    let (mut usage, mut last, mut damaged) = (Usage::default(), 0, Vec::new());
    for entry in transaction.open_table(WAITING)?.iter()? {
        let (sequence, record) = entry?;
        let record = record.value();
        usage.waiting += record.len() as u64;
        last = sequence.value();
        match decode(record) {
            Ok(_) => {}
            Err(RecordError::Newer(newer)) => return Ok(Err(newer)),
            Err(damage) => damaged.push((last, damage.to_string())),
        }
    }
    for entry in transaction.open_table(DEAD)?.iter()? {
        let (sequence, letter) = entry?;
        let (reason, record) = letter.value();
        usage.dead += dead::letter_bytes(reason, record);
        usage.letters += 1;
        last = last.max(sequence.value());
        if let Err(RecordError::Newer(newer)) = decode(record) {
            return Ok(Err(newer));
        }
    }
    usage.held = held::convert(&transaction)?;
    transaction.open_table(DIED)?;
    transaction.open_table(HELD_BY)?;
    let known = settled::read(&transaction)?;
    let mut meta = transaction.open_table(META)?;
    meta.insert(FILE_ID, file_id)?;
    let sent_up_to = meta.get(SENT_UP_TO)?.map_or(0, |row| row.value());
    let commits = meta.get(COMMITS)?.map_or(0, |row| row.value());
    drop(meta);
    // A sequence that was given out before must not be given out again: what is known of it as
    // sent or settled would hold for another operation.
    let next_sequence = known.next_sequence.max(last.max(sent_up_to) + 1);
    let state = FileState {
        next_sequence,
        sent_up_to,
        sent_before: sent_up_to,
        file_id,
        commits,
        queue_below: known.queue_below,
        letters_below: known.letters_below,
        usage,
    };
    verify(&state)?;
    transaction.commit()?;
    Ok(Ok((state, damaged)))
}
