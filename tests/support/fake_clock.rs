//! A clock that a test sets, for a process under libfaketime.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// The clock of the processes that are started with its variables. It is right at first.
pub(crate) struct FakeClock {
    dir: TempDir,
    /// True if the boot-time clock moves along.
    moves_all_clocks: bool,
}

impl FakeClock {
    /// Creates a wall clock that can be set, as by an operator.
    pub(crate) fn of_the_wall() -> Self {
        Self::new(false)
    }

    /// Creates all clocks of a machine, so that time seems to pass.
    pub(crate) fn of_the_machine() -> Self {
        Self::new(true)
    }

    fn new(moves_all_clocks: bool) -> Self {
        let clock = Self { dir: TempDir::new().unwrap(), moves_all_clocks };
        clock.set(0);
        clock
    }

    /// Sets it this many seconds ahead of the machine's clock.
    pub(crate) fn set(&self, ahead_seconds: i64) {
        let new = self.dir.path().join("new");
        fs::write(&new, format!("{ahead_seconds:+}\n")).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    /// Returns the environment variables by which a process uses it.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
        ];
        if !self.moves_all_clocks {
            // The first name is that of newer versions.
            for name in ["FAKETIME_DONT_FAKE_MONOTONIC", "DONT_FAKE_MONOTONIC"] {
                variables.push((name, "1".to_owned()));
            }
        }
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ahead")
    }
}

/// Returns the library of Debian's package, whose folder is named after the architecture.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap().map(|folder| folder.unwrap().path());
    let mut libraries =
        folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).filter(|l| l.exists());
    let packaged = Path::new("/usr/lib/faketime/libfaketimeMT.so.1");
    libraries
        .next()
        .or_else(|| packaged.exists().then(|| packaged.to_owned()))
        .expect("libfaketime must be installed: tests/install-programs.sh installs it")
}
