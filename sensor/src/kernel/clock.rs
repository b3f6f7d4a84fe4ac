//! Kernel time to wall time.
//!
//! The programs stamp with `CLOCK_MONOTONIC`, which knows no steps and stands still in suspend. The offset
//! to the wall clock is measured at each flip, so that a step of the wall clock reaches the records one
//! epoch later at most.

use nix::time::{ClockId, clock_gettime};

/// An offset: what to add to kernel nanoseconds to get nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default)]
pub struct WallClock {
    offset_ns: i64,
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
        Self { offset_ns }
    }

    /// For a replay, whose clock is the capture's.
    pub const fn of_capture() -> Self {
        Self { offset_ns: 0 }
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn wall(self, kernel_ns: u64) -> i64 {
        (kernel_ns as i64).wrapping_add(self.offset_ns)
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
