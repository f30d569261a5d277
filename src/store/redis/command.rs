//! Commands in the form that fred takes. They are sent by name, because fred's own functions ignore
//! options.

use fred::{
    clients::Client as Connection,
    error::Error,
    interfaces::ClientLike as _,
    types::{ClusterHash, CustomCommand, Value},
};

pub(super) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

/// Runs the command with these words.
pub(super) async fn send(
    connection: &Connection,
    words: &'static [&'static str],
) -> Result<Value, Error> {
    let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
    connection.custom(command(name), arguments.to_vec()).await
}
