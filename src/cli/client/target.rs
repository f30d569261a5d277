//! The anomaly that a command line selects: by its key, by fields, or by words.

use clap::Args;

use super::{
    answers::{Anomaly, List, Signature},
    failure::Failure,
    list::{self, ListView},
    output::{Output, name_of},
    screen::{fitted, one_line, style, width},
    service::{Answer, Call, Service},
};
use crate::domain::{AnomalyKey, TextPattern};

/// The arguments that select an anomaly.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct TargetArguments {
    /// A key, or fields or labels such as alertname=HighCPU job=api, or words in its fields, or the
    /// first digits of its key (at least 4)
    #[arg(value_name = "ANOMALY", required = true)]
    words: Vec<String>,
}

/// Maximum number of anomalies that are listed if several match, or none.
const LISTED: usize = 20;
const NEAR: usize = 5;
/// The number of common first digits that makes two keys similar.
const NEAR_DIGITS: usize = 4;

/// The selected anomaly.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) key: String,
    /// Its fields, if the search returned them.
    pub(super) signature: Option<Signature>,
    /// The response of the look-up that found it, if any.
    pub(super) looked_up: Option<Answer>,
    /// False if other anomalies may match that the service does not know yet.
    is_certain: bool,
}

enum Meant {
    Key(String),
    Fields(Vec<(String, String)>),
    Words(String),
}

impl TargetArguments {
    fn meant(&self) -> Result<Meant, Failure> {
        if let [word] = self.words.as_slice()
            && let Ok(key) = word.to_ascii_lowercase().parse::<AnomalyKey>()
        {
            return Ok(Meant::Key(key.to_string()));
        }
        let words = self.separate_words();
        let pairs: Vec<(String, String)> = words
            .iter()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        if pairs.len() == words.len() {
            return Ok(Meant::Fields(pairs));
        }
        if !pairs.is_empty() {
            return Err(Failure::Misuse(
                "give fields (alertname=HighCPU job=api) or words (HighCPU api), not both: \
                 `anomaly-counter top HighCPU --service api` lists by both"
                    .to_owned(),
            ));
        }
        Ok(Meant::Words(self.words.join(" ")))
    }

    /// Returns the words as they were given. The text of an alert in quotes, such as
    /// `"alertname=HighCPU job=api"`, is taken apart, unless a value contains a space.
    fn separate_words(&self) -> Vec<&str> {
        if let [text] = self.words.as_slice() {
            let parts: Vec<&str> = text.split_whitespace().collect();
            if parts.iter().all(|part| part.contains('=')) {
                return parts;
            }
        }
        self.words.iter().map(String::as_str).collect()
    }

    /// Finds the anomaly, for a command that only reads. If several match, they are listed.
    pub(super) fn find(&self, service: &Service, output: Output) -> Result<Target, Failure> {
        match self.meant()? {
            Meant::Key(key) => {
                Ok(Target { key, signature: None, looked_up: None, is_certain: true })
            }
            Meant::Fields(pairs) => by_fields(service, output, &pairs),
            Meant::Words(words) => by_words(service, output, &words),
        }
    }

    /// Finds the anomaly, for a command that changes it.
    pub(super) fn find_to_change(
        &self,
        service: &Service,
        output: Output,
    ) -> Result<Target, Failure> {
        let target = self.find(service, output)?;
        if target.is_certain {
            return Ok(target);
        }
        Err(Failure::NotFound(format!(
            "{} was found, but the service does not know all anomalies at present, and others may \
             match too: to confirm this one, give its key {}",
            target.signature.as_ref().map(name_of).unwrap_or_default(),
            target.key
        )))
    }
}

impl Target {
    /// Makes a call about this anomaly. Where it is not known, the failure has what is near it, but
    /// not as JSON.
    pub(super) fn call(
        &self,
        service: &Service,
        output: Output,
        call: &Call<'_>,
    ) -> Result<Answer, Failure> {
        service.call(call).map_err(|failure| {
            if output.is_json() {
                return failure;
            }
            with_near(service, failure, "q", &self.key[..NEAR_DIGITS])
        })
    }

    /// Returns the fields of the anomaly on one line, for people.
    fn name(&self, service: &Service, output: Output) -> Option<String> {
        if let Some(signature) = &self.signature {
            return Some(name_of(signature));
        }
        if !output.screen.is_terminal() {
            return None;
        }
        let answer = service.call(&Call::get(["anomalies", &self.key])).ok()?;
        service.read::<Anomaly>(&answer).ok()?.signature.as_ref().map(name_of)
    }

    /// Returns the line above a response on a terminal, with the anomaly.
    pub(super) fn title(&self, service: &Service, output: Output) -> String {
        let screen = output.screen;
        if !screen.is_terminal() {
            return String::new();
        }
        self.heading(service, output) + "\n"
    }

    /// Returns a line with the names and the key of the anomaly.
    pub(super) fn heading(&self, service: &Service, output: Output) -> String {
        let screen = output.screen;
        let key = screen.styled(style::QUIET, &self.key);
        let room = screen
            .columns
            .map_or(usize::MAX, |columns| columns.saturating_sub(width(&self.key) + 2));
        match self.name(service, output).map(|name| fitted(&name, room)) {
            Some(name) if !name.is_empty() => {
                format!("{}  {key}\n", screen.styled(style::NAME, &name))
            }
            _ => format!("{key}\n"),
        }
    }
}

fn by_fields(
    service: &Service,
    output: Output,
    pairs: &[(String, String)],
) -> Result<Target, Failure> {
    let call = pairs.iter().fold(Call::get(["anomalies", "lookup"]), |call, (name, value)| {
        call.with(name, value.clone())
    });
    let answer = service.call(&call).map_err(|failure| {
        if output.is_json() {
            return failure;
        }
        let named = |names: [&str; 2]| {
            let pair = pairs
                .iter()
                .find(|(name, value)| names.contains(&name.as_str()) && !value.is_empty());
            pair.map(|(_, value)| value.as_str())
        };
        let near = [["alert_name", "alertname"], ["service", "job"]].into_iter();
        match near.filter_map(|names| Some((names[0], named(names)?))).next() {
            Some((field, value)) => with_near(service, failure, field, &as_pattern(value)),
            None => failure,
        }
    })?;
    let found: Anomaly = service.read(&answer)?;
    Ok(Target {
        key: found.anomaly_key,
        signature: found.signature,
        looked_up: Some(answer),
        is_certain: true,
    })
}

/// Returns a pattern for a value in any case.
fn as_pattern(value: &str) -> String {
    format!("*{}*", TextPattern::escaped(value))
}

fn by_words(service: &Service, output: Output, words: &str) -> Result<Target, Failure> {
    let call =
        Call::get(["anomalies"]).with("q", words.to_owned()).with("limit", LISTED.to_string());
    let answer = service.call(&call)?;
    let found: List = service.read(&answer)?;
    match found.anomalies.as_slice() {
        [one] if found.total == 1 => Ok(Target {
            key: one.anomaly_key.clone(),
            signature: one.signature.clone(),
            looked_up: None,
            is_certain: found.complete,
        }),
        [] => {
            if output.is_json() {
                output.print_json(&answer.body)?;
            }
            let yet =
                if found.complete { "" } else { ", among those that the service knows so far" };
            Err(Failure::NotFound(format!(
                "no anomaly has {words:?} in its fields or its key{yet}: try fewer words, or see \
                 `anomaly-counter top`"
            )))
        }
        [first, ..] => {
            if output.is_json() {
                output.print_json(&answer.body)?;
            } else {
                output.print(&list::rendered(&found, output, ListView::default()))?;
            }
            let shown = found.anomalies.len();
            let shown = match usize::try_from(found.total) {
                Ok(total) if total > shown => format!("({shown} are listed)"),
                _ => String::new(),
            };
            Err(Failure::NotFound(format!(
                "{} anomalies have {words:?} in their fields{shown}: select one by more words, by \
                 its fields (alertname=HighCPU job=api) or by its key, such as {}",
                found.total, first.anomaly_key
            )))
        }
    }
}

/// Adds the anomalies that a parameter finds to the failure of an unknown anomaly.
fn with_near(service: &Service, mut failure: Failure, parameter: &str, value: &str) -> Failure {
    let Failure::Refused(refusal) = &mut failure else { return failure };
    if !refusal.is_unknown_anomaly() {
        return failure;
    }
    let call =
        Call::get(["anomalies"]).with(parameter, value.to_owned()).with("limit", NEAR.to_string());
    // Similar anomalies are optional: without them, the failure is reported as it is.
    let near = service.call(&call).and_then(|answer| service.read::<List>(&answer));
    let Ok(near) = near else { return failure };
    if near.anomalies.is_empty() {
        refusal.text += ". `anomaly-counter top` lists the known ones";
        return failure;
    }
    let lines = near.anomalies.iter().map(|listed| {
        let name = listed.signature.as_ref().map(name_of).unwrap_or_default();
        one_line(&format!("{}  {name}", listed.anomaly_key))
    });
    refusal.text += ". Similar anomalies:";
    refusal.near = lines.collect();
    failure
}
