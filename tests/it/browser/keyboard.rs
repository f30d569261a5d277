//! The page without a mouse.

use super::{count, open, seed};
use crate::support::{Browser, Service};

const FOCUSED: &str = "document.activeElement";

async fn focused_row(browser: &mut Browser) -> u64 {
    let row =
        "[...document.querySelectorAll('tbody tr')].indexOf(document.activeElement.closest('tr'))";
    browser.evaluate(row).await.as_u64().unwrap()
}

#[tokio::test]
async fn everything_is_done_with_the_keyboard_alone() {
    let service = Service::embedded().await;
    seed(&service, 60).await;
    let mut browser = Browser::start().await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelectorAll('tbody tr').length === 50").await;

    // The first stop leads past the head of the page.
    browser.press("Tab").await;
    browser.wait_for(&format!("{FOCUSED}.matches('.skip')")).await;
    browser.press("Enter").await;
    browser.press("Tab").await;
    browser.wait_for(&format!("{FOCUSED}.matches('main .chip')")).await;

    for key in ["j", "j", "j", "k"] {
        browser.press(key).await;
    }
    assert_eq!(focused_row(&mut browser).await, 1);
    // The focus is visible.
    let outline = format!("getComputedStyle({FOCUSED}).outlineStyle");
    assert_eq!(browser.evaluate(&outline).await, "solid");
    let key = browser.evaluate(&format!("{FOCUSED}.closest('tr').dataset.key")).await;
    let key = key.as_str().unwrap().to_owned();
    browser.press("Enter").await;
    browser.wait_for(&format!("location.search === '?anomaly={key}'")).await;
    browser.wait_for("document.querySelector('.title h1')").await;

    browser.press("f").await;
    browser.wait_for(&format!("{FOCUSED}.name === 'fix_description'")).await;
    // In a field, keys are text.
    for key in ["j", "k", "?", "u", "f"] {
        browser.press(key).await;
    }
    assert_eq!(browser.evaluate(&format!("{FOCUSED}.value")).await, "jk?uf");
    browser.press("Tab").await;
    browser.press("Tab").await;
    browser.wait_for(&format!("{FOCUSED}.matches('dialog .primary')")).await;
    browser.press("Enter").await;
    browser.wait_for_text("blockquote", "jk?uf").await;
    browser.press("f").await;
    browser.wait_for("document.querySelector('dialog[open]')").await;
    browser.press("Escape").await;
    browser.wait_for("!document.querySelector('dialog')").await;

    // Back at the row that was left.
    browser.press("u").await;
    browser.wait_for(&format!("{FOCUSED}.closest('tr')?.dataset.key === '{key}'")).await;
    browser.press("/").await;
    browser.wait_for(&format!("{FOCUSED}.name === 'q'")).await;
    browser.type_text("kafka").await;
    browser.wait_for("document.querySelectorAll('tbody tr').length === 6").await;
    assert_eq!(browser.evaluate(&format!("{FOCUSED}.name")).await, "q");
    browser.press("Escape").await;

    // Single keys can be turned off.
    browser.press("?").await;
    browser.wait_for("document.querySelector('dialog[open]')").await;
    browser.wait_for(&format!("{FOCUSED}.type === 'checkbox'")).await;
    browser.press(" ").await;
    browser.press("Escape").await;
    browser.wait_for("!document.querySelector('dialog')").await;
    browser.press("?").await;
    browser.press("/").await;
    assert_eq!(count(&mut browser, "dialog").await, 0);
    assert_ne!(browser.evaluate(&format!("{FOCUSED}.name ?? ''")).await, "q");
    browser.assert_clean();
}
