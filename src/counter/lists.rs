//! Lists of anomalies, and summaries of them.
//!
//! On Redis, the catalogue knows counts as of some time. A count is too low only if the catalogue
//! has not received a change yet. So a list takes the first anomalies by these counts, reads their
//! current counts, and starts again with the new counts until all of the first anomalies are
//! current: the threshold algorithm. A list stops after a limited number of reads, and then says
//! that its ranking is approximate.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{DefaultDirectRateLimiter, Quota};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Answered, Counter, CounterError, answers::Degraded, reads::unchanged};
use crate::{
    catalogue::{
        Completeness, Estimates, ListQuery, Listed, Page, QueryError, Summary, SummaryQuery,
    },
    domain::{
        AnomalyKey, Cursor, Firing, Frequency, LevelSet, Moment, Ranking, Selection, Signature,
        Timestamp,
    },
    store::{Judged, SeriesSpan, StoreError, StoredRow},
    telemetry::{CatalogueGauges, CatalogueSnapshot},
};

/// Maximum number of stats that a list reads.
const STATS_OF_LIST: usize = 200;
/// Maximum number of stats that all lists of this process read per second. At some 30 µs each
/// (`rows.lua`), that is 6 % of Redis' time.
const STATS_PER_SECOND: NonZeroU32 = NonZeroU32::new(2_000).expect("it is not zero");
/// Maximum time for counting the anomalies that a failed lookup mentions.
const MAX_COUNTING: Duration = Duration::from_millis(500);

/// Limits the number of stats that lists read.
pub(super) type ListLimiter = DefaultDirectRateLimiter;

pub(super) fn limiter() -> ListLimiter {
    ListLimiter::direct(Quota::per_second(STATS_PER_SECOND))
}

/// Minimum time between two counts of all anomalies for metrics. It is also a multiple of the
/// duration of a count, so that a store of millions spends a hundredth of a core on it.
const MIN_FIGURES_INTERVAL: Duration = Duration::from_secs(5);
const FIGURES_PAUSES: u32 = 100;

/// The metrics of the catalogue.
#[derive(Debug)]
pub(super) struct CatalogueFigures {
    gauges: CatalogueGauges,
    due_at: Mutex<Instant>,
}

impl CatalogueFigures {
    pub(super) fn register() -> Self {
        Self { gauges: CatalogueGauges::register(), due_at: Mutex::new(Instant::now()) }
    }
}

/// A page of a list of anomalies.
#[derive(Clone, Debug)]
pub struct AnomalyList {
    /// Its anomalies, in their order.
    pub anomalies: Vec<ListedAnomaly>,
    /// The number of anomalies in the whole list.
    pub total: u64,
    /// True if the total is exact.
    pub total_is_exact: bool,
    /// The cursor of the next page; `None` at the end.
    pub next: Option<Cursor>,
    /// The completeness of the list.
    pub completeness: Completeness,
    /// True if the order of the anomalies matches their current figures.
    pub ranking_is_exact: bool,
    /// The time at which the figures were current.
    pub as_of: Timestamp,
}

/// An anomaly of a list.
#[derive(Clone, Debug)]
pub struct ListedAnomaly {
    /// Its identifying fields; `None` if they are not known.
    pub signature: Option<Signature>,
    /// The frequency.
    pub frequency: Frequency,
    /// Present if the frequency is an estimate.
    pub degraded: Option<Degraded>,
    /// The firing alerts, if they are known.
    pub firing: Option<Firing>,
    /// The events in each of the requested intervals; `None` if they are not known.
    pub series: Option<Vec<u64>>,
}

/// A summary of anomalies.
#[derive(Clone, Debug)]
pub struct AnomalySummary {
    /// The figures of all anomalies that match.
    pub summary: Summary,
    /// The completeness of the summary.
    pub completeness: Completeness,
    /// The time at which the figures were current.
    pub as_of: Timestamp,
}

/// Anomalies whose rows a list has read.
type RowsRead = HashMap<AnomalyKey, StoredRow>;

/// A page, and whether the order of its anomalies matches their current figures.
struct RankedPage {
    page: Page,
    is_exact: bool,
}

impl Counter {
    /// Returns a page of a list, with `series` for each anomaly.
    ///
    /// # Errors
    /// Fails if too many lists run at the same time, or if nothing is known and the store does not
    /// answer.
    pub async fn list(
        &self,
        moment: Moment,
        query: ListQuery,
        series: Option<SeriesSpan>,
    ) -> Result<Answered<AnomalyList>, CounterError> {
        let estimates = self.estimates(moment);
        self.must_know_something(&estimates)?;
        let RankedPage { page, is_exact } = self.ranked_page(moment, query, &estimates).await?;
        let Page { anomalies, total, total_is_exact, next } = page;
        let mut all_series = match series {
            Some(span) => self.series(moment, span, &anomalies).await,
            None => Vec::new(),
        };
        all_series.resize(anomalies.len(), None);
        let completeness = self.catalogue.completeness();
        let mut oldest = None;
        let anomalies = anomalies.into_iter().zip(all_series).map(|(listed, series)| {
            let Listed { key, signature, stats, as_of, is_estimate, rule, firing, .. } = listed;
            let is_degraded = is_estimate || self.unavailable_fallback(key).is_some();
            let degraded = is_degraded.then_some(Degraded { as_of });
            if is_degraded {
                oldest = oldest.into_iter().chain(as_of).min();
            }
            let frequency = unchanged(key, stats, rule);
            ListedAnomaly { signature, frequency, degraded, firing, series }
        });
        let list = AnomalyList {
            anomalies: anomalies.collect(),
            total,
            total_is_exact: total_is_exact && completeness == Completeness::Complete,
            next,
            completeness,
            ranking_is_exact: is_exact,
            as_of: oldest.unwrap_or(moment.now),
        };
        Ok(self.answered(list))
    }

    /// Returns a summary.
    ///
    /// # Errors
    /// Fails if too many summaries run at the same time, or if nothing is known and the store does
    /// not answer.
    pub async fn summary(
        &self,
        moment: Moment,
        query: SummaryQuery,
    ) -> Result<Answered<AnomalySummary>, CounterError> {
        let estimates = self.estimates(moment);
        self.must_know_something(&estimates)?;
        let summary = self.catalogue.summary(moment, query, estimates).await?;
        let completeness = self.catalogue.completeness();
        let as_of = match self.is_any_unavailable() {
            true => self.health.since().unwrap_or(moment.now),
            false => moment.now,
        };
        Ok(self.answered(AnomalySummary { summary, completeness, as_of }))
    }

    /// Returns the number of known anomalies that match; `None` if counting takes too long.
    pub async fn count(&self, moment: Moment, selection: Selection) -> Option<u64> {
        let query = ListQuery { selection, ranking: Ranking::default(), limit: 0, after: None };
        let counting = self.catalogue.list(moment, query, Arc::default(), false);
        Some(timeout(MAX_COUNTING, counting).await.ok()?.ok()?.total)
    }

    /// Updates the metrics of the catalogue when they are due.
    pub(super) async fn report_figures(&self, moment: Moment) {
        let CatalogueFigures { gauges, due_at } = &self.figures;
        let is_complete = self.catalogue.completeness() == Completeness::Complete;
        gauges.set_state(is_complete, self.catalogue.age());
        let begun = Instant::now();
        if begun < *due_at.lock() {
            return;
        }
        let query = SummaryQuery { selection: Selection::default(), by: Vec::new(), top: 0 };
        // A refused summary is repaired by the next one.
        if let Ok(Summary { levels, fixed, regressed, .. }) =
            self.catalogue.summary(moment, query, Arc::default()).await
        {
            let by_level = LevelSet::EACH.map(|level| (level, levels[LevelSet::index(level)]));
            gauges.set(CatalogueSnapshot { by_level, fixed, regressed });
        }
        let pause = (begun.elapsed() * FIGURES_PAUSES).max(MIN_FIGURES_INTERVAL);
        *due_at.lock() = Instant::now() + pause;
    }

    /// Makes a page, and reads its anomalies until all of them are current.
    async fn ranked_page(
        &self,
        moment: Moment,
        query: ListQuery,
        estimates: &Arc<Estimates>,
    ) -> Result<RankedPage, CounterError> {
        // A store that scans all anomalies shows their current state.
        let is_current = self.store.shared_rows().is_none();
        let (mut read, mut count, mut is_exact) = (RowsRead::new(), 0, true);
        loop {
            let page = self.catalogue.list(moment, query.clone(), Arc::clone(estimates), is_exact);
            let mut page = page.await?;
            // An estimated anomaly can't be read before the store has taken its waiting writes.
            let is_unread =
                |listed: &&Listed| !is_current && !listed.is_estimate && is_unread(listed, &read);
            let unread: Vec<Judged> = page
                .anomalies
                .iter()
                .filter(is_unread)
                .map(|listed| Judged { key: listed.key, rule: Some(listed.rule.clone()) })
                .collect();
            if !is_exact || unread.is_empty() {
                page.anomalies.iter_mut().for_each(|listed| add_extra_counts(listed, &read));
                return Ok(RankedPage { page, is_exact });
            }
            count += unread.len();
            let may_read = count <= STATS_OF_LIST && self.take_list_stats(unread.len());
            // If some can't be read, the page has only anomalies that match as far as is known.
            is_exact = may_read && self.read_rows(moment, unread, &mut read).await;
        }
    }

    /// Returns the estimates for anomalies with waiting writes.
    fn estimates(&self, moment: Moment) -> Arc<Estimates> {
        let fallback = self.fallback.as_ref();
        Arc::new(fallback.map(|fallback| fallback.estimates(moment.now)).unwrap_or_default())
    }

    fn take_list_stats(&self, count: usize) -> bool {
        let count = u32::try_from(count).ok().and_then(NonZeroU32::new);
        count.is_none_or(|count| matches!(self.list_stats.check_n(count), Ok(Ok(()))))
    }

    /// Updates the catalogue with the current rows of anomalies, and adds the rows to `read`.
    /// Returns false if the store did not answer for all of them.
    async fn read_rows(&self, moment: Moment, anomalies: Vec<Judged>, read: &mut RowsRead) -> bool {
        let Some(shared_rows) = self.store.shared_rows() else { return false };
        let is_unavailable = |key| self.health.is_unavailable(self.store.shard(key));
        let (unavailable, others): (Vec<_>, Vec<_>) =
            anomalies.into_iter().partition(|anomaly| is_unavailable(anomaly.key));
        let mut all_are_read = unavailable.is_empty();
        let results = shared_rows.read_rows(moment, &others).await;
        for (anomaly, result) in others.into_iter().zip(results) {
            let Ok(row) = result else {
                all_are_read = false;
                continue;
            };
            all_are_read &= self.note_row(moment, &anomaly, row.as_ref());
            read.extend(row.map(|row| (anomaly.key, row)));
        }
        all_are_read
    }

    /// Notes the row of an anomaly that was read. Returns false if it can't be shown yet.
    fn note_row(&self, moment: Moment, anomaly: &Judged, row: Option<&StoredRow>) -> bool {
        let (Judged { key, rule }, times) = (anomaly, self.times(moment.now));
        let Some(fallback) = &self.fallback else { return false };
        fallback.update_row(*key, times, rule.as_ref(), row);
        // The row of an anomaly with waiting operations is not noted. The list would read it again
        // for ever.
        !fallback.holds(*key)
    }

    async fn series(
        &self,
        moment: Moment,
        span: SeriesSpan,
        listed: &[Listed],
    ) -> Vec<Option<Vec<u64>>> {
        if self.is_any_unavailable() {
            return Vec::new();
        }
        let keys = listed.iter().map(|listed| listed.key).collect();
        let series = self.store.series(moment, span, keys).await;
        series.into_iter().map(|series| series.ok().flatten()).collect()
    }

    /// Fails if the store does not answer and neither the catalogue nor a waiting write has an
    /// anomaly.
    fn must_know_something(&self, estimates: &Estimates) -> Result<(), CounterError> {
        let is_known = !self.catalogue.is_empty() || !estimates.is_empty();
        match !is_known && self.is_any_unavailable() {
            true => Err(StoreError::unavailable().into()),
            false => Ok(()),
        }
    }

    fn is_any_unavailable(&self) -> bool {
        self.fallback.is_some() && !self.health.causes().is_empty()
    }

    fn is_any_estimated(&self) -> bool {
        let waits = self.fallback.as_ref().is_some_and(|fallback| fallback.waiting() > 0);
        waits || self.is_any_unavailable()
    }

    fn answered<T>(&self, value: T) -> Answered<T> {
        let degraded = self.is_any_estimated().then_some(Degraded { as_of: None });
        Answered { value, degraded }
    }
}

/// Returns true if an anomaly must be read again before it is shown.
fn is_unread(listed: &Listed, read: &RowsRead) -> bool {
    let stats = &listed.stats;
    let lacks_counts = listed.rule.extra_windows().iter().any(|window| {
        let is_known = stats.extra.iter().any(|extra| extra.seconds == window.seconds);
        !is_known && window.needs_count(stats.counts)
    });
    // If one reply lacks a value, the next reply lacks it too.
    let lacks_more = lacks_counts || listed.signature.is_none();
    !listed.is_settled || lacks_more && !read.contains_key(&listed.key)
}

/// Adds the counts that the anomaly's rule needs and rows lack.
fn add_extra_counts(listed: &mut Listed, read: &RowsRead) {
    if let Some(row) = read.get(&listed.key)
        && row.stats.counts == listed.stats.counts
    {
        listed.stats.extra.clone_from(&row.stats.extra);
    }
}

impl From<QueryError> for CounterError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Overloaded => Self::Overloaded,
            QueryError::Store(fault) => fault.into(),
        }
    }
}
