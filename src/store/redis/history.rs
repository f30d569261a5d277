//! Parses the reply of `history.lua`.

use super::{
    audit,
    reply::{Reply, count, score, unexpected},
    time::from_unix_seconds,
};
use crate::{
    domain::{CountSince, Moment, RunningTotals, Timestamp},
    store::{AnomalyHistory, StoreError, is_audited},
};

/// Reads the values after the tag of a reply. The call was made at `moment` for the counts since
/// `times`.
pub(super) fn read(
    moment: Moment,
    times: &[Timestamp],
    reply: &mut Reply,
) -> Result<AnomalyHistory, StoreError> {
    let known_since = reply.iso8601()?;
    let exact = reply.text()?.unwrap_or_default();
    let exact = exact.split(',').filter(|text| !text.is_empty()).map(count);
    let exact = exact.collect::<Result<Vec<u64>, _>>()?;
    if exact.len() != times.len() {
        return Err(unexpected("a wrong number of counts"));
    }
    let totals = running_totals(reply)?;
    let rolled_up = |time: &Timestamp| {
        totals.as_ref().map_or_else(CountSince::default, |totals| totals.since(moment.now, *time))
    };
    let counts = times.iter().zip(exact).map(|(time, exact)| rolled_up(time).plus(exact)).collect();
    let entries = reply.texts()?;
    let entries = entries.iter().filter_map(|entry| audit::from_json(entry));
    let audit = entries.filter(|entry| is_audited(moment, entry)).collect();
    Ok(AnomalyHistory { known_since, counts, audit })
}

/// Reads the roll-up; `None` if there is none, or if the text has another form.
fn running_totals(reply: &mut Reply) -> Result<Option<RunningTotals>, StoreError> {
    let folded = reply.text()?.unwrap_or_default();
    let before = reply.text()?.map_or(Ok(0), |text| count(&text))?;
    let texts = reply.texts()?;
    let mut words = folded.split(' ').map(|word| word.parse::<f64>().ok());
    let mut next = || words.next().flatten();
    let (Some(first), Some(edge), Some(total)) = (next(), next(), next()) else { return Ok(None) };
    let mut buckets = Vec::with_capacity(texts.len() / 2);
    for pair in texts.chunks_exact(2) {
        if let Some(newest) = score(Some(&pair[1]))? {
            buckets.push((newest, count(&pair[0])?));
        }
    }
    Ok(Some(RunningTotals {
        first: from_unix_seconds(first),
        edge: from_unix_seconds(edge),
        total: total as u64,
        before,
        buckets,
    }))
}
