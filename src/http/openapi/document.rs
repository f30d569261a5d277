//! The document of the API in OpenAPI 3.1. Handlers describe their own parameters and answers; this
//! module adds the parts that all of them share: access, problems and headers.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::{
    auth::Scope,
    domain::Signature,
    http::{
        bodies::OccurrenceRequest,
        endpoints::{Access, AlertRequest, Description, Endpoint, QueryKind},
        headers::{GRAFANA_SIGNATURE, TRACERESPONSE},
        problem::{Problem, ProblemKind},
    },
};

/// The API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "anomaly-counter", description = include_str!("openapi.md")),
    tags(
        (
            name = "anomalies",
            description = "Record occurrences, and read how often an anomaly has occurred.",
        ),
        (name = "repairs", description = "Report repair attempts, and read which repairs work."),
        (name = "permanent fixes", description = "Mark the cause of an anomaly as fixed."),
        (name = "session", description = "Log a browser in and out."),
        (name = "operation", description = "Calls for operating the service."),
        (name = "documentation", description = "Pages that describe the API."),
    ),
    components(schemas(AlertRequest<'_>, OccurrenceRequest<'_>, Problem)),
)]
struct Outline;

/// Describes the API of `endpoints`.
pub(super) fn describe(endpoints: impl Iterator<Item = Endpoint>) -> Value {
    let mut outline = Outline::openapi();
    let mut described = Vec::new();
    for mut endpoint in endpoints {
        let Some(Description { schemas, paths }) = endpoint.description.take() else { continue };
        outline.paths.merge(paths);
        outline.components.get_or_insert_default().schemas.extend(schemas);
        described.push(endpoint);
    }
    // The description always has a JSON form.
    let mut document = serde_json::to_value(outline).unwrap_or_default();
    for endpoint in &described {
        let item = &mut document["paths"][&endpoint.path];
        complete(endpoint, &mut item[endpoint.method.as_str().to_ascii_lowercase()]);
        item["parameters"] =
            json!([reference("parameters", "RequestId"), reference("parameters", "TraceParent")]);
    }
    let components = &mut document["components"];
    let occurrence = &mut components["schemas"]["Occurrence"];
    occurrence["anyOf"] = identified_by();
    occurrence["allOf"] = aliases();
    components["responses"] = responses();
    components["parameters"] = json!({
        "RequestId": {
            "name": "x-request-id", "in": "header",
            "description": "The id of the request, which the response and the log repeat. If it is \
                            missing, the service generates one.",
            "schema": {"type": "string"},
        },
        "TraceParent": {
            "name": "traceparent", "in": "header",
            "description": "The span of the caller in the format of W3C Trace Context. It is \
                            ignored unless the service sends traces.",
            "schema": {"type": "string"},
        },
    });
    components["headers"] = headers();
    components["securitySchemes"] = json!({
        "bearer": {
            "type": "http", "scheme": "bearer",
            "description": "A token created with `anomaly-counter token new`.",
        },
        "basic": {
            "type": "http", "scheme": "basic",
            "description": "A token as the password, with any user name.",
        },
        "grafana": {
            "type": "apiKey", "in": "header", "name": GRAFANA_SIGNATURE.as_str(),
            "description": "The HMAC-SHA256 with which Grafana signs a delivery. It is accepted if \
                            `auth.grafana_secret_file` is set.",
        },
    });
    document
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

/// Adds the access, the headers of answers, and the problems to an operation.
fn complete(endpoint: &Endpoint, operation: &mut Value) {
    operation["security"] = security(endpoint.access);
    for (_, response) in members(&mut operation["responses"]) {
        response["headers"] = every_answers_headers();
    }
    let has_body = operation.get("requestBody").is_some();
    for status in problem_statuses(endpoint, has_body) {
        operation["responses"][status.as_str()] = reference("responses", &response_name(status));
    }
}

fn security(access: Access) -> Value {
    let Some(scope) = access.scope() else { return json!([]) };
    let mut ways = vec![json!({"bearer": [scope]}), json!({"basic": [scope]})];
    if matches!(access, Access::ScopeOrSignature(_)) {
        ways.push(json!({"grafana": []}));
    }
    ways.into()
}

/// Returns the statuses with which a call may be refused: those of its row, of its access, of its
/// body and of its query, and those that every call may have.
fn problem_statuses(endpoint: &Endpoint, has_body: bool) -> BTreeSet<StatusCode> {
    use ProblemKind::{
        ContentTooLarge, Forbidden, Internal, InvalidField, InvalidJson, MalformedRequest,
        RequestTimeout, TooManyRequests, Unauthorized, Unavailable, UnknownHost,
        UnsupportedMediaType,
    };
    let of_access: &[ProblemKind] = match endpoint.access.scope() {
        None => &[],
        Some(Scope::Ingest) => &[Unauthorized, Forbidden],
        Some(Scope::Read | Scope::Operate) => &[Unauthorized, Forbidden, TooManyRequests],
    };
    let of_body: &[ProblemKind] = if has_body {
        &[InvalidJson, RequestTimeout, ContentTooLarge, UnsupportedMediaType, InvalidField]
    } else {
        &[]
    };
    let of_query: &[ProblemKind] =
        if endpoint.query == QueryKind::Refused { &[InvalidField] } else { &[] };
    let of_all = &[MalformedRequest, UnknownHost, Internal, Unavailable];
    let kinds = [endpoint.problems, of_access, of_body, of_query, of_all].concat();
    kinds.into_iter().map(ProblemKind::status).collect()
}

/// Returns a response for each status that problems have.
fn responses() -> Value {
    let mut responses = Map::new();
    for kind in ProblemKind::ALL {
        let explanation = kind.explanation();
        let response = responses.entry(response_name(kind.status())).or_insert_with(|| {
            json!({
                "description": "",
                "headers": problem_headers(kind.status()),
                "content": {"application/problem+json": {
                    "schema": reference("schemas", "Problem"), "examples": {},
                }},
            })
        });
        let description = response["description"].as_str().unwrap_or_default();
        let separator = if description.is_empty() { "" } else { " Or: " };
        response["description"] = format!("{description}{separator}{}.", explanation.title).into();
        let example = Problem::new(kind, explanation.remedy);
        response["content"]["application/problem+json"]["examples"][explanation.name] =
            json!({"summary": explanation.title, "value": example});
    }
    responses.into()
}

/// Returns the name of a response with a status: `NotFound`.
fn response_name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace(' ', "")
}

fn every_answers_headers() -> Value {
    json!({
        "x-request-id": reference("headers", "RequestId"),
        "x-degraded": reference("headers", "Degraded"),
        TRACERESPONSE.as_str(): reference("headers", "TraceResponse"),
    })
}

fn problem_headers(status: StatusCode) -> Value {
    let mut headers = every_answers_headers();
    let (header, component) = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ("WWW-Authenticate", "Challenge"),
        StatusCode::METHOD_NOT_ALLOWED => ("Allow", "Allow"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            ("Retry-After", "RetryAfter")
        }
        _ => return headers,
    };
    headers[header] = reference("headers", component);
    headers
}

fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of the request: the one in the request, or a generated one.",
            "schema": {"type": "string"},
        },
        "Degraded": {
            "description": "The kind of store. Present while the store is unavailable.",
            "schema": {"type": "string", "enum": ["embedded", "redis"]},
        },
        "TraceResponse": {
            "description": "The span of the request. Present if the service sends traces.",
            "schema": {"type": "string"},
            "example": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        },
        "RetryAfter": {
            "description": "The number of seconds to wait before a retry.",
            "required": true,
            "schema": {"type": "integer", "minimum": 1},
            "example": 1,
        },
        "Challenge": {
            "description": "The authentication scheme, in the format of RFC 6750.",
            "schema": {"type": "string"},
            "example": "Bearer realm=\"anomaly-counter\"",
        },
        "Allow": {
            "description": "The methods that the path supports.",
            "required": true,
            "schema": {"type": "string"},
            "example": "GET,HEAD",
        },
    })
}

/// Returns the schema by which at least one of the identifying fields is not empty; an alias counts
/// if its canonical name is absent.
fn identified_by() -> Value {
    let filled =
        |field: &str| json!({"required": [field], "properties": {field: {"minLength": 1}}});
    let mut alternatives = Vec::new();
    for (name, alias) in Signature::FIELDS {
        alternatives.push(filled(name));
        if let Some(alias) = alias {
            let mut alternative = filled(alias);
            alternative["not"] = json!({"required": [name]});
            alternatives.push(alternative);
        }
    }
    alternatives.into()
}

/// Returns the schema by which an alias is a text if its canonical name is absent, and otherwise
/// like any other field.
fn aliases() -> Value {
    let alternatives = |(name, alias): (&str, &str)| {
        let text = json!({"properties": {alias: {"type": "string"}}});
        json!({"anyOf": [{"required": [name]}, text]})
    };
    let pairs = Signature::FIELDS.into_iter().filter_map(|(name, alias)| Some((name, alias?)));
    pairs.map(alternatives).collect()
}
