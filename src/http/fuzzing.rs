//! A way in for `fuzz/`: reads a delivery as the webhook does. In other builds this is not there.

use super::{
    CountBy,
    alertmanager::{alerts_of, read_alert},
    body,
    problem::Problem,
};
use crate::domain::{Occurrence, Timestamp};

/// What became of each alert of a delivery, a problem as its JSON.
pub type ReadAlerts = Vec<Result<Option<Occurrence>, String>>;

/// Reads the body of a delivery that comes at `now`.
///
/// # Errors
/// When it is refused as a whole.
pub fn read_delivery(body: &[u8], count: CountBy, now: Timestamp) -> Result<ReadAlerts, String> {
    let alerts = body::parse(body).and_then(alerts_of).map_err(told)?;
    Ok(alerts.iter().map(|alert| read_alert(alert, count, now).map_err(told)).collect())
}

fn told(problem: Problem) -> String {
    serde_json::to_string(&problem).expect("a problem has a JSON form")
}
