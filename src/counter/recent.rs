//! The writes that the store has acknowledged of late. Replication is asynchronous: a master that
//! dies takes with it what its replica had not got yet. So after a reconnection the last writes are
//! sent again; by their ids that changes nothing where nothing was lost.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{Operation, Timestamp};

/// The acknowledged writes of the last seconds, oldest first.
#[derive(Debug)]
pub(super) struct Recent {
    remember_seconds: i64,
    limit: usize,
    operations: Mutex<VecDeque<(Timestamp, Operation)>>,
}

impl Recent {
    pub(super) fn new(remember_seconds: u32, limit: usize) -> Self {
        Self { remember_seconds: remember_seconds.into(), limit, operations: Mutex::default() }
    }

    /// Remembers writes that were acknowledged just now.
    pub(super) fn remember(&self, now: Timestamp, acknowledged: impl Iterator<Item = Operation>) {
        let mut operations = self.operations();
        operations.extend(acknowledged.map(|operation| (now, operation)));
        // Only here: in an outage nothing is acknowledged, and what came before it stays.
        let oldest_kept = now.minus_seconds(self.remember_seconds);
        while operations.len() > self.limit
            || operations.front().is_some_and(|(at, _)| *at < oldest_kept)
        {
            operations.pop_front();
        }
    }

    /// What is remembered, oldest first.
    pub(super) fn all(&self) -> Vec<Operation> {
        self.operations().iter().map(|(_, operation)| operation.clone()).collect()
    }

    fn operations(&self) -> MutexGuard<'_, VecDeque<(Timestamp, Operation)>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AnomalyKey, EventId, FixRemoval};

    fn operation(name: &str, at: Timestamp) -> Operation {
        let id = EventId::parse(name).unwrap();
        Operation::Unmark(FixRemoval { key: AnomalyKey::from_bits(1), id, at })
    }

    #[test]
    fn the_last_seconds_before_an_outage_are_remembered_and_no_more_than_the_limit() {
        let recent = Recent::new(10, 3);
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let mut expected = Vec::new();
        for second in [0, 8, 11, 12, 13] {
            let now = begin.plus_seconds(second);
            expected.push(operation(&second.to_string(), now));
            recent.remember(now, expected.last().cloned().into_iter());
            if second == 11 {
                assert_eq!(recent.all(), expected[1..], "the first is older than 10 s");
            }
        }
        assert_eq!(recent.all(), expected[2..], "no more than three");
    }
}
