//! Tables: within the width of a terminal, with names cut and columns left out if there is no room;
//! in a pipe complete.

use anstyle::Style;

use super::{
    Screen,
    style::{PLAIN, TITLE},
    text::{contained, fitted, one_line, width},
};

/// The sign of a missing value.
const ABSENT: &str = "-";

const BETWEEN: usize = 2;

/// A column of a table.
#[derive(Clone, Debug)]
pub(in crate::cli::client) struct Column {
    title: String,
    is_number: bool,
    /// The minimum width, if the column may be cut.
    min_width: Option<usize>,
    /// True if texts are cut without a sign, because their beginning is sufficient.
    is_prefix: bool,
    /// The order in which columns are left out on a narrow terminal; a column with zero remains.
    goes_at: u8,
    /// True if the column is left out on a terminal when no row has a value.
    may_be_empty: bool,
}

impl Column {
    pub(in crate::cli::client) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            is_number: false,
            min_width: None,
            is_prefix: false,
            goes_at: 0,
            may_be_empty: false,
        }
    }

    pub(in crate::cli::client) fn number(title: impl Into<String>) -> Self {
        Self { is_number: true, ..Self::new(title) }
    }

    /// Allows cutting its texts.
    pub(in crate::cli::client) fn shrinks_to(self, min_width: usize) -> Self {
        Self { min_width: Some(min_width), ..self }
    }

    /// Allows cutting its texts without a sign.
    pub(in crate::cli::client) fn prefix_of(self, min_width: usize) -> Self {
        Self { is_prefix: true, ..self.shrinks_to(min_width) }
    }

    /// Allows leaving it out, after columns with a lower number.
    pub(in crate::cli::client) fn goes_at(self, goes_at: u8) -> Self {
        Self { goes_at, ..self }
    }

    pub(in crate::cli::client) fn may_be_empty(self) -> Self {
        Self { may_be_empty: true, ..self }
    }

    fn least(&self, natural: usize) -> usize {
        self.min_width.map_or(natural, |min| min.min(natural))
    }
}

/// A value of a table.
#[derive(Clone, Debug)]
pub(in crate::cli::client) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A text from an untrusted source.
    pub(in crate::cli::client) fn new(text: impl AsRef<str>) -> Self {
        Self { text: one_line(text.as_ref()), style: PLAIN }
    }

    /// A picture, in which spaces count.
    pub(in crate::cli::client) fn bars(text: String) -> Self {
        Self { text, style: PLAIN }
    }

    pub(in crate::cli::client) fn styled(self, style: Style) -> Self {
        Self { style, ..self }
    }
}

impl From<u64> for Cell {
    fn from(number: u64) -> Self {
        Self::new(number.to_string())
    }
}

/// Rows of values under the titles of their columns.
#[derive(Clone, Debug)]
pub(in crate::cli::client) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(in crate::cli::client) fn new(columns: Vec<Column>) -> Self {
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row, which has a value for each column.
    pub(in crate::cli::client) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// Returns the table, a line for each row.
    pub(in crate::cli::client) fn render(&self, screen: Screen) -> String {
        let natural = self.natural_widths();
        let layout = match screen.columns {
            None => natural.into_iter().enumerate().collect(),
            Some(columns) => self.layout(&natural, columns),
        };
        let title = |index: usize| Cell { text: self.columns[index].title.clone(), style: TITLE };
        let titles: Vec<Cell> = (0..self.columns.len()).map(title).collect();
        let mut text = self.line(&titles, &layout, screen);
        for row in &self.rows {
            text += &self.line(row, &layout, screen);
        }
        text
    }

    fn natural_widths(&self) -> Vec<usize> {
        let widest = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            let widths = cells.map(|cell| width(&cell.text).max(ABSENT.len()));
            widths.chain([width(&self.columns[index].title)]).max().unwrap_or_default()
        };
        (0..self.columns.len()).map(widest).collect()
    }

    /// Returns the columns that fit the terminal, each with its width.
    fn layout(&self, natural: &[usize], room: usize) -> Vec<(usize, usize)> {
        let is_empty = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index));
            cells.into_iter().all(|cell| cell.text.is_empty())
        };
        let mut layout: Vec<(usize, usize)> = (0..self.columns.len())
            .filter(|index| !(self.columns[*index].may_be_empty && is_empty(*index)))
            .map(|index| (index, natural[index]))
            .collect();
        let least = |layout: &[(usize, usize)]| {
            let widths =
                layout.iter().map(|(index, _)| self.columns[*index].least(natural[*index]));
            widths.sum::<usize>() + BETWEEN * layout.len().saturating_sub(1)
        };
        while least(&layout) > room {
            let goes = layout.iter().map(|(index, _)| *index);
            let goes = goes.filter(|index| self.columns[*index].goes_at > 0);
            let Some(goes) = goes.min_by_key(|index| self.columns[*index].goes_at) else { break };
            layout.retain(|(index, _)| *index != goes);
        }
        let between = BETWEEN * layout.len().saturating_sub(1);
        let mut total = between + layout.iter().map(|(_, width)| width).sum::<usize>();
        while total > room {
            let shrinkable = layout
                .iter_mut()
                .filter(|(index, width)| *width > self.columns[*index].least(natural[*index]));
            // A key is cut first, because its beginning is sufficient.
            let widest =
                shrinkable.max_by_key(|(index, width)| (self.columns[*index].is_prefix, *width));
            let Some((index, width)) = widest else { break };
            let column = &self.columns[*index];
            // A key that lacks only its last digits would pass for a whole one.
            let cut = if column.is_prefix { *width - column.least(natural[*index]) } else { 1 };
            *width -= cut;
            total -= cut;
        }
        layout
    }

    fn line(&self, cells: &[Cell], layout: &[(usize, usize)], screen: Screen) -> String {
        let mut line = String::new();
        // Lines have no trailing spaces.
        let mut gap = 0;
        let mut room = screen.columns.unwrap_or(usize::MAX);
        for (index, column_width) in layout {
            let (column, Some(cell)) = (&self.columns[*index], cells.get(*index)) else { continue };
            let is_absent = cell.text.is_empty();
            let text = match is_absent {
                true if screen.is_terminal() => "",
                true => ABSENT,
                false => &cell.text,
            };
            let available = room.saturating_sub(gap).min(*column_width);
            let text = match screen.is_terminal() {
                true if column.is_prefix => text.chars().take(available).collect(),
                true => fitted(text, available),
                false => text.to_owned(),
            };
            let padding =
                (*column_width).min(room.saturating_sub(gap)).saturating_sub(width(&text));
            let before = if column.is_number { gap + padding } else { gap };
            if !text.is_empty() && before < room {
                line += &" ".repeat(before);
                room = room.saturating_sub(before + width(&text));
                let text = if screen.is_terminal() { contained(text) } else { text };
                line += &screen.styled(cell.style, &text);
                gap = 0;
            } else {
                gap += column_width;
                gap += BETWEEN;
                continue;
            }
            gap += if column.is_number { BETWEEN } else { padding + BETWEEN };
        }
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::screen::style::ALARM;

    const PIPE: Screen = Screen { columns: None, has_colours: false };

    fn terminal(columns: usize) -> Screen {
        Screen { columns: Some(columns), has_colours: false }
    }

    fn table(names: &[&str]) -> Table {
        let mut table = Table::new(vec![
            Column::new("LEVEL"),
            Column::number("24H"),
            Column::number("30D").goes_at(1),
            Column::new("NAME").shrinks_to(6),
            Column::new("ERROR").shrinks_to(6).may_be_empty(),
            Column::new("KEY").prefix_of(8),
        ]);
        for name in names {
            table.push(vec![
                Cell::new("REPEAT"),
                Cell::from(41),
                Cell::from(369),
                Cell::new(name),
                Cell::new(""),
                Cell::new("6a0d01fd615acb3c"),
            ]);
        }
        table
    }

    #[test]
    fn a_pipe_has_every_column_whole() {
        let text = table(&["HighCPU", &"x".repeat(300)]).render(PIPE);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("LEVEL   24H  30D  NAME"));
        let first = lines.next().unwrap();
        assert!(first.starts_with("REPEAT   41  369  HighCPU  "), "{first}");
        assert!(first.ends_with("  -      6a0d01fd615acb3c"), "{first}");
        assert!(lines.next().unwrap().contains(&"x".repeat(300)));
    }

    #[test]
    fn a_terminal_of_any_width_has_lines_that_fit() {
        let names = ["HighCPU", "漢字漢字漢字漢字漢字漢字", "a\u{1b}[31m\n", &"y".repeat(1_024)];
        for columns in 1..200 {
            for line in table(&names).render(terminal(columns)).lines() {
                assert!(width(line) <= columns, "{columns}: {line}");
            }
        }
    }

    #[test]
    fn names_give_way_before_columns_and_keys_before_names() {
        let name = "KubeDeploymentReplicasMismatch";
        let at = |columns: usize| table(&[name]).render(terminal(columns));
        assert!(at(80).contains(&format!("{name}  6a0d01fd615acb3c\n")), "{}", at(80));
        assert!(at(60).contains(&format!("{name}  6a0d01fd\n")), "{}", at(60));
        assert!(at(50).contains("369  KubeDeploymentReplica…  6a0d01fd\n"), "{}", at(50));
        assert!(!at(30).contains("30D") && at(30).contains("Kube"), "{}", at(30));
    }

    #[test]
    fn a_column_without_values_is_left_out_on_a_terminal_only() {
        assert!(!table(&["a"]).render(terminal(80)).contains("ERROR"));
        assert!(table(&["a"]).render(PIPE).contains("ERROR"));
    }

    #[test]
    fn no_line_ends_in_spaces() {
        let mut table = Table::new(vec![Column::new("A"), Column::new("B")]);
        table.push(vec![Cell::new("a"), Cell::new("")]);
        assert_eq!(table.render(terminal(80)), "A  B\na\n");
        assert_eq!(table.render(PIPE), "A  B\na  -\n");
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::new(vec![Column::new("A"), Column::new("B")]);
        table.push(vec![Cell::new("a").styled(ALARM), Cell::new("b")]);
        let coloured = Screen { columns: Some(80), has_colours: true };
        let text = table.render(coloured);
        assert!(text.contains("\u{1b}[1m\u{1b}[35ma\u{1b}[0m  b\n"), "{text:?}");
    }
}
