//! Information about a server from INFO: the ids that show whether it is the same server as before,
//! and whether it may evict keys. A server that does not report it is not at fault.

use fred::{clients::Client as Connection, types::Value};

use super::command::send;

const SERVER: &[&str] = &["INFO", "server"];
const REPLICATION: &[&str] = &["INFO", "replication"];
const MEMORY: &[&str] = &["INFO", "memory"];

/// The only policy with which Redis never evicts keys.
const NO_EVICTION: &str = "noeviction";

/// Returns the ids of a process and of its data's history, which a replica takes over from its
/// master; `None` if the server does not report both.
pub(super) async fn identity(connection: &Connection) -> Option<String> {
    let run_id = ask(connection, SERVER, "run_id").await?;
    let history = ask(connection, REPLICATION, "master_replid").await?;
    Some(format!("{run_id} {history}"))
}

/// Returns the policy by which the server may evict keys, if it may.
pub(super) async fn eviction_policy(connection: &Connection) -> Option<String> {
    ask(connection, MEMORY, "maxmemory_policy").await.filter(|policy| policy != NO_EVICTION)
}

async fn ask(
    connection: &Connection,
    section: &'static [&'static str],
    field: &str,
) -> Option<String> {
    let info = send(connection, section).await.ok().and_then(Value::into_string)?;
    value(&info, field)
}

/// Returns the value of a field in the text of INFO.
pub(super) fn value(info: &str, field: &str) -> Option<String> {
    let value = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_that_of_the_whole_field_name() {
        let info = "# Replication\r\nmaster_replid2:000\r\nmaster_replid:abc\r\nrole:\r\n";
        assert_eq!(value(info, "master_replid").as_deref(), Some("abc"));
        assert_eq!(value(info, "role"), None);
        assert_eq!(value(info, "run_id"), None);
    }
}
