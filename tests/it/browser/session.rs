//! Logging in and out, and the buttons that a token's scopes permit.

use serde_json::json;

use super::{count, open};
use crate::{
    access::{entry, guarded},
    support::{Answer, Browser, Service, key_of},
};

async fn log_in(browser: &mut Browser, token: &str) {
    browser.wait_for("document.querySelector('#login input') === document.activeElement").await;
    browser.evaluate("document.querySelector('#login input').value = ''").await;
    browser.type_text(token).await;
    browser.press("Enter").await;
}

async fn log_out(browser: &mut Browser) {
    browser.click("#account summary").await;
    browser.click("[data-do=logout]").await;
    browser.wait_for("document.querySelector('#login')").await;
    assert_eq!(browser.text_of("#account").await, "");
}

#[tokio::test]
async fn a_reader_logs_in_and_out_in_a_browser() {
    let service = guarded().await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "?level=REPEAT").await;
    log_in(&mut browser, "s3cr3t").await;
    browser.wait_for_text("#login .problem", "token or signature is unknown").await;

    log_in(&mut browser, "read").await;
    browser.wait_for("document.querySelector('#account summary')").await;
    assert_eq!(browser.text_of("#account").await, "read");
    // The login leads to the requested view. Scripts of the page do not see the token.
    assert_eq!(browser.evaluate("location.search").await, "?level=REPEAT");
    assert_eq!(browser.evaluate("document.cookie").await, "");
    // The cookie is sent with a navigation too.
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelector('#account summary')").await;
    log_out(&mut browser).await;
    assert!(browser.refused.iter().all(|line| line.contains("401")), "{:?}", browser.refused);
    browser.assert_faultless();
}

#[tokio::test]
async fn a_read_only_token_has_no_buttons_and_the_commands_stay() {
    let tokens = [
        entry("reader", "scopes = [\"read\"]"),
        entry("ana", "scopes = [\"read\", \"operate\"]"),
        entry("ingest", "scopes = [\"ingest\"]"),
    ];
    let config = "auth.file = \"tokens.toml\"";
    let service = Service::with_files(config, &[("tokens.toml", &tokens.concat())]).await;
    let posted = service.request(reqwest::Method::POST, "/anomalies").bearer_auth("ingest");
    Answer::of(posted.json(&json!({"alert_name": "HighCPU"}))).await.ok();
    let anomaly = format!("?anomaly={}", key_of("HighCPU"));
    let mut browser = Browser::start().await;
    open(&mut browser, &service, &anomaly).await;
    log_in(&mut browser, "reader").await;
    browser.wait_for_text(".card", "The cause is not marked as fixed.").await;
    assert_eq!(count(&mut browser, "[data-do=mark], [data-do=unmark]").await, 0);
    browser.press("f").await;
    assert_eq!(count(&mut browser, "dialog").await, 0);
    let commands = browser.text_of(".card details[open]").await;
    assert!(commands.contains("curl -X PUT -H \"Authorization: Bearer $TOKEN\""), "{commands}");

    log_out(&mut browser).await;
    log_in(&mut browser, "ana").await;
    browser.wait_for("document.querySelector('[data-do=mark]')").await;
    browser.press("f").await;
    browser
        .wait_for("document.querySelector('dialog[open] [name=fixed_by]').value === 'ana'")
        .await;
    browser.assert_faultless();
}

#[tokio::test]
async fn the_policy_of_the_page_lets_no_text_become_html() {
    let service = Service::embedded().await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelector('.state.ready')").await;
    browser.assert_clean();
    // A check of this test: a script that breaks the policy is refused, and reported here.
    let tried = "(() => { try { document.body.innerHTML = '<img src=x>'; return 'done'; } \
                 catch (error) { return error.name; } })()";
    assert_eq!(browser.evaluate(tried).await, "TypeError");
    browser.wait_for("document.querySelector('header')").await;
    assert!(!browser.faults.is_empty());
}
