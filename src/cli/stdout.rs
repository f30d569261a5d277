//! Standard output. Its reader may leave before the end, as `head` does, where `println!` panics.

use std::{
    io::{self, Write as _},
    process,
};

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
        eprintln!("anomaly-counter: writing to standard output failed: {error}");
        process::exit(1);
    }
}

/// Prints a formatted line as [`print()`] does.
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::cli::stdout::print(&(format!($($argument)*) + "\n"))
    };
}

pub(super) use outln;
