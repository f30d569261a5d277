//! Adds to each line the request that it is about. The fields of a request are in a task-local, and
//! not in a span: a span's fields are formatted for each request, and most have no line.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{printable::Escaping, telemetry::RequestFields, traces};

/// The fields of a request by their names.
type Fields = [(&'static str, String)];

/// The name under which a line has the fields of its request.
const REQUEST: &str = "request";

/// A formatter of lines whose lines also have the fields of the request that they are about.
#[derive(Debug)]
pub(super) struct RequestLines<F> {
    lines: F,
    append: fn(&mut String, &Fields) -> fmt::Result,
}

impl<F> RequestLines<F> {
    /// Of lines that are JSON objects: in the member `span`.
    pub(super) fn of_json(lines: F) -> Self {
        Self { lines, append: append_member }
    }

    /// Of lines for people: at the end.
    pub(super) fn of_text(lines: F) -> Self {
        Self { lines, append: append_text }
    }
}

impl<S, N, F> FormatEvent<S, N> for RequestLines<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(request) = RequestFields::current() else {
            return self.lines.format_event(context, writer, event);
        };
        let mut fields = request.named();
        // Without a trace, log lines have none.
        fields.extend(traces::trace_id().map(|id| ("trace_id", id.to_string())));
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end().len());
        (self.append)(&mut line, &fields)?;
        writeln!(writer, "{line}")
    }
}

fn append_member(line: &mut String, fields: &Fields) -> fmt::Result {
    let fields = fields.iter().map(|(name, value)| (*name, value.as_str()));
    let members = fields.chain([("name", REQUEST)]);
    let span: Map<String, Value> =
        members.map(|(name, value)| (name.to_owned(), value.into())).collect();
    let end = line.pop();
    debug_assert_eq!(end, Some('}'), "the line is a JSON object");
    write!(line, ",\"span\":{}}}", Value::from(span))
}

fn append_text(line: &mut String, fields: &Fields) -> fmt::Result {
    write!(line, " {REQUEST}{{")?;
    for (index, (name, value)) in fields.iter().enumerate() {
        let gap = if index == 0 { "" } else { " " };
        write!(Escaping(&mut *line), "{gap}{name}={value:?}")?;
    }
    line.write_char('}')
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};
    use serde_json::json;
    use tracing_subscriber::{
        fmt::{self, format::format},
        prelude::*,
    };
    use uuid::Uuid;

    use super::*;
    use crate::{logging::captured::Captured, telemetry::RequestId};

    /// Logs a line outside of a request and one in it.
    async fn lines_of(
        layer: impl tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync,
    ) {
        let subscriber = tracing_subscriber::registry().with(layer);
        let _logging = tracing::subscriber::set_default(subscriber);
        tracing::info!("a line");
        let request = RequestFields {
            method: Method::POST,
            uri: Uri::from_static("/a%22b?c=d"),
            id: RequestId::New(Uuid::nil()),
            client: "192.0.2.1".into(),
        };
        request.around(async { tracing::info!(count = 1, "another \"line\"") }).await;
    }

    #[tokio::test]
    async fn a_line_for_machines_has_its_request() {
        let lines = Captured::default();
        let writer = lines.clone();
        let format = RequestLines::of_json(format().json().flatten_event(true));
        lines_of(fmt::layer().json().event_format(format).with_writer(move || writer.clone()))
            .await;
        let text = lines.text();
        let lines: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["message"], "a line");
        assert_eq!(lines[0].get("span"), None);
        assert_eq!(lines[1]["message"], "another \"line\"");
        assert_eq!(lines[1]["count"], 1);
        let request = json!({
            "method": "POST", "path": "/a%22b",
            "request_id": "00000000-0000-0000-0000-000000000000", "client": "192.0.2.1",
            "name": "request",
        });
        assert_eq!(lines[1]["span"], request);
    }

    #[tokio::test]
    async fn a_line_for_people_ends_with_its_request() {
        let lines = Captured::default();
        let writer = lines.clone();
        let format = RequestLines::of_text(format().with_ansi(false));
        lines_of(fmt::layer().event_format(format).with_writer(move || writer.clone())).await;
        let text = lines.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("a line"), "{text}");
        let request = "request{method=\"POST\" path=\"/a%22b\" \
                       request_id=\"00000000-0000-0000-0000-000000000000\" client=\"192.0.2.1\"}";
        assert!(lines[1].ends_with(request), "{text}");
    }
}
