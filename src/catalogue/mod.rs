//! The catalogue of all anomalies, from which lists and summaries are made. If the store has all
//! anomalies in memory (`Store::scan`), it is the catalogue itself, and nothing is kept twice.
//!
//! A query is one pass over all of them (`listing.rs`, `summary.rs`), on a blocking thread;
//! `permits.rs` limits the number of concurrent queries, and `verdicts.rs` judges each distinct
//! text once. `domain/selection/` decides which anomalies match, their order, and the beginning of
//! the next page.
//!
//! If it has not, as on Redis, `rows/` has what this instance knows of each anomaly: its own writes
//! from the replies to them, those of other instances from their announcements (`feed.rs`,
//! `announcement.rs`), and all others from walks through the store (`walker.rs`). `shared.rs` knows
//! how complete the rows are.
//!
//! Levels are not stored but judged by each query (`judge.rs`), so that new rules make no row
//! wrong. Only the levels of rules with windows of their own are stored, because rows lack their
//! counts.
//!
//! Order of imports: config, query, announcement, permits, judge, noted → visited → verdicts, rows
//! → listing, summary, shared → feed, walker → mod.
#![cfg_attr(doc, doc = include_str!("../../docs/design/catalogue.md"))]

mod announcement;
mod config;
mod feed;
mod judge;
mod listing;
mod noted;
#[cfg(test)]
mod pass_tests;
mod permits;
mod query;
mod rows;
mod shared;
mod summary;
mod verdicts;
mod visited;
mod walker;

use std::{cell::OnceCell, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    domain::{
        AnomalyKey, EventId, KnownStats, Moment, RepairHistory, RuleRef, Signature, Timestamp,
    },
    rules::Rules,
    store::{Scanned, Store, StoreError},
};

use self::{
    feed::Feed,
    judge::Judge,
    listing::ListPass,
    permits::Permits,
    rows::Rows,
    shared::{Reader, Shared},
    summary::SummaryPass,
    visited::{OfStore, Pass},
    walker::Walker,
};

pub use config::CatalogueConfig;
pub use listing::{Listed, Page};
pub use query::{Completeness, Estimates, ListQuery, PartialReason, SummaryQuery};
pub use summary::{Group, Summary};

pub(crate) use noted::{Noted, NotedFiring};
pub(crate) use shared::MomentOf;

/// The catalogue of all anomalies.
#[derive(Debug)]
pub struct Catalogue {
    store: Arc<dyn Store>,
    rules: Arc<Rules>,
    permits: Permits,
    /// The rows; absent if the store shows all anomalies.
    shared: Option<Arc<Shared>>,
}

/// The tasks that keep a catalogue up to date. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct CatalogueTasks(Vec<JoinHandle<()>>);

impl CatalogueTasks {
    /// Ends the tasks.
    pub(crate) fn end(&self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for CatalogueTasks {
    fn drop(&mut self) {
        self.end();
    }
}

/// The reason for which a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// More queries run and wait than are permitted.
    #[error("too many queries are running")]
    Overloaded,
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Catalogue {
    /// Creates the catalogue of a store.
    pub fn new(store: Arc<dyn Store>, rules: Arc<Rules>, config: CatalogueConfig) -> Self {
        let rows = || Rows::new(config.max_anomalies.get());
        let shared = (!store.is_scannable()).then(|| Arc::new(Shared::new(rows())));
        Self { store, rules, permits: Permits::default(), shared }
    }

    /// Begins to keep the rows up to date. To be called within a runtime.
    pub(crate) fn start(&self, moment: MomentOf, config: CatalogueConfig) -> CatalogueTasks {
        let Some(shared) = &self.shared else { return CatalogueTasks(Vec::new()) };
        let (store, shared) = (Arc::clone(&self.store), Arc::clone(shared));
        let reader = Reader { store, shared, rules: Arc::clone(&self.rules), moment };
        let feed = Feed::new(reader.clone());
        let holder = EventId::unique().to_string();
        let walker = Walker { reader, holder, interval: config.reconcile_interval() };
        CatalogueTasks(vec![tokio::spawn(feed.run()), tokio::spawn(walker.run())])
    }

    /// Returns whether the answers are about all anomalies.
    pub fn completeness(&self) -> Completeness {
        self.shared.as_ref().map_or(Completeness::Complete, |shared| shared.completeness())
    }

    /// Returns the time since the announcements of others were last read; zero if nobody else
    /// writes.
    pub fn age(&self) -> Duration {
        self.shared.as_ref().map_or(Duration::ZERO, |shared| shared.age())
    }

    /// Returns true if nothing is known yet, so that a list would be empty by mistake.
    pub fn is_empty(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| !shared.is_loaded() && shared.rows.len() == 0)
    }

    /// Notes news of an anomaly. `signature` is called for the identifying fields if they are not
    /// known.
    pub(crate) fn note(&self, noted: &Noted<'_>, signature: impl FnOnce() -> Option<Signature>) {
        if let Some(shared) = &self.shared {
            shared.rows.note(noted, signature);
        }
    }

    /// Notes the repairs of an anomaly.
    pub(crate) fn note_repairs(&self, key: AnomalyKey, history: &RepairHistory) {
        if let Some(shared) = &self.shared {
            shared.rows.note_repairs(key, history.total);
        }
    }

    /// Notes the mark of an anomaly, or that it has none.
    pub(crate) fn note_mark(&self, key: AnomalyKey, fixed_at: Option<Timestamp>) {
        if let Some(shared) = &self.shared {
            shared.rows.note_mark(key, fixed_at);
        }
    }

    /// Notes the identifying fields of an anomaly with a write that waits for the store.
    pub(crate) fn note_waiting(
        &self,
        key: AnomalyKey,
        signature: impl FnOnce() -> Option<Signature>,
    ) {
        if let Some(shared) = &self.shared {
            shared.rows.note_waiting(key, signature);
        }
    }

    /// Forgets an anomaly whose last waiting write is settled, if nothing else is known of it.
    pub(crate) fn forget_waiting(&self, key: AnomalyKey) {
        if let Some(shared) = &self.shared {
            shared.rows.forget_waiting(key);
        }
    }

    /// Notes that the firing alerts of an anomaly may differ from the known ones.
    pub(crate) fn doubt_firing(&self, key: AnomalyKey) {
        if let Some(shared) = &self.shared {
            shared.rows.doubt_firing(key);
        }
    }

    /// Marks an anomaly as one to be announced to other instances at once.
    pub(crate) fn announce(&self, key: AnomalyKey) {
        if let Some(shared) = &self.shared {
            shared.rows.announce(key);
        }
    }

    /// Returns the known stats of an anomaly at `now`, and their time: no count is too low. `None`
    /// also if the store shows all anomalies.
    pub(crate) fn known(&self, key: AnomalyKey, now: Timestamp) -> Option<(Timestamp, KnownStats)> {
        self.shared.as_ref()?.rows.stats_at(key, now)
    }

    /// Returns the identifying fields of an anomaly, if they are known from the store or from a
    /// waiting write. `None` also if the store shows all anomalies.
    pub(crate) fn signature(&self, key: AnomalyKey) -> Option<Signature> {
        self.shared.as_ref()?.rows.signature(key)
    }

    /// Returns the rule of an anomaly, if its fields are known here.
    pub(crate) fn rule(&self, key: AnomalyKey) -> RuleRef {
        let rules = self.rules.in_force();
        // Most rules are known by the anomaly's key, which needs no texts.
        let by_fields = || rules.rule_of_fields(key, self.signature(key).as_ref());
        rules.known_rule(key).unwrap_or_else(by_fields)
    }

    /// Returns true if something is known of an anomaly.
    pub(crate) fn has(&self, key: AnomalyKey) -> bool {
        self.known(key, Timestamp::MIN).is_some()
    }

    /// Notes that the store did not know an anomaly at a time.
    pub(crate) fn note_unknown(&self, key: AnomalyKey, as_of: Timestamp) {
        if let Some(shared) = &self.shared {
            shared.rows.remove_known_until(key, as_of);
        }
    }

    /// Forgets an anomaly.
    pub(crate) fn forget(&self, key: AnomalyKey) {
        if let Some(shared) = &self.shared {
            shared.rows.remove(key);
        }
    }

    /// Returns a page of a list. An estimate in `estimates` replaces the stats that were read. If
    /// it `takes_doubtful` anomalies, the page includes those that may match once they are read
    /// again.
    ///
    /// # Errors
    /// If too many queries run, or the store does not answer.
    pub async fn list(
        self: &Arc<Self>,
        moment: Moment,
        query: ListQuery,
        estimates: Arc<Estimates>,
        takes_doubtful: bool,
    ) -> Result<Page, QueryError> {
        self.run(move |catalogue| {
            let mut pass = ListPass::new(&query, moment.now, takes_doubtful);
            catalogue.scan(moment, &estimates, &mut pass)?;
            Ok(pass.finish())
        })
        .await
    }

    /// Returns a summary, with estimates as above.
    ///
    /// # Errors
    /// If too many queries run, or the store does not answer.
    pub async fn summary(
        self: &Arc<Self>,
        moment: Moment,
        query: SummaryQuery,
        estimates: Arc<Estimates>,
    ) -> Result<Summary, QueryError> {
        self.run(move |catalogue| {
            let mut pass = SummaryPass::new(&query, moment.now);
            catalogue.scan(moment, &estimates, &mut pass)?;
            Ok(pass.finish())
        })
        .await
    }

    /// Runs a query on a blocking thread.
    async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Self) -> Result<R, QueryError> + Send + 'static,
    ) -> Result<R, QueryError> {
        let permit = self.permits.take().await.ok_or(QueryError::Overloaded)?;
        let catalogue = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || {
            // The query runs to its end also if its caller disconnects.
            let _permit = permit;
            query(&catalogue)
        });
        running.await.unwrap_or_else(|_| Err(StoreError::no_result().into()))
    }

    /// Shows all anomalies to a pass, in slices.
    fn scan(
        &self,
        moment: Moment,
        estimates: &Estimates,
        pass: &mut impl Pass,
    ) -> Result<(), QueryError> {
        let (now, set) = (moment.now, Arc::clone(self.rules.in_force().set()));
        if let Some(shared) = &self.shared {
            let judge = shared.rows.judge(set);
            shared.rows.scan(now, estimates, &judge, pass);
            shared.rows.dismiss(judge);
            return Ok(());
        }
        let judge = &Judge::new(set, None);
        let mut visit = |scanned: &Scanned<'_>| {
            pass.visit(&OfStore { scanned, now, judge, stats: OnceCell::new() });
        };
        let mut after = None;
        loop {
            after = self.store.scan(moment, after, &mut visit)?;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
