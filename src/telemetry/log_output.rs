//! The way of log lines to standard error: a buffer with a limit, and a thread that writes it. So a
//! reader of the log that stands still delays neither calls nor the end of the process. While the
//! buffer is full, new lines are dropped, and their number is logged afterwards.
//!
//! The crate tracing-appender was rejected: its buffer has a limit in lines and not in bytes, it
//! does not report what it has dropped, and only its owner can flush it.

use std::{
    io::{self, Write},
    mem, process,
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

/// Maximum size of the lines that wait while others are being written: some thousands of lines.
const MAX_WAITING_BYTES: usize = 1 << 20;
/// Size of the memory that the buffer keeps after a burst.
const KEPT_BYTES: usize = 16 << 10;
/// Maximum time that [`flush_log`] waits for a reader.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static OUTPUT: OnceLock<Output> = OnceLock::new();

/// Adds a line to those that are written to standard error. It is a whole line, with its end.
pub fn write_log(line: &[u8]) {
    let output = OUTPUT.get_or_init(Output::start);
    if !output.has_thread {
        // Where no thread can be started, the service can't start either, and says why.
        let _ = io::stderr().write_all(line);
    } else if !output.buffer.add(line) {
        super::log_line_dropped();
    }
}

/// Waits until all lines are written, but not for a reader that stands still. Must be called before
/// the process exits.
pub fn flush_log() {
    if let Some(output) = OUTPUT.get() {
        output.buffer.flush(FLUSH_TIMEOUT);
    }
}

/// Ends the process after its last lines are written.
pub fn exit_with_log(code: i32) -> ! {
    flush_log();
    process::exit(code)
}

/// A writer of log lines, to which each line is written at once.
#[derive(Clone, Copy, Debug)]
pub struct LogOutput;

impl Write for LogOutput {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_log(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Output {
    buffer: Arc<LineBuffer>,
    has_thread: bool,
}

impl Output {
    fn start() -> Self {
        let buffer = Arc::<LineBuffer>::default();
        let written = Arc::clone(&buffer);
        let thread = thread::Builder::new().name("log".to_owned());
        let started = thread.spawn(move || written.write_to(io::stderr()));
        Self { buffer, has_thread: started.is_ok() }
    }
}

/// The lines that wait.
#[derive(Debug, Default)]
struct LineBuffer {
    lines: Mutex<Lines>,
    added: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// The number of lines that were dropped after those that wait.
    dropped: u64,
    is_writing: bool,
}

impl LineBuffer {
    /// Adds a line. Returns false if there is no room for it.
    fn add(&self, line: &[u8]) -> bool {
        let mut lines = self.lines.lock();
        if lines.waiting.len() + line.len() > MAX_WAITING_BYTES {
            lines.dropped += 1;
            return false;
        }
        lines.waiting.extend_from_slice(line);
        self.added.notify_one();
        true
    }

    /// Writes the lines as they come, for ever.
    fn write_to(&self, mut output: impl Write) {
        let mut bytes = Vec::new();
        loop {
            let dropped = self.take(&mut bytes);
            if dropped > 0 {
                // Goes to the buffer, where it is behind the lines after which others were dropped.
                tracing::warn!(
                    dropped,
                    "{dropped} log lines were dropped because standard error was not read"
                );
            }
            // There is no other place to report a failure to.
            let _ = output.write_all(&bytes);
            bytes.clear();
            bytes.shrink_to(KEPT_BYTES);
            self.lines.lock().is_writing = false;
            self.written.notify_all();
        }
    }

    /// Waits for lines and moves them to `bytes`, which is empty. Returns the number of lines that
    /// were dropped after them.
    fn take(&self, bytes: &mut Vec<u8>) -> u64 {
        let mut lines = self.lines.lock();
        while lines.waiting.is_empty() {
            self.added.wait(&mut lines);
        }
        mem::swap(&mut lines.waiting, bytes);
        lines.is_writing = true;
        mem::take(&mut lines.dropped)
    }

    /// Waits until all lines are written. Returns false if that takes longer than `timeout`.
    fn flush(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut lines = self.lines.lock();
        while lines.is_writing || !lines.waiting.is_empty() {
            if self.written.wait_until(&mut lines, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// An output that takes nothing before it gets a permit.
    struct Slow {
        permits: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.permits.recv();
            self.written.send(bytes.to_owned()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_as_whole_lines_and_counted_and_the_rest_is_written_in_order() {
        let buffer = Arc::<LineBuffer>::default();
        let (permit, permits) = mpsc::channel();
        let (written, chunks) = mpsc::channel();
        let writing = Arc::clone(&buffer);
        thread::spawn(move || writing.write_to(Slow { permits, written }));

        let line = |number: usize| format!("line {number:<100}\n");
        let mut kept = String::new();
        let mut dropped = 0;
        for number in 0..30_000 {
            if buffer.add(line(number).as_bytes()) {
                kept += &line(number);
            } else {
                dropped += 1;
            }
        }
        assert!(dropped > 5_000, "{dropped}");
        assert!(kept.len() <= 2 * MAX_WAITING_BYTES, "{}", kept.len());
        assert_eq!(buffer.lines.lock().dropped, dropped);
        assert!(!buffer.flush(Duration::from_millis(10)), "nothing is read");

        let mut found = Vec::new();
        while found.len() < kept.len() {
            permit.send(()).unwrap();
            found.extend(chunks.recv().unwrap());
        }
        assert!(found == kept.as_bytes());
        assert!(buffer.flush(Duration::from_secs(60)));
        assert_eq!(buffer.lines.lock().dropped, 0, "they are reported");
        drop(permit);
        assert!(buffer.add(line(0).as_bytes()), "there is room again");
    }
}
