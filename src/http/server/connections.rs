//! Which connections have a place. Once all places are taken, connections on which nothing is asked make room
//! for those to come: whoever opens thousands and leaves them so keeps the service from nobody.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::telemetry;

/// A client between two requests keeps its connection for so long at least.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// So many make room at once, so that not every connection to come looks through all: an eighth of the idle
/// ones, as in nginx, which also knows this bound.
const MOST_AT_ONCE: usize = 32;

/// In place of the time since which a connection is idle, that is, no request has come whole.
const ASKING: u64 = u64::MAX;
const LEAVING: u64 = u64::MAX - 1;

/// All connections that have a place.
#[derive(Clone)]
pub(super) struct Connections(Arc<Places>);

struct Places {
    most: u64,
    begun: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<State>>,
    last_number: u64,
    /// Before this time looking for idle ones is in vain.
    none_idle_before_ms: u64,
}

/// What a connection does.
struct State {
    /// Since when nothing is asked, in ms since the beginning; [`ASKING`] or [`LEAVING`].
    idle_since_ms: AtomicU64,
    leave: Notify,
}

/// A connection's place; free again when this is dropped.
pub(in crate::http) struct Place {
    places: Arc<Places>,
    number: u64,
    state: Arc<State>,
}

/// A request of a connection is under way.
pub(in crate::http) struct Asking {
    places: Arc<Places>,
    state: Arc<State>,
}

impl Connections {
    pub(super) fn new(most: u64) -> Self {
        Self(Arc::new(Places { most, begun: Instant::now(), open: Mutex::default() }))
    }

    /// A place for a connection; `None` while all others are in use.
    pub(super) fn place(&self) -> Option<Place> {
        self.place_at(self.0.now_ms())
    }

    fn place_at(&self, now_ms: u64) -> Option<Place> {
        let mut open = self.0.open.lock();
        let is_full = |open: &Open| open.by_number.len() as u64 >= self.0.most;
        if is_full(&open) {
            open.make_room(now_ms);
        }
        if is_full(&open) {
            return None;
        }
        open.last_number += 1;
        let number = open.last_number;
        let state = State { idle_since_ms: AtomicU64::new(now_ms), leave: Notify::new() };
        let state = Arc::new(state);
        open.by_number.insert(number, Arc::clone(&state));
        Some(Place { places: Arc::clone(&self.0), number, state })
    }
}

impl Open {
    /// Has those leave that have been idle for longest.
    fn make_room(&mut self, now_ms: u64) {
        if now_ms < self.none_idle_before_ms {
            return;
        }
        let idle_after_ms = IDLE_AFTER.as_millis() as u64;
        let since = |state: &State| state.idle_since_ms.load(Ordering::Relaxed);
        let mut idle: Vec<_> = self
            .by_number
            .iter()
            .map(|(number, state)| (since(state), *number))
            .filter(|(since_ms, _)| *since_ms < LEAVING)
            .collect();
        idle.sort_unstable();
        let first_ms = idle.first().map_or(now_ms, |(since_ms, _)| *since_ms);
        idle.retain(|(since_ms, _)| since_ms + idle_after_ms <= now_ms);
        if idle.is_empty() {
            self.none_idle_before_ms = first_ms + idle_after_ms;
            return;
        }
        let mut leaving = (idle.len() / 8).clamp(1, MOST_AT_ONCE);
        for (since_ms, number) in idle {
            // One that has just begun to ask stays.
            if self.by_number[&number].leave(since_ms) {
                self.by_number.remove(&number);
                telemetry::idle_connection_closed();
                leaving -= 1;
            }
            if leaving == 0 {
                break;
            }
        }
    }
}

impl State {
    /// Whether it does not leave.
    fn become_unless_leaving(&self, idle_since_ms: u64) -> bool {
        let order = Ordering::Relaxed;
        let stays = |since_ms| (since_ms != LEAVING).then_some(idle_since_ms);
        self.idle_since_ms.fetch_update(order, order, stays).is_ok()
    }

    /// Whether it has been idle until here, and leaves.
    fn leave(&self, since_ms: u64) -> bool {
        let order = Ordering::Relaxed;
        let left = self.idle_since_ms.compare_exchange(since_ms, LEAVING, order, order).is_ok();
        if left {
            self.leave.notify_one();
        }
        left
    }
}

impl Places {
    fn now_ms(&self) -> u64 {
        // For some five hundred million years it has room.
        self.begun.elapsed().as_millis() as u64
    }
}

impl Place {
    /// Done when the connection has to end.
    pub(super) async fn leaving(&self) {
        self.state.leave.notified().await;
    }

    /// Notes that the head of a request has come.
    pub(super) fn touch(&self) {
        self.state.become_unless_leaving(self.places.now_ms());
    }

    /// Notes that a request has come whole, until what this gives is dropped. `None` when it has come too late: the
    /// connection ends.
    pub(in crate::http) fn ask(&self) -> Option<Asking> {
        let asks = self.state.become_unless_leaving(ASKING);
        asks.then(|| Asking { places: Arc::clone(&self.places), state: Arc::clone(&self.state) })
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.state.idle_since_ms.store(self.places.now_ms(), Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open.lock().by_number.remove(&self.number);
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("most", &self.0.most).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Far from now, so that what has just asked is as if it had been idle since the beginning.
    const LATER_MS: u64 = 1_000_000;

    #[test]
    fn a_place_is_free_again_when_its_connection_has_ended() {
        let connections = Connections::new(1);
        let place = connections.place_at(0).unwrap();
        assert!(connections.place_at(0).is_none());
        drop(place);
        assert!(connections.place_at(0).is_some());
    }

    #[tokio::test]
    async fn the_one_that_has_been_idle_for_longest_makes_room() {
        let connections = Connections::new(2);
        let younger = connections.place_at(20).unwrap();
        let older = connections.place_at(10).unwrap();
        assert!(connections.place_at(1_009).is_none(), "none has been idle for a second");
        let third = connections.place_at(1_010).unwrap();
        older.leaving().await;
        assert!(older.ask().is_none(), "too late");
        drop(older);
        let asking = [younger.ask(), third.ask()];
        assert!(asking.iter().all(Option::is_some), "the others stay");
        assert!(connections.place_at(LATER_MS).is_none());
    }

    #[test]
    fn a_connection_with_a_request_under_way_stays() {
        let connections = Connections::new(1);
        let place = connections.place_at(0).unwrap();
        let asking = place.ask().unwrap();
        assert!(connections.place_at(LATER_MS).is_none());
        drop(asking);
        assert!(connections.place_at(2 * LATER_MS).is_some());
        assert!(place.ask().is_none());
    }

    #[test]
    fn many_idle_ones_make_room_for_many() {
        let connections = Connections::new(100);
        let places: Vec<_> = (0..100).map(|_| connections.place_at(0).unwrap()).collect();
        let newcomers: Vec<_> = (0..100).map_while(|_| connections.place_at(1_000)).collect();
        assert_eq!(newcomers.len(), 100);
        assert!(connections.place_at(1_001).is_none());
        assert!(places.iter().all(|place| place.ask().is_none()));
        drop(places);
        assert!(connections.place_at(1_001).is_none(), "their places were taken before");
    }
}
