//! `GET /anomalies` and `GET /summary` over HTTP: parameters, pages, conditional requests, and the
//! problems of invalid queries.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, RedisServer, Service, eventually, key_of, wall_clock};

/// Starts a service on each store.
async fn services(redis: &RedisServer) -> [Service; 2] {
    [Service::embedded().await, complete(Service::on_redis(redis).await).await]
}

/// Waits until the lists of a service are about all anomalies.
async fn complete(service: Service) -> Service {
    eventually("the list is complete", || async {
        (service.get("/anomalies?limit=1").await.ok()["complete"] == true).then_some(())
    })
    .await;
    service
}

/// Posts occurrences of an anomaly.
async fn post(service: &Service, name: &str, more: &Value, times: usize) {
    let mut occurrence = json!({"alert_name": name});
    for (field, value) in more.as_object().unwrap() {
        occurrence[field] = value.clone();
    }
    let occurrences = vec![occurrence; times];
    service.post("/anomalies", &json!(occurrences)).await.ok();
}

/// Records three anomalies: one at each of two levels, and one without.
async fn seed(service: &Service) {
    post(service, "HighCPU", &json!({"job": "api", "namespace": "shop", "pod": "api-1"}), 10).await;
    post(service, "KafkaLag", &json!({"service": "worker", "namespace": "data"}), 3).await;
    post(service, "DiskFull", &json!({"service": "db", "reason": "NoSpace"}), 1).await;
}

fn names(list: &Value) -> Vec<&str> {
    let anomalies = list["anomalies"].as_array().unwrap().iter();
    anomalies.map(|one| one["signature"]["alert_name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_worst_anomalies_come_first_and_an_item_equals_the_anomaly() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        seed(&service).await;
        let list = service.get("/anomalies").await.ok();
        assert_eq!(names(&list), ["HighCPU", "KafkaLag", "DiskFull"]);
        assert_eq!(list["total"], 3);
        assert_eq!(list["total_exact"], true);
        assert_eq!(list["complete"], true);
        assert_eq!(list["ranking"], "exact");
        assert_eq!(list["degraded"], false);
        assert_eq!(list["next_cursor"], Value::Null);
        assert!(list.as_object().unwrap().contains_key("next_cursor"), "null is the end");
        assert!(list["as_of"].as_str().unwrap().ends_with('Z'));

        let item = &list["anomalies"][0];
        let anomaly = service
            .get(&format!("/anomalies/{}", item["anomaly_key"].as_str().unwrap()))
            .await
            .ok();
        for member in ["anomaly_key", "signature", "frequency"] {
            assert_eq!(item[member], anomaly[member], "{member}");
        }
        assert_eq!(item["fixed_at"], Value::Null);
        assert_eq!(item["signature"]["service"], "api");
        assert_eq!(item["frequency"]["escalation_level"], "PERMANENT_FIX");
        assert!(item.get("series").is_none());
    }
}

#[tokio::test]
async fn each_parameter_selects() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        seed(&service).await;
        let key = key_of("x").to_string();
        let repair = json!({"anomaly_key": key, "action": "restart", "success": true});
        post(&service, "x", &json!({}), 1).await;
        service.post("/repairs", &repair).await.ok();
        service
            .put("/permanent-fix", &json!({"anomaly_key": key, "fix_description": "y"}))
            .await
            .ok();
        let now = wall_clock();
        let hour_ago = now.minus_seconds(3_600);
        let prefix = &key[..6];
        for (query, expected) in [
            ("alert_name=HighCPU", vec!["HighCPU"]),
            ("alertname=HighCPU&alert_name=KafkaLag", vec!["HighCPU", "KafkaLag"]),
            ("alert_name=highcpu", vec![]),
            ("alert_name=high*", vec!["HighCPU"]),
            ("job=api", vec!["HighCPU"]),
            ("service=*b", vec!["DiskFull"]),
            ("namespace=", vec!["DiskFull", "x"]),
            ("reason=NoSpace", vec!["DiskFull"]),
            ("namespace=shop&namespace=data", vec!["HighCPU", "KafkaLag"]),
            ("namespace=shop&service=worker", vec![]),
            ("q=cpu+SHOP", vec!["HighCPU"]),
            ("q=cpu+data", vec![]),
            (&format!("q={prefix}"), vec!["x"]),
            ("level=PERMANENT_FIX", vec!["HighCPU"]),
            ("level=REPEAT,none", vec!["KafkaLag", "DiskFull", "x"]),
            ("level=REPEAT&level=PERMANENT_FIX", vec!["HighCPU", "KafkaLag"]),
            ("min_level=REPEAT", vec!["HighCPU", "KafkaLag"]),
            ("fixed=true", vec!["x"]),
            ("fixed=false", vec!["HighCPU", "KafkaLag", "DiskFull"]),
            ("regressed=true", vec![]),
            ("repaired=true", vec!["x"]),
            ("min_count_24h=3", vec!["HighCPU", "KafkaLag"]),
            ("min_count_30d=4", vec!["HighCPU"]),
            (
                "last_seen_after=1h&first_seen_after=90m",
                vec!["HighCPU", "KafkaLag", "DiskFull", "x"],
            ),
            ("last_seen_before=1h", vec![]),
            (&format!("first_seen_before={hour_ago}"), vec![]),
            (&format!("last_seen_after={hour_ago}&limit=1"), vec!["HighCPU"]),
        ] {
            let list = service.get(&format!("/anomalies?{query}")).await.ok();
            let mut found = names(&list);
            // Equal counts come in the order of the keys.
            found.sort_by_key(|name| {
                ["HighCPU", "KafkaLag", "DiskFull", "x"].iter().position(|n| n == name)
            });
            assert_eq!(found, expected, "{query}");
            if !query.contains("limit") {
                assert_eq!(list["total"], expected.len(), "{query}");
            }
        }
    }
}

#[tokio::test]
async fn pages_follow_the_cursor_and_the_link_to_the_end() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        for number in 0..25 {
            post(&service, &format!("alert {number}"), &json!({}), number % 4 + 1).await;
        }
        for sort in ["count_24h", "last_seen", "key", "first_seen&order=asc", "key&order=desc"] {
            let (mut path, mut listed) =
                (format!("/anomalies?sort={sort}&limit=10&q=alert"), vec![]);
            for page in 1..=3 {
                let answer = service.get(&path).await;
                let link = answer.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
                let list = answer.ok();
                assert_eq!(list["total"], 25, "{sort}");
                listed.extend(names(&list).into_iter().map(str::to_owned));
                let cursor = list["next_cursor"].as_str();
                assert_eq!(cursor.is_none(), page == 3, "{sort}, page {page}");
                assert_eq!(link.is_none(), page == 3, "{sort}, page {page}");
                let Some(link) = link else { break };
                let (target, relation) = link.split_once('>').unwrap();
                assert_eq!(relation, "; rel=\"next\"");
                path = target.trim_start_matches('<').to_owned();
                assert!(path.contains(cursor.unwrap()), "{path}");
            }
            listed.sort_unstable();
            listed.dedup();
            assert_eq!(listed.len(), 25, "each once, by {sort}");
        }
    }
}

#[tokio::test]
async fn a_series_adds_up_to_the_count() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        for hours in [0, 0, 5, 23, 30, 100] {
            let at = wall_clock().minus_seconds(hours * 3_600 + 60);
            post(&service, "HighCPU", &json!({"occurred_at": at.to_string()}), 1).await;
        }
        for (series, length, last, sum) in [("24h", 24, 2, 4), ("7d", 28, 3, 6)] {
            let list = service.get(&format!("/anomalies?series={series}")).await.ok();
            let numbers: Vec<u64> =
                serde_json::from_value(list["anomalies"][0]["series"].clone()).unwrap();
            assert_eq!(numbers.len(), length);
            assert_eq!(numbers.iter().sum::<u64>(), sum);
            assert_eq!(numbers[length - 1], last, "the newest are at the end");
        }
    }
}

#[tokio::test]
async fn an_answer_that_differs_only_in_its_time_is_not_sent_again() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        seed(&service).await;
        for path in ["/anomalies?sort=key", "/summary?by=namespace"] {
            let first = service.get(path).await;
            let tag = first.headers["etag"].to_str().unwrap().to_owned();
            assert!(tag.starts_with("W/\""), "{tag}");
            assert_eq!(first.headers["cache-control"], "private, no-cache");
            let again = |tag: &str| {
                let request =
                    service.request(Method::GET, path).header("if-none-match", tag.to_owned());
                async { request.send().await.unwrap() }
            };
            for had in [&*tag, tag.trim_start_matches("W/"), &format!("\"x\", {tag}"), "*"] {
                let answer = again(had).await;
                assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{had}");
                assert_eq!(answer.headers()["etag"], tag);
                assert!(answer.bytes().await.unwrap().is_empty());
            }
            assert_eq!(again("\"x\"").await.status(), StatusCode::OK);
            post(&service, "HighCPU", &json!({"job": "api", "namespace": "shop"}), 1).await;
            assert_eq!(again(&tag).await.status(), StatusCode::OK, "something has happened");
        }
    }
}

#[tokio::test]
async fn an_invalid_query_is_a_problem_that_names_the_parameter() {
    let service = Service::embedded().await;
    seed(&service).await;
    let list = service.get("/anomalies?limit=1").await.ok();
    let cursor = list["next_cursor"].as_str().unwrap();
    let many = vec!["service=a"; 17].join("&");
    for (query, field) in [
        ("limits=1", "limits"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort=name", "sort"),
        ("order=asc", "order"),
        ("sort=key&order=up", "order"),
        ("level=HIGH", "level"),
        ("min_level=none", "min_level"),
        ("fixed=1", "fixed"),
        ("last_seen_after=yesterday", "last_seen_after"),
        ("min_count_1h=-1", "min_count_1h"),
        ("series=1h", "series"),
        ("cursor=x", "cursor"),
        (&format!("cursor={cursor}&q=a"), "cursor"),
        (&format!("cursor={cursor}&sort=key"), "cursor"),
        (&format!("alert_name={}", "x".repeat(257)), "alert_name"),
        (&format!("q={}", "x".repeat(201)), "q"),
        (&many, "service"),
    ] {
        let answer = service.get(&format!("/anomalies?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.body["field"], field, "{query}: {}", answer.body);
    }
    for (query, field) in [("by=pod", "by"), ("top=0", "top"), ("sort=key", "sort")] {
        let answer = service.get(&format!("/summary?{query}")).await;
        answer.problem(422);
        assert_eq!(answer.body["field"], field, "{query}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_summary_counts_by_level_and_by_the_values_of_fields() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        seed(&service).await;
        post(&service, "Other", &json!({"namespace": "shop"}), 4).await;
        let summary = service.get("/summary?by=namespace,service&top=1").await.ok();
        assert_eq!(summary["anomalies"], 4);
        assert_eq!(summary["occurrences"]["count_24h"], 18);
        let levels = json!({"PERMANENT_FIX": 1, "ESCALATE": 0, "REPEAT": 2, "none": 1});
        assert_eq!(summary["levels"], levels);
        assert_eq!(summary["fixed"], 0);
        assert_eq!(summary["complete"], true);
        let shop = &summary["by"]["namespace"][0];
        assert_eq!(shop["value"], "shop");
        assert_eq!(shop["anomalies"], 2);
        assert_eq!(shop["count_24h"], 14);
        let rest = &summary["by"]["namespace"][1];
        assert_eq!(rest["value"], Value::Null);
        assert_eq!(rest["anomalies"], 2);
        assert_eq!(summary["by"]["service"].as_array().unwrap().len(), 2);

        let of_shop = service.get("/summary?namespace=shop").await.ok();
        assert_eq!(of_shop["anomalies"], 2);
        assert_eq!(of_shop["by"], json!({}));
    }
}

#[tokio::test]
async fn the_list_is_the_same_after_a_restart_and_lacks_forgotten_anomalies() {
    let redis = RedisServer::start();
    for service in services(&redis).await {
        seed(&service).await;
        let tag = |answer: &Answer| answer.headers["etag"].clone();
        let before = tag(&service.get("/anomalies?namespace=*&sort=key").await);
        let service = complete(service.restart().await).await;
        let after = tag(&service.get("/anomalies?namespace=*&sort=key").await);
        assert_eq!(before, after);
        let listed = service.get("/anomalies?alert_name=KafkaLag").await.ok();
        let key = listed["anomalies"][0]["anomaly_key"].as_str().unwrap();
        service.delete(&format!("/anomalies/{key}")).await.ok();
        let list = service.get("/anomalies?namespace=*").await.ok();
        assert_eq!(names(&list), ["HighCPU", "DiskFull"]);
    }
}
