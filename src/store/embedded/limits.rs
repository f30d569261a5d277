//! The limits by which the rows of the journal were written. They decide which ids an anomaly
//! remembers: a replay by others would take what was counted for a duplicate, or count a duplicate.

use std::{collections::BTreeMap, num::NonZeroU32};

use redb::{Database, Error, ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::{
    error::FileError,
    file::unless_panicked,
    format::{LIMITS, Sequences},
};
use crate::domain::TimelineConfig;

/// Limits, each by the sequence of the first row that was written by them. Rows before the first
/// ones are of a program that did not note any.
#[derive(Debug, Default)]
pub(super) struct Limits(BTreeMap<u64, TimelineConfig>);

impl Limits {
    pub(super) fn read(database: &Database) -> Result<Self, FileError> {
        unless_panicked(|| {
            let transaction = database.begin_read().map_err(Error::from)?;
            let table = transaction.open_table(LIMITS).map_err(Error::from)?;
            let mut limits = BTreeMap::new();
            for entry in table.iter().map_err(Error::from)? {
                let (sequence, noted) = entry.map_err(Error::from)?;
                let (exact_events, operation_ids) = noted.value();
                let both = NonZeroU32::new(exact_events).zip(NonZeroU32::new(operation_ids));
                let both = both.map(|(exact_events, operation_ids)| TimelineConfig {
                    exact_events,
                    operation_ids,
                });
                limits.extend(both.map(|limits| (sequence.value(), limits)));
            }
            Ok(Self(limits))
        })
    }

    /// Returns the limits by which the row of a sequence was written, if they are known.
    pub(super) fn of_row(&self, sequence: u64) -> Option<TimelineConfig> {
        self.0.range(..=sequence).next_back().map(|(_, limits)| *limits)
    }

    /// Returns true if the row `next`, which is not written yet, and those after it are noted with
    /// these limits.
    pub(super) fn are_noted(&self, next: u64, limits: TimelineConfig) -> bool {
        self.0
            .last_key_value()
            .is_some_and(|(sequence, noted)| *sequence <= next && *noted == limits)
    }
}

/// Notes the limits by which the next rows are written, and forgets those of no row that is left.
pub(super) fn note(
    transaction: &WriteTransaction,
    sequences: Sequences,
    limits: TimelineConfig,
) -> Result<(), Error> {
    let mut table = transaction.open_table(LIMITS)?;
    // A power failure may have taken rows that were written by others.
    table.retain_in(sequences.next.., |_, _| false)?;
    table.insert(sequences.next, (limits.exact_events.get(), limits.operation_ids.get()))?;
    let of_oldest = table.range(..=sequences.oldest)?.next_back().transpose()?;
    if let Some(of_oldest) = of_oldest.map(|(sequence, _)| sequence.value()) {
        table.retain_in(..of_oldest, |_, _| false)?;
    }
    Ok(())
}
