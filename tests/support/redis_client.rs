//! A connection to Redis beside the service's own, like that of any other program.

use std::time::Duration;

use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{ClusterHash, CustomCommand, Value, config::Config},
};

use super::{RedisServer, eventually};

/// Timeout of a reply. An idle machine needs milliseconds.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct OtherClient(Client);

impl RedisServer {
    pub(crate) async fn client(&self) -> OtherClient {
        let client = Client::new(Config::from_url(&self.url()).unwrap(), None, None, None);
        eventually("redis-server takes a connection", || async { client.init().await.ok() }).await;
        OtherClient(client)
    }
}

impl OtherClient {
    /// Runs a command and returns its reply.
    pub(crate) async fn run(&self, command: &[&str]) -> Value {
        let name = CustomCommand::new(command[0].to_owned(), ClusterHash::Random, false);
        let arguments = command[1..].iter().map(|word| (*word).to_owned()).collect();
        let reply = tokio::time::timeout(REPLY_TIMEOUT, self.0.custom(name, arguments));
        reply.await.expect("a reply in time").unwrap()
    }

    pub(crate) async fn text(&self, command: &[&str]) -> Option<String> {
        self.run(command).await.into_string()
    }

    pub(crate) async fn number(&self, command: &[&str]) -> i64 {
        self.run(command).await.as_i64().unwrap()
    }

    pub(crate) async fn texts(&self, command: &[&str]) -> Vec<String> {
        self.run(command).await.into_array().into_iter().filter_map(Value::into_string).collect()
    }
}
