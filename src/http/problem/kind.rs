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
    /// The last one; the length of `ALL` is checked by it.
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
    /// The way out for the client.
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

    /// The `type`, relative to the service.
    pub(in crate::http) fn uri(self) -> String {
        format!("/problems/{}", self.explanation().name)
    }

    pub(in crate::http) const fn explanation(self) -> Explanation {
        match self {
            Self::MalformedRequest => Explanation {
                name: "malformed-request",
                title: "The request is not valid HTTP",
                meaning: "The request has no header Host or several, headers Idempotency-Key that \
                          differ, or a body that broke off before its end or whose chunks are \
                          malformed.",
                remedy: "Send it as `detail` says. The call had no effect. Where it comes through \
                         a proxy, look there.",
            },
            Self::InvalidJson => Explanation {
                name: "invalid-json",
                title: "The body is not valid JSON",
                meaning: "The body can't be read as JSON in UTF-8. `line` and `column` say where, \
                          from 1.",
                remedy: "Send the whole of a valid JSON body. Nothing was recorded.",
            },
            Self::InvalidKey => Explanation {
                name: "invalid-key",
                title: "The anomaly key is malformed",
                meaning: "An anomaly's key is 16 hexadecimal digits in lower case, such as \
                          b119b2edaa9fb08c.",
                remedy: "Take the key from the `anomaly_key` of an answer, or print it with \
                         `anomaly-counter key`.",
            },
            Self::InvalidField => Explanation {
                name: "invalid-field",
                title: "A field is not as it must be",
                meaning: "A field is missing, unknown, of a wrong type or out of bounds. `field` \
                          names it.",
                remedy: "Correct it as `detail` says. The call had no effect.",
            },
            Self::Unauthorized => Explanation {
                name: "unauthorized",
                title: "A token is needed",
                meaning: "The call takes a token, and there was none, or one that is not known, or \
                          that has expired.",
                remedy: "Send the header `Authorization: Bearer TOKEN`, or the token as the \
                         password of Basic with any user. `anomaly-counter token new` makes one.",
            },
            Self::Forbidden => Explanation {
                name: "forbidden",
                title: "The token is not good for this",
                meaning: "The token is known, and lacks the scope that the call takes: ingest, \
                          read or operate.",
                remedy: "Use a token with the scope that `detail` names.",
            },
            Self::CrossOrigin => Explanation {
                name: "cross-origin",
                title: "A page of another site has asked",
                meaning: "A browser has sent this for a page of another site, which may not write.",
                remedy: "Name the page's origin in `browser.allowed_origins` if it is yours.",
            },
            Self::UnknownHost => Explanation {
                name: "unknown-host",
                title: "The service does not answer to this name",
                meaning: "The header Host has a name that is not the service's own, or another \
                          than the request's target. Where no token is asked for, that may be a \
                          page of another site that has pointed its name at this machine.",
                remedy: "Call the service by its address or as localhost, name the host in \
                         `browser.allowed_hosts`, or make a token.",
            },
            Self::UnknownAnomaly => Explanation {
                name: "unknown-anomaly",
                title: "The anomaly is not known",
                meaning: "No anomaly has this key. One is forgotten 35 days after its last \
                          occurrence or repair.",
                remedy: "Check the key for a typo. An anomaly is known once an occurrence of it \
                         was recorded.",
            },
            Self::UnknownRoute => Explanation {
                name: "unknown-route",
                title: "There is nothing at this path",
                meaning: "The service has no such path.",
                remedy: "Check the path for a typo: /docs and /openapi.json have all of them.",
            },
            Self::UnknownDeadLetter => Explanation {
                name: "unknown-dead-letter",
                title: "There is no such dead letter",
                meaning: "No write that the store has refused for good has this number, or its \
                          record is damaged.",
                remedy: "Look the number up with GET /spool/dead-letters. It may be done with \
                         meanwhile.",
            },
            Self::MethodNotAllowed => Explanation {
                name: "method-not-allowed",
                title: "The path does not take this method",
                meaning: "There is something at the path, and it takes other methods.",
                remedy: "Use one of the methods that the header Allow names.",
            },
            Self::UnsupportedMediaType => Explanation {
                name: "unsupported-media-type",
                title: "The body must be JSON",
                meaning: "The body is not declared as JSON, or is compressed.",
                remedy: "Send the header `Content-Type: application/json` (with curl: --json), and \
                         no Content-Encoding.",
            },
            Self::ContentTooLarge => Explanation {
                name: "content-too-large",
                title: "The body is too large",
                meaning: "The body is larger than `http.max_body_bytes`, or the delivery of \
                          Alertmanager larger than `alertmanager.max_body_bytes` or 10,000 alerts.",
                remedy: "Send it in parts (Alertmanager: set max_alerts in webhook_config), or \
                         raise the limit. Nothing was recorded.",
            },
            Self::RequestTimeout => Explanation {
                name: "request-timeout",
                title: "The body came too slowly",
                meaning: "The body did not come within `http.body_timeout_seconds`.",
                remedy: "Send it again, in smaller parts. Nothing was recorded.",
            },
            Self::TooManyRequests => Explanation {
                name: "too-many-requests",
                title: "The token's limit is reached",
                meaning: "The token has asked for more a second than it may. (One that ingests is \
                          told `overloaded` instead, since Alertmanager drops what is answered \
                          429.)",
                remedy: "Try again after as many seconds as Retry-After says, or raise the token's \
                         limit.",
            },
            Self::Unavailable => Explanation {
                name: "unavailable",
                title: "The store does not answer",
                meaning: "Neither the store nor the spool takes the call, or nothing is known to \
                          answer it with. `detail` says whether a write may have taken effect.",
                remedy: "Try again after as many seconds as Retry-After says; a write with the \
                         same `event_id`, so that it counts once.",
            },
            Self::Overloaded => Explanation {
                name: "overloaded",
                title: "More is asked of the service than it can do",
                meaning: "There are more requests or connections than can be served, the token's \
                          limit is reached, or the anomaly is new and there are as many as \
                          `store.max_anomalies` permits. The call had no effect.",
                remedy: "Try again after as many seconds as Retry-After says.",
            },
            Self::Internal => Explanation {
                name: "internal",
                title: "Something went wrong in the service",
                meaning: "The service has a fault, or the store can't do this with the data that \
                          it holds.",
                remedy: "Look into the service's log, which has more under the same x-request-id.",
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
                "The type of problem: a path of the service, at which it is explained.",
            ));
        let title = ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(Self::ALL.map(|kind| kind.explanation().title)))
            .description(Some("The type in words, the same for all problems of it."));
        let status = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(400))
            .maximum(Some(599))
            .description(Some(
                "The status code. In an array it is that which the element alone would have had.",
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
