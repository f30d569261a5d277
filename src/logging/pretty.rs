//! Writes the fields of a line for people, in the form of tracing-subscriber's own, but with
//! control characters escaped: names that callers choose must neither forge lines nor steer the
//! terminal.

use std::fmt::{self, Debug, Write as _};

use tracing::field::Field;
use tracing_subscriber::fmt::format::Writer;

use crate::printable::Escaping;

/// The formatter of fields. (A macro because its type can't be named.)
macro_rules! pretty_fields {
    () => {{
        use tracing_subscriber::field::MakeExt as _;
        tracing_subscriber::fmt::format::debug_fn($crate::logging::pretty::write_field)
            .delimited(" ")
    }};
}
pub(super) use pretty_fields;

pub(super) fn write_field(
    writer: &mut Writer<'_>,
    field: &Field,
    value: &dyn Debug,
) -> fmt::Result {
    if field.name() != "message" {
        let name = field.name().trim_start_matches("r#");
        if writer.has_ansi_escapes() {
            // The name in italics, as tracing-subscriber has it.
            write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?;
        } else {
            write!(writer, "{name}=")?;
        }
    }
    write!(Escaping(writer), "{value:?}")
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{fmt, prelude::*};

    use crate::logging::captured::Captured;

    #[test]
    fn a_name_can_neither_forge_a_line_nor_steer_the_terminal() {
        let lines = Captured::default();
        let writer = lines.clone();
        let layer = fmt::layer()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .fmt_fields(pretty_fields!());
        let name = "a\n2026-01-01 ERROR forged\u{1b}[2J\u{9b}31m\u{202e}";
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", path = name, shown = %name);
            let error = io::Error::other(name);
            span.in_scope(|| tracing::info!(%name, r#type = name, %error, "of {name}"));
        });
        let text = lines.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        let escaped = r"a\n2026-01-01 ERROR forged\u{1b}[2J\u{9b}31m\u{202e}";
        assert!(text.contains(&format!("of {escaped}")), "{text}");
        assert!(text.contains(&format!("name={escaped}")), "{text}");
        assert!(text.contains("type=\"a"), "{text}");
    }
}
