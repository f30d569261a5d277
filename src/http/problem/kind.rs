//! The types of problems: the name, the status and the explanation of each.

use axum::http::StatusCode;
use serde::{Serialize, Serializer};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, SchemaFormat, Type},
};

/// A type of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum ProblemKind {
    MalformedRequest,
    InvalidJson,
    InvalidKey,
    InvalidField,
    Unauthorized,
    Forbidden,
    CrossOrigin,
    UnknownHost,
    UnknownAnomaly,
    UnknownRoute,
    UnknownDeadLetter,
    MethodNotAllowed,
    UnsupportedMediaType,
    ContentTooLarge,
    RequestTimeout,
    TooManyRequests,
    Unavailable,
    Overloaded,
    /// The last one, by which the length of `ALL` is checked.
    Internal,
}

const _: () = assert!(ProblemKind::ALL.len() == ProblemKind::Internal as usize + 1);

/// The texts that all problems of a type share.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Explanation {
    /// The end of its `type`.
    pub(in crate::http) name: &'static str,
    /// Its `title`.
    pub(in crate::http) title: &'static str,
    /// The situation in which it is the answer.
    pub(in crate::http) meaning: &'static str,
    /// The advice to the client.
    pub(in crate::http) remedy: &'static str,
}

impl ProblemKind {
    pub(in crate::http) const ALL: [Self; 19] = [
        Self::MalformedRequest,
        Self::InvalidJson,
        Self::InvalidKey,
        Self::InvalidField,
        Self::Unauthorized,
        Self::Forbidden,
        Self::CrossOrigin,
        Self::UnknownHost,
        Self::UnknownAnomaly,
        Self::UnknownRoute,
        Self::UnknownDeadLetter,
        Self::MethodNotAllowed,
        Self::UnsupportedMediaType,
        Self::ContentTooLarge,
        Self::RequestTimeout,
        Self::TooManyRequests,
        Self::Unavailable,
        Self::Overloaded,
        Self::Internal,
    ];

    pub(in crate::http) const fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest | Self::InvalidJson | Self::InvalidKey => {
                StatusCode::BAD_REQUEST
            }
            Self::InvalidField => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CrossOrigin => StatusCode::FORBIDDEN,
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::UnknownAnomaly | Self::UnknownRoute | Self::UnknownDeadLetter => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(super) const fn is_temporary(self) -> bool {
        matches!(self, Self::Unavailable | Self::Overloaded)
    }

    /// Returns the `type`, relative to the service.
    pub(in crate::http) fn uri(self) -> String {
        format!("/problems/{}", self.explanation().name)
    }

    pub(in crate::http) const fn explanation(self) -> Explanation {
        match self {
            Self::MalformedRequest => Explanation {
                name: "malformed-request",
                title: "The request is not valid HTTP",
                meaning: "The request has no Host header or more than one, its Idempotency-Key \
                          headers differ, or its body ends early or has malformed chunks.",
                remedy: "Correct the request as `detail` says. The call had no effect. If it came \
                         through a proxy, check the proxy.",
            },
            Self::InvalidJson => Explanation {
                name: "invalid-json",
                title: "The body is not valid JSON",
                meaning: "The body is not valid JSON in UTF-8. `line` and `column` give the \
                          position, counted from 1.",
                remedy: "Send a complete and valid JSON body. Nothing was recorded.",
            },
            Self::InvalidKey => Explanation {
                name: "invalid-key",
                title: "The anomaly key is malformed",
                meaning: "An anomaly's key is 16 hexadecimal digits in lower case, such as \
                          b119b2edaa9fb08c.",
                remedy: "Use the `anomaly_key` of a response, or print the key with \
                         `anomaly-counter key`.",
            },
            Self::InvalidField => Explanation {
                name: "invalid-field",
                title: "A field is invalid",
                meaning: "A field is missing, unknown, of the wrong type or out of range. `field` \
                          names it.",
                remedy: "Correct the field as `detail` says. The call had no effect.",
            },
            Self::Unauthorized => Explanation {
                name: "unauthorized",
                title: "A token is required",
                meaning: "The call requires a token. The request has none, or its token is unknown \
                          or has expired.",
                remedy: "Send the header `Authorization: Bearer TOKEN`, or the token as the \
                         password of Basic authentication with any user name. `anomaly-counter \
                         token new` creates a token.",
            },
            Self::Forbidden => Explanation {
                name: "forbidden",
                title: "The token lacks the required scope",
                meaning: "The token is valid, but lacks the scope that the call requires: ingest, \
                          read or operate.",
                remedy: "Use a token with the scope that `detail` names.",
            },
            Self::CrossOrigin => Explanation {
                name: "cross-origin",
                title: "The request comes from another site",
                meaning: "A browser sent this request for a page of another site, which may not \
                          make changes.",
                remedy: "If the page is yours, add its origin to `browser.allowed_origins`.",
            },
            Self::UnknownHost => Explanation {
                name: "unknown-host",
                title: "The host name is not allowed",
                meaning: "The Host header names a host that is not this service, or that differs \
                          from the request's target. If no token is required, the request may come \
                          from a page of another site whose name resolves to this machine (DNS \
                          rebinding).",
                remedy: "Call the service by its address or as localhost, add the host to \
                         `browser.allowed_hosts`, or configure tokens.",
            },
            Self::UnknownAnomaly => Explanation {
                name: "unknown-anomaly",
                title: "The anomaly is unknown",
                meaning: "No anomaly has this key. An anomaly is deleted 35 days after its last \
                          occurrence or repair.",
                remedy: "Check the key for a typo. An anomaly is known as soon as an occurrence of \
                         it is recorded.",
            },
            Self::UnknownRoute => Explanation {
                name: "unknown-route",
                title: "The path does not exist",
                meaning: "The service has no resource at this path.",
                remedy: "Check the path for a typo. /docs and /openapi.json list all paths.",
            },
            Self::UnknownDeadLetter => Explanation {
                name: "unknown-dead-letter",
                title: "The dead letter does not exist",
                meaning: "No dead letter (a write that the store refused permanently) has this \
                          number, or its record is damaged.",
                remedy: "Look up the number with GET /spool/dead-letters. Someone may have retried \
                         or dropped the dead letter meanwhile.",
            },
            Self::MethodNotAllowed => Explanation {
                name: "method-not-allowed",
                title: "The path does not support this method",
                meaning: "The path exists, but supports other methods only.",
                remedy: "Use one of the methods in the Allow header.",
            },
            Self::UnsupportedMediaType => Explanation {
                name: "unsupported-media-type",
                title: "The body must be JSON",
                meaning: "The body is not declared as JSON, or it is compressed.",
                remedy: "Send the header `Content-Type: application/json` (with curl: --json), and \
                         no Content-Encoding. The webhook also takes JSON that is declared as \
                         `text/plain` or `text/json`.",
            },
            Self::ContentTooLarge => Explanation {
                name: "content-too-large",
                title: "The body is too large",
                meaning: "The body is larger than `http.max_body_bytes`, or the Alertmanager \
                          delivery is larger than `alertmanager.max_body_bytes` or has more than \
                          10,000 alerts.",
                remedy: "Send it in parts (Alertmanager: set max_alerts in webhook_config), or \
                         raise the limit. Nothing was recorded.",
            },
            Self::RequestTimeout => Explanation {
                name: "request-timeout",
                title: "The body arrived too slowly",
                meaning: "The body did not arrive within `http.body_timeout_seconds`.",
                remedy: "Send it again, in smaller parts. Nothing was recorded.",
            },
            Self::TooManyRequests => Explanation {
                name: "too-many-requests",
                title: "The token's limit is reached",
                meaning: "The token exceeds its limit per second. (Calls with the scope ingest \
                          return `overloaded` instead, because Alertmanager drops a delivery after \
                          a 429.)",
                remedy: "Retry after the number of seconds in Retry-After, or raise the token's \
                         limit.",
            },
            Self::Unavailable => Explanation {
                name: "unavailable",
                title: "The store is unavailable",
                meaning: "Neither the store nor the spool accepts the call, or the service has no \
                          cached state to respond with. `detail` says whether a write may have \
                          taken effect.",
                remedy: "Retry after the number of seconds in Retry-After; a write with the same \
                         `event_id`, so that it counts once.",
            },
            Self::Overloaded => Explanation {
                name: "overloaded",
                title: "The service is overloaded",
                meaning: "There are more requests or connections than the service can handle, the \
                          token's limit is reached, or the anomaly is new and the limit \
                          `store.max_anomalies` is reached. The call had no effect.",
                remedy: "Retry after the number of seconds in Retry-After.",
            },
            Self::Internal => Explanation {
                name: "internal",
                title: "The service has failed",
                meaning: "The service has a bug, or the store can't execute the call on the data \
                          that it holds.",
                remedy: "Search the service's log for the x-request-id of the response.",
            },
        }
    }
}

impl Serialize for ProblemKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut members = serializer.serialize_struct("ProblemKind", 3)?;
        members.serialize_field("type", &self.uri())?;
        members.serialize_field("title", self.explanation().title)?;
        members.serialize_field("status", &self.status().as_u16())?;
        members.end()
    }
}

impl ToSchema for ProblemKind {}

impl PartialSchema for ProblemKind {
    fn schema() -> RefOr<Schema> {
        let uri = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::Custom("uri-reference".to_owned())))
            .enum_values(Some(Self::ALL.map(Self::uri)))
            .description(Some(
                "The type of the problem: the path of the service that explains it.",
            ));
        let title = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.map(|kind| kind.explanation().title)))
            .description(Some("The type in words; the same for all problems of this type."));
        let status = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(400))
            .maximum(Some(599))
            .description(Some(
                "The status code. In an array, it is the status code that the element would have \
                 had alone.",
            ));
        ObjectBuilder::new()
            .description(Some("The type of a problem."))
            .property("type", uri)
            .property("title", title)
            .property("status", status)
            .required("type")
            .required("title")
            .required("status")
            .into()
    }
}
