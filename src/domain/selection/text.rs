//! The criteria for the four identifying fields: patterns for single fields, and words to search
//! for in all of them.
//!
//! A list reads a million anomalies with a few thousand distinct texts. So a text is judged once,
//! as a [`TextVerdict`], and the verdicts of an anomaly's four texts decide.

use std::str::FromStr;

use serde::Deserialize;

/// A pattern for the whole value of a field. It requires equality byte by byte or, with `*` or `?`,
/// is a glob that ignores case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TextPattern {
    source: String,
    /// Absent if the value must be equal.
    glob: Option<Vec<GlobPart>>,
}

/// The error for a pattern that is too long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "has more than {} characters: give a shorter value, with `*` for the rest",
    TextPattern::MAX_CHARACTERS
)]
pub struct TextPatternTooLong;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GlobPart {
    /// `*`: any number of characters.
    AnyRun,
    /// `?`: one character.
    AnyOne,
    Character(char),
}

impl TextPattern {
    /// Maximum number of characters of a pattern.
    pub const MAX_CHARACTERS: usize = 256;

    /// Reads a pattern. In a glob, `\` makes the next character literal.
    ///
    /// # Errors
    /// Fails if it has more than [`TextPattern::MAX_CHARACTERS`].
    pub fn parse(text: &str) -> Result<Self, TextPatternTooLong> {
        if text.chars().nth(Self::MAX_CHARACTERS).is_some() {
            return Err(TextPatternTooLong);
        }
        let glob = text.contains(['*', '?']).then(|| glob_parts(text));
        Ok(Self { source: text.to_owned(), glob })
    }

    /// Creates a pattern that matches only this text.
    ///
    /// # Errors
    /// Fails as [`TextPattern::parse`] does.
    pub fn of_text(text: &str) -> Result<Self, TextPatternTooLong> {
        if !text.contains(['*', '?']) {
            return Self::parse(text);
        }
        Self::parse(&Self::escaped(text))
    }

    /// Escapes a text so that a pattern matches it literally.
    pub fn escaped(text: &str) -> String {
        let escaped = text.chars().flat_map(|character| {
            let escape = "*?\\".contains(character).then_some('\\');
            escape.into_iter().chain([character])
        });
        escaped.collect()
    }

    /// Returns the text that it was read from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns true if `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        self.glob.as_ref().map_or(self.source == text, |parts| glob_matches(parts, text))
    }
}

impl TryFrom<String> for TextPattern {
    type Error = TextPatternTooLong;

    fn try_from(text: String) -> Result<Self, TextPatternTooLong> {
        Self::parse(&text)
    }
}

fn glob_parts(text: &str) -> Vec<GlobPart> {
    let (mut parts, mut characters) = (Vec::new(), text.chars());
    while let Some(character) = characters.next() {
        parts.push(match character {
            '*' => GlobPart::AnyRun,
            '?' => GlobPart::AnyOne,
            // A backslash at the end is literal.
            '\\' => GlobPart::Character(characters.next().unwrap_or('\\')),
            other => GlobPart::Character(other),
        });
    }
    // Two adjacent runs are equal to one, and matching both would be slow.
    parts.dedup_by(|part, before| *part == GlobPart::AnyRun && *before == GlobPart::AnyRun);
    parts
}

/// Matches a text. Backtracks only to the last `*`, so the time is bounded by the product of both
/// lengths.
fn glob_matches(parts: &[GlobPart], text: &str) -> bool {
    let (mut part, mut rest) = (0, text.chars());
    // The part after the last `*`, and the text that it has not consumed yet.
    let mut last_run = None;
    loop {
        let mut next = rest.clone();
        let character = next.next();
        let matches_one = match (parts.get(part), character) {
            (Some(GlobPart::AnyRun), _) => {
                part += 1;
                last_run = Some((part, rest.clone()));
                continue;
            }
            (Some(GlobPart::AnyOne), Some(_)) => true,
            (Some(GlobPart::Character(expected)), Some(found)) => {
                expected == &found || expected.to_lowercase().eq(found.to_lowercase())
            }
            (None, None) => return true,
            _ => false,
        };
        if matches_one {
            part += 1;
            rest = next;
            continue;
        }
        let Some((after, from)) = &mut last_run else { return false };
        if from.next().is_none() {
            return false;
        }
        (part, rest) = (*after, from.clone());
    }
}

/// Words, each of which must be contained in one of the four fields, ignoring case, or be the
/// beginning of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchWords(Vec<SearchWord>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct SearchWord {
    folded: String,
    /// The first bits of a key, and their number.
    key: Option<(u64, u32)>,
}

/// The error for too many or too long words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "has more than {} characters or {} words: search for fewer",
    SearchWords::MAX_CHARACTERS,
    SearchWords::MAX_WORDS
)]
pub struct InvalidSearch;

impl SearchWords {
    /// Maximum number of characters of all words together.
    pub const MAX_CHARACTERS: usize = 200;
    /// Maximum number of words: a [`TextVerdict`] has a bit for each, and there may be a million
    /// verdicts.
    pub const MAX_WORDS: usize = 32;
    /// Minimum number of digits for finding a key.
    const MIN_KEY_DIGITS: usize = 4;

    /// Reads words separated by white space.
    ///
    /// # Errors
    /// Fails if they have more than [`SearchWords::MAX_CHARACTERS`], or if there are more than
    /// [`SearchWords::MAX_WORDS`].
    pub fn parse(text: &str) -> Result<Self, InvalidSearch> {
        if text.chars().nth(Self::MAX_CHARACTERS).is_some() {
            return Err(InvalidSearch);
        }
        let mut words: Vec<_> = text.split_whitespace().map(SearchWord::new).collect();
        words.sort_unstable_by(|word, other| word.folded.cmp(&other.folded));
        words.dedup();
        if words.len() > Self::MAX_WORDS {
            return Err(InvalidSearch);
        }
        Ok(Self(words))
    }

    /// Returns true if there are no words, so that every anomaly matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the words in lower case.
    pub(super) fn folded(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|word| &*word.folded)
    }

    /// Returns a bit for each word that a text contains.
    fn in_text(&self, text: &str) -> u32 {
        if self.0.is_empty() {
            return 0;
        }
        let folded = folded(text);
        self.bits(|word| folded.contains(&word.folded))
    }

    /// Returns true if each word is in one of the texts, whose bits are `in_texts`, or is the
    /// beginning of the key.
    pub(super) fn are_in(&self, key: u64, in_texts: u32) -> bool {
        let all = self.bits(|_| true);
        in_texts == all || in_texts | self.bits(|word| word.begins(key)) == all
    }

    fn bits(&self, holds: impl Fn(&SearchWord) -> bool) -> u32 {
        let words = self.0.iter().enumerate();
        words.fold(0, |bits, (number, word)| bits | u32::from(holds(word)) << number)
    }
}

impl FromStr for SearchWords {
    type Err = InvalidSearch;

    fn from_str(text: &str) -> Result<Self, InvalidSearch> {
        Self::parse(text)
    }
}

impl SearchWord {
    fn new(word: &str) -> Self {
        let is_key = (SearchWords::MIN_KEY_DIGITS..=16).contains(&word.len())
            && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let key = is_key.then(|| u64::from_str_radix(word, 16).ok()).flatten();
        Self { folded: folded(word), key: key.map(|bits| (bits, word.len() as u32 * 4)) }
    }

    fn begins(&self, key: u64) -> bool {
        self.key.is_some_and(|(bits, length)| key >> (64 - length) == bits)
    }
}

/// Returns a text in lower case, character by character. The result for a character does not depend
/// on its neighbours, as a final sigma in `str::to_lowercase` does.
fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// The verdict of a selection about one text, for whichever field has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextVerdict {
    /// A bit for each field whose patterns permit the text.
    fields: u8,
    /// A bit for each word that the text contains.
    words: u32,
}

impl TextVerdict {
    pub(super) fn new(patterns: &[Vec<TextPattern>; 4], words: &SearchWords, text: &str) -> Self {
        let permits = |patterns: &Vec<TextPattern>| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
        };
        let fields = patterns.iter().enumerate();
        Self {
            fields: fields.fold(0, |bits, (field, of)| bits | u8::from(permits(of)) << field),
            words: words.in_text(text),
        }
    }

    pub(super) fn permits(self, field: usize) -> bool {
        self.fields >> field & 1 == 1
    }

    pub(super) fn words(self) -> u32 {
        self.words
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> TextPattern {
        TextPattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_without_stars_is_equal_byte_for_byte() {
        assert!(pattern("HighCPU").matches("HighCPU"));
        assert!(!pattern("HighCPU").matches("highcpu"));
        assert!(pattern("").matches("") && !pattern("").matches("x"));
        assert!(pattern(r"a\b").matches(r"a\b"), "without a star a backslash is itself");
    }

    #[test]
    fn a_glob_is_about_the_whole_value_and_ignores_case() {
        for (glob, matching, other) in [
            ("shop-*", "SHOP-eu", "my-shop-eu"),
            ("*cpu", "HighCPU", "HighCPUs"),
            ("a?c", "aéc", "ac"),
            ("*", "", "\u{0}never"),
            (r"50\%\*", "50%*", "50%x"),
            (r"\*a*", "*a1", "xa1"),
            (r"x*\", r"xyz\", "xyz"),
            ("*a*b*", "xxAyyB", "ba"),
            ("*ab", "aab", "aba"),
        ] {
            assert!(pattern(glob).matches(matching), "{glob} {matching}");
            assert!(glob == "*" || !pattern(glob).matches(other), "{glob} {other}");
        }
    }

    #[test]
    fn a_long_pattern_is_refused() {
        assert!(TextPattern::parse(&"é".repeat(256)).is_ok());
        assert_eq!(TextPattern::parse(&"é".repeat(257)), Err(TextPatternTooLong));
        assert!(SearchWords::parse(&"é ".repeat(100)).is_ok(), "one word");
        assert_eq!(SearchWords::parse(&"x".repeat(201)), Err(InvalidSearch));
    }

    #[test]
    fn a_word_is_a_part_of_a_field_or_the_beginning_of_the_key() {
        let find = |words: &str, texts: [&str; 4]| {
            let words = SearchWords::parse(words).unwrap();
            let verdict = |text| TextVerdict::new(&Default::default(), &words, text);
            let in_texts = texts.map(|text| verdict(text).words());
            let in_texts = in_texts.into_iter().fold(0, |all, bits| all | bits);
            words.are_in(0x6a0d_01fd_615a_cb3c, in_texts)
        };
        let texts = ["HighCPU", "api", "shop", ""];
        assert!(find("cpu SHOP", texts) && find("", texts) && find("6A0D", texts));
        assert!(find("6a0d01fd615acb3c high", texts));
        assert!(!find("6a0", texts), "three digits are no key");
        assert!(!find("01fd", texts), "a key is found by its beginning");
        assert!(!find("cpu data", texts), "all words must be found");
        assert!(!find("6a0d01fd615acb3c0", texts));
    }

    #[test]
    fn as_many_words_as_fit_are_told_apart() {
        let letter = |number: u32| char::from_u32(0x4e00 + number).map(String::from);
        let letters: Vec<String> = (0..32).filter_map(letter).collect();
        assert!(SearchWords::parse(&(letters.join(" ") + " x")).is_err());
        let words = SearchWords::parse(&letters.join(" ")).unwrap();
        let verdict = |text: &str| TextVerdict::new(&Default::default(), &words, text).words();
        assert!(words.are_in(0, verdict(&letters.concat())));
        assert!(!words.are_in(0, verdict(&letters[1..].concat())));
    }

    /// The definition of a match, by recursion.
    fn matches_by_definition(glob: &[char], text: &[char]) -> bool {
        match glob {
            [] => text.is_empty(),
            ['*', rest @ ..] => {
                (0..=text.len()).any(|taken| matches_by_definition(rest, &text[taken..]))
            }
            ['?', rest @ ..] => !text.is_empty() && matches_by_definition(rest, &text[1..]),
            [one, rest @ ..] => {
                text.first() == Some(one) && matches_by_definition(rest, &text[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn globs_match_as_they_are_defined(glob in "[ab*?]{0,7}[*?]", text in "[ab]{0,9}") {
            let characters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = matches_by_definition(&characters(&glob), &characters(&text));
            prop_assert_eq!(pattern(&glob).matches(&text), expected);
        }
    }
}
