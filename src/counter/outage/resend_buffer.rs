//! The writes that the store has acknowledged last. Replication is asynchronous: a failed master
//! may lose writes that it had not replicated yet. So the last writes are sent again after a
//! reconnection; because of their ids that changes nothing where nothing was lost.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::domain::{Operation, Timestamp};

/// The acknowledged writes of the last seconds, oldest first.
#[derive(Debug)]
pub(crate) struct ResendBuffer {
    remember_seconds: i64,
    limit: usize,
    operations: Mutex<VecDeque<(Timestamp, Operation)>>,
}

impl ResendBuffer {
    pub(crate) fn new(remember_seconds: u32, limit: usize) -> Self {
        Self { remember_seconds: remember_seconds.into(), limit, operations: Mutex::default() }
    }

    /// Adds writes that were acknowledged just now.
    pub(crate) fn push(&self, now: Timestamp, acknowledged: impl Iterator<Item = Operation>) {
        let mut operations = self.operations.lock();
        operations.extend(acknowledged.map(|operation| (now, operation)));
        // In an outage nothing is acknowledged, and the writes before it stay.
        self.remove_old(now, &mut operations);
    }

    /// Removes what is too old.
    pub(crate) fn expire(&self, now: Timestamp) {
        self.remove_old(now, &mut self.operations.lock());
    }

    fn remove_old(&self, now: Timestamp, operations: &mut VecDeque<(Timestamp, Operation)>) {
        let oldest_kept = now.minus_seconds(self.remember_seconds);
        while operations.len() > self.limit
            || operations.front().is_some_and(|(at, _)| *at < oldest_kept)
        {
            operations.pop_front();
        }
    }

    /// Removes the writes that are `wanted`, and returns them, oldest first, with the time of their
    /// acknowledgement.
    pub(crate) fn take(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<(Timestamp, Operation)> {
        let mut operations = self.operations.lock();
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            operations.drain(..).partition(|(_, operation)| wanted(operation));
        *operations = left;
        taken.into()
    }

    /// Puts back writes that were taken; they expire as if they had not been.
    pub(crate) fn put_back(&self, taken: impl Iterator<Item = (Timestamp, Operation)>) {
        let mut operations = self.operations.lock();
        let mut by_time: Vec<_> = taken.chain(operations.drain(..)).collect();
        // Writes of the same time keep their order.
        by_time.sort_by_key(|(acknowledged_at, _)| *acknowledged_at);
        *operations = by_time.into();
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
        let buffered_of = |seconds: &[i64]| {
            let buffer = ResendBuffer::new(10, 3);
            for second in seconds {
                let now = begin.plus_seconds(*second);
                buffer.push(now, std::iter::once(operation(&second.to_string(), now)));
            }
            let all = buffer.take(|_| true);
            all.iter().map(|(_, operation)| operation.id().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(buffered_of(&[0, 8, 11]), ["8", "11"], "the first is older than 10 s");
        assert_eq!(buffered_of(&[0, 8, 11, 12, 13]), ["11", "12", "13"], "no more than three");
    }

    #[test]
    fn writes_that_are_taken_leave_the_buffer_and_the_others_stay() {
        let buffer = ResendBuffer::new(10, 10);
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        buffer.push(now, ["a", "b", "c"].into_iter().map(|name| operation(name, now)));
        let is_b = |operation: &Operation| operation.id().as_str() == "b";
        let b = buffer.take(is_b);
        assert_eq!(b, [(now, operation("b", now))]);
        buffer.put_back(b.into_iter());
        let all = ["b", "a", "c"].map(|name| (now, operation(name, now)));
        assert_eq!(buffer.take(|_| true), all);
    }

    #[test]
    fn writes_that_are_put_back_expire_by_their_time() {
        let buffer = ResendBuffer::new(10, 10);
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let write = |second| {
            let at = begin.plus_seconds(second);
            (at, operation(&second.to_string(), at))
        };
        buffer.push(begin.plus_seconds(5), std::iter::once(write(5).1));
        buffer.put_back([write(6), write(1)].into_iter());
        buffer.expire(begin.plus_seconds(12));
        assert_eq!(buffer.take(|_| true), [write(5), write(6)]);
    }
}
