//! Keeps the rows current between two walks through the store: announces the writes of this
//! instance, reads the announcements of others, and reads again the counts that change as time
//! passes.

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
/// Maximum number of rows that are announced in a tick, and in one announcement.
const NEWS_OF_TICK: usize = 10_000;
const NEWS_AT_ONCE: usize = 1_000;
/// Time without an answer after which announcements may have left the stream unread: the stream
/// keeps them for five minutes.
const MISSED_AFTER: Duration = Duration::from_secs(4 * 60);
/// Maximum number of anomalies that are read again in a tick: 200 a second.
const READ_OF_TICK: usize = 400;
/// Number of segments that are checked in a tick, so that all are checked within 64 seconds.
const PARTS_OF_TICK: usize = SEGMENTS / 32;
/// Length of the pause after a call, as a multiple of the call's duration.
const PAUSES: u32 = 4;
/// Number of ticks before the next try, if the store has not permitted the last one.
const DENIED_TICKS: u32 = 30;

/// Maximum number of instances whose last announcement is remembered. Beyond it, all of them are
/// forgotten.
const MAX_HEARD: usize = 1_000;
/// Maximum number of ticks in which the identities of all servers are requested after a possible
/// failover. After that, those that are known are enough.
const MAX_IDENTITY_TICKS: u32 = 15;

pub(super) struct Feed {
    reader: Reader,
    /// The name by which this instance recognises its own announcements.
    instance: u64,
    /// The number of announcements so far.
    announced: u64,
    /// The position in the stream up to which announcements were read.
    place: Option<String>,
    /// The number of the last announcement of each other instance.
    heard: HashMap<u64, u64>,
    /// The number of times that the store may have forgotten writes, as of `identities`.
    resets: Resets,
    /// The identity of each shard's server at that time.
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
            // Rows lack the counts of the new rules' windows.
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

    /// Requests a walk if another server has taken over: it may lack writes that rows have.
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
        let are_all_known = identities.len() == store.shards().len();
        self.identity_ticks += 1;
        if !are_all_known && self.identity_ticks < MAX_IDENTITY_TICKS {
            return;
        }
        (self.resets, self.identities, self.identity_ticks) = (resets, identities, 0);
        if is_other && self.has_looked {
            // Its stream may also begin anew, with earlier ids.
            self.place = None;
            self.reader.shared.note_missed();
        }
        self.has_looked = true;
    }

    /// Reads the firing alerts of anomalies whose alerts were delivered to this instance.
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
        // Anomalies that are new here are read for their names, which announcements lack.
        unknown.truncate(READ_OF_TICK);
        self.reader.read(&unknown, PAUSES, false).await
    }

    /// Requests a walk if an announcement of an instance was missed.
    fn note_number(&mut self, instance: u64, number: u64) {
        if self.heard.len() >= MAX_HEARD && !self.heard.contains_key(&instance) {
            self.heard.clear();
        }
        // An announcement whose reply was lost is sent again with the same number.
        let last = self.heard.insert(instance, number);
        if last.is_some_and(|last| number > last + 1) {
            self.reader.shared.note_missed();
        }
    }
}
