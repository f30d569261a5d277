//! A disk that hangs, for one service: a library that is preloaded into it makes each fsync hang.

use std::{path::PathBuf, process::Command};

use tempfile::TempDir;

use super::Service;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/hanging_disk.c");

pub(crate) struct HangingDisk(TempDir);

impl HangingDisk {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(dir.path().join("hanging_disk.so"))
            .args([SOURCE, "-ldl"])
            .status()
            .expect("cc must be installed, which cargo needs too");
        assert!(compiled.success());
        Self(dir)
    }

    /// Starts a service on this disk, with options by the names of their environment variables,
    /// without the prefix.
    pub(crate) async fn service(&self, options: &[(&str, &str)]) -> Service {
        let mut environment = self.environment().to_vec();
        for (name, value) in options {
            environment.push((format!("ANOMALY_COUNTER__{name}"), (*value).to_owned()));
        }
        let environment: Vec<_> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Service::with_environment(&environment).await
    }

    /// Returns the environment variables that put a process on this disk.
    pub(crate) fn environment(&self) -> [(String, String); 2] {
        let library = self.0.path().join("hanging_disk.so");
        [
            ("LD_PRELOAD".to_owned(), library.display().to_string()),
            ("HANGING_DISK".to_owned(), self.flag().display().to_string()),
        ]
    }

    /// Makes every fsync hang from now on.
    pub(crate) fn hang(&self) {
        self.hang_after(0);
    }

    /// Makes every fsync hang after this many more.
    pub(crate) fn hang_after(&self, count: usize) {
        let whole = self.flag().with_extension("new");
        std::fs::write(&whole, count.to_string()).unwrap();
        std::fs::rename(whole, self.flag()).unwrap();
    }

    /// Lets each fsync that hangs end, and later ones work.
    pub(crate) fn answer(&self) {
        std::fs::remove_file(self.flag()).unwrap();
    }

    fn flag(&self) -> PathBuf {
        self.0.path().join("hangs")
    }
}

impl Drop for HangingDisk {
    /// Lets the service end.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.flag());
    }
}
