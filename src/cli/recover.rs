//! The command `recover`: replaces a damaged file of the embedded store.

use tokio::{runtime::Runtime, signal};

use super::{Failure, SIGXFSZ, streams};
use crate::{config::Config, counter::SystemClock, logging, store};

/// The end of its help.
pub(super) const WHAT_IT_DOES: &str = "\
The file is `anomalies.redb` in `data_dir`, with `anomalies.journal` if the service was killed. The
service must not be running. A file without damage stays in use; as at startup, an incomplete last
commit is rolled back and an older format is converted, and both are logged. A damaged file is
renamed to anomalies.damaged-TIME, and all its readable rows are copied to a new file; the command
prints the number of recovered rows of each kind, and the rows that are damaged or missing. The disk
needs space for the new file: if it is full, or the command is interrupted, nothing changes, and the
command can be run again.

A backup is complete, so restore a recent one instead if you have it: a copy of `data_dir` that was
made while the service was stopped. To start empty, move the folder away instead.";

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    // Opening the file may change it, which is logged.
    logging::start(&config.log);
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let _listening = signal::unix::signal(SIGXFSZ)?;
    let recovery = store::recover(&config.data_dir, config.recording(), SystemClock.now())?;
    streams::print(&recovery.to_string());
    Ok(())
}
