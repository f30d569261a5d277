//! The calls of the scripts, with their KEYS and ARGV. The header of each script lists these in the
//! same order, and a test checks their numbers.

use fred::{bytes::Bytes, types::Value};

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
        call.argument(KEPT_SECONDS);
        call.argument(timeline.exact_events() as i64);
        call.argument(timeline.rollup_batch() as i64);
        call.argument(timeline.recent_ids() as i64);
        call.argument(i64::from(may_be_copies));
        call.text(UnixSeconds(RETENTION.start(moment.horizon)));
        call.text(most_ask);
        if has_alerts {
            call.argument(match alerts.count {
                CountBy::Incident => "incident",
                CountBy::Episode => "episode",
                CountBy::Delivery => "delivery",
            });
            call.argument(alerts.stale_after_seconds * MICROS_PER_SECOND);
            call.argument(alerts.incident_max_seconds * MICROS_PER_SECOND);
            call.argument(i64::from(alerts.count_missed));
            call.argument(moment.now.as_micros());
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
        call.text(&occurrence.id);
        call.text(UnixSeconds(occurrence.at));
        if renews {
            call.text(to_iso8601(occurrence.at));
            call.text(occurrence.signature_json.to_stored());
        } else {
            call.text("");
            call.text("");
        }
        call.text(asks);
        if call.script == Script::Alerts {
            call.arguments(alert_arguments(occurrence.episode.as_deref()));
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
        call.text(rule_windows(anomaly.rule.as_ref(), now));
    }

    /// Returns a call without anomalies.
    pub(super) fn rows(&self, now: Timestamp) -> Call {
        let mut call = Call::new(Script::Rows);
        add_starts(&mut call, &BY_LENGTH, now);
        call.argument(now.as_micros());
        call.argument(self.recording.alerts.stale_after_seconds * MICROS_PER_SECOND);
        call
    }

    /// Returns a call without anomalies.
    pub(super) fn series(&self, now: Timestamp, span: SeriesSpan) -> Call {
        let mut call = Call::new(Script::Series);
        let ago = (1..=i64::from(span.buckets)).rev();
        let starts = ago.map(|ago| now.minus_seconds(ago * span.step_seconds));
        call.text(joined(starts));
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
        call.argument(RECENT_ATTEMPTS as i64);
        call.text(rule_windows(anomaly.rule.as_ref(), now));
        call.argument(now.as_micros());
        call.argument(self.recording.alerts.stale_after_seconds * MICROS_PER_SECOND);
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
        call.argument(KEPT_SECONDS);
        call.arguments(id_times(moment));
        call.argument(RECENT_ATTEMPTS as i64);
        call.arguments(self.operation_limits());
        call
    }

    pub(super) fn add_attempt(&self, call: &mut Call, attempt: &RepairAttempt) {
        self.add_keys(call, attempt.key);
        call.text(&attempt.id);
        call.text(repair_attempt_json(attempt));
        call.text(audit::to_json(&attempt.into()));
    }

    pub(super) fn mark_fixed(&self, moment: Moment, mark: &FixMark) -> Call {
        let mut call = Call::new(Script::MarkFixed);
        self.add_keys(&mut call, mark.key);
        call.arguments(self.fix_change(moment, &mark.id, &mark.into()));
        call.text(to_iso8601(mark.at));
        call.argument(remaining_validity_seconds(moment.horizon, mark.at));
        call.text(&mark.description);
        call.text(mark.fixed_by.as_deref().unwrap_or_default());
        call
    }

    pub(super) fn unmark_fixed(&self, moment: Moment, removal: &FixRemoval) -> Call {
        let mut call = Call::new(Script::UnmarkFixed);
        self.add_keys(&mut call, removal.key);
        call.arguments(self.fix_change(moment, &removal.id, &removal.into()));
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
        call.argument(PROBE_SECONDS);
        call.argument(i64::from(stays));
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
        call.text(joined(times.iter().copied()));
        call
    }

    pub(super) fn forget(&self, key: AnomalyKey) -> Call {
        let mut call = Call::new(Script::Forget);
        self.add_keys(&mut call, key);
        call
    }

    /// Returns the first ARGV of the scripts that change a permanent fix.
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
            UnixSeconds(entry.at).to_string().into(),
            audit::to_json(entry).into(),
        ];
        change.into_iter().chain(self.operation_limits())
    }

    /// Returns the maximum number of ids of operations, the maximum number of entries in an audit,
    /// and the time for which an audit is kept: as long as a mark may hold.
    fn operation_limits(&self) -> [Value; 3] {
        let ids = self.recording.timeline.operation_ids() as i64;
        [ids.into(), (AUDIT_ENTRIES as i64).into(), FIX_VALIDITY_SECONDS.into()]
    }
}

/// Returns the ARGV of an alert. All are empty for an occurrence that is not an alert.
fn alert_arguments(alert: Option<&AlertEpisode>) -> [Value; 5] {
    let nothing = || Value::from("");
    let Some(alert) = alert else { return [(); 5].map(|()| nothing()) };
    let micros = |time: Option<Timestamp>| time.map_or_else(nothing, |at| at.as_micros().into());
    [
        Bytes::copy_from_slice(&alert.fingerprint.to_bytes()).into(),
        micros(alert.starts_at.map(|start| start.min(AlertEpisode::LATEST_START))),
        alert.delivered_at.as_micros().into(),
        micros(alert.end()),
        i64::from(matches!(alert.state, AlertState::Interrupted { .. })).into(),
    ]
}

/// Adds the starts of windows, the first ARGV of every script that reads stats.
pub(super) fn add_starts(call: &mut Call, windows: &[Window], now: Timestamp) {
    windows.iter().for_each(|window| call.text(UnixSeconds(window.start(now))));
}

/// Returns times with a blank between them.
fn joined(times: impl Iterator<Item = Timestamp>) -> String {
    times.map(|time| UnixSeconds(time).to_string()).collect::<Vec<_>>().join(" ")
}

/// Returns the times that bound the kept ids of operations: the earliest kept time, and now.
fn id_times(moment: Moment) -> [Value; 2] {
    [moment.horizon.minus_seconds(KEPT_SECONDS), moment.now]
        .map(|time| UnixSeconds(time).to_string().into())
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
                calls.mark_fixed(at.into(), &mark)
            }
            Script::UnmarkFixed => {
                calls.unmark_fixed(at.into(), &FixRemoval { key: KEY, id, at, reason: None, actor })
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
