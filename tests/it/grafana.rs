//! The dashboard of anomalies: its queries, run as Grafana's data source Infinity runs them, return
//! values of the types that their columns declare.
//!
//! The behaviour of Infinity is taken from its source (3.11.1): selectors are paths of names
//! (gjson), a null or empty cursor means the last page, an absent cursor is an error, one page more
//! than `pagination_max_pages` is read, and pages must have the same columns.

use std::collections::{BTreeMap, BTreeSet};

use anomaly_counter::{auth::TokenDigest, domain::Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Service, wall_clock};

const DATA_SOURCE: &str =
    include_str!("../../deploy/grafana/provisioning/datasources/anomaly-counter.yaml");

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../../deploy/grafana/anomalies.json")).unwrap()
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Returns the queries of the panels, the variables and the annotations, by the names of these.
fn queries(dashboard: &Value) -> Vec<(&str, &Value)> {
    let mut queries = Vec::new();
    for panel in array(&dashboard["panels"]) {
        let targets = array(&panel["targets"]);
        queries.extend(targets.iter().map(|target| (text(&panel["title"]), target)));
    }
    for variable in array(&dashboard["templating"]["list"]) {
        if variable["type"] == "query" {
            queries.push((text(&variable["name"]), &variable["query"]["infinityQuery"]));
        }
    }
    for annotation in array(&dashboard["annotations"]["list"]) {
        queries.push((text(&annotation["name"]), &annotation["target"]));
    }
    queries
}

/// The values of the dashboard's variables, and of the times of its range.
struct Variables {
    anomaly: String,
    search: &'static str,
    from: Timestamp,
    to: Timestamp,
}

impl Variables {
    /// Creates the values for the last 7 days, by the clock of a browser that is a few seconds
    /// ahead.
    fn new(anomaly: &str, search: &'static str) -> Self {
        let now = wall_clock();
        let (from, to) = (now.minus_seconds(7 * 86_400), now.minus_seconds(-5));
        Self { anomaly: anomaly.to_owned(), search, from, to }
    }

    fn put_into(&self, text: &str) -> String {
        let text = text
            .replace("${__timeFrom:date:iso}", &self.from.to_string())
            .replace("${__timeTo:date:iso}", &self.to.to_string())
            .replace("$anomaly", &self.anomaly)
            .replace("$search", self.search);
        assert!(!text.contains('$'), "an unknown variable: {text}");
        text
    }
}

/// Returns the value that a selector selects; `None` if it is absent.
fn selected<'a>(value: &'a Value, selector: &str) -> Option<&'a Value> {
    if selector.is_empty() {
        return Some(value);
    }
    selector.split('.').try_fold(value, |value, name| value.get(name))
}

/// Returns the rows of an answer, as values by the titles of the columns. Absent values are null.
fn rows(query: &Value, answer: &Value) -> Vec<BTreeMap<String, Value>> {
    let selector = text(&query["root_selector"]);
    let root = selected(answer, selector);
    let root = root.unwrap_or_else(|| panic!("no {selector:?} in {answer}"));
    let rows = root.as_array().cloned().unwrap_or_else(|| vec![root.clone()]);
    let columns = array(&query["columns"]);
    let row = |row: &Value| {
        let value = |column: &Value| selected(row, text(&column["selector"])).cloned();
        columns
            .iter()
            .map(|column| (text(&column["text"]).to_owned(), value(column).unwrap_or_default()))
            .collect()
    };
    rows.iter().map(row).collect()
}

/// Runs a query, and returns its rows and the number of its pages.
async fn run(
    service: &Service,
    query: &Value,
    variables: &Variables,
) -> (Vec<BTreeMap<String, Value>>, usize) {
    for (member, expected) in [("type", "json"), ("source", "url"), ("parser", "backend")] {
        assert_eq!(query[member], expected, "{query}");
    }
    assert_eq!(query["url_options"]["method"], "GET");
    let path = variables.put_into(text(&query["url"]));
    let is_paged = query["pagination_mode"] == "cursor";
    let max_pages = query["pagination_max_pages"].as_u64().unwrap_or(0) + 1;
    let (mut all, mut cursor) = (Vec::new(), None::<String>);
    for page in 1.. {
        let mut parameters = url::form_urlencoded::Serializer::new(String::new());
        for parameter in array(&query["url_options"]["params"]) {
            let value = variables.put_into(text(&parameter["value"]));
            parameters.append_pair(text(&parameter["key"]), &value);
        }
        if let Some(cursor) = &cursor {
            parameters
                .append_pair(text(&query["pagination_param_cursor_field_name"]), cursor.as_str());
        }
        let answer = service.get(&format!("{path}?{}", parameters.finish())).await.ok();
        let rows = rows(query, &answer);
        assert!(page == 1 || !rows.is_empty(), "an empty page has no columns");
        all.extend(rows);
        if is_paged {
            let extracted = text(&query["pagination_param_cursor_extraction_path"]);
            let next = selected(&answer, extracted).expect("the cursor is always there");
            cursor = next.as_str().map(str::to_owned);
        }
        if cursor.is_none() || page == max_pages {
            return (all, page as usize);
        }
    }
    unreachable!("there is a last page")
}

fn is_of_type(value: &Value, declared: &str) -> bool {
    match declared {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "timestamp" => value.as_str().is_some_and(|text| Timestamp::parse_rfc3339(text).is_ok()),
        _ => false,
    }
}

/// Records anomalies, one of which has everything that an anomaly may have. Returns its key.
async fn seed(service: &Service) -> String {
    let names = json!({"alert_name": "HighCPU", "service": "api", "namespace": "shop",
                       "error_type": "OOMKilled"});
    let answer = service.post("/anomalies", &json!(vec![&names; 12])).await.ok();
    let key = text(&answer[0]["anomaly_key"]).to_owned();
    let others = json!([{"alert_name": "KafkaLag", "namespace": "data"}, {"alert_name": "x"}]);
    service.post("/anomalies", &others).await.ok();
    let repair = json!({"anomaly_key": key, "action": "restart_pod", "success": false});
    service.post("/repairs", &repair).await.ok();
    let fix = json!({"anomaly_key": key, "fix_description": "raised the limit", "fixed_by": "ana"});
    service.put("/permanent-fix", &fix).await.ok();
    let removal = service.request(Method::DELETE, &format!("/permanent-fix/{key}"));
    let removal = removal.json(&json!({"reason": "too early"})).send().await.unwrap();
    assert_eq!(removal.status(), StatusCode::OK);
    service.put("/permanent-fix", &fix).await.ok();
    let alert = json!({"status": "firing", "startsAt": wall_clock().to_string(),
                       "labels": {"alertname": "HighCPU", "service": "api", "namespace": "shop",
                                  "reason": "OOMKilled"}});
    let delivered = service.post("/webhooks/alertmanager", &json!({"alerts": [alert]})).await.ok();
    assert_eq!(delivered["alerts"][0]["anomaly_key"], *key);
    key
}

#[tokio::test]
async fn each_column_of_each_query_has_values_of_its_type() {
    let service = Service::embedded().await;
    let key = seed(&service).await;
    let dashboard = dashboard();
    let queries = queries(&dashboard);
    assert!(queries.len() > 10, "{queries:?}");
    for search in ["", "shop HIGH"] {
        let variables = Variables::new(&key, search);
        let mut found = BTreeMap::new();
        for (name, query) in &queries {
            let (rows, _) = run(&service, query, &variables).await;
            for column in array(&query["columns"]) {
                let (title, declared) = (text(&column["text"]), text(&column["type"]));
                let values = rows.iter().map(|row| &row[title]).filter(|value| !value.is_null());
                let values: Vec<_> = values.collect();
                assert!(!values.is_empty(), "{name}: no row has a {title}: {rows:?}");
                let wrong = values.iter().find(|value| !is_of_type(value, declared));
                assert_eq!(wrong, None, "{name}: {title} is no {declared}");
            }
            found.insert(*name, rows);
        }
        let alerts = |panel: &str| -> Vec<_> {
            found[panel].iter().map(|row| text(&row["Alert"]).to_owned()).collect()
        };
        assert_eq!(alerts("Worst now").len(), if search.is_empty() { 3 } else { 1 });
        assert_eq!(alerts("Worst now")[0], "HighCPU");
        assert_eq!(alerts("Firing"), ["HighCPU"]);
        assert_eq!(alerts("Came back after a fix"), ["HighCPU"]);
        assert_eq!(found["Now"][0]["PERMANENT_FIX"], 1);
        let occurrences = found["History"].iter().map(|row| row["Occurrences"].as_u64().unwrap());
        assert_eq!(occurrences.sum::<u64>(), 13);
    }
}

#[tokio::test]
async fn a_query_of_many_anomalies_goes_through_all_pages() {
    let service = Service::embedded().await;
    let anomalies: Vec<_> = (0..450).map(|n| json!({"alert_name": format!("a{n}")})).collect();
    service.post("/anomalies", &json!(anomalies)).await.ok();
    let dashboard = dashboard();
    let choice = queries(&dashboard).into_iter().find(|(name, _)| *name == "anomaly").unwrap().1;
    let (rows, pages) = run(&service, choice, &Variables::new("", "")).await;
    assert_eq!(pages, 3);
    let keys: BTreeSet<_> = rows.iter().map(|row| text(&row["__value"])).collect();
    assert_eq!((rows.len(), keys.len()), (450, 450));
}

#[test]
fn panels_name_existing_columns_and_variables() {
    let dashboard = dashboard();
    let uid = text(&dashboard["uid"]);
    let variables = array(&dashboard["templating"]["list"]).iter();
    let variables: BTreeSet<_> = variables.map(|variable| text(&variable["name"])).collect();
    for panel in array(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        let columns = array(&panel["targets"][0]["columns"]).iter();
        let columns: BTreeSet<_> = columns.map(|column| text(&column["text"])).collect();
        for transformation in panel["transformations"].as_array().into_iter().flatten() {
            let ordered = transformation["options"]["indexByName"].as_object().unwrap();
            assert_eq!(ordered.keys().map(String::as_str).collect::<BTreeSet<_>>(), columns);
        }
        for overridden in array(&panel["fieldConfig"]["overrides"]) {
            let name = text(&overridden["matcher"]["options"]);
            assert!(columns.contains(name), "{title}: {name}");
            let properties = array(&overridden["properties"]).iter();
            let links = properties.filter(|property| property["id"] == "links");
            for link in links.flat_map(|property| array(&property["value"])) {
                let target = text(&link["url"]);
                let is_own = target.starts_with(&format!("/d/{uid}?"));
                assert!(is_own || target.starts_with("${page:raw}/?anomaly="), "{target}");
                for variable in target.split(['$', '&']).filter_map(|part| part.strip_prefix('{')) {
                    let name = variable.split(['}', ':', '.']).next().unwrap();
                    let is_known = variables.contains(name) || name.starts_with("__");
                    assert!(is_known, "{target}: {name}");
                }
                for part in target.split("${__data.fields.").skip(1) {
                    let field = part.split(['}', ':']).next().unwrap();
                    assert!(columns.contains(field), "{title}: {field}");
                }
            }
        }
    }
}

#[test]
fn the_compose_file_has_the_plugin_the_data_source_and_the_dashboard() {
    let dashboard = dashboard();
    let source = &dashboard["panels"][0]["datasource"];
    let queries = queries(&dashboard);
    assert!(queries.iter().all(|(_, query)| query["datasource"] == *source));
    for member in ["type", "uid"] {
        let line = format!("    {member}: {}\n", text(&source[member]));
        assert!(DATA_SOURCE.contains(&line), "{line}");
    }
    let compose = include_str!("../../deploy/compose.yaml");
    let plugin = format!("GF_PLUGINS_PREINSTALL_SYNC: {}@", text(&source["type"]));
    for named in [&plugin, "./grafana/provisioning:", "./grafana/anomalies.json:"] {
        assert!(compose.contains(named), "{named}");
    }
}

#[tokio::test]
async fn the_data_source_is_admitted_with_its_token_and_without_one_if_none_is_required() {
    let tokens = format!(
        "[[tokens]]\nname = \"grafana\"\nsha256 = \"{}\"\nscopes = [\"read\"]\n",
        TokenDigest::of("t0ken")
    );
    let guarded =
        Service::with_files("auth.file = \"tokens.toml\"", &[("tokens.toml", &tokens)]).await;
    let open = Service::embedded().await;
    let value_of = |name: &str| {
        let line = DATA_SOURCE.lines().find_map(|line| line.trim().strip_prefix(name));
        line.unwrap().trim_start_matches(": ").to_owned()
    };
    let (path, header) = (value_of("customHealthCheckUrl"), value_of("httpHeaderValue1"));
    for (service, token, expected) in
        [(&open, "", 200), (&guarded, "t0ken", 200), (&guarded, "", 401)]
    {
        let request = service.request(Method::GET, &path);
        let authorization = header.replace("$ANOMALY_COUNTER_TOKEN", token);
        let request = request.header(&value_of("httpHeaderName1"), authorization);
        assert_eq!(request.send().await.unwrap().status(), expected, "{token:?}");
    }
}
