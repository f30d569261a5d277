//! Rows: the reply that counts, announcements, and the state of rules and of alerts.

use super::*;
use crate::domain::{EscalationLevel, ExtraCount, Firing, RuleSource, Thresholds, WindowCounts};

/// The facts that a row has of an anomaly.
struct KnownRow {
    as_of: Timestamp,
    stats: AnomalyStats,
    signature: Option<Signature>,
}

impl Rows {
    fn get(&self, key: AnomalyKey) -> Option<KnownRow> {
        let segment = self.segment(key).lock();
        let row = segment.get(key)?;
        let signature = row.fields.and_then(|fields| self.texts.read().signature(&fields));
        Some(KnownRow { as_of: row.as_of(), stats: row.stats(), signature })
    }

    fn note_stats(
        &self,
        key: AnomalyKey,
        as_of: Timestamp,
        stats: &AnomalyStats,
        is_news: bool,
        signature: impl FnOnce() -> Option<Signature>,
    ) {
        let rule = rule("[]");
        let firing = NotedFiring::Unchanged;
        let noted = Noted { key, began_at: None, as_of, stats, rule: Some(&rule), firing, is_news };
        self.note(&noted, signature);
    }
}

/// The first of these rules, before the rule `default`.
fn rule(rules: &str) -> RuleRef {
    let sources: Vec<RuleSource> = serde_json::from_str(rules).unwrap();
    let thresholds = Thresholds::new(3, 5, 10).unwrap();
    RuleRef::new(RuleSet::parse(&sources, thresholds, 86_400, None).unwrap().into(), 0)
}

fn rows(max_anomalies: usize) -> Rows {
    Rows::new(max_anomalies)
}

fn signature(alert_name: &str) -> Signature {
    let find = |name: &str| (name == "alert_name").then_some(Ok(alert_name));
    Signature::from_lookup(find).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(1_774_799_738_000_000).plus_seconds(second)
}

fn stats(day: u64, seen: Timestamp) -> AnomalyStats {
    let counts = WindowCounts { hour: 0, day, week: day, month: day };
    let seen = Some(seen);
    AnomalyStats { counts, first_seen: seen, last_seen: seen, ..AnomalyStats::default() }
}

#[test]
fn the_newest_reply_counts_whatever_order_they_come_in() {
    let (rows, key) = (rows(100), AnomalyKey::from_bits(7));
    rows.note_stats(key, at(2), &stats(3, at(0)), false, || None);
    rows.note_stats(key, at(1), &stats(2, at(0)), false, || Some(signature("HighCPU")));
    let known = rows.get(key).unwrap();
    assert_eq!(known.stats, stats(3, at(0)));
    assert_eq!(known.as_of, at(2));
    assert_eq!(known.signature, Some(signature("HighCPU")), "known from any reply");
    rows.note_stats(key, at(3), &stats(4, at(0)), false, || panic!("it is known"));
    assert_eq!(rows.get(key).unwrap().stats.counts.day, 4);
    assert!(rows.is_known_since(key, at(3)) && !rows.is_known_since(key, at(4)));
    rows.note_stats(key, at(-90), &stats(1, at(-90)), false, || None);
    assert_eq!(rows.get(key).unwrap().stats.counts.day, 1, "the clock was set back");
    rows.remove(key);
    rows.remove(key);
    assert!(rows.get(key).is_none() && rows.len() == 0);
    assert!(rows.texts.read().is_empty());
}

#[test]
fn a_full_segment_removes_its_quietest_rows_and_says_so() {
    let rows = rows(64 * 10);
    // All of them are in the first segment.
    for number in 0..10 {
        let (key, seen) = (AnomalyKey::from_bits(number), at(number as i64));
        rows.note_stats(key, at(0), &stats(1, seen), false, || Some(signature("a")));
    }
    assert!(!rows.has_overflowed());
    let key = AnomalyKey::from_bits(10);
    rows.note_stats(key, at(0), &stats(1, at(10)), false, || Some(signature("b")));
    assert!(rows.has_overflowed());
    assert_eq!(rows.len(), 10);
    assert!(rows.get(AnomalyKey::from_bits(0)).is_none());
    assert!(rows.get(AnomalyKey::from_bits(1)).is_some());
    assert!((1..=10).all(|number| {
        let known = rows.get(AnomalyKey::from_bits(number)).unwrap();
        known.signature.is_some()
    }));
}

#[test]
fn news_are_announced_at_most_each_quarter_of_a_minute_and_steps_at_once() {
    let (rows, key) = (rows(100), AnomalyKey::from_bits(7));
    let news = |tick: u16| rows.take_news(tick, 10).len();
    let write = |second: i64, day: u64| {
        rows.note_stats(key, at(second), &stats(day, at(second)), true, || None);
    };
    write(1, 1);
    assert_eq!((news(100), news(101)), (1, 0), "once");
    write(2, 2);
    assert_eq!((news(102), news(107), news(108)), (0, 0, 1), "not before 16 seconds");
    write(3, 3);
    assert_eq!(news(109), 1, "a step of the level is announced at once");
    rows.note_stats(key, at(4), &stats(4, at(3)), false, || None);
    assert_eq!(news(200), 0, "what others have announced is no news");
    rows.note_stats(key, at(5), &stats(4, at(3)), true, || None);
    assert_eq!(news(300), 0, "nothing differs");
    write(6, 4);
    rows.remove(key);
    assert_eq!(news(400), 0, "it is gone");
}

#[test]
fn the_number_of_news_taken_at_once_is_limited() {
    let rows = rows(1_000);
    for number in 0..30 {
        let key = AnomalyKey::from_bits(number << 58 | number);
        rows.note_stats(key, at(0), &stats(1, at(0)), true, || None);
    }
    assert_eq!(rows.take_news(100, 20).len(), 20);
    assert_eq!(rows.take_news(101, 20).len(), 10);
}

#[test]
fn alerts_that_others_may_have_ended_are_read_once_and_announced() {
    let (rows, key) = (rows(100), AnomalyKey::from_bits(7));
    let firing = Some(Firing { episodes: 2, since: at(-10) });
    let note = |second: i64, firing: NotedFiring| {
        let stats = stats(1, at(0));
        let noted = Noted {
            key,
            began_at: None,
            as_of: at(second),
            stats: &stats,
            rule: None,
            firing,
            is_news: true,
        };
        rows.note(&noted, || None);
    };
    note(1, NotedFiring::Unread);
    note(2, NotedFiring::Unread);
    let announced = rows.take_news(100, 10);
    assert_eq!(announced[0].firing, None, "it is not known yet");
    assert_eq!((rows.take_unread(10), rows.take_unread(10)), (vec![key], vec![]));
    rows.put_back_unread(&[key]);
    assert_eq!(rows.take_unread(10), [key], "the read has failed");
    note(3, NotedFiring::Read(firing));
    rows.put_back_unread(&[key]);
    assert!(rows.take_unread(10).is_empty(), "it is known");
    let announced = rows.take_news(101, 10);
    assert_eq!(announced[0].firing, Some(firing), "at once");

    let other = self::rows(100);
    other.hear(&announced[0], at(3));
    assert_eq!(other.segment(key).lock().firing.get(&key).copied(), firing);
    note(2, NotedFiring::Read(None));
    assert!(rows.take_news(102, 10).is_empty(), "an earlier reply says nothing");
    note(4, NotedFiring::Read(None));
    assert_eq!(rows.take_news(103, 10)[0].firing, Some(None));
    rows.remove(key);
    assert!(rows.segment(key).lock().firing.is_empty());
}

#[test]
fn a_level_by_windows_of_a_rules_own_is_known_until_other_rules_are_in_force() {
    let (rows, key) = (rows(100), AnomalyKey::from_bits(7));
    let with = |least: u64| {
        rule(&format!(r#"[{{"name": "own", "levels": {{"REPEAT": ["{least} in 6h"]}}}}]"#))
    };
    let level = |rule: &RuleRef| rows.segment(key).lock().get(key).unwrap().level_by(rule);
    let mut stats = stats(5, at(0));
    stats.extra = vec![ExtraCount { seconds: 6 * 3_600, count: 1, is_approximate: false }];
    let (first, second) = (with(2), with(4));
    let note = |second: i64, rule: &RuleRef| {
        let (as_of, firing, is_news) = (at(second), NotedFiring::Unchanged, false);
        rows.note(
            &Noted { key, began_at: None, as_of, stats: &stats, rule: Some(rule), firing, is_news },
            || None,
        );
    };
    note(1, &first);
    assert_eq!(level(&first), Some(EscalationLevel::Repeat), "at most: no rules are in force");
    assert!(!rows.judge_by(first.set()));
    note(2, &first);
    assert_eq!(level(&first), None, "it is known");
    assert!(rows.judge_by(second.set()));
    assert_eq!(level(&second), Some(EscalationLevel::Repeat), "at most");
    note(3, &first);
    assert_eq!(level(&second), Some(EscalationLevel::Repeat), "of rules that are gone");
    note(4, &second);
    assert_eq!(level(&second), None);
}

/// Replies may arrive in another order than their calls began and were executed.
#[test]
fn of_two_calls_that_overlap_the_one_with_more_events_was_executed_later() {
    let key = AnomalyKey::from_bits(1);
    let note = |rows: &Rows, began: i64, arrived: i64, events: u64| {
        let (began_at, as_of, stats) = (Some(at(began)), at(arrived), &stats(events, at(0)));
        let (rule, firing, is_news) = (None, NotedFiring::Unchanged, true);
        rows.note(&Noted { key, began_at, as_of, stats, rule, firing, is_news }, || None);
        rows.get(key).unwrap().stats.counts.month
    };
    let (executed_later, executed_first) = ((1, 4, 2), (2, 3, 1));
    for replies in [[executed_later, executed_first], [executed_first, executed_later]] {
        let rows = rows(10);
        let counts = replies.map(|(began, arrived, events)| note(&rows, began, arrived, events));
        assert_eq!(counts[1], 2);
        assert_eq!(note(&rows, 5, 6, 1), 1, "a later call says what is there now, be it less");
    }
}

#[test]
fn the_fields_of_a_waiting_write_are_known_until_it_is_settled() {
    let (rows, key) = (rows(100), AnomalyKey::from_bits(7));
    rows.note_waiting(key, || Some(signature("HighCPU")));
    assert_eq!(rows.signature(key), Some(signature("HighCPU")));
    rows.note_stats(key, at(1), &stats(1, at(0)), false, || None);
    assert_eq!(rows.signature(key), Some(signature("HighCPU")), "the row has none yet");
    rows.forget_waiting(key);
    assert_eq!(rows.signature(key), None);
    assert!(rows.texts.read().is_empty());
}
