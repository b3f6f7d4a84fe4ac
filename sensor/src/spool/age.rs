//! How old a batch is, on a clock that a step of the wall clock does not move.
//!
//! Within one boot ages are differences of `CLOCK_BOOTTIME`, which counts through suspend. Over a reboot
//! only the wall clock is left: its difference is taken, and a clock that was set back gives age nought.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::record::Moment;

/// Tells the time for the spool.
#[derive(Clone, Debug)]
pub(super) struct Clock {
    boot: Vec<u8>,
}

impl Clock {
    pub(super) fn new() -> Self {
        // Without it, ages over a restart are the wall clock's.
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.trim_ascii().to_vec() }
    }

    pub(super) fn now(&self) -> Moment {
        Moment { boot: self.boot.clone(), boot_ns: boottime_ns(), wall_ns: wall_ns() }
    }

    pub(super) fn age(&self, stored: &Moment) -> Duration {
        age(stored, &self.now())
    }
}

fn age(stored: &Moment, now: &Moment) -> Duration {
    if !now.boot.is_empty() && stored.boot == now.boot {
        return Duration::from_nanos(now.boot_ns.saturating_sub(stored.boot_ns));
    }
    Duration::from_nanos(u64::try_from(now.wall_ns.saturating_sub(stored.wall_ns)).unwrap_or(0))
}

fn boottime_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}

/// Nanoseconds since the Unix epoch.
pub(super) fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I4: a step of the wall clock makes no batch old.
    #[test]
    fn ages_follow_the_boot_clock_and_over_a_reboot_the_wall_clock() {
        let moment = |boot: &str, boot_ns, wall_ns| Moment { boot: boot.into(), boot_ns, wall_ns };
        let stored = moment("a", 1_000, 50_000);
        assert_eq!(age(&stored, &moment("a", 3_000, 90_000_000)), Duration::from_micros(2));
        assert_eq!(age(&stored, &moment("a", 3_000, 0)), Duration::from_micros(2));
        assert_eq!(age(&stored, &moment("b", 10, 57_000)), Duration::from_micros(7));
        assert_eq!(age(&stored, &moment("b", 10, 0)), Duration::ZERO);
        assert_eq!(age(&moment("", 5, 1), &moment("", 9, 3)), Duration::from_nanos(2));
    }
}
