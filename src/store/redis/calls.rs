//! The calls of the scripts: which KEYS and ARGV each one gets. The header of a script names the
//! same in the same order, and a test checks their numbers.

use fred::types::Value;

use super::{
    audit,
    reply::repair_attempt_json,
    script::{Call, Script},
    time::{to_iso8601, to_unix_seconds},
};
use crate::{
    domain::{
        AUDIT_ENTRIES, AnomalyKey, AuditEntry, EventId, FIX_VALIDITY_SECONDS, FixMark, FixRemoval,
        Moment, Occurrence, RECENT_ATTEMPTS, RETENTION, RepairAttempt, TimelineConfig, Timestamp,
        Window,
    },
    store::{KEPT_SECONDS, keys::KeyNames},
};

/// The seconds for which the probe's key is kept.
const PROBE_SECONDS: i64 = 60;

/// Makes calls for one deployment.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) names: KeyNames,
    pub(super) timeline: TimelineConfig,
}

impl Calls {
    /// Without an occurrence yet. If they `may_be_copies` of recorded ones, those that can't be
    /// recognised are not recorded.
    pub(super) fn record(&self, moment: Moment, may_be_copies: bool) -> Call {
        let mut call = Call::new(Script::Record);
        call.arguments(window_starts(moment.now));
        call.argument(KEPT_SECONDS);
        call.argument(self.timeline.exact_events() as i64);
        call.argument(self.timeline.rollup_batch() as i64);
        call.argument(self.timeline.recent_ids() as i64);
        call.argument(i64::from(may_be_copies));
        call.argument(to_unix_seconds(RETENTION.start(moment.horizon)));
        call
    }

    /// Adds an occurrence. If it `renews` the lives of its anomaly's keys, what is kept with the
    /// anomaly goes along.
    pub(super) fn add_occurrence(&self, call: &mut Call, occurrence: &Occurrence, renews: bool) {
        self.add_keys(call, occurrence.key);
        call.argument(occurrence.id.as_str());
        call.argument(to_unix_seconds(occurrence.at));
        if renews {
            call.argument(to_iso8601(occurrence.at));
            call.argument(&*occurrence.signature_json.to_stored());
        } else {
            call.arguments(["".into(), "".into()]);
        }
    }

    /// Without an anomaly yet.
    pub(super) fn stats(&self, now: Timestamp) -> Call {
        let mut call = Call::new(Script::Stats);
        call.arguments(window_starts(now));
        call
    }

    /// Adds an anomaly by its keys alone.
    pub(super) fn add_keys(&self, call: &mut Call, key: AnomalyKey) {
        call.keys(self.names.first(call.script.keys_each(), key));
    }

    pub(super) fn details(&self, now: Timestamp, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Details);
        self.add_keys(&mut call, key);
        call.arguments(window_starts(now));
        call.argument(RECENT_ATTEMPTS as i64);
        call
    }

    /// Without an attempt yet.
    pub(super) fn repair(&self, moment: Moment) -> Call {
        let mut call = Call::new(Script::Repair);
        call.argument(KEPT_SECONDS);
        call.arguments(id_times(moment));
        call.argument(RECENT_ATTEMPTS as i64);
        call.arguments(self.operation_limits());
        call
    }

    pub(super) fn add_attempt(&self, call: &mut Call, attempt: &RepairAttempt) {
        self.add_keys(call, attempt.key);
        call.argument(attempt.id.as_str());
        call.argument(repair_attempt_json(attempt));
        call.argument(audit::to_json(&attempt.into()));
    }

    pub(super) fn mark_fixed(&self, moment: Moment, mark: &FixMark) -> Call {
        let mut call = Call::new(Script::MarkFixed);
        self.add_keys(&mut call, mark.key);
        call.arguments(self.fix_change(moment, &mark.id, &mark.into()));
        call.argument(to_iso8601(mark.at));
        call.argument(remaining_validity_seconds(moment.horizon, mark.at));
        call.argument(mark.description.as_str());
        call.argument(mark.fixed_by.as_deref().unwrap_or_default());
        call
    }

    pub(super) fn unmark_fixed(&self, moment: Moment, removal: &FixRemoval) -> Call {
        let mut call = Call::new(Script::UnmarkFixed);
        self.add_keys(&mut call, removal.key);
        call.arguments(self.fix_change(moment, &removal.id, &removal.into()));
        call
    }

    /// On a cluster, `tag` decides which slot it is for.
    pub(super) fn probe(&self, tag: Option<&str>) -> Call {
        self.probe_that(true, tag)
    }

    /// A probe that leaves nothing behind, for a Redis that is only looked at.
    pub(super) fn probe_once(&self) -> Call {
        self.probe_that(false, None)
    }

    fn probe_that(&self, stays: bool, tag: Option<&str>) -> Call {
        let mut call = Call::new(Script::Probe);
        call.keys([self.names.probe(tag)]);
        call.argument(PROBE_SECONDS);
        call.argument(i64::from(stays));
        call
    }

    pub(super) fn audit(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Audit);
        self.add_keys(&mut call, key);
        call
    }

    pub(super) fn forget(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Forget);
        self.add_keys(&mut call, key);
        call
    }

    /// The first ARGV of the scripts that change a permanent fix.
    fn fix_change(
        &self,
        moment: Moment,
        id: &EventId,
        entry: &AuditEntry,
    ) -> impl Iterator<Item = Value> + use<> {
        let [kept_from, now] = id_times(moment);
        let change = [
            KEPT_SECONDS.into(),
            kept_from,
            now,
            id.as_str().into(),
            to_unix_seconds(entry.at).into(),
            audit::to_json(entry).into(),
        ];
        change.into_iter().chain(self.operation_limits())
    }

    /// The maximum number of ids of operations, that of entries in an audit, and how long an audit
    /// is kept: as long as a mark may hold.
    fn operation_limits(&self) -> [Value; 3] {
        let ids = self.timeline.operation_ids() as i64;
        [ids.into(), (AUDIT_ENTRIES as i64).into(), FIX_VALIDITY_SECONDS.into()]
    }
}

/// The first ARGV of every script that reads stats.
fn window_starts(now: Timestamp) -> [Value; 4] {
    [Window::Month, Window::Week, Window::Day, Window::Hour]
        .map(|window| to_unix_seconds(window.start(now)).into())
}

/// The times by which the ids of operations are kept: from when on, and now.
fn id_times(moment: Moment) -> [Value; 2] {
    [moment.horizon.minus_seconds(KEPT_SECONDS), moment.now]
        .map(|time| to_unix_seconds(time).into())
}

/// Returns the seconds that a mark made at `at` still holds; never 0, which `SET` refuses.
fn remaining_validity_seconds(horizon: Timestamp, at: Timestamp) -> i64 {
    let age_seconds = (horizon.as_micros() - at.as_micros()) / 1_000_000;
    (FIX_VALIDITY_SECONDS - age_seconds).clamp(1, FIX_VALIDITY_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::{Action, Actor};

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    /// The numbers that a script names at its head: keys and arguments of each element, and
    /// arguments before those.
    struct Widths {
        keys_each: usize,
        fixed_arguments: usize,
        arguments_each: usize,
    }

    fn widths(script: Script) -> Widths {
        const HEAD: &str = "\nlocal KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH = ";
        let (_, widths) = script.source().split_once(HEAD).expect("the script names its widths");
        let (widths, _) = widths.split_once('\n').unwrap();
        let widths: Vec<usize> = widths.split(", ").map(|width| width.parse().unwrap()).collect();
        let [keys_each, fixed_arguments, arguments_each] = widths[..] else { panic!("{widths:?}") };
        Widths { keys_each, fixed_arguments, arguments_each }
    }

    /// Returns a call with that many elements, or with one if the script takes only one.
    fn call(script: Script, elements: usize) -> Call {
        let ten = 10.try_into().unwrap();
        let timeline = TimelineConfig { exact_events: ten, operation_ids: ten };
        let calls = Calls { names: KeyNames::new("anomaly:", false), timeline };
        let (id, at) = (EventId::parse("a").unwrap(), Timestamp::from_micros(7));
        let actor = Actor::default();
        match script {
            Script::Record => {
                let occurrence = Occurrence { key: KEY, id, at, signature_json: "{}".into() };
                let mut call = calls.record(at.into(), false);
                (0..elements).for_each(|_| calls.add_occurrence(&mut call, &occurrence, true));
                call
            }
            Script::Stats => {
                let mut call = calls.stats(at);
                (0..elements).for_each(|_| calls.add_keys(&mut call, KEY));
                call
            }
            Script::Repair => {
                let action = Action::parse("restart_pod").unwrap();
                let attempt = RepairAttempt { key: KEY, id, action, success: true, at, actor };
                let mut call = calls.repair(at.into());
                (0..elements).for_each(|_| calls.add_attempt(&mut call, &attempt));
                call
            }
            Script::Details => calls.details(at, KEY),
            Script::MarkFixed => {
                let (description, fixed_by) = ("raised the limit".to_owned(), None);
                let mark = FixMark { key: KEY, id, at, description, fixed_by, actor };
                calls.mark_fixed(at.into(), &mark)
            }
            Script::UnmarkFixed => {
                calls.unmark_fixed(at.into(), &FixRemoval { key: KEY, id, at, reason: None, actor })
            }
            Script::Audit => calls.audit(KEY),
            Script::Forget => calls.forget(KEY),
            Script::Probe => calls.probe(None),
        }
    }

    #[test]
    fn each_call_has_the_keys_and_arguments_that_its_script_names() {
        for script in Script::ALL.iter().copied() {
            let Widths { keys_each, fixed_arguments, arguments_each } = widths(script);
            assert_eq!(keys_each, script.keys_each(), "{script:?}");
            let takes_many = matches!(script, Script::Record | Script::Stats | Script::Repair);
            for elements in if takes_many { 1..=3 } else { 1..=1 } {
                let (keys, arguments) = call(script, elements).counts();
                assert_eq!(keys, elements * keys_each, "{script:?}");
                assert_eq!(arguments, fixed_arguments + elements * arguments_each, "{script:?}");
            }
        }
    }

    #[test]
    fn the_probe_calls_each_command_that_the_scripts_call() {
        let commands = |script: Script| {
            let quoted = script.source().split(['(', ',']).filter_map(|part| {
                let word = part.trim().strip_prefix('\'')?.split('\'').next()?;
                let is_command = word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase());
                is_command.then(|| word.to_owned())
            });
            quoted.collect::<BTreeSet<_>>()
        };
        // Words of the arguments.
        let others = ["LIMIT", "WITHSCORES"].map(str::to_owned);
        let (_, probe) = Script::Probe.source().rsplit_once("\nlocal KEYS_EACH").unwrap();
        for script in Script::ALL {
            for command in commands(*script).iter().filter(|command| !others.contains(command)) {
                assert!(probe.contains(&format!("call('{command}'")), "{command}");
            }
        }
        assert!(commands(Script::Record).contains("ZADD"));
    }

    #[test]
    fn each_script_checks_its_widths() {
        for script in Script::ALL {
            let checks = "elements(KEYS_EACH, FIXED_ARGUMENTS, ARGUMENTS_EACH)";
            assert!(script.source().contains(checks), "{script:?}");
        }
    }
}
