//! Shows texts that came from outside on a terminal or in a line of the log. A control character in
//! them would forge lines, or make the terminal do what their sender wants.

use std::fmt::{self, Write};

/// A text whose control characters are escaped when it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Writes on, with control characters escaped.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_control) {
            let (before, after) = rest.split_at(at);
            self.0.write_str(before)?;
            let Some(character) = after.chars().next() else { break };
            write!(self.0, "{}", character.escape_default())?;
            rest = &after[character.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Returns whether a character controls how others are shown: also those of Unicode that begin a
/// line or reverse a text, and those that nobody sees, by which two names look like one. (The
/// joiners U+200C and U+200D are letters' neighbours in some languages.)
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_all_else_is_as_it_was() {
        let text = "a\u{1b}[31mred\r\n\u{9b}2J\u{202e}é\u{7f}\\n";
        let shown = Printable(text).to_string();
        assert_eq!(shown, "a\\u{1b}[31mred\\r\\n\\u{9b}2J\\u{202e}é\\u{7f}\\n");
        assert_eq!(Printable("plain ✓").to_string(), "plain ✓");
        assert_eq!(Printable("a\u{200b}b\u{feff}").to_string(), "a\\u{200b}b\\u{feff}");
    }
}
