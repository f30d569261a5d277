//! The one place that reads clocks. Everywhere else the time is an argument.

use std::fmt;

use nix::time::{ClockId, clock_gettime};
use parking_lot::Mutex;

use super::trusted_time::{Change, Reading, TrustedTime};
use crate::{
    domain::{Moment, Timestamp},
    telemetry,
};

/// Maximum time between the two readings of the boot-time clock around one of the wall clock, in
/// microseconds. A process that was stopped in between reads again.
const READING_MICROS: i64 = 1_000_000;

/// A source of the current time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Returns the current moment.
    fn moment(&self) -> Moment;

    /// Returns the difference between the wall clock and the time of the last moment, in seconds;
    /// `None` while the wall clock is trusted.
    fn disagreement_seconds(&self) -> Option<i64>;

    /// Returns the current time.
    fn now(&self) -> Timestamp {
        self.moment().now
    }
}

/// The wall clock of this machine, without any check.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Returns the time of the wall clock.
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    pub fn now(self) -> Timestamp {
        chrono::Utc::now().into()
    }
}

/// The wall clock of this machine for as long as it can be trusted.
#[derive(Debug)]
pub struct TrustedClock(Mutex<TrustedTime>);

impl TrustedClock {
    /// Starts with the time of the wall clock. Must be read about once a second; otherwise, a jump
    /// may stay unnoticed.
    pub fn start() -> Self {
        Self(Mutex::new(TrustedTime::start(read())))
    }
}

impl Clock for TrustedClock {
    fn moment(&self) -> Moment {
        let mut time = self.0.lock();
        // Read under the lock, because no reading may be older than the one before it.
        let (moment, change) = time.at(read());
        drop(time);
        if let Some(change) = change {
            report(change, moment.now);
        }
        moment
    }

    fn disagreement_seconds(&self) -> Option<i64> {
        self.0.lock().disagreement_seconds()
    }
}

fn report(change: Change, now: Timestamp) {
    match change {
        Change::Jumped(seconds) => {
            telemetry::clock_jump();
            tracing::warn!(
                seconds,
                %now,
                "the wall clock has jumped by {seconds} s: the service continues from {now} until \
                 the clock is back, or has been steady for 10 minutes. Check the time \
                 synchronisation (NTP)"
            );
        }
        Change::Returned => tracing::warn!(%now, "the wall clock is back, and the service uses it \
                                                  again"),
        Change::Adopted => tracing::warn!(
            %now,
            "the wall clock has been steady for 10 minutes, and the service uses it: the time is \
             {now}"
        ),
    }
}

fn read() -> Reading {
    loop {
        let before_micros = boot_micros();
        let wall = SystemClock.now();
        let boot_micros = boot_micros();
        if boot_micros - before_micros <= READING_MICROS {
            return Reading { wall, boot_micros };
        }
    }
}

/// Returns the time since the machine was booted, including the time for which it was suspended.
fn boot_micros() -> i64 {
    // The call fails only for clocks that do not exist. This one exists since Linux 2.6.39. It is
    // that of the C library, so that a test which fakes the time by a preloaded library fakes both
    // clocks.
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME);
    time.map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1_000)
}
