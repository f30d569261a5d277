//! Writes the fields of a span as JSON without a map: each request has a span, and most have no
//! line in the log. The maps of tracing-subscriber's own `JsonFields` took 8 % of a request's time.

use std::{
    fmt::{self, Debug},
    mem,
};

use tracing::{
    field::{Field, Visit},
    span::Record,
};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, FormattedFields, format::Writer},
};

/// Writes fields as a JSON object.
#[derive(Debug)]
pub(super) struct SpanFields;

impl<'writer> FormatFields<'writer> for SpanFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut members = Members { object: String::with_capacity(USUAL_BYTES) };
        members.object.push('{');
        fields.record(&mut members);
        members.object.push('}');
        writer.write_str(&members.object)
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        let mut members = Members { object: mem::take(&mut current.fields) };
        members.object.pop();
        fields.record(&mut members);
        members.object.push('}');
        current.fields = members.object;
        Ok(())
    }
}

/// The usual size of a request's fields.
const USUAL_BYTES: usize = 192;

/// Appends members to an object.
struct Members {
    object: String,
}

impl Members {
    fn begin(&mut self, field: &Field) {
        if !self.object.ends_with('{') {
            self.object.push(',');
        }
        // Names of fields are identifiers: only the prefix of raw ones has to go.
        let name = field.name();
        self.object.push('"');
        self.object.push_str(name.strip_prefix("r#").unwrap_or(name));
        self.object.push_str("\":");
    }

    fn number(&mut self, field: &Field, value: impl fmt::Display) {
        self.begin(field);
        self.object.push_str(&value.to_string());
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.begin(field);
        // Without an early end, so that the loop is vectorised.
        let needs_escape = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
        if value.bytes().fold(false, |found, byte| found | needs_escape(byte)) {
            self.object.push_str(&serde_json::Value::from(value).to_string());
        } else {
            self.object.push('"');
            self.object.push_str(value);
            self.object.push('"');
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity: it is null.
        self.number(field, serde_json::Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tracing_subscriber::{fmt, prelude::*};

    use super::*;
    use crate::logging::captured::Captured;

    #[test]
    fn the_fields_of_a_span_are_in_its_lines_as_json() {
        let lines = Captured::default();
        let writer = lines.clone();
        let layer = fmt::layer().json().with_writer(move || writer.clone()).fmt_fields(SpanFields);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let nothing: Option<&str> = None;
            let span = tracing::info_span!(
                "request",
                path = "/a\"b\\c\n\u{1}é",
                r#type = "x",
                count = -7,
                size = 7_u64,
                is_local = true,
                ratio = 0.5,
                what = ?Some("x"),
                nothing,
                later = tracing::field::Empty,
            );
            span.record("later", "too");
            let empty = tracing::info_span!("empty", later = tracing::field::Empty);
            empty.record("later", 1);
            span.in_scope(|| tracing::info!("a line"));
            empty.in_scope(|| tracing::info!("another"));
        });
        let text = lines.text();
        let spans: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["span"].clone())
            .collect();
        let request = json!({
            "name": "request", "path": "/a\"b\\c\n\u{1}é", "type": "x", "count": -7, "size": 7,
            "is_local": true, "ratio": 0.5, "what": "Some(\"x\")", "later": "too",
        });
        assert_eq!(spans, [request, json!({"name": "empty", "later": 1})]);
    }
}
