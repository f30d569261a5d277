//! The slots of connections. When all are in use, the connections that have been idle longest are
//! closed for new ones: a client that opens thousands and leaves them idle locks nobody out.

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

/// Time for which a connection must be idle before it may be closed: a client between two requests
/// keeps its connection.
const IDLE_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of connections that are closed at once: an eighth of the idle ones up to this
/// number, as in nginx, so that not every new connection searches all of them.
const MAX_CLOSED_AT_ONCE: usize = 32;

/// Replaces the time since which a connection is idle, that is, has no complete request.
const BUSY: u64 = u64::MAX;
const CLOSING: u64 = u64::MAX - 1;

/// All connections that have a slot.
#[derive(Clone)]
pub(super) struct Connections(Arc<Slots>);

struct Slots {
    max: u64,
    started: Instant,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    by_number: HashMap<u64, Arc<State>>,
    last_number: u64,
    /// Before this time no connection is idle for long enough.
    none_idle_before_ms: u64,
}

/// The state of a connection.
struct State {
    /// The time since which it is idle, in ms since `Slots::started`; [`BUSY`] or [`CLOSING`].
    idle_since_ms: AtomicU64,
    close: Notify,
}

/// A connection's slot; it is free again on drop.
pub(in crate::http) struct ConnectionSlot {
    slots: Arc<Slots>,
    number: u64,
    state: Arc<State>,
}

/// A request of a connection is in progress until this is dropped.
pub(in crate::http) struct BusyConnection<'a>(&'a ConnectionSlot);

impl Connections {
    pub(super) fn new(max: u64) -> Self {
        Self(Arc::new(Slots { max, started: Instant::now(), open: Mutex::default() }))
    }

    /// Takes a slot; returns `None` while all are in use.
    pub(super) fn slot(&self) -> Option<ConnectionSlot> {
        self.slot_at(self.0.now_ms())
    }

    fn slot_at(&self, now_ms: u64) -> Option<ConnectionSlot> {
        let mut open = self.0.open.lock();
        let is_full = |open: &Open| open.by_number.len() as u64 >= self.0.max;
        if is_full(&open) {
            open.close_idle(now_ms);
        }
        if is_full(&open) {
            return None;
        }
        open.last_number += 1;
        let number = open.last_number;
        let state = State { idle_since_ms: AtomicU64::new(now_ms), close: Notify::new() };
        let state = Arc::new(state);
        open.by_number.insert(number, Arc::clone(&state));
        Some(ConnectionSlot { slots: Arc::clone(&self.0), number, state })
    }
}

impl Open {
    /// Closes the connections that have been idle longest.
    fn close_idle(&mut self, now_ms: u64) {
        if now_ms < self.none_idle_before_ms {
            return;
        }
        let idle_after_ms = IDLE_AFTER.as_millis() as u64;
        let since = |state: &State| state.idle_since_ms.load(Ordering::Relaxed);
        let mut idle: Vec<_> = self
            .by_number
            .iter()
            .map(|(number, state)| (since(state), *number))
            .filter(|(since_ms, _)| *since_ms < CLOSING)
            .collect();
        idle.sort_unstable();
        let first_ms = idle.first().map_or(now_ms, |(since_ms, _)| *since_ms);
        idle.retain(|(since_ms, _)| since_ms + idle_after_ms <= now_ms);
        if idle.is_empty() {
            self.none_idle_before_ms = first_ms + idle_after_ms;
            return;
        }
        let mut to_close = (idle.len() / 8).clamp(1, MAX_CLOSED_AT_ONCE);
        for (since_ms, number) in idle {
            // A connection that has just begun a request stays.
            if self.by_number[&number].close(since_ms) {
                self.by_number.remove(&number);
                telemetry::idle_connection_closed();
                to_close -= 1;
            }
            if to_close == 0 {
                break;
            }
        }
    }
}

impl State {
    /// Sets the time, unless the connection is closing. Returns whether it stays open.
    fn set_unless_closing(&self, idle_since_ms: u64) -> bool {
        let order = Ordering::Relaxed;
        let stays_open = |since_ms| (since_ms != CLOSING).then_some(idle_since_ms);
        self.idle_since_ms.fetch_update(order, order, stays_open).is_ok()
    }

    /// Closes the connection if it has been idle since `since_ms`. Returns whether it has.
    fn close(&self, since_ms: u64) -> bool {
        let order = Ordering::Relaxed;
        let is_closing =
            self.idle_since_ms.compare_exchange(since_ms, CLOSING, order, order).is_ok();
        if is_closing {
            self.close.notify_one();
        }
        is_closing
    }
}

impl Slots {
    fn now_ms(&self) -> u64 {
        // 64 bits are enough for some five hundred million years.
        self.started.elapsed().as_millis() as u64
    }
}

impl ConnectionSlot {
    /// Completes when the connection has to close.
    pub(super) async fn closing(&self) {
        self.state.close.notified().await;
    }

    /// Notes that the head of a request has arrived.
    pub(super) fn touch(&self) {
        self.state.set_unless_closing(self.slots.now_ms());
    }

    /// Notes that a request has arrived completely. Returns `None` if it is too late, because the
    /// connection is closing.
    pub(in crate::http) fn begin_request(&self) -> Option<BusyConnection<'_>> {
        let is_open = self.state.set_unless_closing(BUSY);
        // Not `then_some`, which would create a `BusyConnection` in any case, and drop it.
        is_open.then(|| BusyConnection(self))
    }
}

impl Drop for BusyConnection<'_> {
    fn drop(&mut self) {
        let ConnectionSlot { slots, state, .. } = self.0;
        state.idle_since_ms.store(slots.now_ms(), Ordering::Relaxed);
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.slots.open.lock().by_number.remove(&self.number);
    }
}

impl fmt::Debug for ConnectionSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionSlot").field("number", &self.number).finish_non_exhaustive()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("max", &self.0.max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time far in the future, at which a connection that was just busy has been idle for long.
    const LATER_MS: u64 = 1_000_000;

    #[test]
    fn a_slot_is_free_again_when_its_connection_has_closed() {
        let connections = Connections::new(1);
        let slot = connections.slot_at(0).unwrap();
        assert!(connections.slot_at(0).is_none());
        drop(slot);
        assert!(connections.slot_at(0).is_some());
    }

    #[tokio::test]
    async fn the_connection_that_has_been_idle_longest_is_closed() {
        let connections = Connections::new(2);
        let younger = connections.slot_at(20).unwrap();
        let older = connections.slot_at(10).unwrap();
        assert!(connections.slot_at(1_009).is_none(), "none has been idle for a second");
        let third = connections.slot_at(1_010).unwrap();
        older.closing().await;
        assert!(older.begin_request().is_none(), "too late");
        drop(older);
        let busy = [younger.begin_request(), third.begin_request()];
        assert!(busy.iter().all(Option::is_some), "the others stay");
        assert!(connections.slot_at(LATER_MS).is_none());
    }

    #[test]
    fn a_connection_with_a_request_in_progress_stays() {
        let connections = Connections::new(1);
        let slot = connections.slot_at(0).unwrap();
        let busy = slot.begin_request().unwrap();
        assert!(connections.slot_at(LATER_MS).is_none());
        drop(busy);
        assert!(connections.slot_at(2 * LATER_MS).is_some());
        assert!(slot.begin_request().is_none());
    }

    #[test]
    fn an_eighth_of_many_idle_connections_is_closed_at_once() {
        let connections = Connections::new(100);
        let slots: Vec<_> = (0..100).map(|_| connections.slot_at(0).unwrap()).collect();
        let newcomers: Vec<_> = (0..100).map_while(|_| connections.slot_at(1_000)).collect();
        assert_eq!(newcomers.len(), 100);
        assert!(connections.slot_at(1_001).is_none());
        assert!(slots.iter().all(|slot| slot.begin_request().is_none()));
        drop(slots);
        assert!(connections.slot_at(1_001).is_none(), "their slots were taken before");
    }
}
