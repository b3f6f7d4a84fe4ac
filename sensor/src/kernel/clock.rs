//! Kernel time to wall time.
//!
//! The programs stamp with `CLOCK_MONOTONIC`, which knows no steps and stands still in suspend, or with the
//! tick counter. Both are read at each end of an epoch: so ticks become nanoseconds by interpolation, right
//! to a tick (1 to 10 ms), and a step of the wall clock reaches the records one epoch later at most.
//!
//! An epoch may last as long as the sensor was away. Its readings stand in the tables' identity, so whoever
//! drains it finds the same times; where the wall clock was set meanwhile (or the machine slept), no time
//! leaves the window by more than the step.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
};

use nix::time::{ClockId, clock_gettime};
use weir_sensor_common::{Control, TICKS, pins::Began};

use super::{KernelError, memory::MapMemory, sys};

/// A difference of the offset between the ends of an epoch that is a step and no drift: a clock that is
/// slewed at the kernel's limit (500 ppm) takes three minutes for it.
const STEP_NS: u64 = 100_000_000;

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
        Self { offset_ns, ..Self::of_capture() }
    }

    /// Of an epoch, from what was read at its ends.
    pub fn of_epoch(from: Began, to: Began) -> Self {
        let stepped = Self::step(from, to) != 0;
        Self {
            offset_ns: to.offset_ns,
            from: Reading { ticks: from.ticks, ns: from.ns },
            to: Reading { ticks: to.ticks, ns: to.ns },
            earliest: if stepped { from.wall_ns } else { i64::MIN },
        }
    }

    /// By how much the wall clock was set in an epoch; 0 for a drift.
    pub fn step(from: Began, to: Began) -> i64 {
        let stepped = to.offset_ns.abs_diff(from.offset_ns) >= STEP_NS;
        if stepped { to.offset_ns.wrapping_sub(from.offset_ns) } else { 0 }
    }

    /// An epoch that begins now, by this clock.
    pub fn begin(self, epoch: u64, reading: Reading) -> Began {
        let Reading { ticks, ns } = reading;
        Began { epoch, ticks, ns, wall_ns: self.now(), offset_ns: self.offset_ns, reserved: 0 }
    }

    /// For a replay, whose clock is the capture's.
    pub const fn of_capture() -> Self {
        let reading = Reading { ticks: 0, ns: 0 };
        Self { offset_ns: 0, from: reading, to: reading, earliest: i64::MIN }
    }

    /// Nanoseconds since the Unix epoch, of kernel nanoseconds.
    pub fn wall(self, kernel_ns: u64) -> i64 {
        (kernel_ns as i64).wrapping_add(self.offset_ns).max(self.earliest)
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
        let unset = WallClock::of_epoch(from, Began { offset_ns: from.offset_ns + 7, ..to });
        assert_eq!(unset.wall(999), 5 * hour + 1_006, "a drift is not a step");
    }
}
