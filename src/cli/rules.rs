//! The command `rules`: prints which rule an anomaly has, and checks cases. It reads the
//! configuration as the service does at startup, and calls no running service.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Failure, key::posted_fields, streams::outln};
use crate::{
    config::Config,
    counter::SystemClock,
    domain::{
        Counts, EscalationLevel, ExtraCount, KeyMapping, PostedTo, Rule, RuleRef, RuleSet,
        Signature, Window, WindowCounts, parse_span,
    },
    options,
    printable::Printable,
    rules::Rules,
};

pub(super) const EXAMPLES: &str = "\
Print which rule an anomaly has, and why:
  anomaly-counter rules test '{\"alertname\":\"KubeJobFailed\",\"namespace\":\"batch\"}'

Check the cases of a file; the exit status is 1 if a case is not as expected:
  anomaly-counter --config config.toml rules test --cases cases.toml

An example of a file of cases. `rule` or `level` may be left out; level = \"none\" expects no level.
A window without a count has the count of the next shorter window that has one:
  [[case]]
  signature = { alertname = \"KubeJobFailed\", namespace = \"batch\" }
  counts = { \"24h\" = 5, \"7d\" = 21 }
  rule = \"batch\"
  level = \"PERMANENT_FIX\"";

/// The subcommands of `rules`.
#[derive(Debug, Subcommand)]
pub(super) enum RulesCommand {
    /// Print which rule an anomaly has and why, or check all cases of a file
    #[command(after_help = EXAMPLES)]
    Test {
        /// The fields that identify the anomaly, such as '{"alert_name":"HighCPU"}'; - reads
        /// standard input
        #[arg(value_name = "JSON", required_unless_present = "cases", conflicts_with = "cases")]
        signature: Option<String>,
        /// Read the JSON, and the signatures of cases, as the webhook does: as the labels of an
        /// alert
        #[arg(long)]
        webhook: bool,
        /// A TOML file of cases, each with its expected rule or level
        #[arg(long, value_name = "FILE")]
        cases: Option<PathBuf>,
    },
}

pub(super) fn run(command: &RulesCommand, config: &Config) -> Result<(), Failure> {
    let RulesCommand::Test { signature, webhook, cases } = command;
    let to = if *webhook { PostedTo::Webhook } else { PostedTo::Anomalies };
    let keys = Keys { mapping: config.key_mapping(), to };
    let rules = Rules::load(config.rules.clone(), config.thresholds, SystemClock.now())?;
    let in_force = rules.in_force();
    match (signature, cases) {
        (_, Some(file)) => check_cases(in_force.set(), &keys, file),
        (Some(text), None) => {
            explain(in_force.set(), &keys.signature(&posted_fields(text, to)?)?);
            Ok(())
        }
        (None, None) => Err("give the fields of an anomaly, or --cases FILE".into()),
    }
}

/// Computes the signatures of posted fields as the service does.
struct Keys {
    mapping: KeyMapping,
    to: PostedTo,
}

impl Keys {
    fn signature(&self, fields: &Map<String, Value>) -> Result<Signature, Failure> {
        let object = Value::Object(fields.clone()).to_string();
        Ok(self.mapping.map(&self.mapping.read(self.to, &object)?)?.signature)
    }
}

/// Returns the rules in force as lines of a comment, with the steps whose novelty is unknown.
pub(super) fn listed(set: &RuleSet) -> String {
    let mut text = format!(
        "# The rules in force, checksum {:08x}; the first one that matches decides:\n",
        set.checksum()
    );
    for line in set.to_string().lines() {
        text += &format!("#   {}\n", Printable(line));
    }
    for rule in set.rules() {
        for (condition, reason) in rule.undecidable_steps(set.rearm_seconds()) {
            text += &format!(
                "# rule \"{}\": the service can't tell whether a step by \"{condition}\" is new, \
                 because {reason}: each such step counts as new\n",
                rule.name()
            );
        }
    }
    text
}

fn explain(set: &RuleSet, signature: &Signature) {
    let matched = set.index_of(signature);
    outln!("key {}", signature.key());
    for (index, rule) in set.rules()[..=matched].iter().enumerate() {
        let place = format!("rule {} \"{}\"", index + 1, rule.name());
        match rule.mismatch(signature) {
            Some(matcher) => outln!("{place}: {} does not match", Printable(matcher)),
            None => outln!("{place} matches"),
        }
    }
    let rule = &set.rules()[matched];
    if rule.levels().is_none() {
        outln!("  no levels");
    }
    for level in EscalationLevel::ALL {
        let conditions = rule.levels().conditions(level);
        if !conditions.is_empty() {
            let conditions: Vec<String> = conditions.iter().map(ToString::to_string).collect();
            outln!("  {}: {}", level.as_str(), conditions.join(", or "));
        }
    }
}

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CasesFile {
    #[serde(default)]
    case: Vec<Case>,
}

/// An anomaly with its counts, and its expected rule and level.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    signature: Map<String, Value>,
    #[serde(default)]
    counts: BTreeMap<String, u64>,
    rule: Option<String>,
    level: Option<String>,
}

fn check_cases(set: &Arc<RuleSet>, keys: &Keys, file: &Path) -> Result<(), Failure> {
    let cases: CasesFile = options::read_file(file)?;
    let count = cases.case.len();
    if count == 0 {
        return Err(format!("{} has no cases: write at least one [[case]]", file.display()).into());
    }
    let mut failed = 0;
    for (index, case) in cases.case.iter().enumerate() {
        let number = index + 1;
        let differences =
            case.differences(set, keys).map_err(|what| format!("case {number}: {what}"))?;
        if !differences.is_empty() {
            failed += 1;
            outln!("case {number} {}", Printable(Value::Object(case.signature.clone())));
            differences.iter().for_each(|line| outln!("  {}", Printable(line)));
        }
    }
    match failed {
        0 => {
            outln!("{count} cases are as expected");
            Ok(())
        }
        _ => Err(format!("{failed} of {count} cases are not as expected").into()),
    }
}

/// The level that a case expects if none is reached.
const NO_LEVEL: &str = "none";

impl Case {
    /// Returns the lines of a diff between the expected and the actual rule and level.
    fn differences(&self, set: &Arc<RuleSet>, keys: &Keys) -> Result<Vec<String>, String> {
        if self.rule.is_none() && self.level.is_none() {
            return Err("nothing is expected: write `rule`, `level` or both".to_owned());
        }
        let levels = EscalationLevel::ALL.map(EscalationLevel::as_str);
        if let Some(level) = &self.level
            && level != NO_LEVEL
            && !levels.contains(&level.as_str())
        {
            return Err(format!("level {level:?} is not one of {}, {NO_LEVEL}", levels.join(", ")));
        }
        let signature = keys.signature(&self.signature).map_err(|error| error.to_string())?;
        let rule = RuleRef::new(Arc::clone(set), set.index_of(&signature));
        let (windows, extra) = self.counts(rule.rule())?;
        let verdict = rule.judge(Counts { windows, extra: &extra, is_approximate: false });
        let mut lines = Vec::new();
        let name = rule.rule().name();
        if let Some(expected) = self.rule.as_deref().filter(|expected| *expected != name) {
            lines.extend([format!("- rule {expected}"), format!("+ rule {name}")]);
        }
        let level = verdict.level.map_or(NO_LEVEL, EscalationLevel::as_str);
        if let Some(expected) = self.level.as_deref().filter(|expected| *expected != level) {
            lines.push(format!("- level {expected}"));
            lines.push(format!("+ level {level}: {}", verdict.because));
        }
        Ok(lines)
    }

    /// Returns the counts in the four windows, and in the windows of a rule.
    fn counts(&self, rule: &Rule) -> Result<(WindowCounts, Vec<ExtraCount>), String> {
        let mut given = Vec::new();
        for (window, count) in &self.counts {
            let seconds = parse_span(window)
                .map_err(|_| format!("{window:?} is not a window: write one such as \"24h\""))?;
            given.push((seconds, *count));
        }
        given.sort_unstable();
        if let Some(pair) = given.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            let [(_, more), (_, fewer)] = [pair[0], pair[1]];
            return Err(format!("a window has {more} occurrences, but a longer one only {fewer}"));
        }
        let count = |seconds: u64| {
            let shorter = given.iter().rev().find(|(window, _)| *window <= seconds);
            shorter.map_or(0, |(_, count)| *count)
        };
        let of_four = |window: Window| count(window.length_seconds().unsigned_abs());
        let windows = WindowCounts {
            hour: of_four(Window::Hour),
            day: of_four(Window::Day),
            week: of_four(Window::Week),
            month: of_four(Window::Month),
        };
        let extra = rule.extra_windows().iter().map(|window| ExtraCount {
            seconds: window.seconds,
            count: count(window.seconds.into()),
            is_approximate: false,
        });
        Ok((windows, extra.collect()))
    }
}
