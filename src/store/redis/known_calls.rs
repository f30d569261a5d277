//! The calls of the scripts that receive the oldest events of timelines. The head of `known.lua`
//! describes what they share.

use super::{
    asks::{BY_LENGTH, Steps},
    calls::{Calls, add_starts},
    known_timelines::OldestEvent,
    script::{Call, Script},
    time::UnixSeconds,
};
use crate::{
    domain::{AnomalyKey, Occurrence, RuleRef, Timestamp},
    store::KEPT_SECONDS,
};

impl Calls {
    /// Returns a call without occurrences, but with the keys that hold their texts. `occurrences`
    /// are those that follow. Their rules all have the same additional windows.
    pub(super) fn record_known<'a>(
        &self,
        now: Timestamp,
        occurrences: impl ExactSizeIterator<Item = &'a Occurrence> + Clone,
    ) -> Call {
        let anomalies = occurrences.clone().map(|occurrence| occurrence.key);
        let steps = Steps::of(occurrences);
        let mut call = self.known(Script::RecordKnown, now, anomalies, steps.rule);
        call.print(steps.newest_wanted);
        call.argument(&steps.text);
        call.print(steps.largest);
        call.print(KEPT_SECONDS);
        call
    }

    /// Adds an occurrence of an anomaly whose oldest event is known. It may renew the TTLs of the
    /// anomaly's keys.
    pub(super) fn add_known_occurrence(
        &self,
        call: &mut Call,
        now: Timestamp,
        occurrence: &Occurrence,
        oldest: &OldestEvent,
        renews: bool,
    ) {
        self.add_known(call, now, occurrence.key, oldest, occurrence.rule.as_ref());
        call.argument(occurrence.id.as_str());
        call.print(UnixSeconds(occurrence.at));
        call.argument(if renews { "1" } else { "" });
    }

    /// Returns a call without anomalies, but with the keys that hold their texts. `anomalies` are
    /// those that follow. Their rules all have the same additional windows as `rule`.
    pub(super) fn stats_known(
        &self,
        now: Timestamp,
        anomalies: impl ExactSizeIterator<Item = AnomalyKey>,
        rule: Option<&RuleRef>,
    ) -> Call {
        self.known(Script::StatsKnown, now, anomalies, rule)
    }

    /// Returns a call of `script` with the first KEYS and ARGV that `known.lua` names.
    fn known(
        &self,
        script: Script,
        now: Timestamp,
        anomalies: impl ExactSizeIterator<Item = AnomalyKey>,
        rule: Option<&RuleRef>,
    ) -> Call {
        let mut call = Call::with_room(script, anomalies.len());
        for key in anomalies {
            self.names.texts(key, |parts| call.key(parts));
        }
        add_starts(&mut call, &BY_LENGTH[1..], now);
        let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
        let starts = windows.iter().map(|window| format!("{} ", UnixSeconds(window.start(now))));
        call.argument(starts.collect::<String>());
        call
    }

    /// Adds an anomaly whose oldest event is known.
    pub(super) fn add_known(
        &self,
        call: &mut Call,
        now: Timestamp,
        key: AnomalyKey,
        oldest: &OldestEvent,
        rule: Option<&RuleRef>,
    ) {
        self.names.timeline_and_metadata(key, |parts| call.key(parts));
        call.argument(&*oldest.id);
        match oldest.id.is_unique() {
            true => call.argument(""),
            false => call.print(UnixSeconds(oldest.at)),
        }
        let of_four = BY_LENGTH[1..].iter().map(|window| window.start(now));
        let windows = rule.map(RuleRef::extra_windows).unwrap_or_default();
        let starts = of_four.chain(windows.iter().map(|window| window.start(now)));
        let is_cut = |start: Timestamp| oldest.at < start;
        if starts.clone().any(is_cut) {
            let flags = starts.map(|start| if is_cut(start) { '1' } else { '0' });
            call.argument(flags.collect::<String>());
        } else {
            call.argument("");
        }
    }
}
