//! A Redis of the test's own: a real `redis-server` on a free port, killed with the test.

use std::{
    fs::{self, File},
    io::Read as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    types::{ClusterHash, CustomCommand, Value, config::Config},
};
use tempfile::TempDir;

use super::eventually;

/// Stands for the server's port in its arguments.
const PORT: &str = "{port}";

pub(crate) struct RedisServer {
    port: u16,
    dir: TempDir,
    arguments: Vec<String>,
    /// Absent while it is stopped.
    process: Option<Child>,
}

impl RedisServer {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With TLS in place of plain TCP.
    pub(crate) fn start_tls(options: &[(&str, &str)]) -> Self {
        let mut arguments = vec!["--port", "0", "--tls-port", PORT];
        arguments.extend(options.iter().flat_map(|(name, value)| [*name, *value]));
        Self::start_with(&arguments)
    }

    /// With more options; [`PORT`] in one of them is replaced by its port.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        // Another process may take a port between its choice and its use: then the next is tried.
        for _ in 0..10 {
            let port = free_ports(1)[0];
            let arguments: Vec<String> =
                arguments.iter().map(|a| a.replace(PORT, &port.to_string())).collect();
            if let Some(server) = Self::try_start(port, TempDir::new().unwrap(), arguments) {
                return server;
            }
        }
        panic!("no redis-server could be started");
    }

    /// On a port that may have been taken meanwhile: then there is none.
    pub(super) fn try_start(port: u16, dir: TempDir, arguments: Vec<String>) -> Option<Self> {
        let mut server = Self { port, dir, arguments, process: None };
        server.try_restart().then_some(server)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A client beside the service's, for what other programs do to its data.
    pub(crate) async fn client(&self) -> OtherClient {
        let client = Client::new(Config::from_url(&self.url()).unwrap(), None, None, None);
        // One that has just been restarted takes its time to load what it has saved.
        eventually("redis-server takes a connection", || async { client.init().await.ok() }).await;
        OtherClient(client)
    }

    /// Ends the process at once. What it held is lost, but for what `save` wrote.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts the process again on the same port.
    pub(crate) fn restart(&mut self) {
        self.kill();
        assert!(self.try_restart(), "redis-server did not come back: {}", self.log());
    }

    /// Starts it again without anything that it had written down.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        self.dir = TempDir::new().unwrap();
        self.restart();
    }

    /// Starts it again with the data of a snapshot (`dump.rdb`) and nothing else.
    pub(crate) fn restart_with_snapshot(&mut self, snapshot: &Path) {
        self.kill();
        self.dir = TempDir::new().unwrap();
        fs::copy(snapshot, self.dir.path().join("dump.rdb")).unwrap();
        self.restart();
    }

    /// Stops the process from answering, without ending a connection.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn try_restart(&mut self) -> bool {
        let log = File::create(self.log_file()).unwrap();
        let process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("redis-server must be installed: apt-get install redis-server");
        let process = self.process.insert(process);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "redis-server does not listen: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }

    fn log(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.log_file()).and_then(|mut file| file.read_to_string(&mut text));
        read.map_or_else(|error| error.to_string(), |_| text)
    }
}

/// Ports that nobody listens on, all different.
pub(super) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- redis-server's log ---\n{}", self.log());
        }
        self.kill();
    }
}

/// A connection as any other program has one.
pub(crate) struct OtherClient(Client);

impl OtherClient {
    /// Runs a command given as words parted by `|`, and answers its reply.
    pub(crate) async fn run(&self, command: &[&str]) -> Value {
        let name = CustomCommand::new(command[0].to_owned(), ClusterHash::Random, false);
        let arguments = command[1..].iter().map(|word| (*word).to_owned()).collect();
        let answered =
            tokio::time::timeout(Duration::from_secs(10), self.0.custom(name, arguments));
        answered.await.expect("an answer within 10 s").unwrap()
    }

    pub(crate) async fn text(&self, command: &[&str]) -> Option<String> {
        self.run(command).await.into_string()
    }

    pub(crate) async fn number(&self, command: &[&str]) -> i64 {
        self.run(command).await.as_i64().unwrap()
    }

    pub(crate) async fn texts(&self, command: &[&str]) -> Vec<String> {
        self.run(command).await.into_array().into_iter().filter_map(Value::into_string).collect()
    }
}
