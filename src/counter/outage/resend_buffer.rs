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

    /// Puts back writes that were taken, because the store has them: it acknowledged them again, or
    /// answers again after an outage. They are remembered as long as writes that are acknowledged
    /// now: replication may have stood still meanwhile, so another server may still lack them.
    pub(crate) fn put_back(&self, now: Timestamp, taken: impl Iterator<Item = Operation>) {
        let mut taken = taken.peekable();
        if taken.peek().is_none() {
            return;
        }
        let mut remembered = self.remembered.lock();
        remembered.follow(now);
        // Those that were acknowledged in the meantime come later, and so does their time.
        let newer = remembered.take_all().into_iter().map(|(_, operation)| operation);
        taken.chain(newer).for_each(|operation| remembered.push((now, operation)));
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
        buffer.put_back(now, taken.into_iter().map(|(_, operation)| operation));
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
        buffer.put_back(now, b.into_iter().map(|(_, operation)| operation));
        let all = ["b", "a", "c"].map(|name| (now, operation(name, now)));
        assert_eq!(buffer.take(|_| true), all);
        assert_eq!(buffer.remembered.lock().bytes, 0);
    }

    #[test]
    fn writes_that_are_put_back_are_remembered_as_long_as_new_ones() {
        let buffer = buffer(10, usize::MAX);
        let begin = Timestamp::from_micros(1_774_799_738_000_000);
        let [old, newer] = ["old", "newer"].map(|name| operation(name, begin));
        buffer.push(begin, std::iter::once(old.clone()));
        let taken = buffer.take(|_| true);
        buffer.push(begin.plus_seconds(60), std::iter::once(newer.clone()));
        let back_at = begin.plus_seconds(61);
        buffer.put_back(back_at, taken.into_iter().map(|(_, operation)| operation));
        buffer.expire(back_at.plus_seconds(10));
        assert_eq!(buffer.take(|_| true), [(back_at, old.clone()), (back_at, newer)]);
        buffer.put_back(back_at, std::iter::once(old));
        buffer.expire(back_at.plus_seconds(11));
        assert_eq!(buffer.take(|_| true), []);
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
            let all = |buffer: &ResendBuffer| {
                let remembered = buffer.remembered.lock();
                remembered.operations.iter().cloned().collect()
            };
            assert_eq!(ids(all(&buffer)), ["before", "after"], "{set_by}");
            buffer.expire(after.plus_seconds(11));
            assert_eq!(ids(all(&buffer)), [""; 0], "{set_by}");
        }
    }
}
