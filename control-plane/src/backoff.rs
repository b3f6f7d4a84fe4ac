//! How long to wait after something failed: twice as long each time, up to a bound, and never quite as long
//! as somebody else who failed at the same moment.

use std::time::Duration;

use rand::Rng as _;

/// Waiting times between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// After so many failures in a row: between a half of the nominal time and all of it.
    #[must_use]
    pub fn after(self, failures: u32) -> Duration {
        let nominal = self.nominal(failures);
        nominal.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    fn nominal(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_bound_and_spread() {
        let backoff = Backoff { first: Duration::from_secs(2), longest: Duration::from_mins(1) };
        let nominal: Vec<u64> = (0..8).map(|failures| backoff.nominal(failures).as_secs()).collect();
        assert_eq!(nominal, [2, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.nominal(u32::MAX), Duration::from_mins(1));
        for failures in 0..100 {
            let (wait, nominal) = (backoff.after(failures), backoff.nominal(failures));
            assert!(wait <= nominal && wait >= nominal / 2, "{failures}: {wait:?}");
        }
    }
}
