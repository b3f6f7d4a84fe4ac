//! Buckets of this process alone.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::gcra::{Rate, Verdict};

/// Buckets kept at most; whoever comes beyond shares one.
const MAX_BUCKETS: usize = 50_000;
const SHARED: &str = "others";

/// By key: when the bucket is full again.
#[derive(Debug)]
pub struct Local {
    since: Instant,
    buckets: Mutex<HashMap<String, u64>>,
}

impl Local {
    pub fn new() -> Self {
        Self { since: Instant::now(), buckets: Mutex::default() }
    }

    pub fn decide(&self, key: &str, rate: Rate) -> Verdict {
        let now_us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(key) {
            // A full bucket is as good as none.
            buckets.retain(|_, tat_us| *tat_us > now_us);
        }
        let key = if buckets.len() < MAX_BUCKETS || buckets.contains_key(key) { key } else { SHARED };
        let (verdict, next) = rate.decide(buckets.get(key).copied().unwrap_or(0), now_us);
        if let Some(next_us) = next {
            buckets.insert(key.to_owned(), next_us);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a7_keys_have_buckets_of_their_own_and_those_are_bounded() {
        let local = Local::new();
        let rate = Rate::per_minute(1, 2);
        for key in ["a", "b"] {
            let allowed: Vec<bool> = (0..3).map(|_| local.decide(key, rate).allowed).collect();
            assert_eq!(allowed, [true, true, false], "{key}");
        }
        for index in 0..MAX_BUCKETS + 100 {
            local.decide(&index.to_string(), rate);
        }
        assert!(local.buckets.lock().expect("no test panics with it").len() <= MAX_BUCKETS + 1);
        assert!(!local.decide("one more", rate).allowed, "those beyond share a bucket");
    }
}
