//! Reads stats: by `stats_known.lua` those of anomalies whose oldest event is known here, and the
//! others, among them what that script leaves to it, by `stats.lua`.

use futures_util::future::join;

use super::{
    RedisStore,
    asks::window_lengths,
    known_timelines::OldestEvent,
    reply::{self, Reply},
    script::Call,
};
use crate::{
    domain::{AnomalyStats, Moment, RETENTION},
    store::{Judged, StoreError},
};

/// The stats of an anomaly; `None` where the store does not know it.
type Stats = Option<AnomalyStats>;

impl RedisStore {
    pub(super) async fn read_stats(
        &self,
        moment: Moment,
        anomalies: &[Judged],
    ) -> Vec<Result<Stats, StoreError>> {
        let (known, others) = self.divide_read(moment, anomalies);
        let (of_known, of_others) =
            join(self.try_read_known(moment, &known), self.read_in_full(moment, &others)).await;
        let mut results: Vec<Option<Result<Stats, StoreError>>> = vec![None; anomalies.len()];
        for (index, result) in of_known {
            results[index] = result.transpose();
        }
        for (index, result) in of_others {
            results[index] = Some(result);
        }
        // The timelines of some are not as they were known.
        let left = known.into_iter().filter(|known| results[known.index].is_none());
        let left: Vec<_> =
            left.map(|Known { index, anomaly, .. }| Other { index, anomaly }).collect();
        for (index, result) in self.read_in_full(moment, &left).await {
            results[index] = Some(result);
        }
        let nothing = || Err(reply::unexpected("more"));
        results.into_iter().map(|result| result.unwrap_or_else(nothing)).collect()
    }

    /// Divides anomalies into those that `stats_known.lua` reads, and the others.
    fn divide_read<'a>(
        &self,
        moment: Moment,
        anomalies: &'a [Judged],
    ) -> (Vec<Known<'a>>, Vec<Other<'a>>) {
        let oldest = self.timelines.oldest(anomalies.iter().map(|anomaly| anomaly.key));
        let start = RETENTION.start(moment.now);
        let (mut known, mut others) = (Vec::new(), Vec::new());
        for (index, (anomaly, oldest)) in anomalies.iter().zip(oldest).enumerate() {
            let reads = |oldest: &OldestEvent| {
                oldest.at >= start
                    && window_lengths(anomaly.rule.as_ref())
                        .eq(window_lengths(anomalies[0].rule.as_ref()))
            };
            match oldest.filter(reads) {
                Some(oldest) => known.push(Known { index, anomaly, oldest }),
                None => others.push(Other { index, anomaly }),
            }
        }
        (known, others)
    }

    /// Reads anomalies by `stats_known.lua`. Returns `None` for those that it leaves to another
    /// script.
    async fn try_read_known(
        &self,
        moment: Moment,
        known: &[Known<'_>],
    ) -> impl Iterator<Item = (usize, Result<Option<Stats>, StoreError>)> {
        let now = moment.now;
        let begin = |elements: &[&Known<'_>]| {
            let keys = elements.iter().map(|known| known.anomaly.key);
            self.calls.stats_known(now, keys, elements[0].anomaly.rule.as_ref())
        };
        let add = |call: &mut Call, Known { anomaly, oldest, .. }: &Known<'_>| {
            self.calls.add_known(call, now, anomaly.key, oldest, anomaly.rule.as_ref());
        };
        let read = move |Known { anomaly, oldest, .. }: &Known<'_>, reply: Reply| {
            match reply.tag()? {
                "known" => {}
                "more" => return Ok(None),
                other => return Err(reply::unexpected(other)),
            }
            let stats = reply.stats(now, anomaly.rule.as_ref(), Some(oldest.at), None)?;
            Ok(Some(Some(stats)))
        };
        let replies = self.run_by_slot(known, |known| known.anomaly.key, begin, add).await;
        replies.into_iter().map(move |(index, reply)| {
            let known = &known[index];
            (known.index, reply.and_then(|reply| read(known, reply)))
        })
    }

    /// Reads anomalies by `stats.lua`.
    async fn read_in_full(
        &self,
        moment: Moment,
        others: &[Other<'_>],
    ) -> impl Iterator<Item = (usize, Result<Stats, StoreError>)> {
        let now = moment.now;
        let begin = |_: &[&Other<'_>]| self.calls.stats(now);
        let add = |call: &mut Call, other: &Other<'_>| {
            self.calls.add_judged(call, now, other.anomaly);
        };
        let read = move |Judged { key, rule }: &Judged, mut reply: Reply| {
            let stats =
                reply.if_known("known", |reply| reply.stats(now, rule.as_ref(), None, None))?;
            let oldest = reply.oldest_event();
            let may_stay = stats.as_ref().is_some_and(|stats| self.may_stay_known(stats));
            self.timelines.set(*key, oldest.filter(|_| may_stay));
            Ok(stats)
        };
        let replies = self.run_by_slot(others, |other| other.anomaly.key, begin, add).await;
        replies.into_iter().map(move |(index, reply)| {
            let other = &others[index];
            (other.index, reply.and_then(|reply| read(other.anomaly, reply)))
        })
    }
}

/// An anomaly that is read by `stats_known.lua`.
struct Known<'a> {
    index: usize,
    anomaly: &'a Judged,
    oldest: OldestEvent,
}

/// An anomaly that is read by `stats.lua`.
struct Other<'a> {
    index: usize,
    anomaly: &'a Judged,
}
