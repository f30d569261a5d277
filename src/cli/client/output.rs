//! Prints responses: for people as their command renders them, for programs as they were received.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use serde_json::Value;

use super::{
    answers::{Estimate, Signature},
    failure::Failure,
    screen::{Screen, age, local_time, one_line, style::QUIET},
    settings::Format,
};
use crate::{cli::streams, domain::Timestamp, printable::Printable};

/// The destination and the format of responses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) screen: Screen,
    pub(super) format: Format,
    pub(super) now: Timestamp,
}

impl Output {
    /// Creates the output to standard output, for people.
    pub(super) fn of_standard_output(now: Timestamp) -> Self {
        Self { screen: Screen::of_standard_output(), format: Format::default(), now }
    }

    /// Returns true if a program reads the response.
    pub(super) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    pub(super) fn is_wide(self) -> bool {
        self.format == Format::Wide
    }

    /// Prints a text for people.
    pub(super) fn print(self, text: &str) -> Result<(), Failure> {
        write_out(text.as_bytes())
    }

    /// Prints a response for programs: as it was received or, on a terminal, indented and with
    /// control characters escaped.
    pub(super) fn print_json(self, body: &[u8]) -> Result<(), Failure> {
        let parsed = self.screen.is_terminal().then(|| serde_json::from_slice::<Value>(body).ok());
        match parsed.flatten() {
            Some(value) => write_out((escaped_json(&format!("{value:#}")) + "\n").as_bytes()),
            None => write_out(body),
        }
    }

    /// Returns a time: on a terminal in the reader's time zone, otherwise as the service writes it.
    pub(super) fn time(self, time: Timestamp) -> String {
        if self.screen.is_terminal() { local_time(time) } else { time.to_string() }
    }

    pub(super) fn age(self, then: Timestamp) -> String {
        age(self.now, then)
    }

    /// Returns the age of a time as words: `49 min ago`.
    pub(super) fn ago(self, then: Timestamp) -> String {
        match age(self.now, then) {
            now if now == "now" => "just now".to_owned(),
            age => format!("{age} ago"),
        }
    }

    /// Prints a note about the response on standard error.
    pub(super) fn note(self, text: &str) {
        let screen = Screen::of_standard_error();
        let text = Printable(text).to_string();
        // A closed standard error can't be reported anywhere.
        let _ = writeln!(io::stderr(), "{}", screen.styled(QUIET, &format!("({text})")));
    }

    /// Notes that a response is an estimate, if so.
    pub(super) fn note_estimate(self, estimate: Estimate) {
        if estimate.degraded {
            let as_of = match estimate.as_of {
                Some(as_of) => format!("based on the state of {}", self.ago(as_of)),
                None => "based on what is known without it".to_owned(),
            };
            self.note(&format!(
                "the service's store is unavailable: this is an estimate, {as_of}, and counts are \
                 lower bounds"
            ));
        }
    }
}

fn write_out(bytes: &[u8]) -> Result<(), Failure> {
    streams::write(bytes)
        .map_err(|error| Failure::Misuse(format!("writing to standard output failed: {error}")))
}

/// Returns JSON in which control characters of terminals are escaped as JSON escapes.
fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        let is_shown = character == '\n' || Printable(character).to_string().starts_with(character);
        if is_shown {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// Returns a number with its digits in groups.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Returns a number with a noun, which has a plural s unless the number is one.
pub(super) fn counted(number: u64, noun: &str) -> String {
    let end = if number == 1 { "" } else { "s" };
    format!("{} {noun}{end}", grouped(number))
}

/// Returns the four fields of an anomaly for people, on one line.
pub(super) fn name_of(signature: &Signature) -> String {
    let Signature { alert_name, service, namespace, error_type } = signature;
    let fields = [alert_name, service, namespace, error_type].into_iter();
    let fields: Vec<String> =
        fields.filter(|field| !field.is_empty()).map(|field| one_line(field)).collect();
    fields.join(" · ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_for_a_terminal_says_the_same_without_controlling_it() {
        let value = serde_json::json!({"name": "a\u{9b}2J\u{202e}é\u{1b}\n\u{e0041}\\"});
        let text = escaped_json(&format!("{value:#}"));
        assert!(!text.contains(['\u{9b}', '\u{202e}', '\u{1b}', '\u{e0041}']), "{text:?}");
        assert!(text.contains("\\u009b2J\\u202eé"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn large_numbers_have_groups() {
        let shown = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(counted(1, "alert"), "1 alert");
        assert_eq!(counted(0, "alert"), "0 alerts");
    }

    #[test]
    fn a_name_has_the_fields_that_there_are() {
        let signature = Signature {
            alert_name: "High\u{1b}CPU".to_owned(),
            namespace: "shop".to_owned(),
            ..Signature::default()
        };
        assert_eq!(name_of(&signature), "High\\u{1b}CPU · shop");
    }
}
