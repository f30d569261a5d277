//! Labelled lines: the details of one item.

use anstyle::Style;

use super::{
    Screen,
    style::{PLAIN, QUIET},
    text::{contained, width, wrapped},
};

/// Labels, each with its lines.
#[derive(Clone, Debug, Default)]
pub(in crate::cli::client) struct Card {
    entries: Vec<(&'static str, Vec<(String, Style)>)>,
}

impl Card {
    /// Adds a label with one line.
    pub(in crate::cli::client) fn add(&mut self, label: &'static str, text: impl Into<String>) {
        self.add_styled(label, text, PLAIN);
    }

    pub(in crate::cli::client) fn add_styled(
        &mut self,
        label: &'static str,
        text: impl Into<String>,
        style: Style,
    ) {
        self.entries.push((label, vec![(text.into(), style)]));
    }

    /// Adds a line to the last label.
    pub(in crate::cli::client) fn line(&mut self, text: impl Into<String>, style: Style) {
        if let Some((_, lines)) = self.entries.last_mut() {
            lines.push((text.into(), style));
        }
    }

    /// Returns the lines; lines that are wider than the terminal are broken between words.
    pub(in crate::cli::client) fn render(&self, screen: Screen) -> String {
        let margin =
            self.entries.iter().map(|(label, _)| width(label)).max().unwrap_or_default() + 2;
        let room = screen.columns.map_or(usize::MAX, |columns| columns.saturating_sub(margin));
        let mut text = String::new();
        for (label, lines) in &self.entries {
            let mut label = *label;
            for (line, style) in lines {
                for part in wrapped(line, room.max(1)) {
                    let label_text = screen.styled(QUIET, label);
                    let gap = " ".repeat(margin - width(label));
                    let part = if screen.is_terminal() { contained(part) } else { part };
                    text += format!("{label_text}{gap}{}", screen.styled(*style, &part)).trim_end();
                    text.push('\n');
                    label = "";
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_stand_under_each_other() {
        let mut card = Card::default();
        card.add("fix", "by ops");
        card.line("raised the CPU limit\nand more", PLAIN);
        card.add("key", "6a0d01fd615acb3c");
        let pipe = Screen { columns: None, has_colours: false };
        assert_eq!(
            card.render(pipe),
            "fix  by ops\n     raised the CPU limit\n     and more\nkey  6a0d01fd615acb3c\n"
        );
        let terminal = Screen { columns: Some(20), has_colours: false };
        assert!(card.render(terminal).contains("\n     raised the CPU\n     limit\n"));
    }
}
