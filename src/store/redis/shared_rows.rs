//! The anomalies of a Redis that other programs write to, for the catalogues of its instances: they
//! are found by SCAN, and changes are announced in the stream `<prefix>changes`.
//!
//! The scripts that count do not use these commands: without the permission for them, everything
//! else works, and no probe tries them.

use std::time::Duration;

use async_trait::async_trait;
use fred::types::Value;

use super::{
    RedisStore,
    reply::{Reply, list, unexpected},
    script::Call,
};
use crate::{
    domain::Moment,
    store::{Announced, Found, Judged, Shard, SharedRows, StoreError, StoredRow},
};

/// Number of keys that one SCAN visits: it takes some 0.3 ms of Redis.
const SCAN_COUNT: i64 = 200;
/// Maximum number of anomalies in one call of `rows.lua`, which takes some 1.5 ms of Redis.
const ROWS_OF_CALL: usize = 50;
/// Time for which announcements can be received, and for which their key exists, in milliseconds.
const HEARD_MS: i64 = 5 * 60_000;
const KEPT_MS: i64 = 2 * HEARD_MS;
/// Maximum number of announcements that are read by one call.
const ANNOUNCEMENTS_AT_ONCE: usize = 20;
/// The name of the only field of an announcement.
const FIELD: &str = "c";

impl RedisStore {
    /// Runs a command on a key of the whole deployment.
    async fn send(
        &self,
        key: &str,
        name: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Value, StoreError> {
        self.servers.send(self.servers.slot_of_name(key), name, arguments).await
    }

    /// Returns the server's time in milliseconds.
    async fn server_ms(&self, key: &str) -> Result<i64, StoreError> {
        let time = list(self.send(key, "TIME", Vec::new()).await?)?;
        let number = |index: usize| time.get(index).and_then(Value::as_i64);
        let (Some(seconds), Some(micros)) = (number(0), number(1)) else {
            return Err(unexpected("no time"));
        };
        Ok(seconds * 1_000 + micros / 1_000)
    }
}

#[async_trait]
impl SharedRows for RedisStore {
    async fn find(&self, shard: Shard, cursor: &str) -> Result<Found, StoreError> {
        let cursor = if cursor.is_empty() { "0" } else { cursor };
        let arguments = vec![
            cursor.into(),
            "MATCH".into(),
            self.calls.names.pattern().into(),
            "COUNT".into(),
            SCAN_COUNT.into(),
        ];
        let mut answer = list(self.servers.send_to(shard, "SCAN", arguments).await?)?.into_iter();
        let next = answer.next().and_then(Value::into_string);
        let next = next.ok_or_else(|| unexpected("no cursor"))?;
        let names = list(answer.next().unwrap_or(Value::Null))?;
        let names = names.iter().filter_map(|name| name.as_str());
        let mut keys: Vec<_> =
            names.filter_map(|name| self.calls.names.anomaly_of(&name)).collect();
        keys.sort_unstable();
        keys.dedup();
        Ok(Found { keys, next: (next != "0").then_some(next) })
    }

    async fn read_rows(
        &self,
        moment: Moment,
        anomalies: &[Judged],
    ) -> Vec<Result<Option<StoredRow>, StoreError>> {
        let now = moment.now;
        let mut rows = Vec::with_capacity(anomalies.len());
        for anomalies in anomalies.chunks(ROWS_OF_CALL) {
            let begin = |_: &[&Judged]| self.calls.rows(now);
            let add = |call: &mut Call, anomaly: &Judged| self.calls.add_judged(call, now, anomaly);
            let read = |index: usize, mut reply: Reply| {
                let rule = anomalies[index].rule.as_ref();
                reply.if_known("known", |reply| {
                    let stats = reply.stats(now, rule, None, None)?;
                    let (signature_json, firing) = (reply.text()?, reply.firing()?);
                    Ok(StoredRow { stats, signature_json, firing })
                })
            };
            rows.extend(self.run_batch(anomalies, |anomaly| anomaly.key, begin, add, read).await);
        }
        rows
    }

    async fn take_lease(&self, holder: &str, time: Duration) -> Result<bool, StoreError> {
        let name = self.calls.names.walker();
        let milliseconds = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let set = |condition: &str| {
            vec![name.into(), holder.into(), condition.into(), "PX".into(), milliseconds.into()]
        };
        if is_ok(&self.send(name, "SET", set("NX")).await?) {
            return Ok(true);
        }
        let has = self.send(name, "GET", vec![name.into()]).await?;
        if has.as_str().as_deref() != Some(holder) {
            return Ok(false);
        }
        // The lease may have expired between the two calls, and another instance may have taken it.
        // Two instances then scan the store at the same time, which is only a waste of time.
        Ok(is_ok(&self.send(name, "SET", set("XX")).await?))
    }

    async fn announce(&self, changes: &[u8]) -> Result<(), StoreError> {
        let name = self.calls.names.changes();
        // By the server's time, from which the ids in the stream are made.
        let oldest = self.server_ms(name).await? - HEARD_MS;
        let arguments = vec![
            name.into(),
            "MINID".into(),
            "~".into(),
            oldest.into(),
            "*".into(),
            FIELD.into(),
            Value::Bytes(changes.to_vec().into()),
        ];
        self.send(name, "XADD", arguments).await?;
        self.send(name, "EXPIRE", vec![name.into(), (KEPT_MS / 1_000).into()]).await?;
        Ok(())
    }

    async fn announced(&self, after: Option<&str>) -> Result<Announced, StoreError> {
        let name = self.calls.names.changes();
        let after = match after {
            Some(after) => after.to_owned(),
            // The first entry of a millisecond has the number 0, and comes after this id.
            None => format!("{}-0", self.server_ms(name).await? - 1),
        };
        let arguments = vec![
            "COUNT".into(),
            (ANNOUNCEMENTS_AT_ONCE as i64).into(),
            "STREAMS".into(),
            name.into(),
            after.as_str().into(),
        ];
        let answer = self.send(name, "XREAD", arguments).await?;
        let mut announced = Announced { next: after, ..Announced::default() };
        if answer.is_null() {
            return Ok(announced);
        }
        // The reply is a list of streams: the name, and its entries.
        let stream = list(answer)?.into_iter().next().unwrap_or(Value::Null);
        let entries = list(list(stream)?.into_iter().nth(1).unwrap_or(Value::Null))?;
        announced.has_more = entries.len() == ANNOUNCEMENTS_AT_ONCE;
        for entry in entries {
            let mut entry = list(entry)?.into_iter();
            let id = entry.next().and_then(|id| id.as_str().map(|id| id.to_string()));
            announced.next = id.ok_or_else(|| unexpected("an entry without an id"))?;
            // A field and its value. Other programs may have written other fields.
            let fields = list(entry.next().unwrap_or(Value::Null))?;
            let change = fields.get(1).and_then(Value::as_bytes).map(<[u8]>::to_vec);
            announced.changes.extend(change);
        }
        Ok(announced)
    }
}

/// Returns true for the reply `OK`. A SET whose condition does not hold has another reply.
fn is_ok(answer: &Value) -> bool {
    answer.as_str().as_deref() == Some("OK")
}
