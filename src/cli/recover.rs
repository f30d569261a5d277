//! The command `recover`: replaces a damaged file of the embedded store.

use tokio::{runtime::Runtime, signal};

use super::{Failure, SIGXFSZ};
use crate::{config::Config, counter::SystemClock, logging, store};

/// The end of its help.
pub(super) const WHAT_IT_DOES: &str = "\
The file is `anomalies.redb` in `data_dir`. One that reads well stays in use; as at a start of the
service, a last commit that was never complete is taken back, and the format of an older version is
converted, which the log says. A damaged one is renamed to anomalies.damaged-TIME, and a new one
holds every row that reads well; the command prints how many rows of what it took over, and what was
damaged or not found. The service must not be running. The disk needs room for the new file: if
there is none, or the command is interrupted, everything is as before, and it can be run again.

A backup has everything, so restore one if there is one that is recent enough: a copy of the file
that was made while the service was stopped. To start empty, move the file away instead.";

pub(super) fn run(config: &Config) -> Result<(), Failure> {
    // What opening the file has changed must be said.
    logging::start(&config.log);
    let runtime = Runtime::new()?;
    let _entered = runtime.enter();
    let _listening = signal::unix::signal(SIGXFSZ)?;
    let recovery = store::recover(&config.data_dir, config.recording(), SystemClock.now())?;
    print!("{recovery}");
    Ok(())
}
