//! Names are text, whatever is in them.

use serde_json::json;

use super::{count, open, texts};
use crate::support::{Browser, Service};

#[tokio::test]
async fn hostile_names_stay_text_and_stay_inside_the_page() {
    let service = Service::embedded().await;
    let long = "A".repeat(1_000);
    let rtl = "تنبيه ارتفاع استخدام المعالج";
    let names = [
        "<img src=x onerror=\"window.hacked = 1\">",
        "</script><script>window.hacked = 1</script>",
        "javascript:window.hacked=1",
        "*glob?* a\\b",
        "new\nline\ttab",
        "\u{202e}evil\u{202d} override",
        "__proto__",
        rtl,
        &long,
    ];
    for name in names {
        let posted = json!({
            "alert_name": name, "service": name, "namespace": name, "error_type": name,
            "description": "B".repeat(4_000), "toString": {"<b>": "<i>"},
        });
        service.post("/anomalies", &posted).await.ok();
    }
    let first = service.get("/anomalies?sort=key").await.ok();
    let key_of = |name: &str| {
        let rows = first["anomalies"].as_array().unwrap();
        let row = rows.iter().find(|row| row["signature"]["alert_name"] == name).unwrap();
        row["anomaly_key"].as_str().unwrap().to_owned()
    };
    let mut browser = Browser::start().await;
    for (width, is_dark) in [(1400, false), (390, true)] {
        browser.screen(width, 844, is_dark).await;
        open(&mut browser, &service, "").await;
        browser.wait_for_text("#main .foot span", "9 of 9").await;
        let shown = browser.evaluate(
            "[...document.querySelectorAll('tbody a.name')].map((name) => name.textContent)",
        );
        let shown: Vec<String> = serde_json::from_value(shown.await).unwrap();
        for name in names {
            assert!(shown.iter().any(|other| other == name), "{name}");
        }
        fits(&mut browser).await;
        for name in names {
            open(&mut browser, &service, &format!("?anomaly={}", key_of(name))).await;
            browser.wait_for("document.querySelector('.chart')").await;
            let heading = browser.evaluate("document.querySelector('h1').textContent").await;
            assert_eq!(heading, name);
            fits(&mut browser).await;
        }
    }
    // A namespace is a filter, whatever is in it.
    browser.screen(1400, 900, false).await;
    open(&mut browser, &service, "").await;
    for name in ["*glob?* a\\b", rtl, "AAAA", "<img src=x"] {
        browser.click_on("[aria-label=Namespace] .chip", name).await;
        browser.wait_for_text("#main .foot span", "1 of 1").await;
        assert!(texts(&mut browser, "tbody .name").await[0].contains(name));
        browser.click_on(".chip", "all").await;
        browser.click_on("[aria-label=Namespace] .chip[aria-current]", "").await;
        browser.wait_for_text("#main .foot span", "9 of 9").await;
    }
    assert!(browser.evaluate("window.hacked === undefined").await.as_bool().unwrap());
    assert_eq!(count(&mut browser, "main img, main script, main b b, main iframe").await, 0);
    browser.assert_clean();
}

/// Asserts that nothing is wider than the page.
async fn fits(browser: &mut Browser) {
    let beyond = browser.evaluate("document.documentElement.scrollWidth - innerWidth").await;
    assert_eq!(beyond.as_f64().unwrap().max(0.0), 0.0);
}
