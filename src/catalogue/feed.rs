//! Keeps the rows true between two walks: announces what this instance has written, hears what
//! others have, and reads again the counts that change as time passes.

use std::{collections::HashMap, time::Duration};

use tokio::time::{self, MissedTickBehavior};

use super::{
    announcement::{decode, encode},
    rows::SEGMENTS,
    shared::Reader,
};
use crate::{
    domain::AnomalyKey,
    store::{Cause, Resets, Shard, StoreError},
};

/// Time between two announcements.
const TICK: Duration = Duration::from_secs(2);
/// Maximum number of rows that are announced in a tick, and together.
const NEWS_OF_TICK: usize = 10_000;
const NEWS_AT_ONCE: usize = 1_000;
/// Time without an answer after which announcements may have left the stream unheard.
const MISSED_AFTER: Duration = Duration::from_secs(4 * 60);
/// Maximum number of anomalies that are read again in a tick: 200 a second.
const READ_OF_TICK: usize = 400;
/// Parts of the rows that are looked at in a tick, so that all are within 64 seconds.
const PARTS_OF_TICK: usize = SEGMENTS / 32;
/// Pauses between calls, in times of what a call took.
const PAUSES: u32 = 4;
/// Ticks before the next try, where the store has not permitted it.
const DENIED_TICKS: u32 = 30;

/// Maximum number of instances of which it is known how far they were heard: of more, those that
/// were known are forgotten.
const MAX_HEARD: usize = 1_000;
/// Ticks for which a connection that was made again is asked for the identity of its server.
const MAX_IDENTITY_TICKS: u32 = 15;

pub(super) struct Feed {
    reader: Reader,
    /// The name by which it knows its own announcements.
    instance: u64,
    /// The number of announcements that it has made.
    announced: u64,
    /// The place up to which announcements are heard.
    place: Option<String>,
    /// The number of the last announcement of each other instance.
    heard: HashMap<u64, u64>,
    /// The number of times that the store may have forgotten writes, as of `identities`.
    resets: Resets,
    /// Which server each shard had then.
    identities: HashMap<Shard, String>,
    has_looked: bool,
    identity_ticks: u32,
}

impl Feed {
    pub(super) fn new(reader: Reader) -> Self {
        Self {
            reader,
            instance: rand::random(),
            announced: 0,
            place: None,
            heard: HashMap::new(),
            resets: Resets::default(),
            identities: HashMap::new(),
            has_looked: false,
            identity_ticks: 0,
        }
    }

    pub(super) async fn run(mut self) {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut number, mut denied_ticks) = (0_usize, 0);
        loop {
            ticks.tick().await;
            number = number.wrapping_add(1);
            self.look_for_failover().await;
            if denied_ticks > 0 {
                denied_ticks -= 1;
                continue;
            }
            let outcome = self.tick(number).await;
            self.reader.shared.note_feed(&outcome);
            if outcome.is_err_and(|fault| fault.cause() == Cause::Permission) {
                denied_ticks = DENIED_TICKS;
            }
        }
    }

    async fn tick(&mut self, number: usize) -> Result<(), StoreError> {
        if self.reader.shared.rows.judge_by(self.reader.rules.in_force().set()) {
            // Rows lack what the new rules count.
            self.reader.shared.walk_wanted.notify_one();
        }
        self.read_alerts().await?;
        // A number that wraps makes one announcement early, or late by a quarter of a minute.
        self.announce(number as u16).await?;
        self.listen().await?;
        let now = (self.reader.moment)().now;
        let parts = (number * PARTS_OF_TICK)..(number + 1) * PARTS_OF_TICK;
        let mut due: Vec<_> =
            parts.flat_map(|part| self.reader.shared.rows.due(part, now)).collect();
        due.truncate(READ_OF_TICK);
        self.reader.read(&due, PAUSES, false).await
    }

    /// Has the store gone through where another server has taken over: it may lack writes that rows
    /// have.
    async fn look_for_failover(&mut self) {
        let store = &self.reader.store;
        let Some(resets) = store.resets() else { return };
        let resets = *resets.borrow();
        if resets == self.resets && self.has_looked {
            return;
        }
        let mut is_other = resets.certain != self.resets.certain;
        let mut identities = HashMap::new();
        for shard in store.shards() {
            let identity = store.identity(shard).await;
            is_other |= identity.is_none() || identity.as_ref() != self.identities.get(&shard);
            identities.extend(identity.map(|identity| (shard, identity)));
        }
        let is_told = identities.len() == store.shards().len();
        self.identity_ticks += 1;
        if !is_told && self.identity_ticks < MAX_IDENTITY_TICKS {
            return;
        }
        (self.resets, self.identities, self.identity_ticks) = (resets, identities, 0);
        if is_other && self.has_looked {
            // Also its announcements may begin anew, with earlier ids.
            self.place = None;
            self.reader.shared.note_missed();
        }
        self.has_looked = true;
    }

    /// Reads which alerts fire, of anomalies whose alerts were delivered to this instance.
    async fn read_alerts(&self) -> Result<(), StoreError> {
        let unread = self.reader.shared.rows.take_unread(READ_OF_TICK);
        let read = self.reader.read(&unread, PAUSES, true).await;
        self.reader.shared.rows.put_back_unread(&unread);
        read
    }

    async fn announce(&mut self, tick: u16) -> Result<(), StoreError> {
        let Some(shared_rows) = self.reader.shared_rows() else { return Ok(()) };
        let rows = &self.reader.shared.rows;
        let news = rows.take_news(tick, NEWS_OF_TICK);
        for (index, chunk) in news.chunks(NEWS_AT_ONCE).enumerate() {
            let announcement = encode(self.instance, self.announced + 1, chunk);
            if let Err(fault) = shared_rows.announce(&announcement).await {
                let unsaid = &news[index * NEWS_AT_ONCE..];
                unsaid.iter().for_each(|row| rows.announce(row.key));
                return Err(fault);
            }
            self.announced += 1;
        }
        Ok(())
    }

    async fn listen(&mut self) -> Result<(), StoreError> {
        let mut unknown: Vec<AnomalyKey> = Vec::new();
        loop {
            let Some(shared_rows) = self.reader.shared_rows() else { return Ok(()) };
            let announced = shared_rows.announced(self.place.as_deref()).await?;
            if self.reader.shared.note_heard() > MISSED_AFTER {
                self.reader.shared.note_missed();
            }
            self.place = Some(announced.next);
            let now = (self.reader.moment)().now;
            for change in &announced.changes {
                let Some(announcement) = decode(self.instance, change) else { continue };
                self.note_number(announcement.instance, announcement.number);
                let rows = &self.reader.shared.rows;
                for row in &announcement.rows {
                    rows.hear(row, now);
                    if !rows.has_fields(row.key) {
                        unknown.push(row.key);
                    }
                }
            }
            if !announced.has_more {
                break;
            }
        }
        // The names of an anomaly that is new here.
        unknown.truncate(READ_OF_TICK);
        self.reader.read(&unknown, PAUSES, false).await
    }

    /// Has the store gone through where an announcement of an instance was missed.
    fn note_number(&mut self, instance: u64, number: u64) {
        if self.heard.len() >= MAX_HEARD && !self.heard.contains_key(&instance) {
            self.heard.clear();
        }
        // One whose answer was lost is made again, under the same number.
        let last = self.heard.insert(instance, number);
        if last.is_some_and(|last| number > last + 1) {
            self.reader.shared.note_missed();
        }
    }
}
