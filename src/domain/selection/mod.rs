//! The selection of anomalies for a list: which of them match, their order, and the beginning of
//! the next page. Pure; the lists of every store use it.
//!
//! Order of imports: text, levels, rule_name, time_limit → criteria → ranking → cursor, top.

mod criteria;
mod cursor;
mod levels;
mod ranking;
mod rule_name;
mod text;
mod time_limit;
mod top;

#[cfg(test)]
mod property_tests;

pub use criteria::{Listable, Selection, TimeRange};
pub use cursor::{Cursor, InvalidCursor};
pub use levels::{InvalidLevel, LevelSet};
pub use ranking::{InvalidOrder, Order, Position, Ranking, Sort, UnknownOrder, UnknownSort};
pub use rule_name::{InvalidRuleName, RuleName};
pub use text::{InvalidSearch, SearchWords, TextPattern, TextPatternTooLong, TextVerdict};
pub use time_limit::{InvalidTimeLimit, TimeLimit};
pub use top::Top;
