//! The ledger of acknowledged writes, which the service must have exactly once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Mutex,
};

use serde_json::{Value, json};

use crate::{
    stage::Stage,
    support::{Service, key_of},
};

/// The acknowledged writes by anomaly.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Account>>);

/// The acknowledged writes of one anomaly.
#[derive(Clone, Debug, Default)]
struct Account {
    name: String,
    occurrences: BTreeSet<String>,
    repairs: u64,
    is_fixed: bool,
    fix_changes: u64,
}

impl Ledger {
    pub(crate) fn occurred(&self, name: &str, id: &str) {
        self.with(&key_of(name).to_string(), |account| {
            name.clone_into(&mut account.name);
            account.occurrences.insert(id.to_owned());
        });
    }

    pub(crate) fn repaired(&self, key: &str) {
        self.with(key, |account| account.repairs += 1);
    }

    pub(crate) fn fix_changed(&self, key: &str, is_fixed: bool) {
        self.with(key, |account| {
            account.is_fixed = is_fixed;
            account.fix_changes += 1;
        });
    }

    fn with(&self, key: &str, change: impl FnOnce(&mut Account)) {
        change(self.0.lock().unwrap().entry(key.to_owned()).or_default());
    }

    /// Compares the ledger with all instances, and with Redis itself or, if there is none, with the
    /// service's answer to each write that is sent again.
    pub(crate) async fn compare(&self, stage: &Stage) -> Verdict {
        let accounts = self.0.lock().unwrap().clone();
        let mut verdict = Verdict::default();
        for (key, account) in accounts {
            verdict.acknowledged += account.occurrences.len() as u64;
            verdict.repairs += account.repairs;
            verdict.fix_changes += account.fix_changes;
            if let Some(there) = stage.timeline(&key).await {
                for id in account.occurrences.difference(&there) {
                    verdict.lost += 1;
                    verdict.faults.push(format!("occurrence {id} of {key} is lost"));
                }
                for id in there.difference(&account.occurrences) {
                    verdict.doubled += 1;
                    verdict.faults.push(format!("occurrence {id} of {key} is not in the ledger"));
                }
            }
            for service in stage.services() {
                let known = service.get(&format!("/anomalies/{key}")).await.ok();
                let mut expect = |what: &str, found: &Value, expected: u64| {
                    let found = found.as_u64().unwrap_or_default();
                    verdict.lost += expected.saturating_sub(found);
                    verdict.doubled += found.saturating_sub(expected);
                    if found != expected {
                        verdict.faults.push(format!("{what} of {key}: {found}, not {expected}"));
                    }
                };
                let frequency = &known["frequency"];
                expect("occurrences", &frequency["count_24h"], account.occurrences.len() as u64);
                expect("repairs", &frequency["auto_repair_count"], account.repairs);
                let is_fixed = &frequency["permanent_fix_applied"];
                if *is_fixed != account.is_fixed {
                    verdict.lost += 1;
                    verdict.faults.push(format!("the fix of {key} is {is_fixed}"));
                }
            }
            if stage.has_redis() {
                continue;
            }
            // A right count may hide a lost occurrence and an invented one.
            for id in unknown(&stage.service(0), &account).await {
                verdict.lost += 1;
                verdict.faults.push(format!("occurrence {id} of {key} is not recognised"));
            }
        }
        verdict
    }
}

/// Sends the occurrences of an anomaly again, and returns the ids that the service does not know.
async fn unknown(service: &Service, account: &Account) -> Vec<String> {
    let ids: Vec<&String> = account.occurrences.iter().collect();
    let mut unknown = Vec::new();
    for ids in ids.chunks(500) {
        let event = |id: &&String| json!({"alert_name": account.name, "event_id": id});
        let again = ids.iter().map(event).collect::<Vec<_>>();
        let answers = service.post("/anomalies", &json!(again)).await.ok();
        for (id, answer) in ids.iter().zip(answers.as_array().unwrap()) {
            if answer["counted"] != false {
                unknown.push((*id).clone());
            }
        }
    }
    unknown
}

/// The result of the comparison.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    acknowledged: u64,
    repairs: u64,
    fix_changes: u64,
    lost: u64,
    doubled: u64,
    faults: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in self.faults.iter().take(40) {
            writeln!(f, "{fault}")?;
        }
        write!(
            f,
            "acknowledged: {} occurrences, {} repairs, {} changes of fixes; lost {}, doubled {}",
            self.acknowledged, self.repairs, self.fix_changes, self.lost, self.doubled
        )
    }
}
