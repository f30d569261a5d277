//! The description of the API, as OpenAPI 3.1 has it. What a call takes and gives stands beside its handler;
//! here is what all of them share: who may call, the problems, the headers.

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{
    alertmanager::AlertRequest,
    layers::{
        access::{self, GRAFANA_SIGNATURE},
        traced::TRACERESPONSE,
    },
    occurrence::OccurrenceRequest,
    problem::{Problem, ProblemKind},
};
use crate::{auth::Scope, domain::Signature};

/// What is told of the API as a whole.
#[derive(OpenApi)]
#[openapi(
    info(title = "anomaly-counter", description = include_str!("openapi.md")),
    tags(
        (name = "anomalies", description = "Recording occurrences, and how often an anomaly has happened."),
        (name = "repairs", description = "Which automatic repairs work on an anomaly."),
        (name = "permanent fixes", description = "An operator's mark that the cause is fixed."),
        (name = "operation", description = "For whoever runs the service."),
        (name = "documentation", description = "For people."),
    ),
    components(schemas(AlertRequest, OccurrenceRequest, Problem)),
)]
pub(super) struct Outline;

/// Adds to what is described beside the handlers what all calls share.
pub(super) fn document(described: utoipa::openapi::OpenApi) -> Value {
    // The description always has a JSON form.
    let mut document = serde_json::to_value(described).unwrap_or_default();
    for (path, item) in members(&mut document["paths"]) {
        for (method, operation) in members(item) {
            let method = method.to_ascii_uppercase().parse().unwrap_or_default();
            complete(&method, path, operation);
        }
        item["parameters"] =
            json!([reference("parameters", "RequestId"), reference("parameters", "TraceParent"),]);
    }
    let components = &mut document["components"];
    let occurrence = &mut components["schemas"]["Occurrence"];
    occurrence["anyOf"] = identified_by();
    occurrence["allOf"] = aliases();
    components["responses"] = responses();
    components["parameters"] = json!({
        "RequestId": {
            "name": "x-request-id", "in": "header",
            "description": "Goes out with the answer and into the log; the service makes one up where none is given.",
            "schema": {"type": "string"},
        },
        "TraceParent": {
            "name": "traceparent", "in": "header",
            "description": "The caller's span, as W3C Trace Context has it, where the service sends traces.",
            "schema": {"type": "string"},
            "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        },
    });
    components["headers"] = headers();
    components["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "A token of `anomaly-counter token new`."},
        "basic": {"type": "http", "scheme": "basic", "description": "The token as the password of any user."},
        "grafana": {
            "type": "apiKey", "in": "header", "name": GRAFANA_SIGNATURE.as_str(),
            "description": "Grafana's HMAC-SHA256 of a delivery, where `auth.grafana_secret_file` is set.",
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

/// Adds to an operation who may call it, the headers of its answers, and its problems.
fn complete(method: &Method, path: &str, operation: &mut Value) {
    let scope = access::needed(method, path);
    operation["security"] = scope.map_or_else(|| json!([]), |scope| security(scope, path));
    for (_, response) in members(&mut operation["responses"]) {
        response["headers"] = every_answers_headers();
    }
    let has_body = operation.get("requestBody").is_some();
    for status in problem_statuses(scope, path, has_body) {
        operation["responses"][status.as_str()] = reference("responses", &response_name(status));
    }
}

fn security(scope: Scope, path: &str) -> Value {
    let mut ways = vec![json!({"bearer": [scope]}), json!({"basic": [scope]})];
    if path == access::WEBHOOK_PATH {
        ways.push(json!({"grafana": []}));
    }
    ways.into()
}

/// With which statuses a call may be refused.
fn problem_statuses(scope: Option<Scope>, path: &str, has_body: bool) -> Vec<StatusCode> {
    let takes_key = path.contains("{key}");
    let names_something = path.contains('{') || matches!(path, "/repairs" | "/permanent-fix");
    let checks_parameters = path.contains("{sequence}") || path.contains("{action}");
    let conditions = [
        (StatusCode::BAD_REQUEST, has_body || takes_key),
        (StatusCode::UNAUTHORIZED, scope.is_some()),
        (StatusCode::FORBIDDEN, scope.is_some()),
        (StatusCode::NOT_FOUND, names_something),
        (StatusCode::REQUEST_TIMEOUT, has_body),
        (StatusCode::PAYLOAD_TOO_LARGE, has_body),
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, has_body),
        (StatusCode::MISDIRECTED_REQUEST, true),
        (StatusCode::UNPROCESSABLE_ENTITY, has_body || checks_parameters),
        (StatusCode::TOO_MANY_REQUESTS, matches!(scope, Some(Scope::Read | Scope::Operate))),
        (StatusCode::INTERNAL_SERVER_ERROR, true),
        (StatusCode::SERVICE_UNAVAILABLE, true),
    ];
    conditions.into_iter().filter(|(_, may_be)| *may_be).map(|(status, _)| status).collect()
}

/// A response for each status that problems have.
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

/// A status in the manner of names: `NotFound`.
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
            "description": "The request's own id, or one that was made up for it.",
            "schema": {"type": "string"},
        },
        "Degraded": {
            "description": "The store that does not answer, while it does not.",
            "schema": {"type": "string", "enum": ["embedded", "redis"]},
        },
        "TraceResponse": {
            "description": "The request's own span, where the service sends traces.",
            "schema": {"type": "string"},
            "example": "00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01",
        },
        "RetryAfter": {
            "description": "After how many seconds to try again.",
            "required": true,
            "schema": {"type": "integer", "minimum": 1},
            "example": 1,
        },
        "Challenge": {
            "description": "How to show who one is, as RFC 6750 has it.",
            "schema": {"type": "string"},
            "example": "Bearer realm=\"anomaly-counter\"",
        },
        "Allow": {
            "description": "The methods that the path takes.",
            "required": true,
            "schema": {"type": "string"},
            "example": "GET,HEAD",
        },
    })
}

/// One of the identifying fields at least must not be empty; an alias counts where its name is not there.
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

/// An alias must be a text where its name is not there, and is like any other field where it is.
fn aliases() -> Value {
    let alternatives = |(name, alias): (&str, &str)| {
        let text = json!({"properties": {alias: {"type": "string"}}});
        json!({"anyOf": [{"required": [name]}, text]})
    };
    let pairs = Signature::FIELDS.into_iter().filter_map(|(name, alias)| Some((name, alias?)));
    pairs.map(alternatives).collect()
}
