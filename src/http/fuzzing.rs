//! An entry for `fuzz/`: reads a delivery as the webhook does. Other builds do not have it.

use super::{endpoints::DeliveryRequest, extract::delivery_text, problem::Problem};
use crate::domain::{AnomalyConfig, CountBy, KeyMapping, Occurrence, Timestamp};

/// The result of each alert of a delivery; problems are in JSON.
pub type ReadAlerts = Vec<Result<Occurrence, String>>;

/// Reads the body of a delivery that arrives at `now`.
///
/// # Errors
/// If it is refused as a whole.
pub fn read_delivery(body: &[u8], count: CountBy, now: Timestamp) -> Result<ReadAlerts, String> {
    // Nothing is left out of the metadata, because that would depend on their spelling.
    let config = AnomalyConfig { max_metadata_bytes: usize::MAX };
    let text = delivery_text(body);
    let delivery = DeliveryRequest::parse(&text).map_err(json)?;
    let keys = KeyMapping::default();
    Ok(delivery.read(count, now, &keys, config).map(|(_, alert)| alert.map_err(json)).collect())
}

fn json(problem: Problem) -> String {
    serde_json::to_string(&problem).expect("a problem has a JSON form")
}
