//! The slots of a cluster: the slot of a key, and the reply of `CLUSTER SLOTS` with their masters.
//! See <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>.

use fred::types::{Value, config::Server};

use super::reply::{list, unexpected};
use crate::{domain::AnomalyKey, store::StoreError};

/// The number of slots of a cluster.
pub(super) const SLOTS: usize = 16_384;

/// Returns the slot of an anomaly. Its key is in braces in the names of its keys in Redis, and
/// alone determines the slot.
pub(super) fn slot(key: AnomalyKey) -> u16 {
    fred::util::redis_keyslot(key.to_string().as_bytes())
}

/// Returns the slot of a key whose name contains this text in braces.
pub(super) fn slot_of_tag(tag: &str) -> u16 {
    fred::util::redis_keyslot(tag.as_bytes())
}

/// Consecutive slots with the same master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SlotRange {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) master: Server,
}

/// Parses the reply of `asked` to `CLUSTER SLOTS`: for each range, the first and last slot, the
/// master and its replicas; for each of these, the host, the port and more.
pub(super) fn read_slots(answer: Value, asked: &Server) -> Result<Vec<SlotRange>, StoreError> {
    list(answer)?.into_iter().map(|range| read_range(range, asked)).collect()
}

fn read_range(range: Value, asked: &Server) -> Result<SlotRange, StoreError> {
    let mut range = list(range)?.into_iter();
    let mut next = || range.next().ok_or_else(|| unexpected("an incomplete range of slots"));
    let first = number(&next()?)?;
    let last = number(&next()?)?;
    let mut master = list(next()?)?.into_iter();
    let host = master.next().and_then(Value::into_string);
    let port = number(&master.next().unwrap_or(Value::Null))?;
    if first > last || usize::from(last) >= SLOTS {
        return Err(unexpected("slots that do not exist"));
    }
    Ok(SlotRange { first, last, master: server(host.as_deref(), port, asked) })
}

fn number(value: &Value) -> Result<u16, StoreError> {
    let number = value.as_i64().and_then(|number| u16::try_from(number).ok());
    number.ok_or_else(|| unexpected("a slot or port that is not a number"))
}

/// Returns the server that `ASK slot host:port` points to.
pub(super) fn server_at(address: &str, asked: &Server) -> Option<Server> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(server(Some(host), port.parse().ok()?, asked))
}

/// Returns a server by its address. A server that does not know its own host has the address at
/// which it was asked.
fn server(host: Option<&str>, port: u16, asked: &Server) -> Server {
    match host {
        None | Some("" | "?") => Server::new(asked.host.to_string(), port),
        Some(host) => Server::new(host, port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, port.into(), "an id".into()])
    }

    #[test]
    fn the_masters_of_the_slots_are_read() {
        let asked = Server::new("10.0.0.1", 7000);
        let replica = node("10.0.0.9".into(), 7009);
        let answer = Value::Array(vec![
            Value::Array(vec![0.into(), 99.into(), node("10.0.0.2".into(), 7001), replica]),
            Value::Array(vec![100.into(), 16_383.into(), node(Value::Null, 7002)]),
        ]);
        let range = |first, last, host: &str, port| SlotRange {
            first,
            last,
            master: Server::new(host, port),
        };
        let expected = [range(0, 99, "10.0.0.2", 7001), range(100, 16_383, "10.0.0.1", 7002)];
        assert_eq!(read_slots(answer, &asked).unwrap(), expected);
        let wrong = Value::Array(vec![Value::Array(vec![0.into(), 16_384.into()])]);
        assert!(read_slots(wrong, &asked).is_err());
    }

    #[test]
    fn the_address_of_a_redirection_is_read() {
        let asked = Server::new("10.0.0.1", 7000);
        for (address, host, port) in [
            ("10.0.0.2:7001", "10.0.0.2", 7001),
            ("[::1]:7001", "::1", 7001),
            (":7001", "10.0.0.1", 7001),
        ] {
            assert_eq!(server_at(address, &asked), Some(Server::new(host, port)));
        }
        assert_eq!(server_at("nowhere", &asked), None);
    }

    #[test]
    fn the_slot_is_that_of_the_key_in_braces() {
        let key = AnomalyKey::from_bits(0xb119_b2ed_aa9f_b08c);
        let name = "anomaly:timeline:{b119b2edaa9fb08c}";
        assert_eq!(slot(key), fred::util::redis_keyslot(name.as_bytes()));
    }
}
