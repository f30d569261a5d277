//! The parameter by which a caller limits the length of an answer.

use std::str::FromStr;

/// Maximum number of items that an answer lists: `USUAL` without the parameter, and never more than
/// `MOST`.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Limit<const USUAL: usize, const MOST: usize>(usize);

impl<const USUAL: usize, const MOST: usize> Limit<USUAL, MOST> {
    pub(in crate::http) fn get(self) -> usize {
        self.0
    }
}

impl<const USUAL: usize, const MOST: usize> Default for Limit<USUAL, MOST> {
    fn default() -> Self {
        Self(USUAL)
    }
}

impl<const USUAL: usize, const MOST: usize> FromStr for Limit<USUAL, MOST> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let limit = text.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        limit
            .map(Self)
            .ok_or_else(|| format!("must be a whole number from 1 to {MOST}, not {text:?}"))
    }
}
