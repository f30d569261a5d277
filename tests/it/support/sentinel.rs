//! A Sentinel that watches over a master of the test's own.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::redis_server::{RedisServer, free_ports};

pub(crate) struct Sentinel {
    port: u16,
    process: Child,
    _dir: TempDir,
}

impl Sentinel {
    /// One by itself is a quorum, and loses patience after half a second.
    pub(crate) fn start(master: &RedisServer) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_ports(1)[0];
        let configuration = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor main 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds main 500\n\
             sentinel failover-timeout main 3000\n",
            dir.path().display(),
            master.port()
        );
        let file = dir.path().join("sentinel.conf");
        fs::write(&file, configuration).unwrap();
        let process = Command::new("redis-server")
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Self { port, process, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "the sentinel does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        sentinel
    }

    pub(crate) fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", self.port)
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
