//! The description at `/openapi.json` is complete and true, and `/docs` shows it.

use std::{collections::BTreeSet, fs, path::Path};

use jsonschema::Validator;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    access,
    support::{Answer, RedisServer, Service, key_of, wall_clock},
};

const RENEW: &str = "RENEW_OPENAPI";

/// The description, with checks of answers and bodies against it.
struct Description(Value);

impl Description {
    async fn of(service: &Service) -> Self {
        Self(service.get("/openapi.json").await.ok())
    }

    fn calls(&self) -> BTreeSet<String> {
        let paths = self.0["paths"].as_object().unwrap();
        let calls = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|name| *name != "parameters");
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        calls.collect()
    }

    fn operation(&self, call: &str) -> &Value {
        let (method, path) = call.split_once(' ').unwrap();
        &self.0["paths"][path][method.to_lowercase()]
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        value["$ref"]
            .as_str()
            .map_or(value, |reference| self.0.pointer(reference.trim_start_matches('#')).unwrap())
    }

    /// Returns a validator for a schema of the description. If `closed`, it refuses members that
    /// the schema does not name.
    fn validator(&self, schema: &Value, closed: bool) -> Validator {
        let mut whole = json!({"allOf": [schema], "components": self.0["components"]});
        if closed {
            whole["unevaluatedProperties"] = false.into();
        }
        jsonschema::draft202012::options().should_validate_formats(true).build(&whole).unwrap()
    }

    fn takes(&self, call: &str, body: &Value) -> bool {
        let schema = &self.operation(call)["requestBody"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{call}");
        self.validator(schema, false).is_valid(body)
    }

    /// Asserts that a response has a described content type.
    fn check_type(&self, call: &str, response: &reqwest::Response) {
        let media_type = response.headers()["content-type"].to_str().unwrap();
        let content = &self.operation(call)["responses"]["200"]["content"];
        assert!(content[media_type].is_object(), "{call} answers {media_type}");
    }

    /// Asserts that an answer is described: its status, type, members and headers.
    #[track_caller]
    fn check(&self, call: &str, answer: &Answer) {
        let status = answer.status.as_str();
        let response = self.resolved(&self.operation(call)["responses"][status]);
        assert!(
            response.is_object(),
            "{call} is not described to answer {status}: {}",
            answer.body
        );
        let media_type = answer.headers["content-type"].to_str().unwrap();
        let schema = &response["content"][media_type]["schema"];
        assert!(schema.is_object(), "{call} is not described to answer {media_type}");
        if let Err(error) = self.validator(schema, true).validate(&answer.body) {
            panic!("{call}, {status}: {error} at {} in {}", error.instance_path(), answer.body);
        }
        for (name, header) in response["headers"].as_object().unwrap() {
            let is_required = self.resolved(header)["required"] == true;
            assert!(!is_required || answer.headers.contains_key(name), "{call} lacks {name}");
        }
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn the_committed_description_is_the_one_that_is_served() {
    let service = Service::embedded().await;
    let Description(served) = Description::of(&service).await;
    let served = serde_json::to_string_pretty(&served).unwrap() + "\n";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if std::env::var_os(RENEW).is_some() {
        fs::write(&file, &served).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        served == committed,
        "the description has changed: `{RENEW}=1 cargo test --test it openapi` writes it to \
         docs/openapi.json; look at the difference, and commit it"
    );
}

#[tokio::test]
async fn the_description_has_the_calls_of_the_document_and_no_others() {
    let service = Service::embedded().await;
    let described = Description::of(&service).await.calls();
    let documented: BTreeSet<_> =
        access::described_calls().into_iter().map(str::to_owned).collect();
    assert_eq!(described, documented);
}

#[tokio::test]
async fn every_type_of_problem_is_explained_at_its_address() {
    let service = Service::embedded().await;
    let description = Description::of(&service).await;
    let properties = &description.0["components"]["schemas"]["ProblemKind"]["properties"];
    let types = properties["type"]["enum"].as_array().unwrap();
    let titles = properties["title"]["enum"].as_array().unwrap();
    assert!(types.len() > 10);
    for (address, title) in types.iter().zip(titles) {
        let request = service.request(Method::GET, address.as_str().unwrap());
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{address}");
        description.check_type("GET /problems/{name}", &response);
        let text = response.text().await.unwrap();
        assert!(text.starts_with(title.as_str().unwrap()), "{text}");
        assert!(text.contains("What to do: "), "{text}");
    }
    for nothing in ["/problems/no-such", "/problems/%FF", "/problems/"] {
        service.get(nothing).await.problem(404);
    }
}

#[tokio::test]
async fn the_page_to_try_the_api_loads_nothing_from_other_sites() {
    let service = Service::embedded().await;
    let page = service.request(Method::GET, "/docs").send().await.unwrap();
    Description::of(&service).await.check_type("GET /docs", &page);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for source in policy.split(';').flat_map(|rule| rule.split_whitespace().skip(1)) {
        assert!(["'none'", "'self'", "'unsafe-inline'", "data:"].contains(&source), "{source}");
    }
    let page = page.text().await.unwrap();
    let parts: Vec<&str> = page
        .split(['"', '\''])
        .filter(|text| text.starts_with("docs/") || text.contains("//"))
        .collect();
    assert_eq!(parts.len(), 5, "{parts:?}");
    for part in parts {
        let response = service.request(Method::GET, &format!("/{part}")).send().await.unwrap();
        assert_eq!(response.status(), 200, "{part}");
        assert!(!response.bytes().await.unwrap().is_empty());
    }
    let settings = service.request(Method::GET, "/docs/swagger-initializer.js");
    let settings = settings.send().await.unwrap().text().await.unwrap();
    assert!(settings.contains("\"url\": \"openapi.json\""), "{settings}");
    assert!(settings.contains("\"validatorUrl\": \"none\""), "{settings}");
    service.get("/docs/no-such").await.problem(404);
}

/// Returns valid and invalid bodies for each call.
fn bodies() -> Vec<(&'static str, Value)> {
    let key = key_of("HighCPU").to_string();
    let long = "x".repeat(4_001);
    let now = wall_clock().to_string();
    let occurrences = [
        json!({"alert_name": "HighCPU"}),
        json!({"alertname": "HighCPU", "pod": "api-1", "labels": {"a": [1]}}),
        json!({"alert_name": "", "alertname": "HighCPU"}),
        json!({"alert_name": "", "job": "api"}),
        json!({"alert_name": "HighCPU", "alertname": 7}),
        json!({"alert_name": "HighCPU", "job": 7}),
        json!({"alert_name": null}),
        json!({"service": 7}),
        json!({}),
        json!(null),
        json!("HighCPU"),
        json!([]),
        json!([{"alert_name": "HighCPU"}, 7]),
        json!(vec![json!({"reason": "OOM"}); 1_001]),
        json!({"alert_name": "HighCPU", "event_id": null, "occurred_at": null}),
        json!({"alert_name": "HighCPU", "event_id": "a b~"}),
        json!({"alert_name": "HighCPU", "event_id": ""}),
        json!({"alert_name": "HighCPU", "event_id": "\u{e9}"}),
        json!({"alert_name": "HighCPU", "event_id": "x".repeat(129)}),
        json!({"alert_name": "HighCPU", "occurred_at": now}),
        json!({"alert_name": "HighCPU", "occurred_at": "yesterday"}),
    ];
    let repairs = [
        json!({"anomaly_key": key, "action": "restart", "success": true}),
        json!({"anomaly_key": key, "action": "restart", "success": true, "event_id": null}),
        json!({"anomaly_key": key, "action": "restart", "success": null}),
        json!({"anomaly_key": key, "action": "restart"}),
        json!({"anomaly_key": key, "action": "", "success": true}),
        json!({"anomaly_key": key, "action": "re\nstart", "success": true}),
        json!({"anomaly_key": key, "action": "\u{e9}".repeat(200), "success": true}),
        json!({"anomaly_key": key, "action": "\u{e9}".repeat(201), "success": true}),
        json!({"anomaly_key": key, "action": "restart", "success": true, "by": "me"}),
        json!({"anomaly_key": "HIGHCPU", "action": "restart", "success": true}),
    ];
    let fixes = [
        json!({"anomaly_key": key, "fix_description": "more\nmemory"}),
        json!({"anomaly_key": key, "fix_description": "more memory", "fixed_by": null}),
        json!({"anomaly_key": key, "fix_description": "more memory", "fixed_by": " "}),
        json!({"anomaly_key": key, "fix_description": null}),
        json!({"anomaly_key": key, "fix_description": "\u{2003}\t"}),
        json!({"anomaly_key": key, "fix_description": "more\u{0}memory"}),
        json!({"anomaly_key": key, "fix_description": long}),
        json!({"anomaly_key": key, "fix_description": "more memory", "why": "so"}),
    ];
    let removals = [
        json!({}),
        json!({"removed_by": "ana", "reason": "it came\nback"}),
        json!({"removed_by": null, "reason": null}),
        json!({"removed_by": " "}),
        json!({"reason": 7}),
        json!({"reason": long}),
        json!({"why": "so"}),
        json!(null),
        json!([]),
    ];
    let deliveries = [
        json!({"alerts": []}),
        json!({"alerts": [{"status": "firing"}, 7], "truncatedAlerts": "many"}),
        json!({"alerts": {}}),
        json!({"version": "4"}),
        json!([]),
    ];
    let calls = [
        ("POST /anomalies", occurrences.to_vec()),
        ("POST /repairs", repairs.to_vec()),
        ("PUT /permanent-fix", fixes.to_vec()),
        ("DELETE /permanent-fix/{key}", removals.to_vec()),
        ("POST /webhooks/alertmanager", deliveries.to_vec()),
    ];
    calls
        .into_iter()
        .flat_map(|(call, bodies)| bodies.into_iter().map(move |b| (call, b)))
        .collect()
}

#[tokio::test]
async fn the_service_accepts_the_described_bodies_and_no_others() {
    let service = Service::embedded().await;
    let description = Description::of(&service).await;
    for (call, body) in bodies() {
        let (method, path) = call.split_once(' ').unwrap();
        let path = &path.replace("{key}", &key_of("HighCPU").to_string());
        let request = service.request(method.parse().unwrap(), path).json(&body);
        let answer = Answer::of(request).await;
        description.check(call, &answer);
        let is_taken = answer.status.is_success();
        assert_eq!(description.takes(call, &body), is_taken, "{call} {body}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_answers_are_as_described() {
    let service = Service::embedded().await;
    let description = Description::of(&service).await;
    let key = key_of("HighCPU");
    for (call, body) in bodies() {
        let (method, path) = call.split_once(' ').unwrap();
        let path = &path.replace("{key}", &key_of("HighCPU").to_string());
        Answer::of(service.request(method.parse().unwrap(), path).json(&body)).await;
    }
    let now = wall_clock().to_string();
    let delivery = json!({"alerts": [
        {"status": "firing", "labels": {"alertname": "HighCPU"}, "startsAt": now},
        {"status": "resolved", "fingerprint": "a", "labels": {"alertname": "HighCPU"}},
        {"status": "gone"},
    ]});
    let delivered = service.post("/webhooks/alertmanager", &delivery).await;
    assert_eq!(delivered.body["counted"], 1);
    assert_eq!(delivered.body["failed"], 1);
    description.check("POST /webhooks/alertmanager", &delivered);
    for (path, described) in [
        (format!("/anomalies/{key}"), "GET /anomalies/{key}"),
        ("/anomalies/0000000000000000".to_owned(), "GET /anomalies/{key}"),
        ("/anomalies/HighCPU".to_owned(), "GET /anomalies/{key}"),
        (format!("/anomalies/{key}/frequency"), "GET /anomalies/{key}/frequency"),
        ("/anomalies/lookup?alertname=HighCPU".to_owned(), "GET /anomalies/lookup"),
        ("/anomalies/lookup?alertname=Other".to_owned(), "GET /anomalies/lookup"),
        ("/anomalies/lookup".to_owned(), "GET /anomalies/lookup"),
        (format!("/anomalies/{key}/history?window=7d"), "GET /anomalies/{key}/history"),
        (format!("/anomalies/{key}/history?step=1s"), "GET /anomalies/{key}/history"),
        (format!("/anomalies/{key}/repairs"), "GET /anomalies/{key}/repairs"),
        (format!("/anomalies/{key}/repairs/a"), "GET /anomalies/{key}/repairs/{action}"),
        (
            format!("/anomalies/{key}/repairs/a?min_success_rate=2"),
            "GET /anomalies/{key}/repairs/{action}",
        ),
        ("/rules".to_owned(), "GET /rules"),
        ("/healthz".to_owned(), "GET /healthz"),
        ("/readyz".to_owned(), "GET /readyz"),
        ("/spool/dead-letters".to_owned(), "GET /spool/dead-letters"),
    ] {
        let answer = service.get(&path).await;
        description.check(described, &answer);
    }
    for sequence in ["17", "first", "%FF"] {
        let path = format!("/spool/dead-letters/{sequence}");
        let dropped = service.delete(&path).await;
        description.check("DELETE /spool/dead-letters/{sequence}", &dropped);
        let retried = service.post(&format!("{path}/retry"), &json!({})).await;
        description.check("POST /spool/dead-letters/{sequence}/retry", &retried);
    }
    let unmarked = service.delete(&format!("/permanent-fix/{key}")).await;
    description.check("DELETE /permanent-fix/{key}", &unmarked);
    let audit = service.get(&format!("/anomalies/{key}/audit")).await;
    assert!(audit.body["entries"].as_array().unwrap().len() >= 3, "{}", audit.body);
    description.check("GET /anomalies/{key}/audit", &audit);
    description.check("POST /anomalies", &service.post_raw("/anomalies", "{").await);
    let form = service.request(Method::POST, "/anomalies").body("a=b");
    description.check("POST /anomalies", &Answer::of(form).await);
    for key in [key.to_string(), "HighCPU".to_owned(), key.to_string()] {
        let forgotten = service.delete(&format!("/anomalies/{key}")).await;
        description.check("DELETE /anomalies/{key}", &forgotten);
    }
    let rebound = service.request(Method::GET, "/readyz").header("host", "evil.example");
    description.check("GET /readyz", &Answer::of(rebound).await);
}

#[tokio::test]
async fn the_answers_about_mapped_fields_are_as_described() {
    let service = Service::with(&[("KEY__KUBERNETES", "true")]).await;
    let description = Description::of(&service).await;
    let labels = json!({"alertname": "A", "job": "kube-state-metrics", "pod": "cart-0"});
    for body in [labels.clone(), json!([labels])] {
        let posted = service.post("/anomalies", &body).await;
        assert!(posted.body.to_string().contains("\"mapped\":true"), "{}", posted.body);
        description.check("POST /anomalies", &posted);
    }
    let mut long = labels;
    long["exported_service"] = "x".repeat(2_000).into();
    let delivery = json!({"alerts": [{"status": "firing", "labels": long}]});
    let delivered = service.post("/webhooks/alertmanager", &delivery).await;
    assert_eq!(delivered.body["alerts"][0]["mapped"], true);
    assert_eq!(delivered.body["alerts"][0]["cut_labels"], json!(["exported_service"]));
    description.check("POST /webhooks/alertmanager", &delivered);
}

#[tokio::test]
async fn the_answers_are_as_described_in_an_outage_and_without_a_token() {
    let mut redis = RedisServer::start();
    redis.kill();
    let service = Service::on_redis(&redis).await;
    let description = Description::of(&service).await;
    let frequency = format!("/anomalies/{}/frequency", key_of("HighCPU"));
    description.check("GET /anomalies/{key}/frequency", &service.get(&frequency).await);
    let posted = service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await;
    assert_eq!(posted.status, 202);
    description.check("POST /anomalies", &posted);
    description.check("GET /anomalies/{key}/frequency", &service.get(&frequency).await);
    description.check("GET /readyz", &service.get("/readyz").await);

    let guarded = access::guarded().await;
    description.check("GET /anomalies/{key}/frequency", &guarded.get(&frequency).await);
    let forbidden = guarded.request(Method::GET, &frequency).bearer_auth("ingest");
    description.check("GET /anomalies/{key}/frequency", &Answer::of(forbidden).await);
}

#[tokio::test]
async fn prefilled_examples_count_each_time_and_are_about_one_anomaly() {
    let service = Service::embedded().await;
    let description = Description::of(&service).await;
    // The page fills in the examples of headers, of parameters and of bodies.
    let mut headers = 0;
    for call in description.calls() {
        let (_, path) = call.split_once(' ').unwrap();
        let own = description.operation(&call)["parameters"].as_array();
        let shared = description.0["paths"][path]["parameters"].as_array();
        for parameter in own.into_iter().chain(shared).flatten() {
            let parameter = description.resolved(parameter);
            if parameter["in"] == "header" {
                headers += 1;
                let schema = description.resolved(&parameter["schema"]).to_string();
                assert_eq!(parameter["example"], Value::Null, "{call}: {parameter}");
                assert!(!schema.contains("\"example\""), "{call}: {schema}");
            }
        }
    }
    assert!(headers > 10);
    let schemas = &description.0["components"]["schemas"];
    let occurrence = &schemas["Occurrence"]["example"];
    let key = schemas["AnomalyKey"]["example"].as_str().unwrap();
    for count in 1..=2 {
        let counted = service.post("/anomalies", occurrence).await.ok();
        assert_eq!(counted["anomaly_key"], key);
        assert_eq!(counted["count_1h"], count);
        let repair = service.post("/repairs", &schemas["RepairToReport"]["example"]).await.ok();
        assert_eq!(repair["counted"], true);
        assert_eq!(repair["auto_repair_count"], count);
    }
    let delivery = &schemas["Delivery"]["example"];
    let delivered = service.post("/webhooks/alertmanager", delivery).await.ok();
    assert_eq!(delivered["counted"], 1, "{delivered}");
    assert_eq!(service.get(&format!("/anomalies/{key}/frequency")).await.ok()["count_1h"], 3);
}
