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

/// An anomaly's key: the first 16 hexadecimal digits, in lower case, of the SHA-256 of the four
/// fields that identify it.
#[derive(ToSchema)]
#[schema(
    pattern = "^[0-9a-f]{16}$",
    min_length = 16,
    max_length = 16,
    example = "d7807df379350b77"
)]
pub(in crate::http) struct AnomalyKey(String);

/// A time as RFC 3339 has it. In answers it is in UTC, to the microsecond; in bodies any offset
/// will do, and what is finer than a microsecond is cut off.
#[derive(ToSchema)]
#[schema(format = DateTime, example = "2026-11-22T14:21:22.587413Z")]
pub(in crate::http) struct Time(String);

/// The id by which a retry of an event is recognised within its anomaly: 1 to 128 printable ASCII
/// characters. (It has no example, because whoever tries a call twice with one counts once.)
#[derive(ToSchema)]
#[schema(pattern = "^[ -~]+$", min_length = 1, max_length = 128)]
pub(in crate::http) struct EventId(String);

/// The name of a repair action in its pipeline: 1 to 200 characters, none of them a control
/// character.
#[derive(ToSchema)]
#[schema(
    pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$",
    min_length = 1,
    max_length = 200,
    example = "restart_pod"
)]
pub(in crate::http) struct ActionName(String);

/// Successes by attempts, from 0 to 1; 0 where there were no attempts.
#[derive(ToSchema)]
#[schema(minimum = 0, maximum = 1, example = 0.5)]
pub(in crate::http) struct SuccessRate(f64);

/// The reaction that the number of occurrences in 24 hours asks for.
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
                "What the number of occurrences in 24 hours asks for: from 3 on `REPEAT` (the \
                 repair treats the symptom), from 5 on `ESCALATE` (a person should look), from 10 \
                 on `PERMANENT_FIX` (stop restarting, and fix the cause), where the service is not \
                 configured otherwise.",
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
