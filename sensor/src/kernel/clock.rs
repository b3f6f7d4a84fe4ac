//! Kernel time to wall time.
//!
//! The programs stamp with `CLOCK_MONOTONIC`, which knows no steps and stands still in suspend, or with the
//! tick counter. Both are read at each end of an epoch: so ticks become nanoseconds by interpolation, right
//! to a tick (1 to 10 ms), and a step of the wall clock reaches the records one epoch later at most.
//!
//! An epoch may last as long as the sensor was away. Its readings stand in the tables' identity, so whoever
//! drains it finds the same times.
//!
//! What the wall clock gains on the kernel's clock in an epoch has three causes. Drift, which is slow, and
//! suspend, which `CLOCK_BOOTTIME` tells apart, are true: they are spread over the epoch, so that its window
//! holds all of its times. The rest, if it is more than a clock can drift, is a step: somebody set the clock.
//! Nobody knows when in the epoch that was: all times are told by the clock that was right at the end, and none
//! is before the window.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use nix::time::{ClockId, clock_gettime};
use weir_sensor_common::{Control, TICKS, pins::Began};

use super::{KernelError, memory::MapMemory, sys};

/// What is no step in an epoch of any length...
const STEP_NS: u64 = 50_000_000;
/// ...and what a clock may drift beside: the kernel slews by 500 ppm at the most.
const DRIFT: u64 = 1_000_000 / 500;

/// Tick counter and `CLOCK_MONOTONIC` at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub ticks: u64,
    pub ns: u64,
}

/// Reads both kernel clocks, by the program that exists for it.
#[derive(Clone)]
pub struct Clocks(Arc<Mutex<Reader>>);

struct Reader {
    program: OwnedFd,
    control: MapMemory<Control>,
}

impl Clocks {
    /// `program` writes its reading into `control`.
    pub fn new(program: OwnedFd, control: MapMemory<Control>) -> Self {
        Self(Arc::new(Mutex::new(Reader { program, control })))
    }

    pub fn read(&self) -> Result<Reading, KernelError> {
        // One at a time: the reading goes through shared memory. A panic leaves nothing half done there.
        let reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sys::run(reader.program.as_fd())
            .map_err(KernelError::system("run the program that reads the clocks"))?;
        let control = reader.control.read(0);
        Ok(Reading { ticks: control.ticks, ns: control.ticks_ns })
    }
}

/// The clocks of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    /// What to add to kernel nanoseconds to get nanoseconds since the Unix epoch.
    offset_ns: i64,
    /// What the wall clock gained in the epoch by drift and suspend.
    gained_ns: i64,
    /// How long the machine has been in suspend.
    asleep_ns: u64,
    /// Readings at the epoch's ends.
    from: Reading,
    to: Reading,
    /// Earliest wall-clock time of the epoch, where the wall clock was set in it.
    earliest: i64,
}

impl WallClock {
    /// Measures the offset; the error is below the time between two clock readings, some 100 ns, because
    /// the closest of a few tries counts.
    pub fn measure() -> Self {
        let reading = || {
            let before = now(ClockId::CLOCK_MONOTONIC);
            let wall = now(ClockId::CLOCK_REALTIME);
            let after = now(ClockId::CLOCK_MONOTONIC);
            (after - before, wall - (before + (after - before) / 2))
        };
        let (_, offset_ns) = (0..5).map(|_| reading()).min().unwrap_or_default();
        let boottime = now(ClockId::CLOCK_BOOTTIME);
        let asleep_ns = boottime.saturating_sub(now(ClockId::CLOCK_MONOTONIC)).max(0) as u64;
        Self { offset_ns, asleep_ns, ..Self::of_capture() }
    }

    /// Of an epoch, from what was read at its ends.
    pub fn of_epoch(from: Began, to: Began) -> Self {
        let step_ns = Self::step(from, to);
        Self {
            offset_ns: to.offset_ns,
            gained_ns: to.offset_ns.wrapping_sub(from.offset_ns).wrapping_sub(step_ns),
            asleep_ns: to.asleep_ns,
            from: Reading { ticks: from.ticks, ns: from.ns },
            to: Reading { ticks: to.ticks, ns: to.ns },
            earliest: if step_ns == 0 { i64::MIN } else { from.wall_ns },
        }
    }

    /// By how much the wall clock was set in an epoch; 0 for a drift or a suspend.
    pub fn step(from: Began, to: Began) -> i64 {
        let asleep_ns = to.asleep_ns.saturating_sub(from.asleep_ns) as i64;
        let gained_ns = to.offset_ns.wrapping_sub(from.offset_ns).wrapping_sub(asleep_ns);
        let drift_ns = STEP_NS + to.ns.saturating_sub(from.ns) / DRIFT;
        if gained_ns.unsigned_abs() > drift_ns { gained_ns } else { 0 }
    }

    /// An epoch that begins now, by this clock.
    pub fn begin(self, epoch: u64, reading: Reading) -> Began {
        let Reading { ticks, ns } = reading;
        Began { epoch, ticks, ns, wall_ns: self.now(), offset_ns: self.offset_ns, asleep_ns: self.asleep_ns }
    }

    /// For a replay, whose clock is the capture's.
    pub const fn of_capture() -> Self {
        let reading = Reading { ticks: 0, ns: 0 };
        Self { offset_ns: 0, gained_ns: 0, asleep_ns: 0, from: reading, to: reading, earliest: i64::MIN }
    }

    /// Nanoseconds since the Unix epoch, of kernel nanoseconds.
    pub fn wall(self, kernel_ns: u64) -> i64 {
        let Self { offset_ns, gained_ns, from, to, earliest, .. } = self;
        let span = i128::from(to.ns.saturating_sub(from.ns));
        // What was still to be gained at that time.
        let left = to.ns.saturating_sub(kernel_ns.clamp(from.ns.min(to.ns), to.ns));
        let ahead = if span == 0 { 0 } else { (i128::from(gained_ns) * i128::from(left) / span) as i64 };
        (kernel_ns as i64).wrapping_add(offset_ns).wrapping_sub(ahead).max(earliest)
    }

    /// Kernel nanoseconds of a slot's stamp.
    pub fn kernel_ns(self, stamp: u64) -> u64 {
        if stamp & TICKS == 0 {
            return stamp;
        }
        let Self { from, to, .. } = self;
        let (ticks, span) = (stamp & !TICKS, to.ticks.saturating_sub(from.ticks));
        if span == 0 {
            return to.ns;
        }
        let elapsed = u128::from(to.ns.saturating_sub(from.ns));
        let passed = u128::from(ticks.clamp(from.ticks, to.ticks) - from.ticks);
        from.ns + (elapsed * passed / u128::from(span)) as u64
    }

    /// The wall clock now.
    pub fn now(self) -> i64 {
        now(ClockId::CLOCK_MONOTONIC) + self.offset_ns
    }
}

fn now(clock: ClockId) -> i64 {
    // These clocks exist on every Linux; zero would only misdate.
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * 1_000_000_000 + time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_nanoseconds_by_interpolation() {
        let clock = WallClock::of_epoch(
            Began { ticks: 1000, ns: 8_000_000_000, ..Began::default() },
            Began { ticks: 1250, ns: 9_000_000_000, ..Began::default() },
        );
        assert_eq!(clock.kernel_ns(TICKS | 1000), 8_000_000_000);
        assert_eq!(clock.kernel_ns(TICKS | 1125), 8_500_000_000);
        assert_eq!(clock.kernel_ns(TICKS | 1251), 9_000_000_000, "a tick that began after the reading");
        assert_eq!(clock.kernel_ns(77), 77, "nanoseconds stay what they are");
    }

    #[test]
    fn an_epoch_shorter_than_a_tick_has_its_end() {
        let reading = Began { ticks: 5, ns: 40, ..Began::default() };
        assert_eq!(WallClock::of_epoch(reading, reading).kernel_ns(TICKS | 5), 40);
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_time_before_the_window() {
        let hour = 3_600_000_000_000;
        let from = Began { ns: 1_000, wall_ns: 5 * hour + 1_000, offset_ns: 5 * hour, ..Began::default() };
        let to = Began { ns: 9_000, wall_ns: 4 * hour + 9_000, offset_ns: 4 * hour, ..Began::default() };
        let clock = WallClock::of_epoch(from, to);
        assert_eq!(clock.wall(2_000), from.wall_ns);
        assert_eq!(WallClock::step(from, to), -hour);
    }

    /// I4: a drift is spread over the epoch and is no step.
    #[test]
    fn a_drift_is_spread_over_its_epoch() {
        let from = Began { ns: 1_000, offset_ns: 500, ..Began::default() };
        let to = Began { ns: 9_000, offset_ns: 508, ..Began::default() };
        let clock = WallClock::of_epoch(from, to);
        assert_eq!([1_000, 5_000, 9_000, 9_500].map(|ns| clock.wall(ns)), [1_500, 5_504, 9_508, 10_008]);
        assert_eq!(WallClock::step(from, to), 0);
    }

    /// I4: eight hours in suspend are no step; the first packet of the epoch is dated before, the last after.
    #[test]
    fn a_suspend_is_no_step_and_leaves_times_within_the_window() {
        let (second, night) = (1_000_000_000, 28_800_000_000_000);
        let from = Began {
            ns: second,
            wall_ns: 3 * second as i64,
            offset_ns: 2 * second as i64,
            ..Began::default()
        };
        let to = Began {
            ns: 6 * second,
            offset_ns: 2 * second as i64 + night,
            asleep_ns: night as u64,
            ..Began::default()
        };
        assert_eq!(WallClock::step(from, to), 0);
        let clock = WallClock::of_epoch(from, to);
        assert_eq!(clock.wall(from.ns), from.wall_ns);
        assert_eq!(clock.wall(to.ns), to.ns as i64 + to.offset_ns);
        // The clock was set forward by an hour as well.
        let hour = 3_600_000_000_000;
        let to = Began { offset_ns: to.offset_ns + hour, ..to };
        assert_eq!(WallClock::step(from, to), hour);
        assert_eq!(WallClock::of_epoch(from, to).wall(from.ns), from.wall_ns + hour);
    }

    /// I4: what a clock can drift in ten hours would be a step in five seconds.
    #[test]
    fn a_long_epoch_may_drift_further() {
        let drifted = |ns: u64| Began { ns, offset_ns: 10_000_000_000, ..Began::default() };
        assert_eq!(WallClock::step(Began::default(), drifted(5_000_000_000)), 10_000_000_000);
        assert_eq!(WallClock::step(Began::default(), drifted(36_000_000_000_000)), 0);
    }
}
