//! News of an anomaly: from a reply of the store, or from another instance.

use crate::domain::{AnomalyKey, AnomalyStats, Firing, RuleRef, Timestamp};

/// News of an anomaly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted<'a> {
    /// The anomaly.
    pub(crate) key: AnomalyKey,
    /// The time as of which it is.
    pub(crate) as_of: Timestamp,
    /// Its stats.
    pub(crate) stats: &'a AnomalyStats,
    /// Its rule, if the stats have the counts that it asks for.
    pub(crate) rule: Option<&'a RuleRef>,
    /// Its alerts that fire.
    pub(crate) firing: NotedFiring,
    /// True if what differs is announced to other instances.
    pub(crate) is_news: bool,
}

/// News of the alerts of an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotedFiring {
    /// Nothing.
    Unchanged,
    /// That others may fire.
    Unread,
    /// That these fire.
    Read(Option<Firing>),
}
