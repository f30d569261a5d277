//! The disk and the clock of the machine on which a service seems to run: its fsync can hang, and
//! its wall clock can be wrong. Both follow files, so that a new process of the service finds the
//! same state.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Where Debian's package `faketime` has its library, below a folder for each architecture.
const FAKETIME: &str = "faketime/libfaketimeMT.so.1";

pub(crate) struct Machine {
    dir: TempDir,
    faketime: PathBuf,
}

impl Machine {
    pub(crate) fn build() -> Self {
        let dir = TempDir::new().unwrap();
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("stall.so"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/stall.c"))
            .arg("-ldl")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler is needed, as `cc`");
        let machine = Self { dir, faketime: faketime() };
        machine.set_clock("+0s");
        machine
    }

    /// Returns the environment of its processes.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let stall = self.dir.path().join("stall.so");
        let preload = format!("{}:{}", self.faketime.display(), stall.display());
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", preload),
            ("STALL_FILE", at("stalled")),
            ("FAKETIME_TIMESTAMP_FILE", at("clock")),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Makes every fsync hang from now on, or lets them continue.
    pub(crate) fn stall(&self, is_stalled: bool) {
        let file = self.dir.path().join("stalled");
        if is_stalled { fs::write(file, "") } else { fs::remove_file(file) }.unwrap();
    }

    /// Sets the wall clock to the right time plus `offset`, such as `+40d`.
    pub(crate) fn set_clock(&self, offset: &str) {
        // Replaces the file in one step, because it is read all the time.
        let new = self.dir.path().join("clock.new");
        fs::write(&new, format!("{offset}\n")).unwrap();
        fs::rename(new, self.dir.path().join("clock")).unwrap();
    }
}

fn faketime() -> PathBuf {
    let architectures = fs::read_dir("/usr/lib").unwrap();
    architectures
        .map(|entry| entry.unwrap().path().join(FAKETIME))
        .find(|library| library.exists())
        .expect("faketime must be installed: apt-get install faketime")
}
