//! Accessibility: with 0 to 5,000 anomalies, on a desktop and on a phone, light and dark, nothing
//! is wider than the page, each control has a name, and axe-core finds nothing serious.

use std::{env, fs, path::Path};

use serde_json::{Value, json};

use super::{open, seed};
use crate::{
    access::guarded,
    support::{Browser, Service, key_of},
};

/// Widths and heights of a desktop, a tablet and a phone.
const SCREENS: [(u32, u32); 3] = [(1400, 900), (900, 900), (390, 844)];

/// Returns the script of axe-core, if it is installed.
fn axe() -> Option<String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let script = target.join("page-tools/node_modules/axe-core/axe.min.js");
    let found = fs::read_to_string(&script).ok();
    if found.is_none() {
        let missing = format!("{} is missing: run tests/install-programs.sh", script.display());
        assert!(env::var_os("CI").is_none(), "{missing}");
        eprintln!("axe-core is left out: {missing}");
    }
    found
}

/// Starts a browser in which axe-core runs, although the page's policy does not permit it.
async fn start() -> (Browser, Option<String>) {
    let mut browser = Browser::start().await;
    browser.call("Page.setBypassCSP", json!({"enabled": true})).await;
    (browser, axe())
}

async fn is_accessible(browser: &mut Browser, axe: Option<&String>, what: &str) {
    let nameless = browser.nameless().await;
    assert!(nameless.is_empty(), "{what}: {nameless:?}");
    let Some(axe) = axe else { return };
    browser.evaluate(&format!("window.axe || (() => {{ {axe}; }})(), true")).await;
    let found = browser.evaluate(
        "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => \
         violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.slice(0, 3) \
         .map(({ html, any }) => [html, any[0]?.message]) })))",
    );
    let found = found.await;
    let is_serious = |finding: &&Value| {
        ["serious", "critical"].iter().any(|impact| finding["impact"] == *impact)
    };
    let serious: Vec<&Value> = found.as_array().unwrap().iter().filter(is_serious).collect();
    assert!(serious.is_empty(), "{what}: {serious:?}");
}

/// Asserts that nothing is wider than the page, on each screen.
async fn fits_on_all_screens(browser: &mut Browser, what: &str) {
    for (width, height) in SCREENS {
        browser.screen(width, height, width != 1400).await;
        // The chart gets its new width in the next frame.
        let settled = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))";
        browser.evaluate(settled).await;
        let beyond = browser.evaluate("document.documentElement.scrollWidth - innerWidth").await;
        assert_eq!(beyond.as_f64().unwrap().max(0.0), 0.0, "{what} at {width} pixels");
    }
}

#[tokio::test]
async fn lists_of_0_to_5000_anomalies_are_accessible_on_every_screen() {
    let (mut browser, axe) = start().await;
    let service = Service::embedded().await;
    let mut seeded = 0;
    for (anomalies, shown) in [(0, 0), (1, 1), (50, 50), (5_000, 50)] {
        if anomalies > seeded {
            seed(&service, anomalies).await;
            seeded = anomalies;
        }
        browser.screen(1400, 900, false).await;
        open(&mut browser, &service, "").await;
        browser
            .wait_for(&format!("document.querySelectorAll('tbody tr').length === {shown}"))
            .await;
        let what = format!("a list of {anomalies}");
        if anomalies == 5_000 {
            browser.wait_for_text("#main .foot", "50 of 5,000").await;
        }
        if anomalies != 50 {
            is_accessible(&mut browser, axe.as_ref(), &what).await;
        }
        fits_on_all_screens(&mut browser, &what).await;
        if anomalies == 50 {
            is_accessible(&mut browser, axe.as_ref(), &format!("{what} on a phone")).await;
        }
    }
    browser.assert_clean();
}

#[tokio::test]
async fn an_anomaly_its_dialogs_and_the_form_for_a_token_are_accessible() {
    let (mut browser, axe) = start().await;
    let service = Service::embedded().await;
    service
        .post("/anomalies", &json!([{"alert_name": "HighCPU"}, {"alert_name": "HighCPU"}]))
        .await;
    let key = key_of("HighCPU");
    let fix = json!({"anomaly_key": key.to_string(), "fix_description": "raised the limit"});
    service.put("/permanent-fix", &fix).await.ok();
    for success in [true, false] {
        let repair =
            json!({"anomaly_key": key.to_string(), "action": "restart", "success": success});
        service.post("/repairs", &repair).await.ok();
    }
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    open(&mut browser, &service, &format!("?anomaly={key}")).await;
    browser.wait_for("document.querySelector('.chart')").await;
    is_accessible(&mut browser, axe.as_ref(), "an anomaly").await;
    // Everything that can be opened is opened.
    browser
        .evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        .await;
    fits_on_all_screens(&mut browser, "an anomaly").await;
    is_accessible(&mut browser, axe.as_ref(), "an anomaly on a phone").await;
    for dialog in ["f", "?"] {
        browser.press(dialog).await;
        browser.wait_for("document.querySelector('dialog[open]')").await;
        is_accessible(&mut browser, axe.as_ref(), "a dialog").await;
        fits_on_all_screens(&mut browser, "a dialog").await;
        browser.press("Escape").await;
        browser.wait_for("!document.querySelector('dialog')").await;
    }
    browser.assert_clean();

    let service = guarded().await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelector('#login')").await;
    is_accessible(&mut browser, axe.as_ref(), "the form for a token").await;
    fits_on_all_screens(&mut browser, "the form for a token").await;
    browser.assert_faultless();
}
