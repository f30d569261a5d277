//! The output: on a terminal with colours and within its width, in a pipe without either.
//! Imports in here run `text → style → bars → moments → card → table`, and none of them uses
//! anything of the commands.

mod bars;
mod card;
mod moments;
pub(super) mod style;
mod table;
mod text;

pub(super) use self::{
    bars::{chart, merged, spark},
    card::Card,
    moments::{age, local_multiple, local_time, short_time, span},
    table::{Cell, Column, Table},
    text::{fitted, one_line, width, wrapped},
};

use std::{
    env,
    io::{self, IsTerminal as _},
};

use anstyle::Style;

/// The destination of the output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    /// The columns of a terminal; absent in a pipe or a file.
    pub(super) columns: Option<usize>,
    pub(super) has_colours: bool,
}

/// The width of a terminal that does not report one.
const USUAL_COLUMNS: usize = 80;

impl Screen {
    pub(super) fn of_standard_output() -> Self {
        Self::of(io::stdout().is_terminal(), terminal_size::terminal_size_of(io::stdout()))
    }

    pub(super) fn of_standard_error() -> Self {
        Self::of(io::stderr().is_terminal(), terminal_size::terminal_size_of(io::stderr()))
    }

    fn of(is_terminal: bool, size: Option<(terminal_size::Width, terminal_size::Height)>) -> Self {
        let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let columns = size.map_or(USUAL_COLUMNS, |(width, _)| usize::from(width.0).max(1));
        Self {
            columns: is_terminal.then_some(columns),
            has_colours: is_terminal && !no_color && !is_dumb,
        }
    }

    pub(super) fn is_terminal(self) -> bool {
        self.columns.is_some()
    }

    /// Returns a line in a style, cut if the terminal is too narrow for it.
    pub(super) fn line(self, style: Style, text: &str) -> String {
        self.styled(style, &fitted(text, self.columns.unwrap_or(usize::MAX))) + "\n"
    }

    /// Returns a text in a style, if the output has colours.
    pub(super) fn styled(self, style: Style, text: &str) -> String {
        if self.has_colours && !style.is_plain() && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}
