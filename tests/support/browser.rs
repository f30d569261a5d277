//! A real Chromium, driven by the Chrome DevTools Protocol over its WebSocket. A thin client, and
//! not chromiumoxide: the tests need a dozen of the protocol's commands, for which that crate
//! compiles 111,000 generated lines.

use std::{
    env, fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::{DEADLINE, eventually, http_client, servers::process::Process};

/// A browser with one page. Killed with the test.
pub(crate) struct Browser {
    _process: Process,
    _dir: TempDir,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_id: u64,
    /// Errors of scripts, of the console and of the policy.
    pub(crate) faults: Vec<String>,
    /// Calls of the service that failed, or were refused.
    pub(crate) refused: Vec<String>,
}

/// Roles of the accessibility tree that say nothing without a name.
const NAMED_ROLES: [&str; 15] = [
    "button",
    "checkbox",
    "combobox",
    "dialog",
    "DisclosureTriangle",
    "heading",
    "image",
    "img",
    "link",
    "navigation",
    "region",
    "searchbox",
    "switch",
    "table",
    "textbox",
];

impl Browser {
    pub(crate) async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let is_there = |name: &&str| {
            let path = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&path).any(|folder| folder.join(name).exists())
        };
        let program = ["chromium", "google-chrome"].into_iter().find(is_there);
        let mut command = Command::new(program.unwrap_or("chromium"));
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-dev-shm-usage",
            "--disable-sync",
            "--hide-scrollbars",
            "--no-first-run",
            "--remote-debugging-port=0",
            "--user-data-dir=.",
            "about:blank",
        ]);
        command.env("TZ", "UTC");
        let process = Process::spawn(&mut command, dir.path()).unwrap();
        let port_file = dir.path().join("DevToolsActivePort");
        let client = http_client().build().unwrap();
        let address = eventually("the browser has a page", || async {
            let port = fs::read_to_string(&port_file).ok()?.lines().next()?.to_owned();
            let targets = client.get(format!("http://127.0.0.1:{port}/json/list")).send().await;
            let targets: Value = serde_json::from_str(&targets.ok()?.text().await.ok()?).ok()?;
            let page = targets.as_array()?.iter().find(|target| target["type"] == "page")?;
            page["webSocketDebuggerUrl"].as_str().map(str::to_owned)
        })
        .await;
        let (socket, _) = tokio_tungstenite::connect_async(address).await.unwrap();
        let mut browser = Self {
            _process: process,
            _dir: dir,
            socket,
            last_id: 0,
            faults: Vec::new(),
            refused: Vec::new(),
        };
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        browser.call("Emulation.setLocaleOverride", json!({"locale": "en-GB"})).await;
        browser.screen(1400, 900, false).await;
        browser
    }

    /// Sends a command, and returns its result.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let command = json!({"id": id, "method": method, "params": params}).to_string();
        self.socket.send(Message::text(command)).await.unwrap();
        loop {
            let next = tokio::time::timeout(DEADLINE, self.socket.next()).await;
            let message = next.expect("the browser answers").unwrap().unwrap();
            let Ok(text) = message.to_text() else { continue };
            let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.faults.push(params["exceptionDetails"].to_string());
            }
            Some("Runtime.consoleAPICalled")
                if ["error", "warning", "assert"].iter().any(|kind| params["type"] == *kind) =>
            {
                self.faults.push(params["args"].to_string());
            }
            Some("Log.entryAdded") => {
                let entry = &params["entry"];
                let line = format!("{} {}", entry["text"], entry["url"]);
                if entry["source"] == "network" {
                    self.refused.push(line);
                } else if entry["level"] == "error" || entry["level"] == "warning" {
                    self.faults.push(line);
                }
            }
            _ => {}
        }
    }

    /// Asserts that there was no error, no violation of the policy, and no call that failed.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert!(self.refused.is_empty(), "{:?}", self.refused);
        self.assert_faultless();
    }

    /// Asserts that there was no error and no violation of the policy.
    #[track_caller]
    pub(crate) fn assert_faultless(&self) {
        assert!(self.faults.is_empty(), "{:?}", self.faults);
    }

    /// Sets the size of the page in pixels, and whether the reader prefers dark colours.
    pub(crate) async fn screen(&mut self, width: u32, height: u32, is_dark: bool) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Returns the value of a JavaScript expression in the page.
    pub(crate) async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params).await;
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    pub(crate) async fn open(&mut self, address: &str) {
        self.call("Page.navigate", json!({"url": address})).await;
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) async fn wait_for(&mut self, expression: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.evaluate(&format!("Boolean({expression})")).await != true {
            if Instant::now() > deadline {
                let shown = self.evaluate("document.body.innerText").await;
                panic!("not within {DEADLINE:?}: {expression}; shown is {shown}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until an element that matches `selector` has this text in it.
    pub(crate) async fn wait_for_text(&mut self, selector: &str, text: &str) {
        self.wait_for(&element(selector, text)).await;
    }

    /// Returns the text of an element as it is shown.
    pub(crate) async fn text_of(&mut self, selector: &str) -> String {
        let text = self.evaluate(&format!("{}?.innerText", element(selector, ""))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits for an element and clicks it with the mouse.
    pub(crate) async fn click(&mut self, selector: &str) {
        self.click_on(selector, "").await;
    }

    /// Waits for an element with this text in it, and clicks it with the mouse.
    pub(crate) async fn click_on(&mut self, selector: &str, text: &str) {
        let [x, y] = self.point_of(selector, text).await;
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Waits for an element, moves the mouse to it, and returns its position.
    pub(crate) async fn hover(&mut self, selector: &str) {
        let [x, y] = self.point_of(selector, "").await;
        let event = json!({"type": "mouseMoved", "x": x, "y": y});
        self.call("Input.dispatchMouseEvent", event).await;
    }

    /// Waits until nothing lies over the middle of an element, and returns that point.
    async fn point_of(&mut self, selector: &str, text: &str) -> [f64; 2] {
        let found = element(selector, text);
        let point = format!(
            "(() => {{ const found = {found}; if (!found) return null; \
             found.scrollIntoView({{ block: 'center' }}); \
             const {{ x, y, width, height }} = found.getClientRects()[0] ?? {{}}; \
             const at = [x + width / 2, y + height / 2]; \
             return x >= 0 && found.contains(document.elementFromPoint(...at)) ? at : null; }})()"
        );
        self.wait_for(&point).await;
        let at = self.evaluate(&point).await;
        [at[0].as_f64().unwrap(), at[1].as_f64().unwrap()]
    }

    /// Types into the element that has the focus.
    pub(crate) async fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key such as `Enter`, `Tab` or `j`.
    pub(crate) async fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, Some("\r")),
            "Tab" => (9, None),
            "Escape" => (27, None),
            " " => (32, Some(key)),
            _ => (0, Some(key)),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "windowsVirtualKeyCode": code});
            if let (Some(text), "keyDown") = (text, kind) {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Returns the controls, pictures and landmarks that have no name for screen readers.
    pub(crate) async fn nameless(&mut self) -> Vec<String> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().unwrap();
        let named = nodes.iter().filter(|node| {
            node["ignored"] == false
                && NAMED_ROLES.iter().any(|role| node["role"]["value"] == *role)
        });
        // A dialog hides everything else, and has at least three of them.
        assert!(named.clone().count() >= 3, "{nodes:?}");
        let is_nameless = |node: &&Value| node["name"]["value"].as_str().is_none_or(str::is_empty);
        named.filter(is_nameless).map(Value::to_string).collect()
    }

    /// Writes a picture of the page to a PNG file.
    pub(crate) async fn screenshot(&mut self, path: &Path) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let bytes = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Returns a JavaScript expression for the first element that matches, and has this text in it.
fn element(selector: &str, text: &str) -> String {
    let (selector, text) = (json!(selector), json!(text));
    format!(
        "[...document.querySelectorAll({selector})].find((found) => \
         found.textContent.includes({text}))"
    )
}
