//! News of an anomaly: from a reply of the store, or from another instance.

use crate::domain::{AnomalyKey, AnomalyStats, Firing, RuleRef, Timestamp};

/// News of an anomaly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted<'a> {
    /// The anomaly.
    pub(crate) key: AnomalyKey,
    /// The time at which the call began whose reply has just arrived; absent for other news.
    pub(crate) began_at: Option<Timestamp>,
    /// The time of the news: for a reply, its arrival.
    pub(crate) as_of: Timestamp,
    /// Its stats.
    pub(crate) stats: &'a AnomalyStats,
    /// Its rule, if the stats have the counts that the rule needs.
    pub(crate) rule: Option<&'a RuleRef>,
    /// The news of its alerts.
    pub(crate) firing: NotedFiring,
    /// True if differences are announced to other instances.
    pub(crate) is_news: bool,
}

/// News of the alerts of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotedFiring {
    /// There are none.
    Unchanged,
    /// Other alerts may fire than before: they are to be read.
    Unread,
    /// These fire.
    Read(Option<Firing>),
}
