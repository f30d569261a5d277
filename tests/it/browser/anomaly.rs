//! The view of one anomaly: its level and the reason, its firing alerts, its chart, and marking it
//! as fixed.

use serde_json::json;

use super::{count, hurry, on_both_stores, open, texts};
use crate::support::{Browser, Service, key_of, wall_clock};

/// Returns an occurrence of this many minutes ago.
fn minutes_ago(minutes: i64) -> serde_json::Value {
    let at = wall_clock().minus_seconds(minutes * 60).to_string();
    json!({"alert_name": "HighCPU", "occurred_at": at, "team": "web"})
}

async fn marks_and_takes_back(service: &Service) {
    let occurrences: Vec<_> = (1..=6).map(|hours| minutes_ago(hours * 60)).collect();
    service.post("/anomalies", &json!(occurrences)).await.ok();
    let key = key_of("HighCPU").to_string();
    for success in [true, false, false, false, false, false] {
        let repair = json!({"anomaly_key": key, "action": "restart_pod", "success": success});
        service.post("/repairs", &repair).await.ok();
    }
    let mut browser = Browser::start().await;
    hurry(&mut browser).await;
    open(&mut browser, service, "").await;
    browser.click_on("tbody a", "HighCPU").await;
    browser.wait_for_text("h1", "HighCPU").await;
    assert_eq!(browser.evaluate("location.search").await, format!("?anomaly={key}"));

    let facts = browser.text_of(".facts").await;
    assert!(facts.contains("ESCALATE\n6 in 24h >= 5 (rule default)"), "{facts}");
    assert!(facts.contains("Firing\nno known alert"), "{facts}");
    assert_eq!(texts(&mut browser, ".counts dd").await[1], "6");
    // Six bars, the line, the levels of the rule, and the repairs by their outcome.
    assert_eq!(count(&mut browser, ".chart .bar").await, 6);
    assert_eq!(count(&mut browser, ".chart .line").await, 1);
    let bands = texts(&mut browser, ".chart .band-name").await;
    assert_eq!(bands.len(), 3);
    assert_eq!(count(&mut browser, ".chart .worked").await, 1);
    assert_eq!(count(&mut browser, ".chart .failed").await, 5);
    browser.wait_for_text(".card .fields", "1 of 6 worked (17%): do not try again").await;
    browser.click_on(".chip", "24 h").await;
    browser.wait_for_text("#readout", "6 occurrences in 24 h").await;
    assert_eq!(count(&mut browser, ".chart .bar").await, 6);
    browser.hover("#picture").await;
    browser.wait_for_text("#readout", "in 24 h").await;

    browser.click_on(".buttons button", "Mark as fixed…").await;
    browser.wait_for("document.activeElement.name === 'fix_description'").await;
    let command = "document.querySelector('dialog code').textContent";
    assert!(browser.evaluate(command).await.as_str().unwrap().contains("-X PUT"));
    // Blanks are no description, and the browser says so at the field.
    browser.type_text("  ").await;
    browser.click("dialog .primary").await;
    browser.wait_for("document.activeElement.matches('textarea:invalid')").await;
    assert_eq!(browser.text_of("dialog [role=alert]").await, "");
    browser.type_text("raised the <b>limit</b>").await;
    browser.click("[name=fixed_by]").await;
    browser.type_text("ana").await;
    browser.click("dialog .primary").await;
    browser.wait_for_text("#news", "Done.").await;
    browser.wait_for_text("blockquote", "raised the <b>limit</b>").await;
    browser.wait_for_text(".chart .mark-name.fixed", "fixed by").await;
    browser.wait_for_text(".fields", "marked as fixed: raised the <b>limit</b>").await;
    let path = format!("/anomalies/{key}");
    assert_eq!(service.get(&path).await.ok()["permanent_fix"]["fixed_by"], "ana");

    // It occurs again, and the page shows that by itself: in words, in the chart, and in the list.
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    browser.wait_for_text(".facts .back", "came back").await;
    browser.wait_for_text(".card", "It came back after this fix.").await;
    browser.click_on("#main a", "All anomalies").await;
    browser.wait_for_text("tbody .note.back", "came back after its fix").await;
    browser.click_on(".chip", "regressed").await;
    browser.wait_for_text("#main .foot span", "1 of 1").await;
    browser.click_on("tbody a", "HighCPU").await;

    browser.click_on(".buttons button", "Remove mark…").await;
    browser.click("[name=reason]").await;
    browser.type_text("too early").await;
    browser.press("Enter").await;
    browser.wait_for_text(".card", "The cause is not marked as fixed.").await;
    browser.wait_for_text(".fields", "removed the mark: too early").await;
    assert!(service.get(&path).await.ok()["permanent_fix"].is_null());
    browser.assert_clean();
}

#[tokio::test]
async fn an_anomaly_is_shown_marked_as_fixed_and_unmarked_on_both_stores() {
    let (embedded, on_redis, _redis) = on_both_stores().await;
    marks_and_takes_back(&embedded).await;
    marks_and_takes_back(&on_redis).await;
}

#[tokio::test]
async fn the_page_shows_the_rule_and_since_when_alerts_fire() {
    let config = "[[rules.rule]]\nname = \"batch\"\nmatch = ['namespace=\"batch\"']\n\
                  [rules.rule.levels]\nREPEAT = [\"1 in 24h\"]\nESCALATE = [\"2 in 1h\"]";
    let service = Service::with_files(config, &[]).await;
    service.post("/anomalies", &json!({"alert_name": "Quiet"})).await.ok();
    let alert = |fingerprint: &str| {
        json!({
            "status": "firing", "fingerprint": fingerprint, "startsAt": wall_clock().to_string(),
            "labels": {"alertname": "JobFailed", "namespace": "batch", "instance": fingerprint},
        })
    };
    let delivery = json!({"version": "4", "alerts": [alert("a1"), alert("a2")]});
    service.post("/webhooks/alertmanager", &delivery).await.ok();

    let mut browser = Browser::start().await;
    open(&mut browser, &service, "").await;
    browser.wait_for_text("tbody .because", "1 in 24h >= 1 (rule batch)").await;
    browser.wait_for_text("tbody .firing", "firing since").await;
    assert!(browser.text_of("tbody .firing").await.ends_with(", 2 alerts"));
    assert!(texts(&mut browser, ".chip").await.contains(&"firing\n1".to_owned()));
    browser.click_on(".chip", "firing").await;
    browser.wait_for_text("#main .foot span", "1 of 1").await;
    assert_eq!(texts(&mut browser, "tbody .name").await, ["JobFailed"]);

    browser.click_on("tbody a", "JobFailed").await;
    browser.wait_for_text(".facts", "batch").await;
    let facts = browser.text_of(".facts").await;
    assert!(facts.contains("Rule\nbatch"), "{facts}");
    assert!(facts.contains("Firing\nsince "), "{facts}");
    browser.wait_for_text(".chart .band-name", "REPEAT ≥ 1").await;
    // A condition that has no line in this chart is shown in words.
    browser.wait_for_text(".legend", "ESCALATE at 2 in 1h (not drawn)").await;
    browser.assert_clean();
}

#[tokio::test]
async fn the_page_says_that_an_anomaly_is_not_known() {
    let service = Service::embedded().await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "?anomaly=0000000000000000").await;
    browser.wait_for("document.querySelector('#main .problem')").await;
    browser.click_on("#main a", "All anomalies").await;
    browser.wait_for_text("#main h2", "Nothing has been counted yet").await;
    browser.assert_faultless();
}

#[tokio::test]
async fn on_paper_names_can_be_read_and_a_chart_has_its_newest_events() {
    let service = Service::embedded().await;
    service.post("/anomalies", &minutes_ago(10)).await.ok();
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "").await;
    browser.wait_for_text("tbody .name", "HighCPU").await;
    // A4 and Letter without their margins have some 710 pixels.
    browser.screen(710, 1_000, false).await;
    browser.call("Emulation.setEmulatedMedia", json!({"media": "print"})).await;
    let width = browser.evaluate("document.querySelector('td.who').clientWidth").await;
    assert!(width.as_i64().unwrap() > 150, "{width}");
    let hidden = "getComputedStyle(document.querySelector('details')).display";
    assert_eq!(browser.evaluate(hidden).await, "none");

    browser.screen(1_400, 900, false).await;
    browser.click_on("tbody a", "HighCPU").await;
    browser.wait_for("document.querySelector('.chart .bar')").await;
    // The page prints itself at the width of paper, and is as before afterwards.
    let note = "addEventListener('beforeprint', () => window.onPaper = \
                document.querySelector('.chart').getAttribute('width'))";
    browser.evaluate(&format!("void {note}")).await;
    let printed = browser.call("Page.printToPDF", json!({})).await;
    assert!(printed["data"].as_str().unwrap().len() > 10_000);
    let width = browser.evaluate("Number(window.onPaper)").await;
    assert!((500..700).contains(&width.as_i64().unwrap()), "{width}");
    browser.wait_for("document.querySelector('.chart').getAttribute('width') > 1000").await;
    browser.assert_clean();
}
