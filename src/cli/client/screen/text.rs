//! Makes untrusted texts safe for a line of a terminal: without control characters, and within the
//! available width.

use unicode_width::UnicodeWidthChar;

use crate::printable::Printable;

/// The sign of a cut text.
const CUT: char = '…';

/// Maximum number of consecutive characters without a width, such as accents: more would overwrite
/// the lines above.
const MAX_MARKS: usize = 4;

/// Makes its neighbour an emoji, which is two columns wide.
const EMOJI_PRESENTATION: char = '\u{fe0f}';

/// Restores the order of the characters after a text that runs from right to left.
const LEFT_TO_RIGHT: char = '\u{200e}';

/// Returns a text that is safe to show on one line.
pub(in crate::cli::client) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut marks = 0;
    for character in Printable(text).to_string().chars() {
        marks = if width_of(character) == 0 { marks + 1 } else { 0 };
        if marks <= MAX_MARKS {
            shown.push(character);
        }
    }
    shown
}

/// Returns the maximum number of columns of a text.
pub(in crate::cli::client) fn width(text: &str) -> usize {
    text.chars().map(width_of).sum()
}

fn width_of(character: char) -> usize {
    match character {
        EMOJI_PRESENTATION => 1,
        _ => character.width().unwrap_or(0),
    }
}

/// Returns a text cut to at most `room` columns.
pub(in crate::cli::client) fn fitted(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut fitted = beginning(text, room.saturating_sub(1)).to_owned();
    if room > 0 {
        fitted.push(CUT);
    }
    fitted
}

/// Returns the longest beginning of a text that has at most `room` columns.
fn beginning(text: &str, room: usize) -> &str {
    let mut taken = 0;
    let beyond = text.char_indices().find(|(_, character)| {
        taken += width_of(*character);
        taken > room
    });
    beyond.map_or(text, |(end, _)| &text[..end])
}

/// Returns the lines of a text for people, each with at most `room` columns, broken between words
/// if possible. Line breaks of the text are kept.
pub(in crate::cli::client) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.trim_end().lines() {
        let mut line = String::new();
        for word in one_line(&paragraph.replace('\t', " ")).split(' ') {
            let mut word = word.to_owned();
            if !line.is_empty() && width(&line) + 1 + width(&word) > room {
                lines.push(std::mem::take(&mut line));
            }
            // No character has more than two columns.
            while width(&word) > room.max(2) {
                let rest = word.split_off(beginning(&word, room.max(2)).len());
                lines.push(std::mem::replace(&mut word, rest));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        lines.push(line);
    }
    lines
}

/// Returns a text that does not change the order of the characters after it, on a terminal that
/// shows Hebrew and Arabic from right to left.
pub(in crate::cli::client) fn contained(text: String) -> String {
    let is_right_to_left = |character: char| {
        matches!(
            character,
            '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefe}'
                | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}'
        )
    };
    if text.contains(is_right_to_left) { text + &LEFT_TO_RIGHT.to_string() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_control_a_terminal_is_escaped() {
        assert_eq!(
            one_line("a\u{1b}[31mb\r\nc\u{202e}d\u{9b}"),
            "a\\u{1b}[31mb\\r\\nc\\u{202e}d\\u{9b}"
        );
        assert_eq!(one_line("x\u{200b}\u{feff}y"), "x\\u{200b}\\u{feff}y");
        assert_eq!(one_line("naïve 漢字 ✓"), "naïve 漢字 ✓");
    }

    #[test]
    fn accents_do_not_pile_up() {
        let shown = one_line(&("e".to_owned() + &"\u{301}".repeat(1_000) + "f"));
        assert_eq!(shown, "e\u{301}\u{301}\u{301}\u{301}f");
    }

    #[test]
    fn a_text_takes_no_more_columns_than_it_may() {
        assert_eq!(fitted("HighCPU", 7), "HighCPU");
        assert_eq!(fitted("HighCPUs", 7), "HighCP…");
        assert_eq!(fitted("漢字漢字", 7), "漢字漢…");
        assert_eq!(fitted("漢字漢字", 6), "漢字…", "half of a character is none");
        assert_eq!((fitted("abc", 1), fitted("abc", 0)), ("…".to_owned(), String::new()));
        for room in 0..20 {
            assert!(width(&fitted("e\u{301}漢👩\u{200d}👩❤\u{fe0f}—long", room)) <= room);
        }
    }

    #[test]
    fn a_text_for_people_is_broken_between_words() {
        assert_eq!(wrapped("raised the CPU limit", 10), ["raised the", "CPU limit"]);
        assert_eq!(wrapped("one\ntwo  three\n", 20), ["one", "two  three"]);
        assert_eq!(wrapped("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("a\u{1b}[2J", 40), ["a\\u{1b}[2J"]);
        assert_eq!(wrapped("", 10), Vec::<String>::new());
    }

    #[test]
    fn a_text_from_right_to_left_keeps_to_itself() {
        assert_eq!(contained("שלום".to_owned()), "שלום\u{200e}");
        assert_eq!(contained("HighCPU".to_owned()), "HighCPU");
    }
}
