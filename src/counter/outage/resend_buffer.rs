//! The writes that the store has acknowledged of late. Replication is asynchronous: a master that
//! dies takes with it what its replica had not got yet. So after a reconnection the last writes are
//! sent again; by their ids that changes nothing where nothing was lost.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::domain::{Operation, Timestamp};

/// The acknowledged writes of the last seconds, oldest first.
#[derive(Debug)]
pub(super) struct ResendBuffer {
    remember_seconds: i64,
    limit: usize,
    operations: Mutex<VecDeque<(Timestamp, Operation)>>,
}

impl ResendBuffer {
    pub(super) fn new(remember_seconds: u32, limit: usize) -> Self {
        Self { remember_seconds: remember_seconds.into(), limit, operations: Mutex::default() }
    }

    /// Remembers writes that were acknowledged just now.
    pub(super) fn remember(&self, now: Timestamp, acknowledged: impl Iterator<Item = Operation>) {
        let mut operations = self.operations.lock();
        operations.extend(acknowledged.map(|operation| (now, operation)));
        // Only here: in an outage nothing is acknowledged, and what came before it stays.
        let oldest_kept = now.minus_seconds(self.remember_seconds);
        while operations.len() > self.limit
            || operations.front().is_some_and(|(at, _)| *at < oldest_kept)
        {
            operations.pop_front();
        }
    }

    /// Takes out what is remembered and `wanted`, oldest first, with the time of its acknowledgement.
    pub(super) fn take(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<(Timestamp, Operation)> {
        let mut operations = self.operations.lock();
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            operations.drain(..).partition(|(_, operation)| wanted(operation));
        *operations = left;
        taken.into()
    }

    /// Remembers again what was taken out, for as long as it would have been.
    pub(super) fn put_back(&self, taken: impl DoubleEndedIterator<Item = (Timestamp, Operation)>) {
        let mut operations = self.operations.lock();
        for remembered in taken.rev() {
            operations.push_front(remembered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, AnomalyKey, EventId, FixRemoval};

    fn operation(name: &str, at: Timestamp) -> Operation {
        let id = EventId::parse(name).unwrap();
        let actor = Actor::default();
        Operation::Unmark(FixRemoval { key: AnomalyKey::from_bits(1), id, at, actor })
    }

    #[test]
    fn the_last_seconds_before_an_outage_are_remembered_and_no_more_than_the_limit() {
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let remembered_of = |seconds: &[i64]| {
            let recent = ResendBuffer::new(10, 3);
            for second in seconds {
                let now = begin.plus_seconds(*second);
                recent.remember(now, std::iter::once(operation(&second.to_string(), now)));
            }
            let all = recent.take(|_| true);
            all.iter().map(|(_, operation)| operation.id().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(remembered_of(&[0, 8, 11]), ["8", "11"], "the first is older than 10 s");
        assert_eq!(remembered_of(&[0, 8, 11, 12, 13]), ["11", "12", "13"], "no more than three");
    }

    #[test]
    fn what_is_taken_is_remembered_no_more_and_the_rest_is() {
        let recent = ResendBuffer::new(10, 10);
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        recent.remember(now, ["a", "b", "c"].into_iter().map(|name| operation(name, now)));
        let is_b = |operation: &Operation| operation.id().as_str() == "b";
        let b = recent.take(is_b);
        assert_eq!(b, [(now, operation("b", now))]);
        recent.put_back(b.into_iter());
        let all = ["b", "a", "c"].map(|name| (now, operation(name, now)));
        assert_eq!(recent.take(|_| true), all);
    }
}
