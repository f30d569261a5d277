//! The list: filters, sorting, pages, search, and the text if there is nothing to list.

use super::{count, on_both_stores, open, seed, texts};
use crate::support::{Browser, Service};

const SEEN: &str = "#main .foot span";

async fn query(browser: &mut Browser) -> String {
    browser.evaluate("location.search").await.as_str().unwrap().to_owned()
}

async fn filters_sorts_and_turns_pages(service: &Service) {
    seed(service, 120).await;
    let mut browser = Browser::start().await;
    open(&mut browser, service, "").await;
    browser.wait_for_text(SEEN, "50 of 120").await;
    assert_eq!(texts(&mut browser, "tbody .lv .level").await[..2], ["PERMANENT_FIX", "ESCALATE"]);
    assert_eq!(texts(&mut browser, "tbody .because").await[0], "12 in 24h >= 10 (rule default)");
    assert_eq!(browser.evaluate("document.title").await, "1 at PERMANENT_FIX – anomaly-counter");

    // A chip shows the number of anomalies that a click on it lists.
    let chips = texts(&mut browser, "[aria-label=Level] .chip").await;
    assert_eq!(
        chips[..5],
        ["all\n120", "PERMANENT_FIX\n1", "ESCALATE\n3", "REPEAT\n6", "no level\n110"]
    );
    browser.click_on(".chip", "ESCALATE").await;
    browser.wait_for_text(SEEN, "3 of 3").await;
    assert_eq!(query(&mut browser).await, "?level=ESCALATE");
    assert_eq!(texts(&mut browser, "tbody .level").await, ["ESCALATE"; 3]);
    // Only the namespaces of those three anomalies have chips.
    assert_eq!(count(&mut browser, "[aria-label=Namespace] .chip").await, 3);
    browser.click_on("[aria-label=Namespace] .chip", "data").await;
    browser.wait_for_text(SEEN, "1 of 1").await;
    assert_eq!(query(&mut browser).await, "?level=ESCALATE&namespace=data");
    let command =
        browser.evaluate("document.querySelector('#main > details code').textContent").await;
    assert!(command.as_str().unwrap().contains("/anomalies?level=ESCALATE&namespace=data"));

    // Each view is an entry of the browser's history.
    browser.evaluate("history.back()").await;
    browser.wait_for_text(SEEN, "3 of 3").await;
    browser.click_on(".chip", "all").await;
    browser.wait_for_text(SEEN, "50 of 120").await;

    browser.click_on("th a", "Last").await;
    browser.wait_for("document.querySelector('th.last').ariaSort === 'descending'").await;
    browser.click_on("th a", "Last").await;
    browser.wait_for("document.querySelector('th.last').ariaSort === 'ascending'").await;
    assert_eq!(query(&mut browser).await, "?sort=last_seen&order=asc");
    let times = "[...document.querySelectorAll('tbody time')].map((time) => time.dateTime)";
    let times: Vec<String> = serde_json::from_value(browser.evaluate(times).await).unwrap();
    assert!(times.len() == 50 && times.is_sorted(), "{times:?}");

    // All pages together have each anomaly once.
    let mut keys = Vec::new();
    for shown in [50, 50, 20] {
        browser.wait_for_text(SEEN, &format!("{shown} of 120")).await;
        let rows = "[...document.querySelectorAll('tbody tr')].map((row) => row.dataset.key)";
        let page: Vec<String> = serde_json::from_value(browser.evaluate(rows).await).unwrap();
        keys.extend(page);
        if shown == 50 {
            let last = keys.last().unwrap();
            browser.click("a[rel=next]").await;
            let row = format!("document.querySelector('tr[data-key=\"{last}\"]')");
            browser.wait_for(&format!("!{row}")).await;
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 120);
    assert_eq!(count(&mut browser, "a[rel=next]").await, 0);
    browser.click_on(".foot a", "First page").await;
    browser.wait_for("!location.search.includes('cursor')").await;

    browser.click("#search input").await;
    browser.type_text("kafka service-3").await;
    browser.wait_for_text(SEEN, "1 of 1").await;
    assert!(query(&mut browser).await.contains("q=kafka+service-3"));
    assert_eq!(texts(&mut browser, "tbody .name").await, ["KafkaLag"]);
    browser.type_text(" nothing").await;
    browser.wait_for_text("#main h2", "No anomaly matches").await;
    browser.click_on("#main a", "show all").await;
    browser.wait_for_text(SEEN, "50 of 120").await;
    browser.assert_clean();
}

#[tokio::test]
async fn the_list_is_filtered_sorted_and_paged_on_both_stores() {
    let (embedded, on_redis, _redis) = on_both_stores().await;
    filters_sorts_and_turns_pages(&embedded).await;
    filters_sorts_and_turns_pages(&on_redis).await;
}

#[tokio::test]
async fn an_empty_list_says_how_to_record_a_first_anomaly() {
    let service = Service::embedded().await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "").await;
    browser.wait_for_text("#main h2", "Nothing has been counted yet").await;
    // The shown command works, and the page shows its result by itself.
    let command = browser.evaluate("document.querySelector('#main code').textContent").await;
    let mut shell = std::process::Command::new("sh");
    let sent = shell.args(["-c", command.as_str().unwrap()]).output().unwrap();
    assert!(sent.status.success(), "{sent:?}");
    browser.wait_for_text("tbody .name", "HighCPU").await;
    browser.wait_for_text(SEEN, "1 of 1").await;
    browser.assert_clean();
}

#[tokio::test]
async fn a_filter_that_the_service_refuses_is_shown_with_the_reason() {
    let service = Service::embedded().await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "?sort=nonsense").await;
    browser.wait_for_text(".problem", "sort").await;
    browser.click_on("#main a", "All anomalies").await;
    browser.wait_for_text("#main h2", "Nothing has been counted yet").await;
    assert_eq!(browser.refused.len(), 1, "{:?}", browser.refused);
    browser.assert_faultless();
}
