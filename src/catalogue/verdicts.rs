//! The verdicts of a selection about texts, each made once for a query: a million anomalies have a
//! few thousand distinct texts.

use super::visited::Visited;
use crate::domain::{Selection, TextId, TextVerdict, Texts};

/// The verdicts of one query.
#[derive(Debug)]
pub(super) struct Verdicts<'q> {
    selection: &'q Selection,
    looks_at_texts: bool,
    /// The verdicts by the number of their text, each with the version of the number.
    known: Vec<Option<(u32, TextVerdict)>>,
}

impl<'q> Verdicts<'q> {
    pub(super) fn new(selection: &'q Selection) -> Self {
        Self { selection, looks_at_texts: selection.looks_at_texts(), known: Vec::new() }
    }

    /// Returns true if an anomaly meets the criteria about its identifying fields.
    pub(super) fn are_met(&mut self, anomaly: &impl Visited) -> bool {
        if !self.looks_at_texts {
            return true;
        }
        let texts = anomaly.texts();
        let verdicts = anomaly.fields().map(|fields| fields.map(|id| self.verdict(texts, id)));
        self.selection.meets_texts(anomaly.key(), verdicts)
    }

    fn verdict(&mut self, texts: &Texts, id: TextId) -> TextVerdict {
        let version = texts.version(id);
        if let Some(Some((of, verdict))) = self.known.get(id.index())
            && *of == version
        {
            return *verdict;
        }
        let text = texts.get(id).map(|text| &**text).unwrap_or_default();
        let verdict = self.selection.judge_text(text);
        if self.known.len() <= id.index() {
            self.known.resize(id.index() + 1, None);
        }
        self.known[id.index()] = Some((version, verdict));
        verdict
    }
}
