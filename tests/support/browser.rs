//! A real Chromium, driven by the Chrome DevTools Protocol over its WebSocket. A thin client, and
//! not chromiumoxide: the tests need six of the protocol's commands, for which that crate compiles
//! 111,000 generated lines.

use std::{
    env, fs,
    process::Command,
    time::{Duration, Instant},
};

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
    /// Errors of scripts, of the console and of the policy, but not refused calls.
    pub(crate) faults: Vec<String>,
}

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
            "--no-first-run",
            // Else a key that is pressed before the first frame is drawn is lost.
            "--allow-pre-commit-input",
            "--disable-background-timer-throttling",
            "--disable-renderer-backgrounding",
            "--remote-debugging-port=0",
            "--user-data-dir=.",
            "about:blank",
        ]);
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
        let faults = Vec::new();
        let mut browser = Self { _process: process, _dir: dir, socket, last_id: 0, faults };
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
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
        let fault = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => &params["exceptionDetails"],
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => &params["args"],
            // A call that the service refuses is an entry of its own kind, and no fault.
            Some("Log.entryAdded")
                if params["entry"]["level"] == "error"
                    && params["entry"]["source"] != "network" =>
            {
                &params["entry"]["text"]
            }
            _ => return,
        };
        self.faults.push(fault.to_string());
    }

    /// The value of a JavaScript expression in the page.
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
                panic!("not within {DEADLINE:?}: {expression}. The page shows {shown}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for an element and clicks it.
    pub(crate) async fn click(&mut self, selector: &str) {
        let element = format!("document.querySelector({})", json!(selector));
        self.wait_for(&element).await;
        self.evaluate(&format!("{element}.click()")).await;
    }

    /// Types into the element that has the focus.
    pub(crate) async fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Presses a key such as `Enter` or `j`.
    pub(crate) async fn press(&mut self, key: &str) {
        let text = if key == "Enter" { "\r" } else { key };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key});
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }
}
