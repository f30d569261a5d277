//! The command `key`: prints the key of an anomaly, and the steps from the posted fields to it.

use std::io::{self, Read as _};

use clap::Args;
use serde_json::{Map, Value};

use super::{Failure, streams::outln};
use crate::{
    config::Config,
    domain::{Explanation, Field, KeyMapping, PostedTo},
};

/// The arguments of the command.
#[derive(Debug, Args)]
pub(super) struct KeyCommand {
    /// Also print the posted fields, each step that changes a field, and the key without these
    /// steps
    #[arg(long)]
    explain: bool,
    /// Read the JSON as the webhook does: as the labels of an alert, or as an alert with `labels`
    #[arg(long)]
    webhook: bool,
    /// The fields that identify the anomaly, such as '{"alert_name":"HighCPU"}'; - reads standard
    /// input
    #[arg(value_name = "JSON")]
    signature: String,
}

/// Prints the key.
pub(super) fn run(command: &KeyCommand, config: &Config) -> Result<(), Failure> {
    let to = if command.webhook { PostedTo::Webhook } else { PostedTo::Anomalies };
    let fields = posted_fields(&command.signature, to)?;
    let explanation = explain(&config.key_mapping(), to, fields)?;
    if command.explain {
        print_explanation(&explanation);
    } else {
        outln!("{}", explanation.key);
    }
    Ok(())
}

/// Reads the fields of an argument that is JSON; `-` stands for standard input.
pub(super) fn posted_fields(argument: &str, to: PostedTo) -> Result<Map<String, Value>, Failure> {
    let mut text = argument.to_owned();
    if text == "-" {
        text.clear();
        io::stdin().read_to_string(&mut text)?;
    }
    let fields = object(&text)?;
    match (to, fields.get("labels")) {
        (PostedTo::Webhook, Some(Value::Object(labels))) => Ok(labels.clone()),
        _ => Ok(fields),
    }
}

fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        format!(
            "the argument is not JSON ({error}): give an object such as \
             '{{\"alert_name\":\"HighCPU\"}}'"
        )
    })?;
    match value {
        Value::Object(fields) => Ok(fields),
        _ => {
            Err("the argument must be a JSON object such as '{\"alert_name\":\"HighCPU\"}'".into())
        }
    }
}

fn explain(
    keys: &KeyMapping,
    to: PostedTo,
    fields: Map<String, Value>,
) -> Result<Explanation, Failure> {
    let object = Value::Object(fields).to_string();
    Ok(keys.explain(&keys.read(to, &object)?)?)
}

/// Prints texts in quotes, with control characters escaped.
fn print_explanation(explanation: &Explanation) {
    outln!("posted");
    for (field, value) in Field::ALL.into_iter().zip(&explanation.posted) {
        outln!("  {:10}  {value:?}", field.name());
    }
    outln!("steps");
    if explanation.steps.is_empty() {
        outln!("  none changes anything");
    }
    for step in &explanation.steps {
        let (field, before, after) = (step.field.name(), &step.before, &step.after);
        outln!("  {}: {field} {before:?} -> {after:?}", step.by);
    }
    match explanation.posted_key {
        Some(key) => outln!("key as posted  {key}"),
        None => outln!("key as posted  none: all four fields are empty"),
    }
    outln!("key            {}", explanation.key);
}
