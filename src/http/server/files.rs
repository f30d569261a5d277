//! The limit of open files: each connection is one.

use rlimit::Resource;

/// Number of files that are no client's connection: those to Redis and a collector, the store's,
/// the log's, and connections that are refused.
const OTHER_FILES: u64 = 512;

/// Raises the limit as far as needed and allowed. Returns the number of connections, up to
/// `connections`, that it is enough for. If there were more slots than files, no connection could
/// be accepted any more, not even to close an idle one for it.
pub(super) fn max_connections(connections: u64) -> u64 {
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
        "only {room} connections can be open at a time: {connections} (http.max_connections) need \
         {needed} open files, and the system allows {limit}. Raise the system's limit (`ulimit \
         -Hn`, LimitNOFILE= of systemd), or lower the option"
    );
    room
}
