//! All anomalies of a store that can't be scanned in memory, as rows: the facts in replies to this
//! instance and in the announcements of others. They are bounded in number, and their texts in
//! bytes.
//!
//! The first bits of a key select one of 64 segments, each with a lock: a query holds each lock for
//! well below a millisecond, and a reply waits no longer to be noted. Locks are taken in the order
//! segment, waiting fields, texts, never the other way round.
//!
//! Order of imports: row → segment → mod.

mod row;
mod segment;

#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod tests;

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use self::{
    row::{News, Row, RowAt, Times},
    segment::Segment,
};
use super::{
    announcement::AnnouncedRow,
    judge::{Judge, Permits},
    noted::{Noted, NotedFiring},
    query::Estimates,
    visited::{Estimated, Pass},
};
use crate::domain::{
    AnomalyKey, AnomalyStats, FieldIds, KnownStats, RuleRef, RuleSet, Signature, Texts, Timestamp,
};

/// Number of segments.
pub(crate) const SEGMENTS: usize = 64;
/// Number of the first bits of a key, which select its segment.
const SEGMENT_BITS: u32 = SEGMENTS.trailing_zeros();
/// Seconds by which a row may be ahead of a new reply. If it is ahead by more, the clock was set
/// back in between.
const SET_BACK_SECONDS: i64 = 60;
/// Number of ticks, of two seconds each, between two announcements of the same row.
const TICKS_BETWEEN_NEWS: u16 = 8;
/// A full segment removes one row in this many at once, so that it seldom has to search for the
/// quietest.
const REMOVED_SHARE: usize = 64;

/// Maximum number of queries whose results about rules are kept: as many as run at the same time.
const MAX_PERMITS: usize = 2;

/// Maximum number of anomalies without a row whose fields are kept while their writes wait.
const MAX_WAITING: usize = 100_000;

/// The rows.
#[derive(Debug)]
pub(crate) struct Rows {
    segments: Vec<Mutex<Segment>>,
    texts: RwLock<Texts>,
    /// The fields of anomalies without a row, whose writes wait for the store.
    waiting: Mutex<HashMap<AnomalyKey, FieldIds>>,
    /// The rules by which the levels in the rows were judged.
    judged_by: RwLock<Option<Arc<RuleSet>>>,
    /// The results of queries about rules, for the next ones.
    permits: Mutex<Vec<Permits>>,
    max_of_segment: usize,
    len: AtomicUsize,
    /// True if rows were removed from a full segment.
    has_overflowed: AtomicBool,
}

impl Rows {
    /// Creates a set of at most `max_anomalies` rows.
    pub(crate) fn new(max_anomalies: usize) -> Self {
        Self {
            segments: (0..SEGMENTS).map(|_| Mutex::default()).collect(),
            texts: RwLock::default(),
            waiting: Mutex::default(),
            judged_by: RwLock::default(),
            permits: Mutex::default(),
            max_of_segment: max_anomalies.div_ceil(SEGMENTS).max(1),
            len: AtomicUsize::new(0),
            has_overflowed: AtomicBool::new(false),
        }
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Returns true if rows were removed from a full segment, so that not all anomalies are known.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.has_overflowed.load(Ordering::Relaxed)
    }

    /// Notes news of an anomaly, unless newer ones are known. `signature` is called for the
    /// identifying fields if they are not known.
    pub(crate) fn note(&self, noted: &Noted<'_>, signature: impl FnOnce() -> Option<Signature>) {
        let Noted { key, began_at, as_of, stats, rule, firing, is_news } = *noted;
        let mut segment = self.segment(key).lock();
        let is_new = segment.get(key).is_none();
        if is_new {
            self.remove_quietest_of_full(&mut segment);
            segment.insert(Row::new(key, Timestamp::MIN, &AnomalyStats::default()));
            self.len.fetch_add(1, Ordering::Relaxed);
        }
        let level = rule.filter(|rule| !rule.extra_windows().is_empty() && self.is_judged_by(rule));
        let level = level.map(|rule| rule.rule().level(stats.as_counts()));
        let mut is_newer = false;
        let change = |row: &mut Row| {
            // If the row is far ahead, the clock was set back since.
            let was_set_back = row.as_of() > as_of.plus_seconds(SET_BACK_SECONDS);
            let is_later = match began_at {
                // Of two calls that overlap, the one with more events was executed later.
                Some(began_at) => row.as_of() <= began_at || row.events() < stats.counts.month,
                None => row.as_of() <= as_of,
            };
            is_newer = is_later || was_set_back;
            let as_of = if was_set_back { as_of } else { as_of.max(row.as_of()) };
            is_newer && row.update(as_of, stats, level)
        };
        self.change(&mut segment, key, rule, is_news, change);
        match firing {
            NotedFiring::Unchanged => {}
            NotedFiring::Unread => segment.set_firing_unread(key),
            NotedFiring::Read(firing) if is_newer => {
                // Changes by alerts that were delivered to this instance are announced.
                let is_announced = is_news || segment.get(key).is_some_and(Row::is_firing_unread);
                if segment.set_firing(key, firing) && is_announced {
                    announce(&mut segment, key);
                }
            }
            NotedFiring::Read(_) => {}
        }
        if is_new && is_news {
            announce(&mut segment, key);
        }
        if let Some(row) = segment.get_mut(key)
            && row.fields.is_none()
        {
            row.fields = signature().and_then(|signature| self.texts.write().add(&signature));
        }
    }

    /// Returns true if the levels in the rows are those of the set of this rule.
    fn is_judged_by(&self, rule: &RuleRef) -> bool {
        self.judged_by.read().as_ref().is_some_and(|set| Arc::ptr_eq(set, rule.set()))
    }

    /// Makes the rows keep the levels of these rules only. Returns true if they kept those of
    /// others.
    pub(crate) fn judge_by(&self, set: &Arc<RuleSet>) -> bool {
        if self.judged_by.read().as_ref().is_some_and(|known| Arc::ptr_eq(known, set)) {
            return false;
        }
        // From here on no level of other rules is added: that takes the lock of the row's segment.
        let before = self.judged_by.write().replace(Arc::clone(set));
        for segment in &self.segments {
            segment.lock().rows_mut().iter_mut().for_each(Row::forget_level);
        }
        before.is_some()
    }

    /// Returns the judge of a query.
    pub(crate) fn judge(&self, set: Arc<RuleSet>) -> Judge {
        self.judge_by(&set);
        Judge::new(set, self.permits.lock().pop())
    }

    /// Keeps the results of a judge for the next query.
    pub(crate) fn dismiss(&self, judge: Judge) {
        let mut permits = self.permits.lock();
        if permits.len() < MAX_PERMITS {
            permits.extend(judge.into_known());
        }
    }

    /// Notes the number of repair attempts of an anomaly that has a row.
    pub(crate) fn note_repairs(&self, key: AnomalyKey, attempts: u64) {
        let mut segment = self.segment(key).lock();
        self.change(&mut segment, key, None, true, |row| row.set_repair_attempts(attempts));
    }

    /// Notes the mark of an anomaly that has a row. It is announced with the next stats.
    pub(crate) fn note_mark(&self, key: AnomalyKey, fixed_at: Option<Timestamp>) {
        let mut segment = self.segment(key).lock();
        self.change(&mut segment, key, None, false, |row| row.set_mark(fixed_at));
    }

    /// Notes that the firing alerts of an anomaly may differ from the known ones, if it has a row.
    pub(crate) fn doubt_firing(&self, key: AnomalyKey) {
        self.segment(key).lock().set_firing_unread(key);
    }

    /// Notes the fields of an anomaly with a waiting write, if they are not known.
    pub(crate) fn note_waiting(
        &self,
        key: AnomalyKey,
        signature: impl FnOnce() -> Option<Signature>,
    ) {
        if self.has_fields(key) {
            return;
        }
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING && !waiting.contains_key(&key) {
            let fields = signature().and_then(|signature| self.texts.write().add(&signature));
            waiting.extend(fields.map(|fields| (key, fields)));
        }
    }

    /// Forgets the fields of an anomaly whose last waiting write is settled.
    pub(crate) fn forget_waiting(&self, key: AnomalyKey) {
        if let Some(fields) = self.waiting.lock().remove(&key) {
            self.texts.write().remove(fields);
        }
    }

    /// Marks the row of an anomaly, if any, as one to be announced at once.
    pub(crate) fn announce(&self, key: AnomalyKey) {
        announce(&mut self.segment(key).lock(), key);
    }

    /// Applies what another instance has announced, if it is newer. The number of repair attempts
    /// never falls.
    pub(crate) fn hear(&self, announced: &AnnouncedRow, now: Timestamp) {
        let AnnouncedRow { key, as_of, stats, firing } = announced;
        // The clock of another instance may be ahead.
        let as_of = (*as_of).min(now);
        let firing = firing.map_or(NotedFiring::Unread, NotedFiring::Read);
        let (key, began_at, rule, is_news) = (*key, None, None, false);
        let noted = Noted { key, began_at, as_of, stats, rule, firing, is_news };
        self.note(&noted, || None);
        let mut segment = self.segment(key).lock();
        let raise = |row: &mut Row| row.raise_repair_attempts(stats.repair_attempts);
        self.change(&mut segment, key, None, false, raise);
    }

    /// Changes a row by `change`, which returns whether anything differs. A difference is news, and
    /// urgent if the level by the anomaly's `rule` or the mark has changed.
    fn change(
        &self,
        segment: &mut Segment,
        key: AnomalyKey,
        rule: Option<&RuleRef>,
        is_news: bool,
        change: impl FnOnce(&mut Row) -> bool,
    ) {
        let Some(row) = segment.get_mut(key) else { return };
        let urgent = |row: &Row| (rule.map(|rule| row.level_by(rule)), row.mark());
        let before = is_news.then(|| urgent(row));
        if !change(row) || !is_news {
            return;
        }
        let had_news = row.news != News::None;
        let is_urgent = row.news == News::Urgent || Some(urgent(row)) != before;
        row.news = if is_urgent { News::Urgent } else { News::Some };
        if !had_news {
            segment.with_news.push(key);
        }
    }

    /// Returns up to `max` rows with news whose last announcement is long enough before `tick`.
    pub(crate) fn take_news(&self, tick: u16, max: usize) -> Vec<AnnouncedRow> {
        let mut news = Vec::new();
        for segment in &self.segments {
            let mut segment = segment.lock();
            let mut later = Vec::new();
            for key in std::mem::take(&mut segment.with_news) {
                let Some(row) = segment.get_mut(key) else { continue };
                let is_due = tick.wrapping_sub(row.announced_at) >= TICKS_BETWEEN_NEWS;
                if news.len() >= max || !(is_due || row.news == News::Urgent) {
                    later.push(key);
                    continue;
                }
                (row.news, row.announced_at) = (News::None, tick);
                let (as_of, stats, is_read) = (row.as_of(), row.stats(), !row.is_firing_unread());
                let firing = is_read.then(|| segment.firing.get(&key).copied());
                news.push(AnnouncedRow { key, as_of, stats, firing });
            }
            segment.with_news = later;
        }
        news
    }

    /// Returns up to `max` anomalies whose firing alerts are to be read.
    pub(crate) fn take_unread(&self, max: usize) -> Vec<AnomalyKey> {
        let mut unread = Vec::new();
        for segment in &self.segments {
            let mut segment = segment.lock();
            let count = (max - unread.len()).min(segment.unread.len());
            let keys: Vec<_> = segment.unread.drain(..count).collect();
            // One that was read meanwhile need not be read again.
            let is_unread = |key: &AnomalyKey| segment.get(*key).is_some_and(Row::is_firing_unread);
            unread.extend(keys.into_iter().filter(is_unread));
        }
        unread
    }

    /// Notes that the firing alerts of these anomalies are still to be read, because that has
    /// failed.
    pub(crate) fn put_back_unread(&self, keys: &[AnomalyKey]) {
        for key in keys {
            let mut segment = self.segment(*key).lock();
            if segment.get(*key).is_some_and(Row::is_firing_unread) {
                segment.unread.push(*key);
            }
        }
    }

    /// Returns the identifying fields of an anomaly, if they are known from the store or from a
    /// waiting write.
    pub(crate) fn signature(&self, key: AnomalyKey) -> Option<Signature> {
        let segment = self.segment(key).lock();
        if let Some(fields) = segment.get(key).and_then(|row| row.fields) {
            return self.texts.read().signature(&fields);
        }
        // The lock keeps the texts of waiting fields until they are copied.
        let waiting = self.waiting.lock();
        self.texts.read().signature(waiting.get(&key)?)
    }

    /// Returns true if the row of an anomaly is of this time or later.
    pub(crate) fn is_known_since(&self, key: AnomalyKey, since: Timestamp) -> bool {
        self.segment(key).lock().get(key).is_some_and(|row| row.as_of() >= since)
    }

    /// Returns the anomalies of a segment whose rows are older than a time.
    pub(crate) fn known_before(&self, part: usize, time: Timestamp) -> Vec<AnomalyKey> {
        self.keys(part, |row| row.as_of() < time)
    }

    /// Returns the anomalies of a segment whose counts are to be read again.
    pub(crate) fn due(&self, part: usize, now: Timestamp) -> Vec<AnomalyKey> {
        let times = Times::at(now);
        self.keys(part, |row| row.is_due(now, &times))
    }

    fn keys(&self, part: usize, are: impl Fn(&Row) -> bool) -> Vec<AnomalyKey> {
        let segment = self.segments[part % SEGMENTS].lock();
        segment.rows().iter().filter(|row| are(row)).map(|row| row.key).collect()
    }

    /// Removes an anomaly.
    pub(crate) fn remove(&self, key: AnomalyKey) {
        let removed = self.segment(key).lock().remove(key);
        self.release(removed.iter());
    }

    /// Removes an anomaly that the store did not know at a time, unless a later reply knows it.
    pub(crate) fn remove_known_until(&self, key: AnomalyKey, time: Timestamp) {
        let mut segment = self.segment(key).lock();
        if segment.get(key).is_some_and(|row| row.as_of() <= time) {
            let removed = segment.remove(key);
            self.release(removed.iter());
        }
    }

    /// Returns true if the identifying fields of an anomaly are known.
    pub(crate) fn has_fields(&self, key: AnomalyKey) -> bool {
        self.segment(key).lock().get(key).is_some_and(|row| row.fields.is_some())
    }

    /// Shows all anomalies to a pass: those in `estimates` as estimated, the others as they are at
    /// `now` if nothing has happened since they were read.
    pub(crate) fn scan(
        &self,
        now: Timestamp,
        estimates: &Estimates,
        judge: &Judge,
        pass: &mut impl Pass,
    ) {
        let times = Times::at(now);
        for segment in &self.segments {
            let segment = segment.lock();
            let texts = self.texts.read();
            let firing = |key: AnomalyKey| segment.firing.get(&key).copied();
            for row in segment.rows() {
                if estimates.is_empty() || !estimates.contains_key(&row.key) {
                    pass.visit(&RowAt {
                        row,
                        times: &times,
                        texts: &texts,
                        judge,
                        rule: Cell::new(None),
                        firing: &firing,
                    });
                }
            }
        }
        for (key, (as_of, stats)) in estimates {
            let segment = self.segment(*key).lock();
            pass.visit(&Estimated {
                key: *key,
                fields: segment
                    .get(*key)
                    .and_then(|row| row.fields)
                    .or_else(|| self.waiting.lock().get(key).copied()),
                texts: &self.texts.read(),
                as_of: *as_of,
                stats,
                judge,
            });
        }
    }

    /// Returns the known stats of an anomaly at `now`, and their time.
    pub(crate) fn stats_at(
        &self,
        key: AnomalyKey,
        now: Timestamp,
    ) -> Option<(Timestamp, KnownStats)> {
        let segment = self.segment(key).lock();
        segment.get(key).map(|row| (row.as_of(), row.stats_at(&Times::at(now))))
    }

    /// Removes the quietest rows of a full segment.
    fn remove_quietest_of_full(&self, segment: &mut Segment) {
        if segment.len() < self.max_of_segment {
            return;
        }
        if !self.has_overflowed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "there are more anomalies than `catalogue.max_anomalies`: lists omit those that \
                 have been inactive longest, and say so (`behind`)"
            );
        }
        let removed = segment.remove_quietest(self.max_of_segment / REMOVED_SHARE + 1);
        self.release(removed.iter());
    }

    fn release<'a>(&self, removed: impl Iterator<Item = &'a Row>) {
        let mut count = 0;
        for row in removed {
            count += 1;
            if let Some(fields) = row.fields {
                self.texts.write().remove(fields);
            }
        }
        self.len.fetch_sub(count, Ordering::Relaxed);
    }

    fn segment(&self, key: AnomalyKey) -> &Mutex<Segment> {
        let number = key.to_bits() >> (u64::BITS - SEGMENT_BITS);
        &self.segments[number as usize]
    }
}

/// Marks a row as one to be announced at once.
fn announce(segment: &mut Segment, key: AnomalyKey) {
    let Some(row) = segment.get_mut(key) else { return };
    if std::mem::replace(&mut row.news, News::Urgent) == News::None {
        segment.with_news.push(key);
    }
}
