//! The values in bodies as the API's document describes them: the types of `domain/` know nothing
//! of it.
#![expect(dead_code, reason = "they describe values, and are never made")]

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ArrayBuilder, Object, ObjectBuilder, Ref, RefOr, Schema, Type,
        schema::{AnyOfBuilder, SchemaType},
    },
};

use crate::domain;

/// The key of an anomaly: 16 hexadecimal digits in lower case, computed from the four fields that
/// identify it (the beginning of their SHA-256). The response to `POST /anomalies` contains it.
#[derive(ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{16}$",
    min_length = 16,
    max_length = 16,
    example = "d7807df379350b77"
)]
pub(in crate::http) struct AnomalyKey(String);

/// A time in the format of RFC 3339. Answers are in UTC, with microseconds. Requests may use any
/// offset; digits beyond microseconds are ignored.
#[derive(ToSchema)]
#[schema(format = DateTime, example = "2026-11-22T14:21:22.587413Z")]
pub(in crate::http) struct Time(String);

/// The id by which the service recognises a retry of an event of the anomaly: 1 to 128 printable
/// ASCII characters. (There is no example, because two calls with the same example id would count
/// once.)
#[derive(ToSchema)]
#[schema(pattern = "^[ -~]+$", min_length = 1, max_length = 128)]
pub(in crate::http) struct EventId(String);

/// The caller's name for a repair action, such as `restart_pod`: 1 to 200 characters without
/// control characters.
#[derive(ToSchema)]
#[schema(
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$",
    min_length = 1,
    max_length = 200,
    example = "restart_pod"
)]
pub(in crate::http) struct ActionName(String);

/// The share of attempts that worked, from 0 to 1; 0 if there were no attempts.
#[derive(ToSchema)]
#[schema(minimum = 0, maximum = 1, example = 0.5)]
pub(in crate::http) struct SuccessRate(f64);

/// The response that the number of occurrences calls for.
pub(in crate::http) enum EscalationLevel {}

impl ToSchema for EscalationLevel {}

impl PartialSchema for EscalationLevel {
    fn schema() -> RefOr<Schema> {
        use domain::EscalationLevel::{Escalate, PermanentFix, Repeat};
        let names = [Repeat, Escalate, PermanentFix].map(domain::EscalationLevel::as_str);
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(names))
            .description(Some(
                "The level that the number of occurrences has reached: `REPEAT` (the repair treats \
                 the symptom), `ESCALATE` (a person should look, and automatic repairs stop) or \
                 `PERMANENT_FIX` (fix the cause: nothing else helps). The levels begin at 3, 5 and \
                 10 occurrences in 24 hours unless the service has other thresholds, or a rule for \
                 the anomaly.",
            ))
            .into()
    }
}

/// An array in which whatever is no `T` fails itself alone, so that it may hold anything.
pub(in crate::http) fn array_of_anything_like<T: ToSchema>() -> ArrayBuilder {
    let anything = Object::with_type(SchemaType::AnyValue);
    let like = AnyOfBuilder::new().item(Ref::from_schema_name(T::name())).item(anything);
    ArrayBuilder::new().items(like)
}
