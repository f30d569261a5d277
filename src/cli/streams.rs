//! Standard output and standard error. A reader may leave before the end, as `head` does, where
//! `println!` and `eprintln!` panic.

use std::io::{self, Write as _};

use crate::telemetry::{exit_with_log, flush_log, write_log};

/// Writes to standard output.
///
/// # Errors
/// Fails if the output can't be written, for example on a full disk. A closed pipe is not an error.
pub(super) fn write(bytes: &[u8]) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes to standard output, and ends the process if that fails.
pub(super) fn print(text: &str) {
    if let Err(error) = write(text.as_bytes()) {
        complain(&format!("anomaly-counter: writing to standard output failed: {error}"));
        exit_with_log(1);
    }
}

/// Writes a line to standard error, after the lines of the log. If that fails, the exit code says
/// enough.
pub(super) fn complain(line: &str) {
    write_log(format!("{line}\n").as_bytes());
    flush_log();
}

/// Prints a formatted line as [`print()`] does.
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::cli::streams::print(&(format!($($argument)*) + "\n"))
    };
}

/// Prints a formatted line as [`complain()`] does.
macro_rules! errln {
    ($($argument:tt)*) => {
        $crate::cli::streams::complain(&format!($($argument)*))
    };
}

pub(super) use {errln, outln};
