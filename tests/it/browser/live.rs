//! The page follows the service by polling.

use serde_json::json;

use super::{count, hurry, open, seed};
use crate::support::{Browser, Service};

#[tokio::test]
async fn the_page_asks_only_for_what_is_new_and_nothing_jumps() {
    let service = Service::embedded().await;
    seed(&service, 60).await;
    let mut browser = Browser::start().await;
    hurry(&mut browser).await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelectorAll('tbody tr').length === 50").await;
    browser.press("j").await;
    browser.press("j").await;
    let key = browser.evaluate("document.activeElement.closest('tr').dataset.key").await;
    let observe = "window.shifts = 0; new PerformanceObserver((list) => { \
                   for (const { value, hadRecentInput } of list.getEntries()) \
                     if (!hadRecentInput) window.shifts += value; \
                   }).observe({ type: 'layout-shift' }); 0";
    browser.evaluate(observe).await;
    let unchanged = |path: &str| {
        format!(
            "performance.getEntriesByType('resource').filter(({{ name, responseStatus }}) => \
             new URL(name).pathname === '{path}' && responseStatus === 304).length >= 2"
        )
    };
    browser.wait_for(&unchanged("/anomalies")).await;
    browser.wait_for(&unchanged("/summary")).await;

    // A row moves to the top; the focus and the scroll position stay.
    browser.evaluate("scrollTo(0, 300)").await;
    let looked_at = browser.evaluate("document.querySelectorAll('tbody tr')[9].dataset.key").await;
    let place = format!(
        "document.querySelector('tr[data-key=\"{}\"]').getBoundingClientRect().top",
        looked_at.as_str().unwrap()
    );
    let before = browser.evaluate(&place).await;
    let worst = json!({
        "alert_name": "HighCPU", "service": "service-5", "namespace": "infra", "error_type": "",
    });
    service.post("/anomalies", &json!(vec![worst; 20])).await.ok();
    browser.wait_for_text("tbody tr:first-child", "service-5").await;
    let moved = browser.evaluate(&place).await.as_f64().unwrap() - before.as_f64().unwrap();
    assert!(moved.abs() < 1.0, "by {moved} pixels");
    let focused = browser.evaluate("document.activeElement.closest('tr')?.dataset.key").await;
    assert_eq!(focused, key);
    let shifts = browser.evaluate("window.shifts").await.as_f64().unwrap();
    assert!(shifts < 0.1, "{shifts}");

    // The service becomes unreachable, and reachable again.
    let offline = |is_offline: bool| {
        json!({
            "offline": is_offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1,
        })
    };
    browser.assert_clean();
    browser.call("Network.enable", json!({})).await;
    browser.call("Network.emulateNetworkConditions", offline(true)).await;
    browser.wait_for_text("#bar", "The service does not answer.").await;
    browser.wait_for("window.waits.includes(60000)").await;
    let waits = browser.evaluate("[20000, 40000].every((wait) => window.waits.includes(wait))");
    assert_eq!(waits.await, true);
    assert_eq!(count(&mut browser, "tbody tr").await, 50);
    assert_eq!(browser.text_of("#state").await, "unreachable");
    browser.call("Network.emulateNetworkConditions", offline(false)).await;
    browser.wait_for("!document.querySelector('#bar').textContent").await;
    browser.wait_for("document.querySelector('.state.ready')").await;
    browser.assert_faultless();
}
