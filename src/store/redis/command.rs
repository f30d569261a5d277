//! Commands in the form that fred takes. They are sent by name, because fred's own functions ignore
//! options.

use std::pin::Pin;

use fred::{
    clients::Client as Connection,
    error::Error,
    interfaces::ClientLike as _,
    types::{ClusterHash, CustomCommand, Value},
};

pub(super) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::Random, false)
}

/// Runs a command. fred's future takes 7 KB, and each future around it as much or twice as much: so
/// it is on the heap.
pub(super) fn run(
    connection: &Connection,
    name: &'static str,
    arguments: Vec<Value>,
) -> Pin<Box<impl Future<Output = Result<Value, Error>> + Send>> {
    Box::pin(connection.custom(command(name), arguments))
}

/// Runs the command with these words.
pub(super) async fn send(
    connection: &Connection,
    words: &'static [&'static str],
) -> Result<Value, Error> {
    let (name, arguments) = words.split_first().unwrap_or((&"PING", &[]));
    run(connection, name, arguments.iter().copied().map(Value::from_static_str).collect()).await
}
