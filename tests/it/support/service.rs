//! The service as a process of its own, as operators run it.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::{Client, ClientBuilder, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::RedisServer;

const BINARY: &str = env!("CARGO_BIN_EXE_anomaly-counter");

/// A running service; killed with the test.
pub(crate) struct Service {
    process: Child,
    base: String,
    client: Client,
    dir: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// On the embedded store, in a folder of its own.
    pub(crate) async fn embedded() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn on_redis(redis: &RedisServer) -> Self {
        Self::with(&[("REDIS__URL", &redis.url())]).await
    }

    pub(crate) async fn on_redis_in(redis: &RedisServer, time_zone: &str) -> Self {
        let url = ("ANOMALY_COUNTER__REDIS__URL".to_owned(), redis.url());
        let environment = vec![url, ("TZ".to_owned(), time_zone.to_owned())];
        Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await
    }

    /// With options as the environment names them, without the prefix.
    pub(crate) async fn with(options: &[(&str, &str)]) -> Self {
        let environment = options
            .iter()
            .map(|(name, value)| (format!("ANOMALY_COUNTER__{name}"), (*value).to_owned()))
            .collect();
        Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await
    }

    /// With variables of the environment as they are.
    pub(crate) async fn with_environment(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = variables.iter().map(owned).collect();
        Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await
    }

    /// On the embedded store, with no more than so many open files.
    pub(crate) async fn with_open_files(most: u64) -> Self {
        let mut limited = Command::new("prlimit");
        limited.args([&format!("--nofile={most}:{most}"), BINARY]);
        Self::spawn_as(limited, Arc::new(TempDir::new().unwrap()), Vec::new()).await
    }

    /// With a configuration file, and other files, in its working folder.
    pub(crate) async fn with_files(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        std::fs::create_dir(dir.path().join("config")).unwrap();
        std::fs::write(dir.path().join("config/test.toml"), config).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self::spawn(dir, Vec::new()).await
    }

    /// Puts another text into a file of its working folder, and has the service read it.
    pub(crate) fn replace_file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self.hang_up();
    }

    /// Ends the process without warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again in the same folder with the same options; on another port.
    pub(crate) async fn restart(mut self) -> Self {
        self.kill();
        self.successor().await
    }

    /// Another process in the same folder with the same options, once this one has been killed.
    pub(crate) async fn successor(&self) -> Self {
        Self::spawn(Arc::clone(&self.dir), self.environment.clone()).await
    }

    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Ends the process without warning, also while others use it.
    pub(crate) fn kill_in_use(&self) {
        self.signal("-KILL");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits for the process to end, and says whether it ended well.
    pub(crate) async fn ended_well(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Has every write beyond so many bytes into a file fail, as on a full disk; `None` for no limit.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let process = self.process.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &process, &format!("--fsize={limit}:")])
            .status()
            .expect("prlimit must be installed: apt-get install util-linux");
        assert!(status.success());
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// One of the figures of memory that `/proc` has of it, such as `VmRSS:`.
    pub(crate) fn bytes_of(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Its working folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Has it read its files of secrets again.
    pub(crate) fn hang_up(&self) {
        self.signal("-HUP");
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn address(&self) -> &str {
        self.base.trim_start_matches("http://")
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(log_file(self.dir.path())).unwrap_or_default()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::PUT, path).json(body)).await
    }

    /// Posts bytes as they are, under a JSON content type.
    pub(crate) async fn post_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body)).await
    }

    async fn spawn(dir: Arc<TempDir>, environment: Vec<(String, String)>) -> Self {
        Self::spawn_as(Command::new(BINARY), dir, environment).await
    }

    async fn spawn_as(
        mut command: Command,
        dir: Arc<TempDir>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let log = File::create(log_file(dir.path())).unwrap();
        let process = command
            .current_dir(dir.path())
            .env("ANOMALY_COUNTER__LISTEN", "127.0.0.1:0")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let client = http_client().build().unwrap();
        let mut service = Self { process, base: String::new(), client, dir, environment };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(address) = listening_address(&service.log()) {
                service.base = format!("http://{address}");
                return service;
            }
            let ended = service.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no start: {}", service.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A client of HTTP that goes straight to where it is sent.
pub(crate) fn http_client() -> ClientBuilder {
    // An error tells that an earlier test of the process has done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(10))
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the service's log ---\n{}", self.log());
        }
    }
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text:?}"));
        Self { status, headers, body }
    }

    /// The body of a 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// Makes sure that this is a problem as RFC 9457 has it, and answers its detail.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].is_string(), "{member} of {}", self.body);
        }
        self.body["detail"].as_str().unwrap().to_owned()
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("service.log")
}

fn listening_address(log: &str) -> Option<String> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|line| line["address"].as_str().map(str::to_owned))
}
