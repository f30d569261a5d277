//! The page at `/`: its files, its policy, and the session of a browser.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::json;

use crate::{
    access::{entry, guarded},
    support::{Answer, Service, key_of},
};

/// Maximum size of all files of the page together, as they are sent.
const MAX_BYTES: usize = 60 << 10;

const BROWSER_ACCEPTS: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn document(service: &Service) -> Response {
    let request = service.request(Method::GET, "/").header("accept", BROWSER_ACCEPTS);
    request.send().await.unwrap()
}

async fn text(service: &Service, path: &str) -> String {
    let response = service.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}

/// Returns the texts in quotes that begin with `start`.
fn quoted<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.split('"').filter(|part| part.starts_with(start)).collect()
}

#[tokio::test]
async fn a_browser_gets_the_page_and_a_program_the_paths() {
    let service = Service::embedded().await;
    let page = document(&service).await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["vary"], "accept");
    assert!(page.text().await.unwrap().starts_with("<!doctype html>"));
    for accept in ["*/*", "application/json", "text/plain"] {
        let request = service.request(Method::GET, "/").header("accept", accept);
        let links = Answer::of(request).await;
        assert_eq!(links.headers["vary"], "accept");
        assert_eq!(links.ok()["docs"], "/docs", "{accept}");
    }
}

#[tokio::test]
async fn the_page_loads_its_own_files_only_and_runs_nothing_inline() {
    let service = Service::embedded().await;
    let page = document(&service).await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert_eq!(
        policy,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src \
         'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'"
    );
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");

    let page = page.text().await.unwrap();
    for inline in ["<style", "style=", "<script>", "javascript:", "://"] {
        assert!(!page.contains(inline), "{inline}");
    }
    assert!(!page.split('<').any(has_handler));
    let mut paths = quoted(&page, "page/").into_iter().map(str::to_owned).collect::<Vec<_>>();
    paths.sort();
    paths.dedup();
    assert!(paths.len() >= 3, "{paths:?}");
    let mut bytes = page.len();
    let mut next = 0;
    while let Some(path) = paths.get(next) {
        let file = text(&service, &format!("/{path}")).await;
        bytes += file.len();
        for unsafe_call in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!file.contains(unsafe_call), "{path} has {unsafe_call}");
        }
        let imports = quoted(&file, "./").into_iter().filter(|name| name.ends_with(".js"));
        for import in imports {
            let import = import.replace("./", "page/");
            if !paths.contains(&import) {
                paths.push(import);
            }
        }
        next += 1;
    }
    assert!(paths.len() >= 10, "{paths:?}");
    assert!(bytes <= MAX_BYTES, "the page has {bytes} bytes");
}

/// Returns true if a tag has an attribute such as `onclick`.
fn has_handler(tag: &str) -> bool {
    let attributes = tag.split('>').next().unwrap().split_whitespace().skip(1);
    attributes
        .filter_map(|attribute| attribute.split_once('='))
        .any(|(name, _)| name.len() > 2 && name.starts_with("on"))
}

#[tokio::test]
async fn a_file_is_not_sent_again_to_a_reader_that_has_it() {
    let service = Service::embedded().await;
    let script = service.request(Method::GET, "/page/main.js").send().await.unwrap();
    assert_eq!(script.headers()["content-type"], "text/javascript; charset=utf-8");
    assert_eq!(script.headers()["cache-control"], "no-cache");
    let tag = script.headers()["etag"].clone();
    assert_eq!(document(&service).await.headers()["etag"], tag);
    let again = |tag: reqwest::header::HeaderValue| {
        service.request(Method::GET, "/page/main.js").header("if-none-match", tag).send()
    };
    let unchanged = again(tag).await.unwrap();
    assert_eq!(unchanged.status(), 304);
    assert!(unchanged.bytes().await.unwrap().is_empty());
    assert_eq!(again("\"other\"".parse().unwrap()).await.unwrap().status(), 200);
    service.get("/page/no-such.js").await.problem(404);
    service.get("/page/index.html").await.problem(404);
    service.get("/page/types.d.ts").await.problem(404);
}

#[tokio::test]
async fn a_page_that_is_disabled_leaves_the_api_alone() {
    let service = Service::with(&[("PAGE__ENABLED", "false")]).await;
    assert_eq!(document(&service).await.headers()["content-type"], "application/json");
    service.get("/page/main.js").await.problem(404);
    assert!(service.get("/session").await.problem(404).contains("page.enabled"));
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
}

/// Logs in, and returns the whole `Set-Cookie` and the cookie alone.
async fn log_in(service: &Service, token: &str) -> (String, String) {
    let request = service.request(Method::POST, "/session").json(&json!({"token": token}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let set = response.headers()["set-cookie"].to_str().unwrap().to_owned();
    let cookie = set.split(';').next().unwrap().to_owned();
    (set, cookie)
}

/// Returns a request as the page's scripts make it.
fn of_page(service: &Service, method: Method, path: &str, cookie: &str) -> RequestBuilder {
    let request = service.request(method, path).header("cookie", cookie);
    request.header("sec-fetch-site", "same-origin")
}

#[tokio::test]
async fn a_browser_logs_in_with_a_token_and_has_its_scopes() {
    let service = guarded().await;
    let missing = service.get("/session").await;
    assert_eq!(missing.headers["www-authenticate"], "Bearer realm=\"anomaly-counter\"");
    missing.problem(401);
    let wrong = service.post("/session", &json!({"token": "s3cr3t"})).await;
    assert!(!wrong.headers.contains_key("set-cookie"));
    wrong.problem(401);
    service.post("/session", &json!({"token": "expired"})).await.problem(401);
    // The body of a caller without a token must be short to be read.
    service.post("/session", &json!({"token": "x".repeat(5_000)})).await.problem(413);
    service.post("/session", &json!({"token": "read", "name": "ana"})).await.problem(422);

    let (set, cookie) = log_in(&service, "read").await;
    assert_eq!(set, "anomaly_counter=read; HttpOnly; SameSite=Strict; Path=/; Max-Age=43200");
    let session = Answer::of(of_page(&service, Method::GET, "/session", &cookie)).await.ok();
    let expected = json!({"open": false, "name": "read", "scopes": ["read"], "expires_at": null});
    assert_eq!(session, expected);
    Answer::of(of_page(&service, Method::GET, "/spool/dead-letters", &cookie)).await.ok();
    let retry = of_page(&service, Method::POST, "/spool/dead-letters/retry", &cookie);
    assert!(Answer::of(retry).await.problem(403).contains("operate"));

    // The header overrides the cookie, also if it is wrong.
    let both = of_page(&service, Method::GET, "/session", &cookie);
    assert_eq!(Answer::of(both.bearer_auth("operate")).await.ok()["name"], "operate");
    let both = of_page(&service, Method::GET, "/session", &cookie);
    Answer::of(both.bearer_auth("s3cr3t")).await.problem(401);

    let end = of_page(&service, Method::DELETE, "/session", &cookie).send().await.unwrap();
    assert_eq!(end.status(), StatusCode::NO_CONTENT);
    let cleared = end.headers()["set-cookie"].to_str().unwrap();
    assert!(cleared.starts_with("anomaly_counter=; "), "{cleared}");
    assert!(cleared.ends_with("Max-Age=0"), "{cleared}");
    assert!(!service.log().contains("s3cr3t"));
    assert!(!service.log().contains("anomaly_counter="));
}

#[tokio::test]
async fn with_a_cookie_only_the_own_page_changes_anything() {
    let service = guarded().await;
    let posted = service.request(Method::POST, "/anomalies").bearer_auth("ingest");
    Answer::of(posted.json(&json!({"alert_name": "HighCPU"}))).await.ok();
    let (_, cookie) = log_in(&service, "operate").await;
    let mark = || {
        let body = json!({"anomaly_key": key_of("HighCPU"), "fix_description": "more memory"});
        service.request(Method::PUT, "/permanent-fix").header("cookie", &cookie).json(&body)
    };
    Answer::of(mark()).await.problem(403);
    Answer::of(mark().header("sec-fetch-site", "same-site")).await.problem(403);
    let cross = mark().header("sec-fetch-site", "cross-site");
    Answer::of(cross.header("origin", format!("http://{}", service.address()))).await.problem(403);
    Answer::of(mark().header("origin", "https://evil.example")).await.problem(403);
    let end = service.request(Method::DELETE, "/session").header("cookie", &cookie);
    Answer::of(end.header("sec-fetch-site", "cross-site")).await.problem(403);

    Answer::of(mark().header("sec-fetch-site", "same-origin")).await.ok();
    // Over a connection that they do not trust, browsers send only the origin.
    let own = mark().header("origin", format!("http://{}", service.address()));
    Answer::of(own).await.ok();
    let audit = service.request(Method::GET, &format!("/anomalies/{}/audit", key_of("HighCPU")));
    let audit = Answer::of(audit.bearer_auth("read")).await.ok();
    assert_eq!(audit["entries"].as_array().unwrap().len(), 2);
    assert_eq!(audit["entries"][0]["token"], "operate");
}

#[tokio::test]
async fn behind_a_proxy_with_tls_the_cookie_is_for_tls_only() {
    let tokens = entry("ana", "scopes = [\"read\"]\nexpires_at = \"2200-01-01T00:00:00Z\"");
    let config = "auth.file = \"tokens.toml\"\nauth.session_hours = 1\n\
                  proxy.trusted = [\"127.0.0.1\"]";
    let service = Service::with_files(config, &[("tokens.toml", &tokens)]).await;
    let by_tls = |request: RequestBuilder| request.header("x-forwarded-proto", "https");
    let login = service.request(Method::POST, "/session").json(&json!({"token": "ana"}));
    let response = by_tls(login).send().await.unwrap();
    let set = response.headers()["set-cookie"].to_str().unwrap();
    assert_eq!(
        set,
        "__Host-anomaly_counter=ana; HttpOnly; SameSite=Strict; Path=/; Max-Age=3600; Secure"
    );
    let session = |cookie: &str| {
        by_tls(service.request(Method::GET, "/session").header("cookie", cookie.to_owned()))
    };
    let known = Answer::of(session("__Host-anomaly_counter=ana")).await.ok();
    assert_eq!(known["expires_at"], "2200-01-01T00:00:00.000000Z");
    // A page over plain HTTP could have set the cookie of the other name.
    Answer::of(session("anomaly_counter=ana")).await.problem(401);
}

#[tokio::test]
async fn removing_a_token_ends_its_sessions() {
    let service = guarded().await;
    let (_, cookie) = log_in(&service, "read").await;
    service.replace_file("tokens.toml", &entry("operate", "scopes = [\"operate\"]"));
    crate::support::eventually("the session has ended", || async {
        let session = of_page(&service, Method::GET, "/session", &cookie).send().await.unwrap();
        (session.status() == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_tokens_the_page_needs_no_login() {
    let service = Service::embedded().await;
    let session = service.get("/session").await.ok();
    let scopes = ["ingest", "read", "operate"];
    let expected = json!({"open": true, "name": null, "scopes": scopes, "expires_at": null});
    assert_eq!(session, expected);
    // A cookie from an earlier session is ignored.
    service.post("/anomalies", &json!({"alert_name": "HighCPU"})).await.ok();
    let body = json!({"anomaly_key": key_of("HighCPU"), "fix_description": "more memory"});
    let mark = service.request(Method::PUT, "/permanent-fix").json(&body);
    Answer::of(mark.header("cookie", "anomaly_counter=old")).await.ok();
    let login = service.request(Method::POST, "/session").json(&json!({"token": "any"}));
    let response = login.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(!response.headers().contains_key("set-cookie"));
}
