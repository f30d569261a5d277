//! The cursor of a list: the position after the last anomaly of a page, at which the next page
//! begins. A cursor is bound to no process and holds no snapshot, so any instance can serve the
//! next page.
//!
//! *An anomaly whose sort value does not change between two pages is listed exactly once; one that
//! moves may be listed twice or not at all. The key never changes, so that going through all of
//! them by it misses none that was there throughout.*
//!
//! Its text is base64url of: version, sort, order, the value that the list is sorted by, the key,
//! and the fingerprint of the selection; numbers are big-endian.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    criteria::Selection,
    ranking::{Order, Position, Ranking, Sort},
};
use crate::domain::AnomalyKey;

/// The position at which a page ended, and the list that the page belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    ranking: Ranking,
    value: i64,
    key: AnomalyKey,
    fingerprint: u32,
}

/// The error for an invalid cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCursor {
    /// The text is not a cursor.
    #[error("is not a `next_cursor` of this service: start again without it")]
    Malformed,
    /// The cursor belongs to another list.
    #[error(
        "belongs to a list with other filters or another order: repeat the other parameters of the \
         previous page, or start again without it"
    )]
    OtherList,
}

const VERSION: u8 = 1;
const LENGTH: usize = 3 + 8 + 8 + 4;

impl Cursor {
    /// Creates the cursor of a list whose page ends at `last`.
    pub fn new(ranking: Ranking, selection: &Selection, last: Position) -> Self {
        let (value, key) = ranking.value_at(last);
        Self { ranking, value, key, fingerprint: selection.fingerprint() }
    }

    /// Returns the position after which the next page of a list begins.
    ///
    /// # Errors
    /// Fails if the cursor belongs to another list.
    pub fn position(
        self,
        ranking: Ranking,
        selection: &Selection,
    ) -> Result<Position, InvalidCursor> {
        if self.ranking != ranking || self.fingerprint != selection.fingerprint() {
            return Err(InvalidCursor::OtherList);
        }
        Ok(ranking.position_of(self.value, self.key))
    }

    fn of_bytes(bytes: &[u8; LENGTH]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let (value, rest) = rest.split_first_chunk()?;
        let (key, fingerprint) = rest.split_first_chunk()?;
        let [VERSION, sort, order] = *head else { return None };
        let sort = *Sort::ALL.get(usize::from(sort))?;
        let order = *Order::ALL.get(usize::from(order))?;
        Some(Self {
            ranking: Ranking::new(sort, Some(order)).ok()?,
            value: i64::from_be_bytes(*value),
            key: AnomalyKey::from_bits(u64::from_be_bytes(*key)),
            fingerprint: u32::from_be_bytes(fingerprint.try_into().ok()?),
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sort, order) = (self.ranking.sort(), self.ranking.order());
        let number = |index: Option<usize>| index.and_then(|index| u8::try_from(index).ok());
        let sort = number(Sort::ALL.iter().position(|other| *other == sort)).unwrap_or_default();
        let order = number(Order::ALL.iter().position(|other| *other == order)).unwrap_or_default();
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend([VERSION, sort, order]);
        bytes.extend(self.value.to_be_bytes());
        bytes.extend(self.key.to_bits().to_be_bytes());
        bytes.extend(self.fingerprint.to_be_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok();
        let bytes = bytes.and_then(|bytes| <[u8; LENGTH]>::try_from(bytes).ok());
        bytes.and_then(|bytes| Self::of_bytes(&bytes)).ok_or(InvalidCursor::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{TextPattern, WindowCounts};

    fn cursor() -> Cursor {
        let ranking = Ranking::default();
        let position = ranking.position_of(14, AnomalyKey::from_bits(0x6a0d_01fd_615a_cb3c));
        Cursor::new(ranking, &Selection::default(), position)
    }

    #[test]
    fn a_cursor_is_its_text() {
        let text = cursor().to_string();
        assert_eq!(text, "AQEBAAAAAAAAAA5qDQH9YVrLPAAAAAA");
        assert_eq!(text.parse(), Ok(cursor()));
        for wrong in ["", "AQEB", "x", "AgEBAAAAAAAAAA5qDQH9YVrLPAAAAAA", &format!("{text}A")] {
            assert_eq!(wrong.parse::<Cursor>(), Err(InvalidCursor::Malformed), "{wrong}");
        }
        let rising_counts = "AQEAAAAAAAAAAA5qDQH9YVrLPAAAAAA";
        assert_eq!(rising_counts.parse::<Cursor>(), Err(InvalidCursor::Malformed));
    }

    #[test]
    fn a_cursor_goes_with_its_own_list_only() {
        let selection = Selection::default();
        assert!(cursor().position(Ranking::default(), &selection).is_ok());
        let other = Ranking::new(Sort::LastSeen, None).unwrap();
        assert_eq!(cursor().position(other, &selection), Err(InvalidCursor::OtherList));
        let pattern = |text: &str| vec![TextPattern::parse(text).unwrap()];
        for selection in [
            Selection { fixed: Some(false), ..Selection::default() },
            Selection { fields: [pattern("a"), vec![], vec![], vec![]], ..Selection::default() },
            Selection { fields: [vec![], pattern("a"), vec![], vec![]], ..Selection::default() },
            Selection {
                min_counts: WindowCounts { day: 1, ..WindowCounts::default() },
                ..Selection::default()
            },
        ] {
            let position = cursor().position(Ranking::default(), &selection);
            assert_eq!(position, Err(InvalidCursor::OtherList), "{selection:?}");
        }
    }

    #[test]
    fn the_order_of_the_parameters_makes_no_other_list() {
        let patterns = |names: [&str; 2]| {
            let patterns = names.map(|name| TextPattern::parse(name).unwrap());
            Selection { fields: [patterns.into(), vec![], vec![], vec![]], ..Selection::default() }
        };
        let (one, other) = (patterns(["a", "b*"]), patterns(["b*", "a"]));
        assert_eq!(one.fingerprint(), other.fingerprint());
    }
}
