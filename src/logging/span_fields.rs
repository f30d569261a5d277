//! The fields of a span as JSON, written straight away: each request has a span, and most have no line in the log.
//! tracing-subscriber's own `JsonFields` gathers them in a map first, which was 8 % of what a request takes.

use std::fmt::{self, Debug};

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
        writer.write_char('{')?;
        let mut members = Members { writer: writer.by_ref(), is_first: true, written: Ok(()) };
        fields.record(&mut members);
        members.written?;
        writer.write_char('}')
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &Record<'_>,
    ) -> fmt::Result {
        current.fields.pop();
        let is_first = current.fields.ends_with('{');
        let mut writer = current.as_writer();
        let mut members = Members { writer: writer.by_ref(), is_first, written: Ok(()) };
        fields.record(&mut members);
        members.written?;
        writer.write_char('}')
    }
}

/// Writes one member of the object after the other.
struct Members<'writer> {
    writer: Writer<'writer>,
    is_first: bool,
    written: fmt::Result,
}

impl Members<'_> {
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        let write = || {
            if !self.is_first {
                self.writer.write_char(',')?;
            }
            self.is_first = false;
            // Names of fields are those of variables, but for those that are taken.
            write_text(&mut self.writer, field.name().trim_start_matches("r#"))?;
            self.writer.write_char(':')?;
            value(&mut self.writer)
        };
        self.written = self.written.and_then(|()| write());
    }
}

impl Visit for Members<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.write(field, |writer| write_text(writer, &format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |writer| write_text(writer, value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity: it is null.
        self.write(field, |writer| write!(writer, "{}", serde_json::Value::from(value)));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }
}

fn write_text(writer: &mut Writer<'_>, text: &str) -> fmt::Result {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        writer.write_char('"')?;
        writer.write_str(text)?;
        return writer.write_char('"');
    }
    writer.write_str(&serde_json::Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use tracing_subscriber::{fmt, prelude::*};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_a_span_has_is_in_its_lines_as_json() {
        let lines = Lines::default();
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
        let text = String::from_utf8(lines.0.lock().clone()).unwrap();
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
