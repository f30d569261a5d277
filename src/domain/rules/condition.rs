//! Conditions: `5 in 24h`, or several terms that must all hold, as in `20 in 7d and 2 in 24h`.

use std::fmt;

use super::{
    counts::{Counts, Known},
    error::quoted,
};
use crate::domain::{RETENTION, Window};

/// Maximum number of terms of a condition.
const MAX_TERMS: usize = 4;
/// Maximum count of a term.
const MAX_COUNT: u64 = 1_000_000;

/// A sliding window of a term, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedWindow {
    seconds: u32,
    text: String,
    /// Present if it is one of the four windows.
    standard: Option<Window>,
}

impl CountedWindow {
    /// Returns the length in seconds.
    pub fn seconds(&self) -> u32 {
        self.seconds
    }

    /// Returns true if it is one of the four windows, whose counts every answer has.
    pub fn is_standard(&self) -> bool {
        self.standard.is_some()
    }

    fn new(seconds: u32, text: &str) -> Self {
        let windows = [Window::Hour, Window::Day, Window::Week, Window::Month];
        let is_it = |window: &Window| window.length_seconds() == i64::from(seconds);
        Self { seconds, text: text.to_owned(), standard: windows.into_iter().find(is_it) }
    }
}

/// A term: a minimum number of events in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// The minimum count, at least 1.
    pub count: u64,
    /// The window in which events are counted.
    pub window: CountedWindow,
}

/// Terms, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    terms: Vec<Term>,
}

/// The error for a text that is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidSpan {
    /// It is a number without a unit.
    NoUnit,
    /// It is not a number with a unit.
    NoSpan,
}

/// Parses a length of time, such as 90m, 24h or 7d, into seconds.
///
/// # Errors
/// Fails if it is not a whole number with one of these units.
pub fn parse_span(text: &str) -> Result<u64, InvalidSpan> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or(match text {
        "" => InvalidSpan::NoSpan,
        _ => InvalidSpan::NoUnit,
    })?;
    let (number, unit) = text.split_at(unit_at);
    let unit_seconds: u64 = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(InvalidSpan::NoSpan),
    };
    let number: u64 = number.parse().map_err(|_| InvalidSpan::NoSpan)?;
    number.checked_mul(unit_seconds).ok_or(InvalidSpan::NoSpan)
}

impl Term {
    /// Creates the term of a threshold.
    pub(super) fn in_24h(count: u64) -> Self {
        Self { count, window: CountedWindow::new(86_400, "24h") }
    }

    fn parse(words: &[&str]) -> Result<Self, String> {
        let [count, "in", span] = words else {
            return Err(
                "write a condition such as \"5 in 24h\", or \"20 in 7d and 2 in 24h\"".to_owned()
            );
        };
        let is_number = count.bytes().all(|byte| byte.is_ascii_digit());
        let number = count.parse::<u64>().ok().filter(|_| is_number);
        let Some(number) = number.filter(|number| (1..=MAX_COUNT).contains(number)) else {
            return Err(format!(
                "{} is not a count: write a whole number from 1 to {MAX_COUNT}",
                quoted(count)
            ));
        };
        let bounds = "write a whole number with m, h or d, from 1m to 30d";
        let seconds = match parse_span(span) {
            Ok(seconds) => seconds,
            Err(InvalidSpan::NoUnit) => return Err(format!("write \"{count} in {span}h\"")),
            Err(InvalidSpan::NoSpan) => {
                return Err(format!("{} is not a window: {bounds}", quoted(span)));
            }
        };
        let most = RETENTION.length_seconds().unsigned_abs();
        match u32::try_from(seconds) {
            Ok(seconds) if seconds >= 60 && u64::from(seconds) <= most => {
                Ok(Self { count: number, window: CountedWindow::new(seconds, span) })
            }
            _ => Err(format!("{} is out of bounds: {bounds}", quoted(span))),
        }
    }

    pub(super) fn known(&self, counts: Counts<'_>) -> Known {
        counts.of(self.window.seconds)
    }

    pub(super) fn holds(&self, counts: Counts<'_>) -> bool {
        let count = match self.window.standard {
            Some(window) => counts.windows.of(window),
            None => self.known(counts).count,
        };
        count >= self.count
    }
}

impl Condition {
    /// Creates a condition with one term.
    pub(super) fn of(term: Term) -> Self {
        Self { terms: vec![term] }
    }

    /// Parses a condition.
    ///
    /// # Errors
    /// The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let terms: Vec<_> = words.split(|word| *word == "and").collect();
        if terms.len() > MAX_TERMS {
            return Err(format!("write at most {MAX_TERMS} terms in a condition"));
        }
        let terms = terms.into_iter().map(Term::parse).collect::<Result<_, _>>()?;
        Ok(Self { terms })
    }

    /// Returns the window and its minimum count if the condition has one term, in one of the four
    /// windows.
    pub(super) fn as_count_of_window(&self) -> Option<(Window, u64)> {
        let [term] = self.terms.as_slice() else { return None };
        Some((term.window.standard?, term.count))
    }

    /// Returns the terms, at least one.
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    pub(super) fn holds(&self, counts: Counts<'_>) -> bool {
        self.terms.iter().all(|term| term.holds(counts))
    }

    /// Returns true if it holds whenever `other` does, judged by terms of the same windows.
    pub(super) fn follows_from(&self, other: &Self) -> bool {
        self.terms.iter().all(|term| {
            let is_less = |of_other: &Term| {
                of_other.window.seconds == term.window.seconds && of_other.count >= term.count
            };
            other.terms.iter().any(is_less)
        })
    }
}

impl fmt::Display for CountedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.count, self.window)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, term) in self.terms.iter().enumerate() {
            if index > 0 {
                f.write_str(" and ")?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_prints_as_it_was_written() {
        for text in ["5 in 24h", "20 in 7d and 2 in 24h", "1 in 1m", "1000000 in 30d"] {
            assert_eq!(Condition::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Condition::parse(" 2  in 60m ").unwrap().to_string(), "2 in 60m");
        assert!(Condition::parse("2 in 60m").unwrap().terms()[0].window.is_standard());
        assert!(!Condition::parse("2 in 61m").unwrap().terms()[0].window.is_standard());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_prints_as_one_that_means_the_same(text in ".{0,60}") {
            if let Ok(condition) = Condition::parse(&text) {
                proptest::prop_assert_eq!(Condition::parse(&condition.to_string()), Ok(condition));
            }
        }

        #[test]
        fn words_in_any_order_are_refused_or_taken(
            words in
                proptest::collection::vec("[0-9]{1,21}|in|and|[0-9]{1,19}[mhdw]|1h|24h", 0..20),
        ) {
            drop(Condition::parse(&words.join(" ")));
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_to_write() {
        for (text, words) in [
            ("", "such as \"5 in 24h\""),
            ("5", "such as \"5 in 24h\""),
            ("5 within 24h", "such as \"5 in 24h\""),
            ("5 in 24h and", "such as \"5 in 24h\""),
            ("5 in 24h or 2 in 1h", "such as \"5 in 24h\""),
            ("5 in 24", "write \"5 in 24h\""),
            ("0 in 24h", "from 1 to 1000000"),
            ("1000001 in 24h", "from 1 to 1000000"),
            ("99999999999999999999 in 24h", "from 1 to 1000000"),
            ("-1 in 24h", "from 1 to 1000000"),
            ("+1 in 24h", "from 1 to 1000000"),
            ("1.5 in 24h", "from 1 to 1000000"),
            ("5 in 1.5h", "from 1m to 30d"),
            ("5 in 24H", "from 1m to 30d"),
            ("5 in 30s", "from 1m to 30d"),
            ("5 in h", "from 1m to 30d"),
            ("5 in 0m", "from 1m to 30d"),
            ("5 in 31d", "from 1m to 30d"),
            ("5 in 18446744073709551615d", "from 1m to 30d"),
            ("1 in 1h and 1 in 2h and 1 in 3h and 1 in 4h and 1 in 5h", "at most 4"),
        ] {
            let error = Condition::parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
