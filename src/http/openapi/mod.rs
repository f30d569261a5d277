//! The description of the API, and the page to try it.

mod docs;
mod document;

pub(super) use docs::endpoints;
