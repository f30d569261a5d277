//! The service as a process, as operators run it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use reqwest::{Client, ClientBuilder, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    DEADLINE, FakeClock, RedisServer, eventually,
    servers::{
        process::{Process, START_TIMEOUT},
        service::{SERVICE, listening_address, service_command},
    },
};

/// Age of a process that is past its first minutes, in which nothing expires.
pub(crate) const AGED_SECONDS: i64 = 11 * 60;

/// The log of a service is whole when it has not grown for so long.
const LOG_INTERVAL: Duration = Duration::from_millis(20);

/// A running service, killed with the test.
pub(crate) struct Service {
    process: Process,
    base: String,
    client: Client,
    dir: Arc<TempDir>,
    environment: Vec<(String, String)>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Service {
    /// Starts a service on the embedded store, in a folder of its own.
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

    /// Starts a service with options by the names of their environment variables, without the
    /// prefix.
    pub(crate) async fn with(options: &[(&str, &str)]) -> Self {
        let environment = options
            .iter()
            .map(|(name, value)| (format!("ANOMALY_COUNTER__{name}"), (*value).to_owned()))
            .collect();
        Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await
    }

    /// Starts a service with a clock of its own, and options as above.
    pub(crate) async fn under(clock: &FakeClock, options: &[(&str, &str)]) -> Self {
        let mut environment = clock.environment();
        let option = |(name, value): &(&str, &str)| {
            (format!("ANOMALY_COUNTER__{name}"), (*value).to_owned())
        };
        environment.extend(options.iter().map(option));
        let service = Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await;
        // When its clock is set ahead, it closes connections that seem to have been idle for long,
        // and a POST on one of them fails.
        Self { client: http_client().pool_max_idle_per_host(0).build().unwrap(), ..service }
    }

    /// Starts a service that is past its first minutes, in which nothing is forgotten or too old.
    /// It uses the returned clock, which must live as long.
    pub(crate) async fn aged(options: &[(&str, &str)]) -> (Self, FakeClock) {
        let clock = FakeClock::of_the_machine();
        let service = Self::under(&clock, options).await;
        clock.set(AGED_SECONDS);
        // To operations in progress it seems that much time has passed.
        eventually("it is ready", || async {
            (service.get("/readyz").await.ok()["status"] == "ready").then_some(())
        })
        .await;
        (service, clock)
    }

    /// Starts a service with environment variables by their full names.
    pub(crate) async fn with_environment(variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = variables.iter().map(owned).collect();
        Self::spawn(Arc::new(TempDir::new().unwrap()), environment).await
    }

    /// Starts a service on the embedded store, with a limit on open files.
    pub(crate) async fn with_open_files(limit: u64) -> Self {
        let mut limited = Command::new("prlimit");
        limited.args([&format!("--nofile={limit}:{limit}"), SERVICE]);
        Self::spawn_as(limited, Arc::new(TempDir::new().unwrap()), Vec::new()).await
    }

    /// Starts a service with a configuration file, and other files, in its working folder.
    pub(crate) async fn with_files(config: &str, files: &[(&str, &str)]) -> Self {
        let dir = Arc::new(TempDir::new().unwrap());
        std::fs::create_dir(dir.path().join("config")).unwrap();
        std::fs::write(dir.path().join("config/test.toml"), config).unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Self::spawn(dir, Vec::new()).await
    }

    /// Replaces a file in its working folder, and makes the service read it.
    pub(crate) fn replace_file(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
        self.hang_up();
    }

    /// Ends the process without warning, as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
    }

    /// Starts it again in the same folder with the same options, on another port.
    pub(crate) async fn restart(mut self) -> Self {
        self.kill();
        self.successor().await
    }

    /// Starts another process in the same folder with the same options, after this one was killed.
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

    /// Asks the process to end, also while others use it, and waits until it has.
    pub(crate) async fn terminate_in_use(&self) {
        self.terminate();
        let stat = format!("/proc/{}/stat", self.process.id());
        let deadline = Instant::now() + DEADLINE;
        // A process that has ended stays as a zombie until it is waited for.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: &str) {
        self.process.signal(signal).unwrap();
    }

    /// Waits for the process to end, and returns whether it succeeded.
    pub(crate) async fn ended_well(&mut self) -> bool {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.ended().unwrap() {
                return status.success();
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Makes every write beyond this size of a file fail, as on a full disk.
    pub(crate) fn limit_file_size(&self, bytes: Option<u64>) {
        let limit = bytes.map_or_else(|| "unlimited".to_owned(), |bytes| bytes.to_string());
        let process = self.process.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &process, &format!("--fsize={limit}:")])
            .status()
            .expect("prlimit must be installed: apt-get install util-linux");
        assert!(status.success());
    }

    /// Returns one of the memory sizes in proc_pid_status(5), such as `VmRSS:`, in bytes.
    pub(crate) fn memory_bytes(&self, size: &str) -> u64 {
        self.process.memory_bytes(size).unwrap()
    }

    /// Returns its working folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends SIGHUP, so that it reads its secret files again.
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
        // A line is written a moment after it is logged, by a thread of its own.
        let mut log = self.process.log();
        loop {
            thread::sleep(LOG_INTERVAL);
            let later = self.process.log();
            if later == log {
                return log;
            }
            log = later;
        }
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

    /// Posts bytes unchanged, with the content type of JSON.
    pub(crate) async fn post_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.request(Method::POST, path).header("content-type", "application/json");
        Answer::of(request.body(body)).await
    }

    async fn spawn(dir: Arc<TempDir>, environment: Vec<(String, String)>) -> Self {
        Self::spawn_as(Command::new(SERVICE), dir, environment).await
    }

    async fn spawn_as(
        command: Command,
        dir: Arc<TempDir>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let mut command = service_command(command, &environment);
        let mut process = Process::spawn(&mut command, dir.path()).unwrap();
        let deadline = Instant::now() + START_TIMEOUT;
        // Not a blocking wait: a proxy in this thread may be between the service and its Redis.
        let address = loop {
            if let Some(address) = listening_address(&process.log()) {
                break address;
            }
            process.must_be_starting(deadline).unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let client = http_client().build().unwrap();
        Self { process, base: format!("http://{address}"), client, dir, environment }
    }
}

/// Returns a builder of an HTTP client that uses no proxy.
pub(crate) fn http_client() -> ClientBuilder {
    // This fails if an earlier test in the process has installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(DEADLINE)
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("not JSON: {text:?}"));
        Self { status, headers, body }
    }

    /// Returns the body of a 200.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        self.body
    }

    /// Asserts that this is a problem in the form of RFC 9457, and returns its detail.
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
