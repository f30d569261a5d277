//! The least that a server does with Redis: it adds each event to a set of its anomaly, and answers
//! the size of the set. What waits goes to Redis as one script call, one at a time, as in the
//! service. There are no windows, no TTLs, no ids of callers, and nothing is remembered.

use anomaly_counter::domain::{AnomalyKey, Timestamp};
use fred::{
    clients::Client,
    error::Error,
    interfaces::{ClientLike as _, LuaInterface as _},
    types::{Builder, config::Config},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

/// KEYS: the sets. ARGV: for each one a score and a member, or nothing to be added. Returns the
/// sizes of the sets.
const SCRIPT: &str = "
local call, lengths = redis.call, {}
for i = 1, #KEYS do
  if ARGV[1] then
    call('ZADD', KEYS[i], 'NX', ARGV[2 * i - 1], ARGV[2 * i])
  end
  lengths[i] = call('ZCARD', KEYS[i])
end
return lengths";

/// Maximum number of events in a call.
const MAX_EVENTS: usize = 64;

/// A connection to Redis.
#[derive(Clone, Debug)]
pub(crate) struct BareRedis {
    records: mpsc::UnboundedSender<Call>,
    reads: mpsc::UnboundedSender<Call>,
}

#[derive(Debug)]
struct Call {
    key: AnomalyKey,
    at: Timestamp,
    count: oneshot::Sender<u64>,
}

impl BareRedis {
    /// Connects to a Redis. Must be called within a runtime.
    ///
    /// # Errors
    /// Fails if Redis does not answer.
    pub(crate) async fn connect(url: &str) -> Result<Self, Error> {
        let client = Builder::from_config(Config::from_url(url)?).build()?;
        client.init().await?;
        let hash: String = client.script_load(SCRIPT).await?;
        let start = |is_write| {
            let (sender, calls) = mpsc::unbounded_channel();
            tokio::spawn(answer(client.clone(), hash.clone(), is_write, calls));
            sender
        };
        Ok(Self { records: start(true), reads: start(false) })
    }

    /// Adds an event and returns the number of events; `None` if Redis has failed.
    pub(crate) async fn record(&self, key: AnomalyKey, at: Timestamp) -> Option<u64> {
        ask(&self.records, key, at).await
    }

    /// Returns the number of events; `None` if Redis has failed.
    pub(crate) async fn read(&self, key: AnomalyKey, at: Timestamp) -> Option<u64> {
        ask(&self.reads, key, at).await
    }
}

async fn ask(calls: &mpsc::UnboundedSender<Call>, key: AnomalyKey, at: Timestamp) -> Option<u64> {
    let (count, answer) = oneshot::channel();
    calls.send(Call { key, at, count }).ok()?;
    answer.await.ok()
}

/// Answers calls until Redis fails.
async fn answer(
    client: Client,
    hash: String,
    is_write: bool,
    mut waiting: mpsc::UnboundedReceiver<Call>,
) {
    let mut members = 0_u64;
    let mut calls = Vec::with_capacity(MAX_EVENTS);
    while waiting.recv_many(&mut calls, MAX_EVENTS).await > 0 {
        // Requests that are ready join the call, as in the service.
        yield_now().await;
        while calls.len() < MAX_EVENTS
            && let Ok(call) = waiting.try_recv()
        {
            calls.push(call);
        }
        let keys: Vec<String> = calls.iter().map(|call| format!("bare:{}", call.key)).collect();
        let mut arguments = Vec::new();
        for call in calls.iter().filter(|_| is_write) {
            let micros = call.at.as_micros();
            arguments.push(format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
            members += 1;
            arguments.push(format!("{members:012}"));
        }
        let counts = client.evalsha::<Vec<u64>, _, _, _>(hash.as_str(), keys, arguments).await;
        let Ok(counts) = counts else { return };
        for (call, count) in calls.drain(..).zip(counts) {
            // A caller that has disconnected needs no answer.
            let _ = call.count.send(count);
        }
    }
}
