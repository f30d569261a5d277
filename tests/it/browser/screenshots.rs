//! The pictures of the documents: `make screenshots`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{open, shop};
use crate::support::Browser;

/// Writes a picture of the page, with few colours if pngquant is installed.
async fn picture(browser: &mut Browser, name: &str) {
    let path = folder().join(name).with_extension("png");
    browser.screenshot(&path).await;
    let mut smaller = Command::new("pngquant");
    smaller.args(["--force", "--skip-if-larger", "--ext=.png", "--quality=80-100"]).arg(&path);
    if let Err(error) = smaller.status() {
        eprintln!("{name} stays as large as it is: pngquant: {error}");
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures")
}

#[tokio::test]
#[ignore = "it writes pictures into docs/pictures: make screenshots"]
async fn pictures_of_a_shop_are_taken() {
    let service = shop::open_for_two_weeks(&[]).await;
    fs::create_dir_all(folder()).unwrap();
    let mut browser = Browser::start().await;
    let star = format!("?anomaly={}", shop::star());

    browser.screen(1400, 900, false).await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelectorAll('tbody tr').length === 26").await;
    picture(&mut browser, "list").await;

    browser.screen(1400, 1000, false).await;
    open(&mut browser, &service, &star).await;
    browser.wait_for("document.querySelector('.chart')").await;
    picture(&mut browser, "anomaly").await;
    browser.screen(1400, 1000, true).await;
    picture(&mut browser, "dark").await;

    browser.screen(390, 844, false).await;
    open(&mut browser, &service, "").await;
    browser.wait_for("document.querySelectorAll('tbody tr').length === 26").await;
    picture(&mut browser, "phone").await;
    browser.assert_clean();
}
