//! Traces at a collector: a request's span, with its batch and the call to the store under it; and
//! no traces unless they are configured.

use std::{collections::BTreeMap, time::Duration};

use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Answer, Collector, DEADLINE, Proxy, RedisCluster, RedisServer, SentSpan, Service, Weather,
    eventually, key_of, silent_collector, traces_url, write_certificates,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// The kinds of spans in OTLP.
const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// Starts a service that soon sends its traces to `url`, with more environment variables.
async fn traced(url: &str, environment: &[(&str, &str)]) -> Service {
    let own = [("ANOMALY_COUNTER__TRACES__ENDPOINT", url), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    Service::with_environment(&[&own, environment].concat()).await
}

/// Posts occurrences with a `traceparent`, and returns the parts of `traceresponse`.
async fn post(service: &Service, traceparent: Option<&str>, names: &[&str]) -> Option<[String; 3]> {
    let bodies: Vec<_> = names.iter().map(|name| json!({"alert_name": name})).collect();
    let mut request = service.request(Method::POST, "/anomalies").json(&bodies);
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let answer = Answer::of(request).await;
    assert!(answer.status.is_success(), "{}", answer.body);
    traceresponse(&answer)
}

/// Returns the trace, the span and the flags in an answer's `traceresponse`.
fn traceresponse(answer: &Answer) -> Option<[String; 3]> {
    let parts: Vec<_> = answer.headers.get("traceresponse")?.to_str().unwrap().split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{parts:?}") };
    assert_eq!(version, "00");
    Some([trace, span, flags].map(str::to_owned))
}

/// Returns the one span under `parent`.
#[track_caller]
fn under<'a>(spans: &'a [SentSpan], parent: &str) -> &'a SentSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.parent == parent).collect();
    assert_eq!(found.len(), 1, "under {parent}: {spans:#?}");
    found[0]
}

fn lines_with(service: &Service, text: &str) -> usize {
    service.log().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_request_is_a_trace_from_its_caller_to_the_call_of_the_store() {
    let redis = RedisServer::start();
    let on_redis = ("ANOMALY_COUNTER__REDIS__URL", &*redis.url());
    for (environment, name, kind) in
        [(&[][..], "embedded record", INTERNAL), (&[on_redis][..], "EVALSHA record", CLIENT)]
    {
        let collector = Collector::start().await;
        let service = traced(&collector.url(), environment).await;
        let response = post(&service, Some(SAMPLED), &["HighCPU"; 3]).await.unwrap();
        let spans = collector.trace(TRACE, 3).await;

        let request = under(&spans, CALLER);
        assert_eq!(response, [TRACE, &request.id, "01"]);
        assert_eq!(request.name, "POST /anomalies");
        assert_eq!(request.kind, SERVER);
        for (attribute, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/anomalies"),
            ("url.path", "/anomalies"),
            ("http.response.status_code", "200"),
            ("client.address", "127.0.0.1"),
        ] {
            assert_eq!(request.attributes[attribute], value);
        }
        let batch = under(&spans, &request.id);
        assert_eq!(batch.name, "batch");
        assert_eq!(batch.kind, INTERNAL);
        assert_eq!(batch.attributes["anomaly_counter.items"], "3");
        let call = under(&spans, &batch.id);
        assert_eq!(call.name, name);
        assert_eq!(call.kind, kind);
        assert_eq!(call.attributes["db.operation.batch.size"], "3");
        let system = call.attributes.get("db.system.name").map(String::as_str);
        assert_eq!(system, (kind == CLIENT).then_some("redis"));
        for (outer, inner) in [(request, batch), (batch, call)] {
            assert!(outer.begun <= inner.begun, "{spans:#?}");
            assert!(inner.ended <= outer.ended, "{spans:#?}");
        }
        assert!(call.begun < call.ended, "{spans:#?}");
        assert!(!spans.iter().any(|span| span.is_error), "{spans:#?}");
        // The third occurrence within a day changes the level, which is logged.
        let line = format!(r#""trace_id":"{TRACE}""#);
        assert_eq!(lines_with(&service, &line), 1, "{}", service.log());
        assert!(service.log().contains(&request.attributes["anomaly_counter.request_id"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_share_a_batch_have_a_complete_trace_each() {
    const CALLS: usize = 40;
    let (redis, collector) = (RedisServer::start(), Collector::start().await);
    let network = Proxy::to(redis.port()).await;
    let on_redis = [
        ("ANOMALY_COUNTER__REDIS__URL", &*network.url()),
        ("ANOMALY_COUNTER__REDIS__COMMAND_TIMEOUT_MS", "8000"),
    ];
    let service = traced(&collector.url(), &on_redis).await;
    network.set(Weather::Slow(Duration::from_millis(300)));
    let posted = (0..CALLS).map(|_| post(&service, None, &["HighCPU"]));
    let mut batches = BTreeMap::new();
    for response in futures_util::future::join_all(posted).await {
        let [trace, span, _] = response.unwrap();
        let spans = collector.trace(&trace, 3).await;
        assert_eq!(under(&spans, "").id, span);
        let call = under(&spans, &under(&spans, &span).id);
        let size = call.attributes.get("db.operation.batch.size");
        let size = size.map_or(1, |size| size.parse().unwrap());
        batches.entry((call.begun, call.ended, size)).and_modify(|n| *n += 1).or_insert(1);
    }
    for ((.., size), calls) in &batches {
        assert_eq!(calls, size, "{batches:?}");
    }
    assert!(batches.len() < CALLS / 2, "nobody has shared a batch: {batches:?}");
}

#[tokio::test]
async fn on_a_cluster_an_array_has_a_batch_for_each_master() {
    let (cluster, collector) = (RedisCluster::of_masters(3).await, Collector::start().await);
    let on_cluster = [("ANOMALY_COUNTER__REDIS__URL", &*cluster.url())];
    let service = traced(&collector.url(), &on_cluster).await;
    let names: Vec<_> = (0..60).map(|n| format!("alert-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let [trace, span, _] = post(&service, None, &names).await.unwrap();
    let spans = collector.trace(&trace, 7).await;
    let batches: Vec<_> = spans.iter().filter(|batch| batch.parent == span).collect();
    let items = batches.iter().map(|batch| {
        let call = under(&spans, &batch.id);
        assert_eq!(batch.name, "batch");
        assert_eq!(call.name, "EVALSHA record");
        let items = &batch.attributes["anomaly_counter.items"];
        assert_eq!(&call.attributes["db.operation.batch.size"], items);
        items.parse::<usize>().unwrap()
    });
    assert_eq!(items.sum::<usize>(), 60, "{spans:#?}");
    assert_eq!(batches.len(), 3, "{spans:#?}");
}

#[tokio::test]
async fn calls_without_a_batch_are_under_their_request_too() {
    let (redis, collector) = (RedisServer::start(), Collector::start().await);
    let on_redis = [("ANOMALY_COUNTER__REDIS__URL", &*redis.url())];
    let key = key_of("HighCPU");
    for (environment, details, stats) in [
        (&[][..], "embedded dossier", &["embedded tally"][..]),
        (&on_redis[..], "EVALSHA dossier", &["batch", "EVALSHA tally"][..]),
    ] {
        let service = traced(&collector.url(), environment).await;
        let read = service.get(&format!("/anomalies/{key}")).await;
        read.problem(404);
        let [trace, span, _] = traceresponse(&read).unwrap();
        let spans = collector.trace(&trace, 2).await;
        let request = under(&spans, "");
        assert_eq!(request.id, span);
        assert_eq!(request.name, "GET /anomalies/{key}");
        assert_eq!(request.attributes["url.path"], format!("/anomalies/{key}"));
        assert!(!request.is_error, "a caller's own fault is none of the service");
        assert_eq!(under(&spans, &span).name, details);

        let read = service.get(&format!("/anomalies/{key}/frequency")).await;
        let [trace, mut above, _] = traceresponse(&read).unwrap();
        let spans = collector.trace(&trace, 1 + stats.len()).await;
        for name in stats {
            let span = under(&spans, &above);
            assert_eq!(span.name, *name);
            above = span.id.clone();
        }
    }
}

#[tokio::test]
async fn a_write_that_waits_has_the_failed_call_and_the_spool_in_its_trace() {
    let (mut redis, collector) = (RedisServer::start(), Collector::start().await);
    let on_redis = [("ANOMALY_COUNTER__REDIS__URL", &*redis.url())];
    let service = traced(&collector.url(), &on_redis).await;
    redis.kill();
    let [trace, span, _] = post(&service, None, &["HighCPU"]).await.unwrap();
    let spans = collector.trace(&trace, 4).await;
    let is_error: BTreeMap<_, _> = spans.iter().map(|s| (&*s.name, s.is_error)).collect();
    let expected =
        [("EVALSHA record", true), ("POST /anomalies", false), ("batch", true), ("spool", false)];
    assert_eq!(is_error, expected.into());
    let spooled = spans.iter().find(|span| span.name == "spool").unwrap();
    assert_eq!(spooled.parent, span);

    let refused = service.get(&format!("/anomalies/{}/audit", key_of("HighCPU"))).await;
    refused.problem(503);
    let [trace, ..] = traceresponse(&refused).unwrap();
    let spans = collector.trace(&trace, 1).await;
    assert!(spans[0].is_error, "{spans:?}");
    assert_eq!(spans[0].attributes["error.type"], "503");
}

#[tokio::test]
async fn callers_decide_for_their_requests_and_the_ratio_for_the_others() {
    let collector = Collector::start().await;
    let none = [("ANOMALY_COUNTER__TRACES__SAMPLE_RATIO", "0.0")];
    let service = traced(&collector.url(), &none).await;
    let [trace, _, flags] = post(&service, Some(NOT_SAMPLED), &["a"]).await.unwrap();
    assert_eq!(trace, TRACE, "the caller finds its trace all the same");
    assert_eq!(flags, "00");
    let [_, _, flags] = post(&service, None, &["b"]).await.unwrap();
    assert_eq!(flags, "00");
    let other = SAMPLED.replace(TRACE, "11111111111111111111111111111111");
    post(&service, Some(&other), &["c"]).await.unwrap();
    collector.trace("11111111111111111111111111111111", 3).await;

    let service = traced(&collector.url(), &[]).await;
    post(&service, Some(NOT_SAMPLED), &["a"]).await.unwrap();
    let [trace, _, flags] = post(&service, Some("00-malformed-01"), &["b"]).await.unwrap();
    assert_eq!(flags, "01");
    collector.trace(&trace, 3).await;
    assert_eq!(collector.spans().len(), 6, "{:#?}", collector.spans());
}

#[tokio::test]
async fn probes_and_metrics_are_not_traced() {
    let collector = Collector::start().await;
    let service = traced(&collector.url(), &[]).await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let answer = service.request(Method::GET, path).header("traceparent", SAMPLED);
        let answer = answer.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        assert!(!answer.headers().contains_key("traceresponse"), "{path}");
    }
    let lost = service.get("/nowhere").await;
    let [trace, ..] = traceresponse(&lost).unwrap();
    assert_eq!(collector.trace(&trace, 1).await[0].name, "GET");
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn nothing_is_traced_unless_an_endpoint_is_configured() {
    let collector = Collector::start().await;
    let standard =
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://127.0.0.1:{}", collector.port()));
    let mut service =
        Service::with_environment(&[standard, ("OTEL_BSP_SCHEDULE_DELAY", "1")]).await;
    assert_eq!(post(&service, Some(SAMPLED), &["HighCPU"; 3]).await, None);
    service.terminate();
    assert!(service.ended_well().await);
    assert_eq!(collector.connections(), 0);
    assert!(!service.log().contains("trace_id"), "{}", service.log());
}

#[tokio::test]
async fn the_last_spans_are_sent_before_the_service_ends() {
    let collector = Collector::start().await;
    let late = [("OTEL_BSP_SCHEDULE_DELAY", "60000")];
    let mut service = traced(&collector.url(), &late).await;
    let [trace, ..] = post(&service, None, &["HighCPU"]).await.unwrap();
    assert_eq!(collector.spans(), []);
    service.terminate();
    assert!(service.ended_well().await);
    assert_eq!(collector.trace(&trace, 3).await.len(), 3);
}

#[tokio::test]
async fn an_unreachable_collector_is_two_lines_in_the_log() {
    let collector = Collector::start().await;
    let port = collector.port();
    drop(collector);
    let service = traced(&traces_url(port), &[]).await;
    eventually("the log says that the collector takes no traces", || async {
        post(&service, None, &["HighCPU"]).await;
        (lines_with(&service, "accepts no traces") == 1).then_some(())
    })
    .await;
    let collector = Collector::on(port).await;
    collector.refuse(true);
    eventually("more batches of spans are lost", || async {
        post(&service, None, &["HighCPU"]).await;
        (collector.refusals() > 3).then_some(())
    })
    .await;
    assert_eq!(lines_with(&service, "traces"), 2, "with the one at the start: {}", service.log());

    collector.refuse(false);
    eventually("the log says that the collector takes traces again", || async {
        post(&service, None, &["HighCPU"]).await;
        (lines_with(&service, "accepts traces again") == 1).then_some(())
    })
    .await;
    assert!(!collector.spans().is_empty());
    assert_eq!(lines_with(&service, "traces"), 3, "{}", service.log());
}

#[tokio::test]
async fn a_collector_that_does_not_answer_slows_neither_calls_nor_the_shutdown() {
    let (_silent, url) = silent_collector();
    // The queue holds two spans, and the others are dropped.
    let small = [("OTEL_BSP_MAX_QUEUE_SIZE", "2"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")];
    let mut service = traced(&url, &small).await;
    // A request to the collector times out after 5 s: if calls waited for it, 50 would take
    // minutes.
    let calls = async {
        for _ in 0..50 {
            post(&service, None, &["HighCPU"]).await;
        }
    };
    tokio::time::timeout(DEADLINE, calls).await.expect("no call waits for the collector");
    service.terminate();
    assert!(service.ended_well().await);
}

#[tokio::test]
async fn a_collector_with_tls_is_verified_by_its_certificate() {
    let dir = TempDir::new().unwrap();
    write_certificates(dir.path());
    let collector = Collector::with_certificate_in(dir.path()).await;
    let url = collector.url().replace("http://", "https://");
    let ca = dir.path().join("ca.pem");
    let trusting = traced(&url, &[("SSL_CERT_FILE", ca.to_str().unwrap())]).await;
    let [trace, ..] = post(&trusting, None, &["HighCPU"]).await.unwrap();
    collector.trace(&trace, 3).await;

    let service = traced(&url, &[]).await;
    eventually("the log names the certificate", || async {
        post(&service, None, &["HighCPU"]).await;
        (lines_with(&service, "certificate") == 1).then_some(())
    })
    .await;
    assert_eq!(collector.spans().len(), 3);
}

#[tokio::test]
async fn the_environment_sets_the_service_name_and_the_headers_for_the_collector() {
    let collector = Collector::start().await;
    let service = traced(&collector.url(), &[]).await;
    let [trace, ..] = post(&service, None, &["HighCPU"]).await.unwrap();
    let resource = collector.trace(&trace, 3).await.remove(0).resource;
    assert_eq!(resource["service.name"], "anomaly-counter");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert!(!resource["service.instance.id"].is_empty());

    let environment = [
        ("OTEL_SERVICE_NAME", "counter-eu"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=pod-7,deployment.environment.name=prod"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret"),
    ];
    let service = traced(&collector.url(), &environment).await;
    let [trace, ..] = post(&service, None, &["HighCPU"]).await.unwrap();
    let resource = collector.trace(&trace, 3).await.remove(0).resource;
    assert_eq!(resource["service.name"], "counter-eu");
    assert_eq!(resource["service.instance.id"], "pod-7");
    assert_eq!(resource["deployment.environment.name"], "prod");
    assert_eq!(collector.header("authorization").as_deref(), Some("Bearer s3cret"));
    assert!(!service.log().contains("s3cret"), "{}", service.log());
}
