//! Reads requests: path, query, headers and body. Each fault is a problem that names the part.

mod body;
mod caller;
mod event_id;
mod fields;
mod if_none_match;
mod json;
mod path;
mod query;

#[cfg(fuzzing)]
pub(super) use body::delivery_text;
pub(super) use body::{DeliveryText, JsonBody, JsonText, OptionalJsonBody, RequestBody, parse};
pub(super) use caller::{EventQuota, Requester};
pub(super) use event_id::{IdempotencyKey, event_id};
pub(super) use if_none_match::IfNoneMatch;
pub(super) use json::{CheckedJson, CheckedVisitor, FirstElements, JsonValue, members};
pub(super) use path::{ActionPath, KeyPath, TextPath, parse_key};
pub(super) use query::{Query, parsed, refuse_parameters};
