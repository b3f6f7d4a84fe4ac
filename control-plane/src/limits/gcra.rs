//! The generic cell rate algorithm: a token bucket whose whole state is one time.
//!
//! That time says when the bucket will be full again (the theoretical arrival time, "tat"). A request moves it
//! on by the time that one token takes; a request that would move it further ahead than the whole bucket
//! takes is refused and moves nothing. Times are microseconds of whatever clock, as long as it is one.

use std::time::Duration;

/// How fast tokens come, and how many a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time that one token takes.
    pub interval_us: u64,
    pub burst: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    /// Requests that may follow at once.
    pub remaining: u64,
    /// When the next one is allowed, after a refusal.
    pub retry_after: Duration,
    /// When the bucket is full again.
    pub reset: Duration,
}

impl Rate {
    #[must_use]
    pub fn per_minute(tokens: u32, burst: u32) -> Self {
        Self { interval_us: 60_000_000 / u64::from(tokens.max(1)), burst: u64::from(burst.max(1)) }
    }

    /// Time in which an empty bucket fills.
    #[must_use]
    pub fn window_us(&self) -> u64 {
        self.interval_us.saturating_mul(self.burst)
    }

    /// Decides on a request at `now_us`; gives the new time too, where it is allowed.
    #[must_use]
    pub fn decide(&self, tat_us: u64, now_us: u64) -> (Verdict, Option<u64>) {
        let window_us = self.window_us();
        // Ahead by more than a bucket only where the clock was set back.
        let tat_us = tat_us.clamp(now_us, now_us.saturating_add(window_us));
        let next_us = tat_us.saturating_add(self.interval_us);
        let full_us = now_us.saturating_add(window_us);
        if next_us > full_us {
            let retry_after = Duration::from_micros(next_us - full_us);
            let reset = Duration::from_micros(tat_us - now_us);
            return (Verdict { allowed: false, remaining: 0, retry_after, reset }, None);
        }
        let remaining = (full_us - next_us).checked_div(self.interval_us).unwrap_or(self.burst);
        let reset = Duration::from_micros(next_us - now_us);
        (Verdict { allowed: true, remaining, retry_after: Duration::ZERO, reset }, Some(next_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_a_burst_passes_then_one_an_interval() {
        let rate = Rate::per_minute(60, 5);
        let (mut tat, start) = (0, 1_000_000_000);
        for left in (0..5).rev() {
            let (verdict, next) = rate.decide(tat, start);
            assert!(verdict.allowed);
            assert_eq!(verdict.remaining, left);
            tat = next.expect("it is allowed");
        }
        let (refused, next) = rate.decide(tat, start);
        assert_eq!((refused.allowed, next), (false, None));
        assert_eq!((refused.retry_after, refused.reset), (Duration::from_secs(1), Duration::from_secs(5)));
        assert!(!rate.decide(tat, start + 999_999).0.allowed);
        let (verdict, _) = rate.decide(tat, start + 1_000_000);
        assert_eq!((verdict.allowed, verdict.remaining), (true, 0));
        assert_eq!(rate.decide(tat, start + 60_000_000).0.remaining, 4, "no more than a bucket is saved");
    }

    #[test]
    fn a7_a_clock_that_was_set_back_locks_nobody_out() {
        let rate = Rate::per_minute(60, 5);
        let (verdict, _) = rate.decide(u64::MAX, 1_000_000);
        assert_eq!((verdict.allowed, verdict.retry_after), (false, Duration::from_secs(1)));
    }
}
