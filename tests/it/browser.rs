//! The page in a real Chromium.

use crate::{
    access::guarded,
    support::{Browser, Service},
};

fn address(service: &Service) -> String {
    format!("http://{}/", service.address())
}

#[tokio::test]
async fn a_reader_logs_in_and_out_in_a_browser() {
    let service = guarded().await;
    let mut browser = Browser::start().await;
    browser.open(&address(&service)).await;
    browser.wait_for("document.activeElement?.matches('#login input')").await;
    browser.type_text("s3cr3t").await;
    browser.press("Enter").await;
    browser.wait_for("document.querySelector('#login .problem')").await;
    let refusal = browser.evaluate("document.querySelector('#login .problem').innerText").await;
    assert!(refusal.as_str().unwrap().contains("is not known here"), "{refusal}");

    browser.evaluate("document.querySelector('#login input').value = ''").await;
    browser.type_text("read").await;
    browser.press("Enter").await;
    browser.wait_for("document.querySelector('#account summary')").await;
    assert_eq!(browser.evaluate("document.querySelector('#account').innerText").await, "read");
    // Scripts of the page do not see the token.
    assert_eq!(browser.evaluate("document.cookie").await, "");
    // The cookie is there at a navigation too.
    browser.open(&address(&service)).await;
    browser.wait_for("document.querySelector('#account summary')").await;

    browser.click("#account summary").await;
    browser.click("[data-do=logout]").await;
    browser.wait_for("document.querySelector('#login')").await;
    assert_eq!(browser.evaluate("document.querySelector('#account').innerText").await, "");
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
}

#[tokio::test]
async fn the_policy_of_the_page_lets_no_text_become_html() {
    let service = Service::embedded().await;
    let mut browser = Browser::start().await;
    browser.open(&address(&service)).await;
    browser.wait_for("document.querySelector('.state.ready')").await;
    assert!(browser.faults.is_empty(), "{:?}", browser.faults);
    // The test of the test: such a script is refused, and seen here.
    let tried = "(() => { try { document.body.innerHTML = '<img src=x>'; return 'done'; } \
                 catch (error) { return error.name; } })()";
    assert_eq!(browser.evaluate(tried).await, "TypeError");
    browser.wait_for("document.querySelector('header')").await;
    assert!(!browser.faults.is_empty());
}
