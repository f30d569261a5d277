//! The four identifying fields while a mapping works on them.

use std::fmt;

use crate::domain::Signature;

use super::mask::Mask;

/// An identifying field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The field `alert_name`.
    AlertName,
    /// The field `service`.
    Service,
    /// The field `namespace`.
    Namespace,
    /// The field `error_type`.
    ErrorType,
}

impl Field {
    /// All fields, in the order of [`Signature::FIELDS`].
    pub const ALL: [Self; 4] = [Self::AlertName, Self::Service, Self::Namespace, Self::ErrorType];

    /// Returns its canonical name.
    pub fn name(self) -> &'static str {
        Signature::FIELDS[self as usize].0
    }

    /// Returns its name and its alias, if it has one.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let (name, alias) = Signature::FIELDS[self as usize];
        std::iter::once(name).chain(alias)
    }

    /// Returns the field of a canonical name.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }
}

/// A change of a field by one step of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The part of the mapping that made the change.
    pub by: StepKind,
    /// The field that was changed.
    pub field: Field,
    /// The value before the step.
    pub before: String,
    /// The value after the step.
    pub after: String,
}

/// A part of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// An empty label counts as absent.
    EmptyLabel,
    /// A label `exported_…` wins.
    Exported(&'static str),
    /// The preset `kubernetes`, by the label that names the workload.
    Kubernetes(String),
    /// The name of Grafana's rule becomes the service.
    RuleName,
    /// A rule of `key.relabel`; the first is 1.
    Relabel(usize),
    /// A mask.
    Mask(Mask),
    /// All four fields would be empty, so the posted ones are restored.
    Restored,
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyLabel => f.write_str("empty label"),
            Self::Exported(label) => f.write_str(label),
            Self::Kubernetes(label) => write!(f, "kubernetes ({label})"),
            Self::RuleName => f.write_str("rulename"),
            Self::Relabel(number) => write!(f, "relabel rule {number}"),
            Self::Mask(mask) => write!(f, "mask {}", mask.name()),
            Self::Restored => f.write_str("all four empty: as posted"),
        }
    }
}

/// The values of the four fields, with a trace of their changes if one is requested.
pub(super) struct Fields<'t> {
    values: [String; 4],
    trace: Option<&'t mut Vec<Step>>,
}

impl<'t> Fields<'t> {
    pub(super) fn new(values: [String; 4], trace: Option<&'t mut Vec<Step>>) -> Self {
        Self { values, trace }
    }

    pub(super) fn get(&self, field: Field) -> &str {
        &self.values[field as usize]
    }

    /// Sets a field. A value of more than [`Signature::MAX_CHARACTERS`] is cut there.
    pub(super) fn set(&mut self, field: Field, value: &str, by: impl FnOnce() -> StepKind) {
        let (value, slot) = (Signature::cut(value), &mut self.values[field as usize]);
        if slot == value {
            return;
        }
        let before = std::mem::replace(slot, value.to_owned());
        if let Some(trace) = &mut self.trace {
            trace.push(Step { by: by(), field, before, after: value.to_owned() });
        }
    }

    pub(super) fn are_empty(&self) -> bool {
        self.values.iter().all(String::is_empty)
    }

    pub(super) fn into_values(self) -> [String; 4] {
        self.values
    }
}
