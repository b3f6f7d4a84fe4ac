//! How long to wait before the next attempt.

use std::time::Duration;

use rand::Rng as _;

/// Exponential backoff with full jitter: a random time up to a bound that doubles with every failure, so
/// that sensors that lost the same control plane do not come back in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The bound of the next wait.
    fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.first.saturating_mul(factor).min(self.most)
    }

    /// The next wait; each is drawn from a longer span than the one before.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::rng().random())
    }

    /// The next wait of an open breaker: at least half of the span, so that an open breaker is one.
    pub fn open_wait(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// The longest wait, for failures that only an operator can end; with a quarter of jitter.
    #[must_use]
    pub fn slow_wait(&self) -> Duration {
        self.most.mul_f64(rand::rng().random_range(0.75..=1.0))
    }

    /// It worked: the next failure is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_never_beyond() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(3));
        let mut backoff = Backoff::new(first, most);
        let mut bounds = Vec::new();
        for _ in 0..70 {
            bounds.push(backoff.bound());
            let bound = backoff.bound();
            assert!(backoff.next_wait() <= bound);
        }
        assert_eq!(&bounds[..6], [100, 200, 400, 800, 1_600, 3_000].map(Duration::from_millis));
        assert_eq!(bounds.last(), Some(&most));
        backoff.reset();
        assert_eq!(backoff.bound(), first);
    }
}
