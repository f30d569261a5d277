//! The colours of the output. They only repeat what words and signs say.

use anstyle::{AnsiColor, Style};

/// Titles of columns.
pub(in crate::cli::client) const TITLE: Style = Style::new().bold();
/// Text that matters less.
pub(in crate::cli::client) const QUIET: Style = Style::new().dimmed();
/// All other text.
pub(in crate::cli::client) const PLAIN: Style = Style::new();
/// The name of the anomaly.
pub(in crate::cli::client) const NAME: Style = Style::new().bold();
/// Text about a success.
pub(in crate::cli::client) const GOOD: Style = coloured(AnsiColor::Green);
/// Text about a failure.
pub(in crate::cli::client) const BAD: Style = coloured(AnsiColor::Red);
/// Text that a person should look at.
pub(in crate::cli::client) const ALARM: Style = coloured(AnsiColor::Magenta).bold();

const fn coloured(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(anstyle::Color::Ansi(colour)))
}

/// Returns the style of a level; `None` is no level.
pub(in crate::cli::client) fn of_level(level: Option<&str>) -> Style {
    match level {
        Some("PERMANENT_FIX") => coloured(AnsiColor::Red).bold(),
        Some("ESCALATE") => coloured(AnsiColor::Yellow),
        Some("REPEAT") => coloured(AnsiColor::Cyan),
        _ => QUIET,
    }
}
