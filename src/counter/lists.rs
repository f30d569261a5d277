//! Lists of anomalies, and summaries of them.
//!
//! On Redis the catalogue knows counts as of some time, and none is too low but for what it has not
//! heard of. So a list takes the best by these, asks for their counts of now, and begins again with
//! what it has learnt, until the best are all current: the threshold algorithm. A list gives up
//! after so many counts, and says that its ranking is approximate.

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
/// Maximum number of stats that all lists of this process read in a second.
const STATS_PER_SECOND: NonZeroU32 = NonZeroU32::new(2_000).expect("it is not zero");
/// Maximum time that anomalies are counted for who looks up another one.
const MAX_COUNTING: Duration = Duration::from_millis(500);

/// Limits how many stats lists read.
pub(super) type ListLimiter = DefaultDirectRateLimiter;

pub(super) fn limiter() -> ListLimiter {
    ListLimiter::direct(Quota::per_second(STATS_PER_SECOND))
}

/// Minimum time between two counts of all anomalies for metrics; and in times of what one takes, so
/// that a store of millions spends a hundredth of a core on it.
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
    /// The number of anomalies of the whole list.
    pub total: u64,
    /// True if the total is exact.
    pub total_is_exact: bool,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
    /// Whether the list is about all anomalies.
    pub completeness: Completeness,
    /// True if the anomalies are in the order that their figures say.
    pub ranking_is_exact: bool,
    /// When the figures were current.
    pub as_of: Timestamp,
}

/// An anomaly of a list.
#[derive(Clone, Debug)]
pub struct ListedAnomaly {
    /// Its identifying fields; `None` where they are not known.
    pub signature: Option<Signature>,
    /// Its frequency.
    pub frequency: Frequency,
    /// Present where the frequency is an estimate.
    pub degraded: Option<Degraded>,
    /// Its alerts that fire, as far as that is known.
    pub firing: Option<Firing>,
    /// Its events in the stretches of time that were asked for; `None` where they are not known.
    pub series: Option<Vec<u64>>,
}

/// A summary of anomalies.
#[derive(Clone, Debug)]
pub struct AnomalySummary {
    /// The figures.
    pub summary: Summary,
    /// Whether it is about all anomalies.
    pub completeness: Completeness,
    /// When the figures were current.
    pub as_of: Timestamp,
}

/// Anomalies that a list has read.
type RowsRead = HashMap<AnomalyKey, StoredRow>;

/// A page, and whether its anomalies are where their current figures put them.
struct RankedPage {
    page: Page,
    is_exact: bool,
}

impl Counter {
    /// Returns a page of a list, with `series` for each anomaly.
    ///
    /// # Errors
    /// When too many lists are made at the same time, or nothing is known and the store does not
    /// answer.
    pub async fn list(
        &self,
        moment: Moment,
        query: ListQuery,
        series: Option<SeriesSpan>,
    ) -> Result<Answered<AnomalyList>, CounterError> {
        self.must_know_something()?;
        let estimates = self.estimates(moment);
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
    /// When too many summaries are made at the same time, or nothing is known and the store does
    /// not answer.
    pub async fn summary(
        &self,
        moment: Moment,
        query: SummaryQuery,
    ) -> Result<Answered<AnomalySummary>, CounterError> {
        self.must_know_something()?;
        let summary = self.catalogue.summary(moment, query, self.estimates(moment)).await?;
        let completeness = self.catalogue.completeness();
        let as_of = match self.is_any_unavailable() {
            true => self.health.since().unwrap_or(moment.now),
            false => moment.now,
        };
        Ok(self.answered(AnomalySummary { summary, completeness, as_of }))
    }

    /// Returns the number of known anomalies that match; `None` where it takes too long to count.
    pub async fn count(&self, moment: Moment, selection: Selection) -> Option<u64> {
        let query = ListQuery { selection, ranking: Ranking::default(), limit: 0, after: None };
        let counting = self.catalogue.list(moment, query, Arc::default(), false);
        Some(timeout(MAX_COUNTING, counting).await.ok()?.ok()?.total)
    }

    /// Brings the metrics of the catalogue up to date, when that is due.
    pub(super) async fn report_figures(&self, moment: Moment) {
        let CatalogueFigures { gauges, due_at } = &self.figures;
        let is_complete = self.catalogue.completeness() == Completeness::Complete;
        gauges.set_state(is_complete, self.catalogue.age());
        let begun = Instant::now();
        if begun < *due_at.lock() {
            return;
        }
        let query = SummaryQuery { selection: Selection::default(), by: Vec::new(), top: 0 };
        // One that is refused is made up for by the next.
        if let Ok(Summary { levels, fixed, regressed, .. }) =
            self.catalogue.summary(moment, query, Arc::default()).await
        {
            let by_level = LevelSet::EACH.map(|level| (level, levels[LevelSet::index(level)]));
            gauges.set(CatalogueSnapshot { by_level, fixed, regressed });
        }
        let pause = (begun.elapsed() * FIGURES_PAUSES).max(MIN_FIGURES_INTERVAL);
        *due_at.lock() = Instant::now() + pause;
    }

    /// Makes a page, and reads its anomalies until they are all current.
    async fn ranked_page(
        &self,
        moment: Moment,
        query: ListQuery,
        estimates: &Arc<Estimates>,
    ) -> Result<RankedPage, CounterError> {
        // A store that shows all anomalies shows them as they are.
        let is_current = self.store.shared_rows().is_none();
        let (mut read, mut count, mut is_exact) = (RowsRead::new(), 0, true);
        loop {
            let page = self.catalogue.list(moment, query.clone(), Arc::clone(estimates), is_exact);
            let mut page = page.await?;
            // What is estimated waits for the store to take it.
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
            // Without what can't be read, the page has only what matches as far as is known.
            is_exact = may_read && self.read_rows(moment, unread, &mut read).await;
        }
    }

    /// Returns what anomalies are estimated to be of which writes wait.
    fn estimates(&self, moment: Moment) -> Arc<Estimates> {
        let fallback = self.fallback.as_ref();
        Arc::new(fallback.map(|fallback| fallback.estimates(moment.now)).unwrap_or_default())
    }

    fn take_list_stats(&self, count: usize) -> bool {
        let count = u32::try_from(count).ok().and_then(NonZeroU32::new);
        count.is_none_or(|count| matches!(self.list_stats.check_n(count), Ok(Ok(()))))
    }

    /// Has the catalogue know anomalies as they are, and adds them to those that were `read`.
    /// Returns false if the store did not answer for all of them.
    async fn read_rows(&self, moment: Moment, anomalies: Vec<Judged>, read: &mut RowsRead) -> bool {
        let Some(shared_rows) = self.store.shared_rows() else { return false };
        let is_away = |key| self.health.is_unavailable(self.store.shard(key));
        let (away, others): (Vec<_>, Vec<_>) =
            anomalies.into_iter().partition(|anomaly| is_away(anomaly.key));
        let mut all_are_read = away.is_empty();
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

    /// Notes an anomaly as it was read. Returns false if that can't be shown yet.
    fn note_row(&self, moment: Moment, anomaly: &Judged, row: Option<&StoredRow>) -> bool {
        let (Judged { key, rule }, times) = (anomaly, self.times(moment.now));
        let Some(fallback) = &self.fallback else { return false };
        fallback.update_row(*key, times, rule.as_ref(), row);
        // What waits for its settlement is not noted: it would be read for ever.
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

    fn must_know_something(&self) -> Result<(), CounterError> {
        match self.catalogue.is_empty() && self.is_any_unavailable() {
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

/// Returns true if an anomaly is to be read again before it is shown.
fn is_unread(listed: &Listed, read: &RowsRead) -> bool {
    let stats = &listed.stats;
    let lacks_counts = listed.rule.extra_windows().iter().any(|window| {
        let is_known = stats.extra.iter().any(|extra| extra.seconds == window.seconds);
        !is_known && window.needs_count(stats.counts)
    });
    // What a reply has not told, the next one does not tell either.
    let lacks_more = lacks_counts || listed.signature.is_none();
    !listed.is_settled || lacks_more && !read.contains_key(&listed.key)
}

/// Adds the counts that its rule asks for, which rows lack.
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
