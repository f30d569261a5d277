//! The ids that were added last, each with a time: a bounded number of them.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{EventDigest, Timestamp};

/// The ids that were added last, each with a time. Serialised as the list of both, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "VecDeque<(Timestamp, EventDigest)>", into = "VecDeque<(Timestamp, EventDigest)>")]
pub struct RecentIds {
    order: VecDeque<(Timestamp, EventDigest)>,
    times: HashMap<EventDigest, Timestamp>,
}

impl RecentIds {
    /// Adds an id, and drops the oldest ones above `limit`.
    pub fn add(&mut self, at: Timestamp, id: EventDigest, limit: usize) {
        self.order.push_back((at, id));
        self.times.insert(id, at);
        while self.order.len() > limit {
            self.drop_oldest();
        }
    }

    /// Returns the time with which an id was last added.
    pub fn time_of(&self, id: EventDigest) -> Option<Timestamp> {
        self.times.get(&id).copied()
    }

    /// Drops the ids that were added first, up to the first one later than `time`.
    pub fn drop_until(&mut self, time: Timestamp) {
        while self.order.front().is_some_and(|(at, _)| *at <= time) {
            self.drop_oldest();
        }
    }

    /// Returns the ids and their times, oldest first.
    pub fn list(&self) -> impl Iterator<Item = (Timestamp, EventDigest)> {
        self.order.iter().copied()
    }

    fn drop_oldest(&mut self) {
        // The same id may have been added again, after its first copy had expired.
        if let Some((at, id)) = self.order.pop_front()
            && self.times.get(&id) == Some(&at)
        {
            self.times.remove(&id);
        }
    }
}

impl From<VecDeque<(Timestamp, EventDigest)>> for RecentIds {
    fn from(order: VecDeque<(Timestamp, EventDigest)>) -> Self {
        let times = order.iter().map(|(at, id)| (*id, *at)).collect();
        Self { order, times }
    }
}

impl From<RecentIds> for VecDeque<(Timestamp, EventDigest)> {
    fn from(ids: RecentIds) -> Self {
        ids.order
    }
}
