//! Writes the fields of a line for people, in the form of tracing-subscriber's own, but with control
//! characters escaped: names that callers choose must neither forge lines nor steer the terminal.

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
