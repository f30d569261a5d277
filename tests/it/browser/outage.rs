//! The page while Redis is unavailable.

use serde_json::json;

use super::{count, hurry, open, seed};
use crate::support::{Browser, RedisServer, Service, healthy_again, key_of};

#[tokio::test]
async fn the_page_shows_an_outage_of_redis_and_its_end() {
    let mut redis = RedisServer::start();
    let service = Service::on_redis(&redis).await;
    seed(&service, 60).await;
    service.post("/anomalies", &json!({"alert_name": "Lonely"})).await.ok();
    let mut browser = Browser::start().await;
    hurry(&mut browser).await;
    open(&mut browser, &service, "").await;
    browser.wait_for_text("#main .foot span", "50 of 61").await;
    assert_eq!(browser.text_of("#bar").await, "");

    redis.kill();
    service.post("/anomalies", &json!({"alert_name": "Lonely"})).await;
    browser.wait_for_text("#bar", "Redis is unavailable").await;
    browser.wait_for_text("#bar", "Waiting: 1 write").await;
    assert_eq!(browser.text_of("#state").await, "degraded");
    assert_eq!(count(&mut browser, "tbody tr").await, 50);

    // Of an anomaly that is new, only the waiting write is known: its name, but not its level.
    service.post("/anomalies", &json!({"alert_name": "Fresh"})).await;
    open(&mut browser, &service, "?q=Fresh").await;
    browser.wait_for_text("tbody .name", "Fresh").await;
    assert_eq!(browser.text_of("tbody .lv .unknown").await, "–");
    assert_eq!(count(&mut browser, "tbody .level").await, 0);
    browser.wait_for_text(".chip[href*='level=none'] b", "0").await;
    open(&mut browser, &service, "?q=Lonely").await;
    browser.wait_for_text("tbody .level", "no level").await;

    // Unknown values are not shown as zeros, and a mark waits.
    open(&mut browser, &service, &format!("?anomaly={}", key_of("Lonely"))).await;
    browser.wait_for_text("h1", "Lonely").await;
    browser.wait_for_text(".facts", "Firing–").await;
    browser.wait_for("document.querySelector('.card .problem')").await;
    browser.click_on(".buttons button", "Mark").await;
    browser.wait_for("document.activeElement.name === 'fix_description'").await;
    browser.type_text("raised the limit").await;
    browser.click("dialog .primary").await;
    browser.wait_for_text("#news", "Accepted, waiting for the store.").await;

    redis.restart();
    healthy_again(&service).await;
    browser.wait_for("!document.querySelector('#bar').textContent").await;
    assert_eq!(browser.text_of("#state").await, "ready");
    browser.wait_for_text("blockquote", "raised the limit").await;
    browser.wait_for("document.querySelector('.chart')").await;
    // The history is in Redis alone: its 503 is the only kind of call that failed.
    assert!(browser.refused.iter().all(|line| line.contains("503")), "{:?}", browser.refused);
    browser.assert_faultless();
}
