//! Keeps the rows true between two walks: announces what this instance has written, hears what
//! others have, and reads again the counts that change as time passes.

use std::time::Duration;

use tokio::time::{self, MissedTickBehavior};

use super::{
    announcement::{decode, encode},
    rows::SEGMENTS,
    shared::Reader,
};
use crate::{
    domain::AnomalyKey,
    store::{Cause, StoreError},
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

pub(super) struct Feed {
    pub(super) reader: Reader,
    /// By which announcements of its own are known.
    pub(super) instance: u64,
}

impl Feed {
    pub(super) async fn run(self) {
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // How far announcements are heard.
        let mut place = None;
        let (mut number, mut denied_ticks) = (0_usize, 0);
        loop {
            ticks.tick().await;
            number = number.wrapping_add(1);
            if denied_ticks > 0 {
                denied_ticks -= 1;
                continue;
            }
            let outcome = self.tick(number, &mut place).await;
            self.reader.shared.note_feed(&outcome);
            if outcome.is_err_and(|fault| fault.cause() == Cause::Permission) {
                denied_ticks = DENIED_TICKS;
            }
        }
    }

    async fn tick(&self, number: usize, place: &mut Option<String>) -> Result<(), StoreError> {
        if self.reader.shared.rows.judge_by(self.reader.rules.in_force().set()) {
            // Rows lack what the new rules count.
            self.reader.shared.walk_wanted.notify_one();
        }
        self.read_alerts().await?;
        // A number that wraps makes one announcement early, or late by a quarter of a minute.
        self.announce(number as u16).await?;
        self.listen(place).await?;
        let now = (self.reader.moment)().now;
        let parts = (number * PARTS_OF_TICK)..(number + 1) * PARTS_OF_TICK;
        let mut due: Vec<_> =
            parts.flat_map(|part| self.reader.shared.rows.due(part, now)).collect();
        due.truncate(READ_OF_TICK);
        self.reader.read(&due, PAUSES, false).await
    }

    /// Reads which alerts fire, of anomalies whose alerts were delivered to this instance.
    async fn read_alerts(&self) -> Result<(), StoreError> {
        let unread = self.reader.shared.rows.take_unread(READ_OF_TICK);
        let read = self.reader.read(&unread, PAUSES, true).await;
        self.reader.shared.rows.put_back_unread(&unread);
        read
    }

    async fn announce(&self, tick: u16) -> Result<(), StoreError> {
        let Some(shared_rows) = self.reader.shared_rows() else { return Ok(()) };
        let news = self.reader.shared.rows.take_news(tick, NEWS_OF_TICK);
        for rows in news.chunks(NEWS_AT_ONCE) {
            shared_rows.announce(&encode(self.instance, rows)).await?;
        }
        Ok(())
    }

    async fn listen(&self, place: &mut Option<String>) -> Result<(), StoreError> {
        let Some(shared_rows) = self.reader.shared_rows() else { return Ok(()) };
        let rows = &self.reader.shared.rows;
        let mut unknown: Vec<AnomalyKey> = Vec::new();
        loop {
            let announced = shared_rows.announced(place.as_deref()).await?;
            if self.reader.shared.note_heard() > MISSED_AFTER {
                self.reader.shared.note_missed();
            }
            *place = Some(announced.next);
            let now = (self.reader.moment)().now;
            for row in announced.changes.iter().flat_map(|change| decode(self.instance, change)) {
                rows.hear(&row, now);
                if !rows.has_fields(row.key) {
                    unknown.push(row.key);
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
}
