//! A Sentinel that watches over a master of a test's own.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{
    RedisServer,
    servers::process::{Process, on_free_port},
};

pub(crate) struct Sentinel {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Sentinel {
    /// Starts a Sentinel that is a quorum by itself, and considers a master dead after half a
    /// second.
    pub(crate) fn start(master: &RedisServer) -> Self {
        let started = on_free_port(|port| {
            let dir = TempDir::new()?;
            let configuration = format!(
                "port {port}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor main 127.0.0.1 {} 1\n\
                 sentinel down-after-milliseconds main 500\n\
                 sentinel failover-timeout main 3000\n",
                dir.path().display(),
                master.port()
            );
            fs::write(dir.path().join("sentinel.conf"), configuration)?;
            let mut command = Command::new("redis-server");
            command.args(["sentinel.conf", "--sentinel"]);
            let mut process = Process::spawn(&mut command, dir.path())?;
            process.wait_until(|process| process.log().contains("+monitor master main"))?;
            Ok(Self { port, _process: process, _dir: dir })
        });
        started.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", self.port)
    }
}
