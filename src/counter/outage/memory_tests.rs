//! Tests of estimates from the last known state and the waiting operations.

use super::{
    memory::Memory, pending::Pending, refusing_store::catalogue, reported::Reported,
    stale_cache::StaleCache, stale_entry::CallTimes,
};
use crate::{
    catalogue::{Noted, NotedFiring},
    domain::{
        Action, Actor, AnomalyKey, AnomalyStats, EventId, KnownMark, Occurrence, Operation,
        PermanentFix, RepairAttempt, RepairHistory, Timestamp, WindowCounts,
    },
    spool::SpoolWrite,
    store::{RecordOutcome, Recorded},
};

const KEY: AnomalyKey = AnomalyKey::from_bits(7);

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
}

fn times(began: i64, arrived: i64) -> CallTimes {
    CallTimes { began_at: at(began), arrived_at: at(arrived) }
}

fn stats(count: u64) -> AnomalyStats {
    let counts = WindowCounts { hour: count, day: count, week: count, month: count };
    let (first_seen, last_seen) = (Some(at(0)), Some(at(0)));
    AnomalyStats { counts, first_seen, last_seen, ..AnomalyStats::default() }
}

fn recorded(count: u64) -> Recorded {
    Recorded {
        outcome: RecordOutcome::Counted,
        now: at(2),
        previous_count_24h: count - 1,
        previous_last_seen: None,
        stats: stats(count),
        newest: Vec::new(),
    }
}

fn write(id: EventId, maybe_sent: bool) -> SpoolWrite {
    let (at, signature_json) = (at(1), "{}".into());
    let occurrence = Occurrence { key: KEY, id, at, signature_json, episode: None, rule: None };
    SpoolWrite { operation: Operation::Occurrence(occurrence), maybe_sent }
}

fn memory() -> Memory {
    let stale = StaleCache::new(64 << 10);
    Memory::new(Pending::default(), stale, Reported::new(10), catalogue())
}

fn repair(number: u64) -> SpoolWrite {
    let attempt = RepairAttempt {
        key: KEY,
        id: EventId::unique(),
        action: Action::parse("restart").unwrap(),
        success: false,
        at: Timestamp::from_micros(at(0).as_micros() + number as i64),
        actor: Actor::default(),
    };
    SpoolWrite { operation: Operation::Repair(attempt), maybe_sent: false }
}

#[test]
fn repairs_are_neither_counted_twice_nor_taken_back_while_they_are_applied() {
    let mut memory = memory();
    memory.stale.update_stats(KEY, times(0, 1), &stats(1));
    let mut history = RepairHistory::default();
    memory.update_repairs(KEY, times(0, 1), &history);
    let writes: Vec<SpoolWrite> = (0..250).map(repair).collect();
    for write in &writes {
        memory.reserve(at(2), write);
    }
    let attempts = |memory: &mut Memory| {
        let listed = memory.repairs(KEY, at(9)).unwrap().value;
        assert_eq!(memory.known(KEY, at(9), &[]).stats.repair_attempts, Some(listed.total));
        listed.total
    };
    assert_eq!(attempts(&mut memory), 250);
    for page in writes.chunks(40) {
        for SpoolWrite { operation, .. } in page {
            memory.pending.mark_sent(operation);
            let Operation::Repair(attempt) = operation else { unreachable!() };
            history.push(attempt.into());
        }
        let before = attempts(&mut memory);
        assert_eq!(before, 250, "what was sent may not be applied");
        memory.update_repairs(KEY, times(3, 4), &history);
        assert_eq!(attempts(&mut memory), 250);
        for SpoolWrite { operation, .. } in page {
            memory.remove(operation);
            assert_eq!(attempts(&mut memory), 250);
        }
    }
    assert_eq!(memory.pending.operations(), 0);
}

fn count(memory: &mut Memory) -> u64 {
    memory.estimate(KEY, at(9), &[]).unwrap().stats.counts.hour
}

#[test]
fn a_write_that_was_sent_before_the_last_reply_may_be_in_it() {
    let mut memory = memory();
    memory.stale.update_stats(KEY, times(2, 4), &stats(5));
    memory.reserve(at(3), &write(EventId::unique(), true));
    assert_eq!(count(&mut memory), 5, "the reply may have it");
    memory.reserve(at(5), &write(EventId::unique(), true));
    assert_eq!(count(&mut memory), 6, "the reply came before it was sent");
}

#[test]
fn an_anomaly_that_the_cache_has_dropped_is_known_by_the_catalogue() {
    let mut memory = memory();
    let noted = Noted {
        key: KEY,
        began_at: None,
        as_of: at(2),
        stats: &stats(5),
        rule: None,
        firing: NotedFiring::Unchanged,
        is_news: false,
    };
    memory.catalogue.note(&noted, || None);
    assert_eq!(count(&mut memory), 5);
    let attempts = memory.known(KEY, at(9), &[]).stats.repair_attempts;
    assert_eq!(attempts, Some(0), "it is known that there are none");
    memory.reserve(at(3), &write(EventId::unique(), false));
    assert_eq!(count(&mut memory), 6);
    memory.reserve(at(3), &write(EventId::unique(), true));
    assert_eq!(count(&mut memory), 6, "the row may have it");
}

#[test]
fn a_second_copy_of_an_id_that_a_caller_gave_may_have_counted() {
    let mut memory = memory();
    memory.stale.update_stats(KEY, times(0, 1), &stats(2));
    for (id, expected) in [("a", 2), ("b", 2), ("c", 3)] {
        memory.reserve(at(2), &write(EventId::parse(id).unwrap(), false));
        assert_eq!(count(&mut memory), expected, "{id}");
    }
    memory.reserve(at(2), &write(EventId::unique(), false));
    assert_eq!(count(&mut memory), 4);
}

#[test]
fn a_write_on_a_later_page_that_was_sent_before_counts_once() {
    let mut memory = memory();
    let [first, second] = [true, true].map(|is_sent| write(EventId::unique(), is_sent));
    memory.reserve(at(1), &first);
    memory.reserve(at(1), &second);
    memory.reserve(at(1), &write(EventId::unique(), false));
    assert_eq!(count(&mut memory), 3);
    // The first operation is applied, and the reply includes the second too, which was applied
    // before.
    let Operation::Occurrence(occurrence) = &first.operation else { unreachable!() };
    memory.update_recorded(occurrence, times(2, 3), &recorded(2));
    assert_eq!(count(&mut memory), 3);
    memory.remove(&first.operation);
    assert_eq!(count(&mut memory), 3);
    memory.remove(&second.operation);
    assert_eq!(count(&mut memory), 3);
}

/// The store was emptied in an outage, and the writes that waited fill it up to where it was.
#[test]
fn the_first_reply_of_a_replay_shows_what_the_store_has_lost() {
    let mut memory = memory();
    memory.stale.update_stats(KEY, times(0, 1), &stats(3));
    let waiting = [(); 3].map(|()| write(EventId::unique(), true));
    for write in &waiting {
        memory.reserve(at(1), write);
    }
    let falls = [1, 2, 3].map(|count| {
        let Operation::Occurrence(occurrence) = &waiting[0].operation else { unreachable!() };
        memory.update_recorded(occurrence, times(2, 3), &recorded(count))
    });
    assert_eq!(
        falls.map(|fall| fall.map(|fall| (fall.expected, fall.to))),
        [Some((4, 1)), None, None]
    );
    assert!(waiting.iter().all(|write| memory.remove(&write.operation).is_none()), "once");
}

#[test]
fn a_mark_that_is_applied_after_an_occurrence_is_in_the_list_at_once() {
    let mut memory = memory();
    let waiting = [(); 2].map(|()| write(EventId::unique(), true));
    for write in &waiting {
        memory.reserve(at(1), write);
    }
    let Operation::Occurrence(occurrence) = &waiting[0].operation else { unreachable!() };
    memory.update_recorded(occurrence, times(2, 3), &recorded(1));
    let fix = PermanentFix { description: None, fixed_by: None, marked_at: at(2) };
    memory.update_fix(KEY, times(2, 3), Some(&fix));
    assert!(waiting.iter().all(|write| memory.remove(&write.operation).is_none()));
    let (_, known) = memory.catalogue.known(KEY, at(4)).unwrap();
    assert_eq!(known.mark, KnownMark::SetAt(at(2)));
}
