//! Trusted time: the wall clock for as long as it moves together with the boot-time clock, which
//! nobody can set and which continues while the machine is suspended. If the two disagree, the wall
//! clock was set. It is not known at once whether it is wrong now or was wrong before, so the old
//! time continues until the new one has been steady for long enough. This part is pure; `clock.rs`
//! reads the clocks.
#![cfg_attr(doc, doc = include_str!("../../docs/design/time.md"))]

use crate::domain::{Moment, Timestamp};

/// Maximum difference between clocks that move together, in microseconds.
const TOLERANCE_MICROS: i64 = 60 * 1_000_000;
/// Time after which a wall clock that moves with the boot-time clock is trusted, and after which a
/// process may forget data: 10 minutes, in microseconds.
const STEADY_MICROS: i64 = 600 * 1_000_000;

/// Two clocks, read at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) wall: Timestamp,
    /// Time since the machine was booted, in microseconds.
    pub(super) boot_micros: i64,
}

/// A change in the agreement of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The wall clock has jumped, and differs from trusted time by this number of seconds.
    Jumped(i64),
    /// The wall clock is back where it was.
    Returned,
    /// The wall clock has been steady for long enough, and is trusted as it is.
    Adopted,
}

/// The state of trusted time.
#[derive(Debug)]
pub(super) struct TrustedTime {
    started_micros: i64,
    /// The reading that time is measured from.
    base: Reading,
    /// The first reading since which the wall clock has been steady, while it disagrees.
    candidate: Option<Reading>,
    /// The wall clock minus trusted time at the last reading, in microseconds.
    offset_micros: i64,
}

impl Reading {
    /// Returns the difference between the wall clock of a later reading and the time that this
    /// reading predicts, in microseconds.
    fn offset_micros(self, later: Self) -> i64 {
        let elapsed = later.boot_micros.saturating_sub(self.boot_micros);
        later.wall.as_micros().saturating_sub(self.wall.as_micros().saturating_add(elapsed))
    }

    fn agrees_with(self, later: Self) -> bool {
        self.offset_micros(later).saturating_abs() <= TOLERANCE_MICROS
    }

    fn is_older_than(self, later: Self, micros: i64) -> bool {
        later.boot_micros.saturating_sub(self.boot_micros) >= micros
    }
}

impl TrustedTime {
    pub(super) fn start(reading: Reading) -> Self {
        let started_micros = reading.boot_micros;
        Self { started_micros, base: reading, candidate: None, offset_micros: 0 }
    }

    /// Returns the moment of a reading, which must be later than all before it, and the change of
    /// the agreement, if any.
    pub(super) fn at(&mut self, reading: Reading) -> (Moment, Option<Change>) {
        let change = self.follow(reading);
        let offset_micros = self.base.offset_micros(reading);
        self.offset_micros = if self.candidate.is_some() { offset_micros } else { 0 };
        let wall = reading.wall;
        let now = Timestamp::from_micros(wall.as_micros().saturating_sub(self.offset_micros));
        let runs_long = reading.boot_micros.saturating_sub(self.started_micros) >= STEADY_MICROS;
        let horizon = if runs_long { now.min(wall) } else { Timestamp::MIN };
        (Moment { now, horizon, latest: now.max(wall) }, change)
    }

    /// Returns the difference between the wall clock and trusted time, in seconds; `None` while
    /// they agree.
    pub(super) fn disagreement_seconds(&self) -> Option<i64> {
        self.candidate.map(|_| self.offset_micros / 1_000_000)
    }

    fn follow(&mut self, reading: Reading) -> Option<Change> {
        if self.base.agrees_with(reading) {
            // A permanent base would turn the small corrections of years into a jump. A base that
            // follows each reading would miss a clock that runs at the wrong speed.
            if self.base.is_older_than(reading, STEADY_MICROS) {
                self.base = reading;
            }
            return self.candidate.take().map(|_| Change::Returned);
        }
        match self.candidate {
            Some(candidate) if candidate.agrees_with(reading) => {
                if !candidate.is_older_than(reading, STEADY_MICROS) {
                    return None;
                }
                self.base = reading;
                self.candidate = None;
                Some(Change::Adopted)
            }
            _ => {
                self.candidate = Some(reading);
                Some(Change::Jumped(self.base.offset_micros(reading) / 1_000_000))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60;
    const DAY: i64 = 86_400;

    /// A machine whose wall clock is off by some seconds.
    struct Machine {
        time: TrustedTime,
        /// True time since the start, in seconds.
        elapsed: i64,
        off_by: i64,
    }

    fn true_time(elapsed: i64) -> Timestamp {
        Timestamp::from_micros(1_774_799_738_123_456).plus_seconds(elapsed)
    }

    fn reading(elapsed: i64, off_by: i64) -> Reading {
        let boot_micros = (7_000 + elapsed) * 1_000_000;
        Reading { wall: true_time(elapsed + off_by), boot_micros }
    }

    impl Machine {
        fn start(off_by: i64) -> Self {
            Self { time: TrustedTime::start(reading(0, off_by)), elapsed: 0, off_by }
        }

        /// Lets time pass, with a reading every second. Returns the last moment and all changes.
        fn run(&mut self, seconds: i64) -> (Moment, Vec<Change>) {
            let mut changes = Vec::new();
            let mut last = None;
            for _ in 0..seconds {
                self.elapsed += 1;
                let (moment, change) = self.time.at(reading(self.elapsed, self.off_by));
                changes.extend(change);
                last = Some(moment);
            }
            (last.unwrap(), changes)
        }

        /// Creates a process that has run for an hour with the right clock.
        fn settled() -> Self {
            let mut machine = Self::start(0);
            let (moment, changes) = machine.run(3_600);
            assert_eq!((moment, changes), (true_time(3_600).into(), Vec::new()));
            machine
        }
    }

    #[test]
    fn nothing_may_be_forgotten_in_the_first_ten_minutes_of_a_process() {
        for off_by in [0, 40 * DAY, -40 * DAY] {
            let mut machine = Machine::start(off_by);
            let (moment, _) = machine.run(10 * MINUTE - 1);
            assert_eq!(moment.now, true_time(machine.elapsed + off_by), "nothing else is known");
            assert_eq!(moment.horizon, Timestamp::MIN);
            let (moment, _) = machine.run(1);
            assert_eq!(moment, true_time(machine.elapsed + off_by).into());
        }
    }

    #[test]
    fn a_jump_forward_or_back_changes_neither_time_nor_horizon_for_the_worse() {
        for off_by in [40 * DAY, -40 * DAY, 2 * MINUTE, -2 * MINUTE] {
            let mut machine = Machine::settled();
            machine.off_by = off_by;
            let (moment, changes) = machine.run(5);
            let right = true_time(machine.elapsed);
            let wrong = true_time(machine.elapsed + off_by);
            assert_eq!(moment.now, right);
            assert_eq!(moment.horizon, right.min(wrong));
            assert_eq!(moment.latest, right.max(wrong), "it may be the right one");
            assert_eq!(changes, [Change::Jumped(off_by)]);
            assert_eq!(machine.time.disagreement_seconds(), Some(off_by));

            machine.off_by = 0;
            let (moment, changes) = machine.run(5);
            assert_eq!(moment, true_time(machine.elapsed).into());
            assert_eq!(changes, [Change::Returned]);
            assert_eq!(machine.time.disagreement_seconds(), None);
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_is_trusted_once_it_has_been_steady_for_ten_minutes() {
        for off_by in [2 * MINUTE, -2 * MINUTE, 40 * DAY] {
            let mut machine = Machine::settled();
            machine.off_by = off_by;
            let (moment, _) = machine.run(10 * MINUTE);
            assert_eq!(moment.now, true_time(machine.elapsed));
            let (moment, changes) = machine.run(1);
            assert_eq!(changes, [Change::Adopted]);
            assert_eq!(moment, true_time(machine.elapsed + off_by).into());
            let (_, changes) = machine.run(3_600);
            assert_eq!(changes, []);
        }
    }

    #[test]
    fn a_wall_clock_that_jumps_again_and_again_is_not_trusted() {
        let mut machine = Machine::settled();
        for jump in 1..10 {
            machine.off_by = jump * DAY;
            let (moment, changes) = machine.run(9 * MINUTE);
            assert_eq!(moment.now, true_time(machine.elapsed));
            assert_eq!(changes, [Change::Jumped(jump * DAY)]);
        }
    }

    #[test]
    fn a_clock_that_was_wrong_at_the_start_is_the_base_until_the_right_one_is_steady() {
        let mut machine = Machine::start(40 * DAY);
        machine.run(5);
        machine.off_by = 0;
        let (moment, changes) = machine.run(10 * MINUTE);
        assert_eq!(changes, [Change::Jumped(-40 * DAY)]);
        assert_eq!(moment.now, true_time(machine.elapsed + 40 * DAY));
        assert!(moment.horizon <= true_time(machine.elapsed), "the right one forgets less");
        let (moment, changes) = machine.run(1);
        assert_eq!(changes, [Change::Adopted]);
        assert_eq!(moment, true_time(machine.elapsed).into());
    }

    #[test]
    fn a_suspended_machine_is_no_jump() {
        let mut machine = Machine::settled();
        // The boot-time clock continues, and no reading is made in the meantime.
        machine.elapsed += 3 * DAY;
        let (moment, changes) = machine.run(1);
        assert_eq!(changes, []);
        assert_eq!(moment, true_time(machine.elapsed).into());
    }

    #[test]
    fn small_corrections_are_followed_at_once_and_do_not_add_up_to_a_jump() {
        let mut machine = Machine::settled();
        for step in 1..100 {
            machine.off_by = step * 5;
            let (moment, changes) = machine.run(30 * MINUTE);
            assert_eq!(changes, []);
            assert_eq!(moment, true_time(machine.elapsed + machine.off_by).into());
        }
    }

    #[test]
    fn a_wall_clock_of_the_wrong_speed_disagrees() {
        let mut time = TrustedTime::start(reading(0, 0));
        let changes: Vec<_> = (1..=120).filter_map(|s| time.at(reading(s, s)).1).collect();
        assert_eq!(changes[0], Change::Jumped(61));
    }
}
