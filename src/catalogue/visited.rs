//! An anomaly as a query sees it, from any source. A query may visit a million of them, so values
//! that it does not ask for are not computed.

use std::cell::OnceCell;

use super::judge::Judge;
use crate::{
    domain::{
        AnomalyKey, EscalationLevel, FieldIds, Firing, KnownStats, Listable, RuleRef, Texts,
        Timestamp, Window, WindowCounts,
    },
    store::Scanned,
};

/// An anomaly as a query sees it.
pub(super) trait Visited: Listable {
    /// Its identifying fields; `None` if they are not known.
    fn fields(&self) -> Option<FieldIds>;

    /// The texts of the fields.
    fn texts(&self) -> &Texts;

    /// Its events in each window.
    fn counts(&self) -> WindowCounts;

    /// The time at which its stats were read; `None` if they never were.
    fn as_of(&self) -> Option<Timestamp>;

    /// Returns false if its counts or its level may be too high, because time has passed since they
    /// were read.
    fn is_current(&self) -> bool;

    /// Returns true if its stats are an estimate, made of those that were read and of waiting
    /// writes.
    fn is_estimate(&self) -> bool;

    /// Returns true if it was read so recently that it need not be read again to be shown.
    fn is_settled(&self) -> bool;

    /// Its stats.
    fn stats(&self) -> KnownStats;

    /// The rule that it is judged by.
    fn rule(&self) -> &RuleRef;

    /// Its firing alerts, if they are known.
    fn firing(&self) -> Option<Firing>;
}

/// A pass over all anomalies.
pub(super) trait Pass {
    /// Visits an anomaly.
    fn visit(&mut self, anomaly: &impl Visited);
}

/// An anomaly of a store that shows all of them.
pub(super) struct OfStore<'a> {
    pub(super) scanned: &'a Scanned<'a>,
    pub(super) now: Timestamp,
    pub(super) judge: &'a Judge,
    pub(super) stats: OnceCell<KnownStats>,
}

/// An anomaly with waiting writes.
pub(super) struct Estimated<'a> {
    pub(super) key: AnomalyKey,
    pub(super) fields: Option<FieldIds>,
    pub(super) texts: &'a Texts,
    pub(super) as_of: Option<Timestamp>,
    pub(super) stats: &'a KnownStats,
    pub(super) judge: &'a Judge,
}

impl OfStore<'_> {
    fn known(&self) -> &KnownStats {
        self.stats.get_or_init(|| (self.scanned.stats)(self.rule()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "of others it may not be known")]
    fn fires(&self) -> Option<bool> {
        Some(self.firing().is_some())
    }
}

/// Returns the level of known stats; `None` if the known counts are partial and reach no level.
fn level_of(stats: &KnownStats, rule: &RuleRef) -> Option<Option<EscalationLevel>> {
    let level = rule.rule().level(stats.as_counts());
    (!stats.is_partial || level.is_some()).then_some(level)
}

/// Implements [`Listable`] by known stats.
macro_rules! listable_by_stats {
    ($name:ident, |$of:ident| $key:expr, $stats:expr, $firing:expr) => {
        impl Listable for $name<'_> {
            fn key(&self) -> AnomalyKey {
                let $of = self;
                $key
            }

            fn count(&self, window: Window) -> u64 {
                let $of = self;
                $stats.counts.of(window)
            }

            fn first_seen(&self) -> Option<Timestamp> {
                let $of = self;
                $stats.first_seen
            }

            fn last_seen(&self) -> Option<Timestamp> {
                let $of = self;
                $stats.last_seen
            }

            fn level(&self) -> Option<Option<EscalationLevel>> {
                let $of = self;
                level_of($stats, self.rule())
            }

            fn rule_name(&self) -> &str {
                self.rule().rule().name()
            }

            fn is_firing(&self) -> Option<bool> {
                $firing(self)
            }

            fn is_fixed(&self) -> Option<bool> {
                let $of = self;
                $stats.mark.holds()
            }

            fn has_regressed(&self) -> Option<bool> {
                let $of = self;
                $stats.regressed()
            }

            fn was_repaired(&self) -> Option<bool> {
                let $of = self;
                $stats.repair_attempts.map(|attempts| attempts > 0)
            }
        }
    };
}

listable_by_stats!(OfStore, |of| of.scanned.key, of.known(), Self::fires);
// A waiting alert may change the firing alerts, so they are not known.
listable_by_stats!(Estimated, |of| of.key, of.stats, |_| None);

impl Visited for OfStore<'_> {
    fn fields(&self) -> Option<FieldIds> {
        self.scanned.fields
    }

    fn texts(&self) -> &Texts {
        self.scanned.texts
    }

    fn counts(&self) -> WindowCounts {
        self.known().counts
    }

    fn as_of(&self) -> Option<Timestamp> {
        Some(self.now)
    }

    fn is_current(&self) -> bool {
        true
    }

    fn is_estimate(&self) -> bool {
        false
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn stats(&self) -> KnownStats {
        self.known().clone()
    }

    fn rule(&self) -> &RuleRef {
        self.judge.rule(self.scanned.texts, self.scanned.fields)
    }

    fn firing(&self) -> Option<Firing> {
        (self.scanned.firing)()
    }
}

impl Visited for Estimated<'_> {
    fn fields(&self) -> Option<FieldIds> {
        self.fields
    }

    fn texts(&self) -> &Texts {
        self.texts
    }

    fn counts(&self) -> WindowCounts {
        self.stats.counts
    }

    fn as_of(&self) -> Option<Timestamp> {
        self.as_of
    }

    fn is_current(&self) -> bool {
        false
    }

    fn is_estimate(&self) -> bool {
        true
    }

    fn is_settled(&self) -> bool {
        true
    }

    fn stats(&self) -> KnownStats {
        self.stats.clone()
    }

    fn rule(&self) -> &RuleRef {
        self.judge.rule(self.texts, self.fields)
    }

    fn firing(&self) -> Option<Firing> {
        None
    }
}
