//! How many files the process may have open: each connection is one.

use rlimit::Resource;

/// Those that are no connection of a client: to Redis and a collector, the store's, the log's, and connections that are
/// told that there is no place for them.
const OTHER_FILES: u64 = 512;

/// How many of `connections` can be served, once the limit is raised as far as need and system have it. With more
/// places than files none could be accepted any more, not even to make room by ending an idle one.
pub(super) fn room_for(connections: u64) -> u64 {
    let Ok((soft, hard)) = Resource::NOFILE.get() else { return connections };
    let needed = connections + OTHER_FILES;
    let mut limit = soft;
    if soft < needed && Resource::NOFILE.set(needed.min(hard), hard).is_ok() {
        limit = needed.min(hard);
    }
    if limit >= needed {
        return connections;
    }
    let room = limit.saturating_sub(OTHER_FILES).max(limit / 2);
    tracing::warn!(
        connections,
        limit,
        room,
        "only {room} connections are served at a time: {connections} (http.max_connections) would take {needed} open \
         files, and the system allows {limit}. Raise its limit (`ulimit -Hn`, LimitNOFILE= of systemd), or lower the \
         option"
    );
    room
}
