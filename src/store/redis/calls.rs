//! The calls of the scripts, with their KEYS and ARGV. The header of each script lists these in the
//! same order, and a test checks their numbers.

use super::{
    asks::{BY_LENGTH, rule_windows},
    audit,
    reply::repair_attempt_json,
    script::{Call, Script},
    time::{UnixSeconds, to_iso8601},
};
use crate::{
    domain::{
        AUDIT_ENTRIES, AlertEpisode, AlertState, AnomalyKey, AuditEntry, CountBy, EventId,
        FIX_VALIDITY_SECONDS, FixMark, FixRemoval, Moment, Occurrence, RECENT_ATTEMPTS, RETENTION,
        RepairAttempt, Timestamp, Window,
    },
    store::{Judged, KEPT_SECONDS, RecordingConfig, SeriesSpan, keys::KeyNames},
};

/// Time for which the probe's key is kept, in seconds.
const PROBE_SECONDS: i64 = 60;

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Makes the calls for one deployment.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    pub(super) names: KeyNames,
    pub(super) recording: RecordingConfig,
}

impl Calls {
    /// Returns a call without occurrences. `has_alerts` says that some of the later occurrences are
    /// alerts. If they `may_be_copies` of recorded ones, those that can't be recognised are not
    /// recorded.
    ///
    /// `most_ask` is the most frequent request of the occurrences' rules.
    pub(super) fn record(
        &self,
        moment: Moment,
        may_be_copies: bool,
        has_alerts: bool,
        most_ask: &str,
    ) -> Call {
        let mut call = Call::new(if has_alerts { Script::Alerts } else { Script::Record });
        let RecordingConfig { timeline, alerts } = self.recording;
        add_starts(&mut call, &BY_LENGTH, moment.now);
        call.print(KEPT_SECONDS);
        call.print(timeline.exact_events());
        call.print(timeline.rollup_batch());
        call.print(timeline.recent_ids());
        call.print(i64::from(may_be_copies));
        call.print(UnixSeconds(RETENTION.start(moment.horizon)));
        call.argument(most_ask);
        if has_alerts {
            call.argument(match alerts.count {
                CountBy::Incident => "incident",
                CountBy::Episode => "episode",
                CountBy::Delivery => "delivery",
            });
            call.print(alerts.stale_after_seconds * MICROS_PER_SECOND);
            call.print(alerts.incident_max_seconds * MICROS_PER_SECOND);
            call.print(i64::from(alerts.count_missed));
            call.print(moment.now.as_micros());
        }
        call
    }

    /// Adds an occurrence. If it `renews` the TTLs of its anomaly's keys, the object that is kept
    /// with the anomaly is included. `asks` is the request of its rule; empty if it is the most
    /// frequent one.
    pub(super) fn add_occurrence(
        &self,
        call: &mut Call,
        occurrence: &Occurrence,
        renews: bool,
        asks: &str,
    ) {
        self.add_keys(call, occurrence.key);
        call.argument(occurrence.id.as_str());
        call.print(UnixSeconds(occurrence.at));
        if renews {
            call.argument(to_iso8601(occurrence.at));
            call.argument(occurrence.signature_json.to_stored().as_bytes());
        } else {
            call.argument("");
            call.argument("");
        }
        call.argument(asks);
        if call.script == Script::Alerts {
            add_alert(call, occurrence.episode.as_deref());
        }
    }

    /// Returns a call without anomalies.
    pub(super) fn stats(&self, now: Timestamp) -> Call {
        let mut call = Call::new(Script::Stats);
        add_starts(&mut call, &BY_LENGTH, now);
        call
    }

    /// Adds an anomaly whose stats are read at the time of the call.
    pub(super) fn add_judged(&self, call: &mut Call, now: Timestamp, anomaly: &Judged) {
        self.add_keys(call, anomaly.key);
        call.argument(rule_windows(anomaly.rule.as_ref(), now));
    }

    /// Returns a call without anomalies.
    pub(super) fn rows(&self, now: Timestamp) -> Call {
        let mut call = Call::new(Script::Rows);
        add_starts(&mut call, &BY_LENGTH, now);
        call.print(now.as_micros());
        call.print(self.recording.alerts.stale_after_seconds * MICROS_PER_SECOND);
        call
    }

    /// Returns a call without anomalies.
    pub(super) fn series(&self, now: Timestamp, span: SeriesSpan) -> Call {
        let mut call = Call::new(Script::Series);
        let ago = (1..=i64::from(span.buckets)).rev();
        let starts = ago.map(|ago| now.minus_seconds(ago * span.step_seconds));
        call.argument(joined(starts));
        call
    }

    /// Adds an anomaly that needs only its keys.
    pub(super) fn add_keys(&self, call: &mut Call, key: AnomalyKey) {
        self.names.first(call.script.keys_each(), key, |parts| call.key(parts));
    }

    pub(super) fn details(&self, now: Timestamp, anomaly: &Judged) -> Call {
        let mut call = Call::new(Script::Details);
        self.add_keys(&mut call, anomaly.key);
        add_starts(&mut call, &BY_LENGTH, now);
        call.print(RECENT_ATTEMPTS);
        call.argument(rule_windows(anomaly.rule.as_ref(), now));
        call.print(now.as_micros());
        call.print(self.recording.alerts.stale_after_seconds * MICROS_PER_SECOND);
        call
    }

    pub(super) fn signature(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Signature);
        self.add_keys(&mut call, key);
        call
    }

    /// Returns a call without attempts.
    pub(super) fn repair(&self, moment: Moment) -> Call {
        let mut call = Call::new(Script::Repair);
        call.print(KEPT_SECONDS);
        add_id_times(&mut call, moment);
        call.print(RECENT_ATTEMPTS);
        self.add_operation_limits(&mut call);
        call
    }

    pub(super) fn add_attempt(&self, call: &mut Call, attempt: &RepairAttempt) {
        self.add_keys(call, attempt.key);
        call.argument(attempt.id.as_str());
        call.argument(repair_attempt_json(attempt));
        call.argument(audit::to_json(&attempt.into()));
    }

    /// Returns a call of a mark, which is to be made even after the `later` change, if any.
    pub(super) fn mark_fixed(
        &self,
        moment: Moment,
        mark: &FixMark,
        later: Option<Timestamp>,
    ) -> Call {
        let mut call = Call::new(Script::MarkFixed);
        self.add_keys(&mut call, mark.key);
        self.add_fix_change(&mut call, moment, &mark.id, &mark.into(), later);
        call.argument(to_iso8601(mark.at));
        call.print(remaining_validity_seconds(moment.horizon, mark.at));
        call.argument(&mark.description);
        call.argument(mark.fixed_by.as_deref().unwrap_or_default());
        call
    }

    /// Returns a call of a removal, as [`Self::mark_fixed`] does.
    pub(super) fn unmark_fixed(
        &self,
        moment: Moment,
        removal: &FixRemoval,
        later: Option<Timestamp>,
    ) -> Call {
        let mut call = Call::new(Script::UnmarkFixed);
        self.add_keys(&mut call, removal.key);
        self.add_fix_change(&mut call, moment, &removal.id, &removal.into(), later);
        call
    }

    /// Returns a call of the probe. On a cluster, `tag` determines its slot.
    pub(super) fn probe(&self, tag: Option<&str>) -> Call {
        self.probe_that(true, tag)
    }

    /// Returns a call of the probe that leaves nothing behind, for a Redis that is only examined.
    pub(super) fn probe_once(&self) -> Call {
        self.probe_that(false, None)
    }

    fn probe_that(&self, stays: bool, tag: Option<&str>) -> Call {
        let mut call = Call::new(Script::Probe);
        call.key([&self.names.probe(tag), "", ""]);
        call.print(PROBE_SECONDS);
        call.print(i64::from(stays));
        call
    }

    pub(super) fn audit(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Audit);
        self.add_keys(&mut call, key);
        call
    }

    /// Returns a call that counts the events since each of `times`, which rise.
    pub(super) fn history(&self, key: AnomalyKey, times: &[Timestamp]) -> Call {
        let mut call = Call::new(Script::History);
        self.add_keys(&mut call, key);
        call.argument(joined(times.iter().copied()));
        call
    }

    pub(super) fn forget(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Forget);
        self.add_keys(&mut call, key);
        call
    }

    /// Adds the first ARGV of the scripts that change a permanent fix.
    fn add_fix_change(
        &self,
        call: &mut Call,
        moment: Moment,
        id: &EventId,
        entry: &AuditEntry,
        later: Option<Timestamp>,
    ) {
        call.print(KEPT_SECONDS);
        add_id_times(call, moment);
        call.argument(id.as_str());
        call.print(UnixSeconds(entry.at));
        call.argument(audit::to_json(entry));
        self.add_operation_limits(call);
        match later {
            Some(later) => call.print(UnixSeconds(later)),
            None => call.argument(""),
        }
    }

    /// Adds the maximum number of ids of operations, the maximum number of entries in an audit, and
    /// the time for which an audit is kept: as long as a mark may hold.
    fn add_operation_limits(&self, call: &mut Call) {
        call.print(self.recording.timeline.operation_ids());
        call.print(AUDIT_ENTRIES);
        call.print(FIX_VALIDITY_SECONDS);
    }
}

/// Adds the ARGV of an alert. All are empty for an occurrence that is not an alert.
fn add_alert(call: &mut Call, alert: Option<&AlertEpisode>) {
    let Some(alert) = alert else { return (0..5).for_each(|_| call.argument("")) };
    let add_micros = |call: &mut Call, time: Option<Timestamp>| match time {
        Some(time) => call.print(time.as_micros()),
        None => call.argument(""),
    };
    call.argument(alert.fingerprint.to_bytes());
    add_micros(call, alert.starts_at.map(|start| start.min(AlertEpisode::LATEST_START)));
    add_micros(call, Some(alert.delivered_at));
    add_micros(call, alert.end());
    call.print(i64::from(matches!(alert.state, AlertState::Interrupted { .. })));
}

/// Adds the starts of windows, the first ARGV of every script that reads stats.
pub(super) fn add_starts(call: &mut Call, windows: &[Window], now: Timestamp) {
    windows.iter().for_each(|window| call.print(UnixSeconds(window.start(now))));
}

/// Returns times with a blank between them.
fn joined(times: impl Iterator<Item = Timestamp>) -> String {
    times.map(|time| UnixSeconds(time).to_string()).collect::<Vec<_>>().join(" ")
}

/// Adds the times that bound the kept ids of operations: the earliest kept time, and now.
fn add_id_times(call: &mut Call, moment: Moment) {
    call.print(UnixSeconds(moment.horizon.minus_seconds(KEPT_SECONDS)));
    call.print(UnixSeconds(moment.now));
}

/// Returns the seconds for which a mark made at `at` still holds; never 0, which `SET` refuses.
fn remaining_validity_seconds(horizon: Timestamp, at: Timestamp) -> i64 {
    let age_seconds = (horizon.as_micros() - at.as_micros()) / 1_000_000;
    (FIX_VALIDITY_SECONDS - age_seconds).clamp(1, FIX_VALIDITY_SECONDS)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, iter};

    use super::{super::known_timelines::OldestEvent, *};
    use crate::domain::{Action, Actor, Fingerprint};

    const KEY: AnomalyKey = AnomalyKey::from_bits(7);

    /// The numbers that a script states in its first lines: the keys and arguments of each element,
    /// and the arguments before them.
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

    /// Returns a call with this number of elements, or with one if the script takes only one.
    fn call(script: Script, elements: usize) -> Call {
        let recording = RecordingConfig::smallest();
        let calls = Calls { names: KeyNames::new("anomaly:", false), recording };
        let (id, at) = (EventId::parse("a").unwrap(), Timestamp::from_micros(7));
        let actor = Actor::default();
        match script {
            Script::Record | Script::Alerts => {
                let has_alerts = script == Script::Alerts;
                let alert = || AlertEpisode {
                    fingerprint: Fingerprint::of("f"),
                    starts_at: None,
                    delivered_at: at,
                    state: AlertState::Firing,
                };
                let episode = has_alerts.then(|| Box::new(alert()));
                let (signature_json, rule) = ("{}".into(), None);
                let occurrence = Occurrence { key: KEY, id, at, signature_json, episode, rule };
                let mut call = calls.record(at.into(), false, has_alerts, "0;;");
                (0..elements).for_each(|_| calls.add_occurrence(&mut call, &occurrence, true, ""));
                call
            }
            Script::RecordKnown => {
                let signature_json = "{}".into();
                let occurrence =
                    Occurrence { key: KEY, id, at, signature_json, episode: None, rule: None };
                let oldest = OldestEvent { id: "a".into(), at };
                let occurrences = iter::repeat_n(&occurrence, elements);
                let mut call = calls.record_known(at, occurrences.clone());
                occurrences
                    .for_each(|one| calls.add_known_occurrence(&mut call, at, one, &oldest, true));
                call
            }
            Script::StatsKnown => {
                let oldest = OldestEvent { id: "a".into(), at };
                let mut call = calls.stats_known(at, iter::repeat_n(KEY, elements), None);
                (0..elements).for_each(|_| calls.add_known(&mut call, at, KEY, &oldest, None));
                call
            }
            Script::Stats => {
                let mut call = calls.stats(at);
                (0..elements).for_each(|_| calls.add_judged(&mut call, at, &KEY.into()));
                call
            }
            Script::Rows => {
                let mut call = calls.rows(at);
                (0..elements).for_each(|_| calls.add_judged(&mut call, at, &KEY.into()));
                call
            }
            Script::Series => {
                let mut call = calls.series(at, SeriesSpan { step_seconds: 3_600, buckets: 24 });
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
            Script::Details => calls.details(at, &KEY.into()),
            Script::Signature => calls.signature(KEY),
            Script::MarkFixed => {
                let (description, fixed_by) = ("raised the limit".to_owned(), None);
                let mark = FixMark { key: KEY, id, at, description, fixed_by, actor };
                calls.mark_fixed(at.into(), &mark, None)
            }
            Script::UnmarkFixed => {
                let removal = FixRemoval { key: KEY, id, at, reason: None, actor };
                calls.unmark_fixed(at.into(), &removal, None)
            }
            Script::Audit => calls.audit(KEY),
            Script::History => calls.history(KEY, &[at]),
            Script::Forget => calls.forget(KEY),
            Script::Probe => calls.probe(None),
        }
    }

    #[test]
    fn each_call_has_the_keys_and_arguments_that_its_script_names() {
        for script in Script::ALL.iter().copied() {
            let Widths { keys_each, fixed_arguments, arguments_each } = widths(script);
            assert_eq!(keys_each, script.keys_each(), "{script:?}");
            use Script::{Alerts, Record, RecordKnown, Repair, Rows, Series, Stats, StatsKnown};
            let takes_many = matches!(
                script,
                Record | RecordKnown | Alerts | Stats | StatsKnown | Series | Rows | Repair
            );
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
        // Words in arguments that are not commands.
        let others = ["LIMIT", "REV", "WITHSCORES"].map(str::to_owned);
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
