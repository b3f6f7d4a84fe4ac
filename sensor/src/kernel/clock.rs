//! Kernel time to wall time.
//!
//! The programs stamp with `CLOCK_MONOTONIC`, which knows no steps and stands still in suspend, or with the
//! tick counter. Both are read at each end of an epoch: so ticks become nanoseconds by interpolation, right
//! to a tick (1 to 10 ms), and a step of the wall clock reaches the records one epoch later at most.

use nix::time::{ClockId, clock_gettime};
use weir_sensor_common::TICKS;

/// Tick counter and `CLOCK_MONOTONIC` at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    pub ticks: u64,
    pub ns: u64,
}

/// The clocks of an epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    /// What to add to kernel nanoseconds to get nanoseconds since the Unix epoch.
    offset_ns: i64,
    /// Readings at the epoch's ends.
    from: Reading,
    to: Reading,
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
        Self { offset_ns, ..Self::default() }
    }

    /// The same, for stamps between two readings.
    pub const fn between(self, from: Reading, to: Reading) -> Self {
        Self { from, to, ..self }
    }

    /// For a replay, whose clock is the capture's.
    pub const fn of_capture() -> Self {
        Self { offset_ns: 0, from: Reading { ticks: 0, ns: 0 }, to: Reading { ticks: 0, ns: 0 } }
    }

    /// Nanoseconds since the Unix epoch, of kernel nanoseconds.
    pub const fn wall(self, kernel_ns: u64) -> i64 {
        (kernel_ns as i64).wrapping_add(self.offset_ns)
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
        let clock = WallClock::of_capture()
            .between(Reading { ticks: 1000, ns: 8_000_000_000 }, Reading { ticks: 1250, ns: 9_000_000_000 });
        assert_eq!(clock.kernel_ns(TICKS | 1000), 8_000_000_000);
        assert_eq!(clock.kernel_ns(TICKS | 1125), 8_500_000_000);
        assert_eq!(clock.kernel_ns(TICKS | 1251), 9_000_000_000, "a tick that began after the reading");
        assert_eq!(clock.kernel_ns(77), 77, "nanoseconds stay what they are");
    }

    #[test]
    fn an_epoch_shorter_than_a_tick_has_its_end() {
        let reading = Reading { ticks: 5, ns: 40 };
        assert_eq!(WallClock::of_capture().between(reading, reading).kernel_ns(TICKS | 5), 40);
    }
}
