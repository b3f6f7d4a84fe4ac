//! The circuit breaker: a control plane that fails again and again is left alone, but for a probe now and then.

/// Where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BreakerState {
    /// Attempts are made.
    #[default]
    Closed,
    /// None are made until its time is up.
    Open,
    /// One is under way: a probe.
    HalfOpen,
}

impl BreakerState {
    /// The value of the metric.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::Open => 1,
            Self::HalfOpen => 2,
        }
    }

    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// Counts failures; the waits are the courier's.
#[derive(Clone, Debug)]
pub struct Breaker {
    threshold: u32,
    failures: u32,
    state: BreakerState,
}

impl Breaker {
    /// Opens after so many failures in a row.
    #[must_use]
    pub fn new(threshold: u32) -> Self {
        Self { threshold: threshold.max(1), failures: 0, state: BreakerState::Closed }
    }

    #[must_use]
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// An attempt is about to be made: of an open breaker it is the probe.
    pub fn attempt(&mut self) {
        if self.state == BreakerState::Open {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// It failed; whether that has opened the breaker.
    pub fn failed(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            BreakerState::HalfOpen => true,
            BreakerState::Closed => self.failures >= self.threshold,
            BreakerState::Open => false,
        };
        if opens {
            self.state = BreakerState::Open;
        }
        opens
    }

    /// The control plane answered for itself; whether that has closed an open breaker.
    pub fn succeeded(&mut self) -> bool {
        let closes = self.state != BreakerState::Closed;
        (self.state, self.failures) = (BreakerState::Closed, 0);
        closes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S7: it opens after its number of failures, probes one at a time, and closes by itself.
    #[test]
    fn it_opens_probes_and_closes() {
        let mut breaker = Breaker::new(3);
        for opens in [false, false, true] {
            breaker.attempt();
            assert_eq!(breaker.state(), BreakerState::Closed);
            assert_eq!(breaker.failed(), opens);
        }
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.attempt();
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert!(breaker.failed());
        assert_eq!(breaker.state(), BreakerState::Open);
        breaker.attempt();
        assert!(breaker.succeeded());
        assert_eq!(breaker.state(), BreakerState::Closed);
        assert!(!breaker.failed(), "counted from the start again");
        assert!(!breaker.succeeded());
    }
}
