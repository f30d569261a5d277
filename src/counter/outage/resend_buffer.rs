//! The last writes that the store has acknowledged. Replication is asynchronous: a failed master
//! may lose writes that it had not replicated yet. So the last writes are sent again after a
//! reconnection. Because of their ids, that has no effect if nothing was lost.

use std::{collections::VecDeque, mem, time::Instant};

use parking_lot::Mutex;

use crate::domain::{Operation, Timestamp};

/// Maximum difference between the elapsed time and a clock that was only corrected, in
/// microseconds. With a larger difference, the clock was set.
const CORRECTION_MICROS: i64 = 60 * 1_000_000;

/// The acknowledged writes of the last seconds.
#[derive(Debug)]
pub(crate) struct ResendBuffer {
    limits: RememberLimits,
    remembered: Mutex<Remembered>,
}

/// The limits of the remembered writes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RememberLimits {
    pub(crate) seconds: i64,
    pub(crate) operations: usize,
    pub(crate) bytes: usize,
}

/// An operation, with the time of its acknowledgement.
pub(crate) type Acknowledged = (Timestamp, Operation);

#[derive(Debug, Default)]
struct Remembered {
    /// The oldest first.
    operations: VecDeque<Acknowledged>,
    /// Approximate size of `operations` in bytes.
    bytes: usize,
    /// The time of the last change, by both clocks.
    changed: Option<(Timestamp, Instant)>,
}

impl Remembered {
    /// Shifts the times if the clock was set in between: whatever it shows, writes expire by the
    /// time that has elapsed since their acknowledgement.
    fn follow(&mut self, now: Timestamp) {
        let at = Instant::now();
        let Some((last_now, last_at)) = self.changed.replace((now, at)) else { return };
        let elapsed = i64::try_from(at.duration_since(last_at).as_micros()).unwrap_or(i64::MAX);
        let set_by = now.as_micros().saturating_sub(last_now.as_micros()).saturating_sub(elapsed);
        if set_by.saturating_abs() > CORRECTION_MICROS {
            for (acknowledged_at, _) in &mut self.operations {
                let moved = acknowledged_at.as_micros().saturating_add(set_by);
                *acknowledged_at = Timestamp::from_micros(moved);
            }
        }
    }

    fn take_all(&mut self) -> VecDeque<Acknowledged> {
        self.bytes = 0;
        mem::take(&mut self.operations)
    }

    /// Removes the writes from number `first` on.
    fn split_off(&mut self, first: usize) -> VecDeque<Acknowledged> {
        let removed = self.operations.split_off(first);
        self.bytes -= removed.iter().map(|(_, operation)| operation.bytes()).sum::<usize>();
        removed
    }

    fn push(&mut self, write: Acknowledged) {
        self.bytes += write.1.bytes();
        self.operations.push_back(write);
    }

    fn remove_beyond(&mut self, limits: RememberLimits) {
        while (self.operations.len() > limits.operations || self.bytes > limits.bytes)
            && self.remove_oldest()
        {}
    }

    fn remove_before(&mut self, oldest_kept: Timestamp) {
        while self.operations.front().is_some_and(|(at, _)| *at < oldest_kept)
            && self.remove_oldest()
        {}
    }

    fn remove_oldest(&mut self) -> bool {
        let oldest = self.operations.pop_front();
        self.bytes -= oldest.as_ref().map_or(0, |(_, operation)| operation.bytes());
        oldest.is_some()
    }
}

impl ResendBuffer {
    pub(crate) fn new(limits: RememberLimits) -> Self {
        Self { limits, remembered: Mutex::default() }
    }

    /// Adds writes that were just acknowledged. They are copies of what the store has, so they may
    /// expire by `now`, even while nothing in the store may.
    pub(crate) fn push(&self, now: Timestamp, acknowledged: impl Iterator<Item = Operation>) {
        let mut remembered = self.remembered.lock();
        remembered.follow(now);
        for operation in acknowledged {
            remembered.push((now, operation));
        }
        // In an outage nothing is acknowledged, and the earlier writes stay.
        remembered.remove_before(now.minus_seconds(self.limits.seconds));
        remembered.remove_beyond(self.limits);
    }

    /// Removes the writes that are too old.
    pub(crate) fn expire(&self, now: Timestamp) {
        let mut remembered = self.remembered.lock();
        remembered.follow(now);
        remembered.remove_before(now.minus_seconds(self.limits.seconds));
    }

    /// Removes the `wanted` writes and returns them, oldest first, with the times of their
    /// acknowledgement.
    pub(crate) fn take(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<Acknowledged> {
        let mut remembered = self.remembered.lock();
        // Usually none is wanted, and a replay asks between two pages: nothing is copied then.
        let first = remembered.operations.iter().position(|(_, operation)| wanted(operation));
        let Some(first) = first else { return Vec::new() };
        let mut taken = Vec::new();
        for write in remembered.split_off(first) {
            if wanted(&write.1) {
                taken.push(write);
            } else {
                remembered.push(write);
            }
        }
        taken
    }

    /// Puts back writes that were taken. They expire as if they had not been taken.
    pub(crate) fn put_back(&self, taken: impl Iterator<Item = Acknowledged>) {
        let mut taken = taken.peekable();
        if taken.peek().is_none() {
            return;
        }
        let mut remembered = self.remembered.lock();
        let newer = remembered.take_all();
        let mut by_time: Vec<_> = taken.chain(newer).collect();
        // Writes with the same time keep their order.
        by_time.sort_by_key(|(acknowledged_at, _)| *acknowledged_at);
        by_time.into_iter().for_each(|write| remembered.push(write));
        remembered.remove_beyond(self.limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Actor, AnomalyKey, EventId, FixRemoval, Occurrence};

    fn operation(name: &str, at: Timestamp) -> Operation {
        let id = EventId::parse(name).unwrap();
        let actor = Actor::default();
        Operation::Unmark(FixRemoval { key: AnomalyKey::from_bits(1), id, at, reason: None, actor })
    }

    fn buffer(operations: usize, bytes: usize) -> ResendBuffer {
        ResendBuffer::new(RememberLimits { seconds: 10, operations, bytes })
    }

    #[test]
    fn the_bytes_of_all_writes_are_limited() {
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        let write = |number: usize| {
            let id = EventId::parse(&number.to_string()).unwrap();
            let (key, signature_json) = (AnomalyKey::from_bits(1), "x".repeat(10_000).into());
            let (at, episode, rule) = (now, None, None);
            Operation::Occurrence(Occurrence { key, id, at, signature_json, episode, rule })
        };
        let limit = 35_000;
        let buffer = buffer(1_000, limit);
        let bytes = || buffer.remembered.lock().bytes;
        buffer.push(now, (0..10).map(write));
        let newest = [7, 8, 9].map(|number| (now, write(number)));
        assert!(bytes() > 30_000 && bytes() <= limit, "{}", bytes());
        let taken = buffer.take(|_| true);
        assert_eq!(taken, newest);
        assert_eq!(bytes(), 0);
        buffer.push(now, std::iter::once(write(10)));
        buffer.put_back(taken.into_iter());
        let newest = [8, 9, 10].map(|number| (now, write(number)));
        assert_eq!(buffer.take(|_| true), newest);
        buffer.push(now, std::iter::once(operation("small", now)));
        buffer.expire(now.plus_seconds(11));
        assert_eq!(bytes(), 0);
    }

    #[test]
    fn the_last_seconds_before_an_outage_are_remembered_and_no_more_than_the_limit() {
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let buffered_of = |seconds: &[i64]| {
            let buffer = buffer(3, usize::MAX);
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
        let buffer = buffer(10, usize::MAX);
        let now = Timestamp::from_micros(1_774_799_738_000_000);
        buffer.push(now, ["a", "b", "c"].into_iter().map(|name| operation(name, now)));
        let is_b = |operation: &Operation| operation.id().as_str() == "b";
        let b = buffer.take(is_b);
        assert_eq!(b, [(now, operation("b", now))]);
        buffer.put_back(b.into_iter());
        let all = ["b", "a", "c"].map(|name| (now, operation(name, now)));
        assert_eq!(buffer.take(|_| true), all);
        assert_eq!(buffer.remembered.lock().bytes, 0);
    }

    #[test]
    fn writes_that_are_put_back_expire_by_their_time() {
        let buffer = buffer(10, usize::MAX);
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

    #[test]
    fn a_clock_that_is_set_makes_no_write_expire_earlier_or_later() {
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let day = 86_400;
        for set_by in [40 * day, -40 * day] {
            let buffer = buffer(10, usize::MAX);
            buffer.push(begin, std::iter::once(operation("before", begin)));
            let after = begin.plus_seconds(set_by);
            buffer.push(after, std::iter::once(operation("after", after)));
            let ids = |all: Vec<Acknowledged>| -> Vec<String> {
                all.iter().map(|(_, operation)| operation.id().to_string()).collect()
            };
            buffer.expire(after.plus_seconds(9));
            let taken = buffer.take(|_| true);
            buffer.put_back(taken.clone().into_iter());
            assert_eq!(ids(taken), ["before", "after"], "{set_by}");
            buffer.expire(after.plus_seconds(11));
            assert_eq!(ids(buffer.take(|_| true)), [""; 0], "{set_by}");
        }
    }
}
