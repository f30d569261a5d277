//! Reads occurrences as callers post them, without building a tree of the body: one pass takes the
//! fields that the service needs, and the others are stored as they were posted.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::schemas;
use crate::{
    domain::{
        AnomalyConfig, AnomalyKey, EventId, InvalidSignature, KeyMapping, MAX_AHEAD_SECONDS,
        MemberName, Moment, Occurrence, PostedTo, Signature, SignatureJson, Timestamp,
    },
    http::{
        extract::{CheckedJson, CheckedVisitor, FirstElements, JsonValue, event_id, parse},
        problem::{Problem, ProblemKind},
    },
};

const EVENT_ID: &str = "event_id";
const OCCURRED_AT: &str = "occurred_at";

/// An occurrence to record. Four fields identify its anomaly: `alert_name`, `service`, `namespace`
/// and `error_type`. A missing field counts as empty, and at least one must not be empty. If a
/// field and its alias are both present, the field is used. All other fields of its first
/// occurrence are stored with the anomaly as metadata.
#[derive(Debug, Default, ToSchema)]
#[schema(
    as = Occurrence,
    example = json!({
        "alert_name": "HighCPU", "service": "api", "namespace": "shop", "pod": "api-1",
    })
)]
pub(in crate::http) struct OccurrenceRequest<'a> {
    /// The name of the alert or fault, such as the name of an alerting rule.
    #[schema(
        value_type = Option<String>, nullable = false, max_length = 1_024, example = "HighCPU",
    )]
    alert_name: Option<JsonValue<'a>>,
    /// Prometheus' name for `alert_name`. It must be a string, and is used if `alert_name` is
    /// missing; otherwise it is stored as metadata.
    #[schema(value_type = Option<Value>)]
    alertname: Option<JsonValue<'a>>,
    /// The service or workload in which the anomaly occurs.
    #[schema(
        value_type = Option<String>, nullable = false, max_length = 1_024, example = "api",
    )]
    service: Option<JsonValue<'a>>,
    /// Prometheus' name for `service`, used if `service` is missing.
    #[schema(value_type = Option<Value>)]
    job: Option<JsonValue<'a>>,
    /// The namespace in which the service runs.
    #[schema(
        value_type = Option<String>, nullable = false, max_length = 1_024, example = "shop",
    )]
    namespace: Option<JsonValue<'a>>,
    /// The kind of error, such as the reason why a container was terminated.
    #[schema(
        value_type = Option<String>, nullable = false, max_length = 1_024, example = "OOMKilled",
    )]
    error_type: Option<JsonValue<'a>>,
    /// Another name for `error_type`, used if `error_type` is missing.
    #[schema(value_type = Option<Value>)]
    reason: Option<JsonValue<'a>>,
    /// An id of this occurrence. A second request with the same id does not count again, so a
    /// failed request can be retried. If it is missing, the service generates one.
    #[schema(value_type = Option<schemas::EventId>)]
    event_id: Option<JsonValue<'a>>,
    /// The time at which the anomaly occurred; the time of the request if it is missing. It may be
    /// at most 60 seconds ahead of the service's clock. An occurrence older than 30 days is not
    /// counted.
    #[schema(value_type = Option<schemas::Time>)]
    occurred_at: Option<JsonValue<'a>>,
}

impl<'a> OccurrenceRequest<'a> {
    /// Returns the slot of the field `name`, if it is one that the service reads.
    fn slot(&mut self, name: &str) -> Option<&mut Option<JsonValue<'a>>> {
        Some(match name {
            "alert_name" => &mut self.alert_name,
            "alertname" => &mut self.alertname,
            "service" => &mut self.service,
            "job" => &mut self.job,
            "namespace" => &mut self.namespace,
            "error_type" => &mut self.error_type,
            "reason" => &mut self.reason,
            EVENT_ID => &mut self.event_id,
            OCCURRED_AT => &mut self.occurred_at,
            _ => return None,
        })
    }

    fn field(&self, name: &str) -> Option<&JsonValue<'a>> {
        let field = match name {
            "alert_name" => &self.alert_name,
            "alertname" => &self.alertname,
            "service" => &self.service,
            "job" => &self.job,
            "namespace" => &self.namespace,
            "error_type" => &self.error_type,
            "reason" => &self.reason,
            _ => return None,
        };
        field.as_ref()
    }

    /// Identifies the anomaly by the fields as they were posted.
    fn plain_key(&self) -> Result<AnomalyKey, Problem> {
        Ok(Signature::key_of_new(|name| Some(self.field(name)?.text()))?)
    }

    /// Identifies the anomaly by the fields as mapped. `text` is the whole of the posted object.
    fn mapped(
        &self,
        text: &str,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> Result<Identified, Problem> {
        let too_long = Signature::too_long(|name| Some(self.field(name)?.text()));
        if let Some(field) = too_long.first() {
            return Err(InvalidSignature::TooLong { field }.into());
        }
        let posted = keys.read(PostedTo::Anomalies, text).map_err(|error| {
            Problem::new(ProblemKind::InvalidField, format!("an occurrence can't be read: {error}"))
        })?;
        let mapped = keys.map(&posted)?;
        let signature_json = if mapped.is_mapped() {
            SignatureJson::of_mapped(text, &mapped.replaced, config)
        } else {
            SignatureJson::of_posted(text, config)
        };
        Ok(Identified {
            key: mapped.signature.key(),
            signature_json,
            is_mapped: mapped.is_mapped(),
        })
    }

    fn event_id(&self, from_header: Option<EventId>) -> Result<EventId, Problem> {
        let value = self.event_id.as_ref().map(|value| value.optional_text(EVENT_ID));
        event_id(value.transpose()?.flatten(), from_header)
    }

    fn occurred_at(&self, moment: Moment) -> Result<Timestamp, Problem> {
        let value = self.occurred_at.as_ref().map(|value| value.optional_text(OCCURRED_AT));
        let Some(text) = value.transpose()?.flatten() else { return Ok(moment.now) };
        let at =
            Timestamp::parse_rfc3339(text).map_err(|error| Problem::field(OCCURRED_AT, error))?;
        let Moment { latest, .. } = moment;
        if at > latest.plus_seconds(MAX_AHEAD_SECONDS) {
            let fault = format!(
                "is more than {MAX_AHEAD_SECONDS} seconds ahead of the service's clock ({latest}): \
                 check the clock and the time zone of the sender"
            );
            return Err(Problem::field(OCCURRED_AT, fault));
        }
        Ok(at)
    }
}

/// An occurrence that was read.
#[derive(Debug)]
pub(in crate::http) struct ReadOccurrence {
    pub(in crate::http) occurrence: Occurrence,
    /// True if the key mapping has changed one of the four fields.
    pub(in crate::http) is_mapped: bool,
}

/// The anomaly of a posted object, and the object that is stored with it.
struct Identified {
    key: AnomalyKey,
    signature_json: SignatureJson,
    is_mapped: bool,
}

/// A posted value: an occurrence, or something else, of which only the type is kept.
#[derive(Debug)]
struct Posted<'a>(Result<OccurrenceRequest<'a>, CheckedJson>);

impl Posted<'_> {
    /// Reads the occurrence. `text` is the whole of the posted value.
    fn read(
        &self,
        text: &str,
        id_from_header: Option<EventId>,
        moment: Moment,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> Result<ReadOccurrence, Problem> {
        let fields = self.0.as_ref().map_err(|CheckedJson(type_name)| {
            let detail = format!("an occurrence must be a JSON object, not {type_name}");
            Problem::new(ProblemKind::InvalidField, detail)
        })?;
        let id = fields.event_id(id_from_header)?;
        let at = fields.occurred_at(moment)?;
        let Identified { key, signature_json, is_mapped } = if keys.maps(PostedTo::Anomalies) {
            fields.mapped(text, keys, config)?
        } else {
            let (key, signature_json) =
                (fields.plain_key()?, SignatureJson::of_posted(text, config));
            Identified { key, signature_json, is_mapped: false }
        };
        let occurrence = Occurrence { key, id, at, signature_json, episode: None, rule: None };
        Ok(ReadOccurrence { occurrence, is_mapped })
    }
}

impl<'de> Deserialize<'de> for Posted<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PostedVisitor)
    }
}

struct PostedVisitor;

impl<'de> Visitor<'de> for PostedVisitor {
    type Value = Posted<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    // Not derived: of two fields with the same name the last one counts, as in the stored text.
    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Posted<'de>, A::Error> {
        let mut request = OccurrenceRequest::default();
        while let Some(MemberName(name)) = members.next_key()? {
            match request.slot(&name) {
                Some(slot) => *slot = Some(members.next_value()?),
                None => {
                    members.next_value::<CheckedJson>()?;
                }
            }
        }
        Ok(Posted(Ok(request)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Posted<'de>, A::Error> {
        CheckedVisitor.visit_seq(elements).map(|other| Posted(Err(other)))
    }

    fn visit_unit<E: Error>(self) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_unit().map(|other| Posted(Err(other)))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_bool(value).map(|other| Posted(Err(other)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_u64(value).map(|other| Posted(Err(other)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_i64(value).map(|other| Posted(Err(other)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_f64(value).map(|other| Posted(Err(other)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Posted<'de>, E> {
        CheckedVisitor.visit_str(text).map(|other| Posted(Err(other)))
    }
}

/// A body that is one occurrence.
#[derive(Debug)]
pub(in crate::http) struct PostedOccurrence<'a> {
    text: &'a str,
    posted: Posted<'a>,
}

impl<'a> PostedOccurrence<'a> {
    pub(in crate::http) fn parse(text: &'a str) -> Result<Self, Problem> {
        Ok(Self { text, posted: parse(text)? })
    }

    /// Reads the occurrence; `id` is the one of the header, if any.
    pub(in crate::http) fn read(
        &self,
        id: Option<EventId>,
        moment: Moment,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> Result<ReadOccurrence, Problem> {
        self.posted.read(self.text, id, moment, keys, config)
    }
}

/// A body that is an array of occurrences.
#[derive(Debug)]
pub(in crate::http) struct PostedArray<'a> {
    text: &'a str,
    elements: FirstElements<Posted<'a>, { PostedArray::MAX_LENGTH }>,
}

impl<'a> PostedArray<'a> {
    /// Maximum number of elements.
    pub(in crate::http) const MAX_LENGTH: usize = 1_000;

    /// Parses a body; `None` if it is no array.
    pub(in crate::http) fn parse(text: &'a str) -> Result<Option<Self>, Problem> {
        if !text.trim_ascii_start().starts_with('[') {
            return Ok(None);
        }
        Ok(Some(Self { text, elements: parse(text)? }))
    }

    pub(in crate::http) fn len(&self) -> usize {
        self.elements.count
    }

    /// Reads each element; one that is faulty fails alone.
    pub(in crate::http) fn read(
        &self,
        moment: Moment,
        keys: &KeyMapping,
        config: AnomalyConfig,
    ) -> Result<Vec<Result<ReadOccurrence, Problem>>, Problem> {
        if self.len() > Self::MAX_LENGTH {
            let detail = format!(
                "an array holds at most {} occurrences, and this one holds {}: send it in parts. \
                 Nothing was recorded",
                Self::MAX_LENGTH,
                self.len()
            );
            return Err(Problem::new(ProblemKind::InvalidField, detail));
        }
        let texts: Vec<&RawValue> = parse(self.text)?;
        let elements = self.elements.first.iter().zip(texts);
        let read = |(posted, text): (&Posted<'_>, &RawValue)| {
            posted.read(text.get(), None, moment, keys, config)
        };
        Ok(elements.map(read).collect())
    }
}
