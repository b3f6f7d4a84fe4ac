//! When the sensor asks for its next credential: before the one that it has ends, with time for many attempts.

use std::time::{Duration, Instant};

use rand::Rng as _;
use serde::Deserialize;

use crate::ship::Backoff;

/// Of a credential's life, so that sensors that were enrolled together do not renew together.
const SPREAD: f64 = 0.05;
/// Of a certificate's life, where credentials are never renewed.
const CERTIFICATES_AT_PERCENT: u32 = 66;

/// How long the credential is there and will be, as the control plane says: its clock alone counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct Term {
    pub id: i64,
    pub age_s: f64,
    /// `None`: it does not end by itself.
    pub ends_in_s: Option<f64>,
}

/// Decides; owns the waits between attempts that failed.
#[derive(Debug)]
pub struct Renewal {
    /// 0 for never.
    at_percent: u32,
    backoff: Backoff,
    not_before: Option<Instant>,
    /// The credential that was looked at last, and how much later than the rest it is renewed.
    of: Option<(i64, f64)>,
}

impl Renewal {
    #[must_use]
    pub fn new(at_percent: u32, backoff: Backoff) -> Self {
        Self { at_percent, backoff, not_before: None, of: None }
    }

    /// The same for certificates, which always end: never is not on offer.
    #[must_use]
    pub fn of_certificates(&self) -> Self {
        let at_percent = if self.at_percent == 0 { CERTIFICATES_AT_PERCENT } else { self.at_percent };
        Self::new(at_percent, self.backoff.clone())
    }

    /// As in earnest: the first attempts soon after each other, the last ones an hour apart.
    #[must_use]
    pub fn patient(at_percent: u32) -> Self {
        Self::new(at_percent, Backoff::new(Duration::from_mins(1), Duration::from_hours(1)))
    }

    /// Whether to ask for the next one now.
    pub fn is_due(&mut self, term: &Term, now: Instant) -> bool {
        let Some(left) = term.ends_in_s else { return false };
        let spread = match self.of {
            Some((id, spread)) if id == term.id => spread,
            _ => {
                self.backoff.reset();
                self.not_before = None;
                let spread = rand::rng().random_range(0.0..SPREAD);
                self.of = Some((term.id, spread));
                spread
            }
        };
        if self.at_percent == 0 || self.not_before.is_some_and(|at| now < at) {
            return false;
        }
        let whole = term.age_s + left;
        whole <= 0.0 || term.age_s / whole >= f64::from(self.at_percent) / 100.0 + spread
    }

    /// What failed before says nothing any more.
    pub fn begin_anew(&mut self) {
        self.of = None;
    }

    /// It did not work, and may at any moment; gives the wait.
    pub fn again(&mut self, now: Instant, wait: Duration) -> Duration {
        self.not_before = Some(now + wait);
        wait
    }

    /// It did not work; how long until the next attempt.
    pub fn failed(&mut self, term: &Term, now: Instant) -> Duration {
        // At least a tenth of what is left is waited for, and no more: there are always further attempts.
        let most = Duration::from_secs_f64((term.ends_in_s.unwrap_or(0.0) / 10.0).clamp(0.0, 86_400.0));
        let wait = self.backoff.open_wait().min(most.max(Duration::from_secs(1)));
        self.not_before = Some(now + wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: f64 = 86_400.0;

    fn term(id: i64, age_days: f64, left_days: Option<f64>) -> Term {
        Term { id, age_s: age_days * DAY, ends_in_s: left_days.map(|days| days * DAY) }
    }

    #[test]
    fn u4_a_credential_is_renewed_after_two_thirds_of_its_life_and_never_if_it_has_no_end() {
        let mut renewal = Renewal::patient(66);
        let now = Instant::now();
        assert!(!renewal.is_due(&term(1, 1_000.0, None), now));
        assert!(!renewal.is_due(&term(1, 65.0, Some(35.0)), now));
        assert!(renewal.is_due(&term(1, 72.0, Some(28.0)), now));
        assert!(renewal.is_due(&term(1, 101.0, Some(-1.0)), now), "it may be that only our answer is late");
        assert!(!Renewal::patient(0).is_due(&term(1, 99.0, Some(1.0)), now));
    }

    #[test]
    fn u4_attempts_that_fail_are_repeated_within_what_is_left() {
        let mut renewal = Renewal::patient(66);
        let (now, late) = (Instant::now(), term(1, 80.0, Some(20.0)));
        assert!(renewal.is_due(&late, now));
        let wait = renewal.failed(&late, now);
        assert!(wait <= Duration::from_mins(1) && !wait.is_zero(), "{wait:?}");
        assert!(!renewal.is_due(&late, now));
        assert!(renewal.is_due(&late, now + wait));
        for _ in 0..20 {
            renewal.failed(&late, now);
        }
        let hasty = Term { ends_in_s: Some(600.0), ..late };
        assert!(renewal.failed(&hasty, now) <= Duration::from_mins(1), "a tenth of what is left");
        assert!(renewal.is_due(&term(2, 80.0, Some(20.0)), now), "another credential, another count");
    }
}
