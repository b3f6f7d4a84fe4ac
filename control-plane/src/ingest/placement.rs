//! Where in time a batch is stored, whatever its sensor's clock says (I4).
//!
//! A window that can be true is stored where the sensor says. One that cannot be is moved by the skew that
//! its request showed, and where that does not help, to the time of receipt: counts with a wrong time are
//! worth more than none. What is moved is flagged and keeps the sensor's own times beside. Only a window
//! that is truly too old (the clock is right, and the sensor was there) is not stored; its counts become a
//! loss of reason `expired`.

use std::time::Duration;

use super::validate::{DAY_NS, HOUR_NS};

/// Skew up to this is what networks and drifting clocks do; beyond, the sensor is flagged.
pub const SKEW_TOLERANCE: Duration = Duration::from_mins(5);

/// How far from now a window may lie.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    pub now_ns: i64,
    pub oldest_ns: i64,
    pub newest_ns: i64,
}

/// Where a batch lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Start of the window as it is stored.
    pub start_ns: i64,
    /// What is added to the sensor's times.
    pub shift_ns: i64,
}

/// A window that is not near now, neither as the sensor says nor with its skew taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Its start by the best that is known of the sensor's clock.
    pub start_ns: i64,
    /// By how much that is not what the sensor said.
    pub shift_ns: i64,
}

impl Horizon {
    #[must_use]
    pub fn around(now_ns: i64, max_past_days: u32, max_future_hours: u32) -> Self {
        Self {
            now_ns,
            oldest_ns: now_ns.saturating_sub(i64::from(max_past_days) * DAY_NS),
            newest_ns: now_ns.saturating_add(i64::from(max_future_hours) * HOUR_NS),
        }
    }

    fn holds(&self, (start_ns, end_ns): (i64, i64)) -> bool {
        start_ns >= self.oldest_ns && end_ns <= self.newest_ns
    }

    /// Places a window by its sensor's clock, or by ours where that one is known to be off.
    pub fn place(&self, (start_ns, end_ns): (i64, i64), skew_ms: Option<i64>) -> Result<Placement, Outside> {
        if self.holds((start_ns, end_ns)) {
            return Ok(Placement { start_ns, shift_ns: 0 });
        }
        let shift_ns = skew_ms.filter(|skew| is_off(*skew)).map_or(0, |skew| skew.saturating_mul(1_000_000));
        let moved = (start_ns.saturating_add(shift_ns), end_ns.saturating_add(shift_ns));
        if self.holds(moved) {
            return Ok(Placement { start_ns: moved.0, shift_ns });
        }
        Err(Outside { start_ns: moved.0, shift_ns })
    }

    /// Whether the window is truly old: the sensor was there already. Nothing was counted before that, so
    /// such a time comes from a clock that was wrong then.
    #[must_use]
    pub fn expired(&self, outside: Outside, sensor_since_ns: i64) -> bool {
        outside.start_ns < self.oldest_ns && outside.start_ns >= sensor_since_ns
    }

    /// The window ends now.
    #[must_use]
    pub fn at_receipt(&self, (start_ns, end_ns): (i64, i64)) -> Placement {
        let shift_ns = self.now_ns.saturating_sub(end_ns);
        let start_ns = start_ns.saturating_add(shift_ns);
        // A clock that was set by years within the epoch makes a window of years.
        let start_ns = if start_ns < self.oldest_ns { self.now_ns } else { start_ns };
        Placement { start_ns, shift_ns }
    }
}

/// Whether a skew is beyond what is tolerated.
#[must_use]
pub fn is_off(skew_ms: i64) -> bool {
    u128::from(skew_ms.unsigned_abs()) > SKEW_TOLERANCE.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const NOW: i64 = 1_800_000_000 * SECOND;
    const HORIZON: Horizon = Horizon { now_ns: NOW, oldest_ns: NOW - 30 * DAY_NS, newest_ns: NOW + DAY_NS };

    fn window(start_ns: i64) -> (i64, i64) {
        (start_ns, start_ns + 5 * SECOND)
    }

    #[test]
    fn i4_what_can_be_true_is_believed() {
        for (start_ns, skew_ms) in [
            (NOW, None),
            (NOW - 29 * DAY_NS, Some(0)),
            (NOW, Some(NOW / 1_000_000)),
            (NOW - 7, Some(i64::MIN)),
        ] {
            let placed = HORIZON.place(window(start_ns), skew_ms);
            assert_eq!(placed, Ok(Placement { start_ns, shift_ns: 0 }));
        }
    }

    #[test]
    fn i4_a_clock_that_is_years_off_is_corrected_by_its_skew() {
        // 1970, an hour after the start of the sensor; 2099.
        for clock in [3_600 * SECOND, NOW + 80 * 365 * DAY_NS] {
            let start_ns = clock - 60 * SECOND;
            let skew_ms = (NOW - clock) / 1_000_000;
            let placed = HORIZON.place(window(start_ns), Some(skew_ms)).expect("it can be placed");
            assert_eq!(placed, Placement { start_ns: NOW - 60 * SECOND, shift_ns: NOW - clock });
        }
    }

    #[test]
    fn i4_a_window_of_a_clock_that_has_been_set_since_is_placed_at_receipt() {
        for start_ns in [0, 1_000, NOW + 80 * 365 * DAY_NS] {
            let outside = HORIZON.place(window(start_ns), Some(3)).expect_err("it cannot be true");
            assert!(!HORIZON.expired(outside, NOW - 400 * DAY_NS));
            let placed = HORIZON.at_receipt(window(start_ns));
            assert_eq!(placed.start_ns, NOW - 5 * SECOND);
            assert_eq!(start_ns + placed.shift_ns, placed.start_ns);
        }
        // Set within the epoch, and as far as a number goes.
        for window in [(0, NOW), (NOW, i64::MAX)] {
            let placed = HORIZON.at_receipt(window);
            assert_eq!((placed.start_ns, window.1 + placed.shift_ns), (NOW, NOW));
        }
    }

    #[test]
    fn only_what_is_truly_old_expires() {
        let start_ns = NOW - 31 * DAY_NS;
        let outside = HORIZON.place(window(start_ns), Some(20)).expect_err("too old");
        assert!(HORIZON.expired(outside, NOW - 100 * DAY_NS));
        assert!(!HORIZON.expired(outside, NOW - 30 * DAY_NS), "the sensor was not there yet");
        // An hour off and too old.
        let outside = HORIZON.place(window(start_ns - HOUR_NS), Some(3_600_000)).expect_err("too old");
        assert_eq!(outside, Outside { start_ns, shift_ns: HOUR_NS });
    }
}
