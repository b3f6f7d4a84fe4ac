//! How instances share their background jobs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jobs {
    /// Longest time between two looks at what is due.
    pub poll_ms: u64,
    /// A job whose instance is not heard of for so long is taken by another.
    pub lease_s: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { poll_ms: 1_000, lease_s: 30 }
    }
}

impl Jobs {
    pub(super) fn validate(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("jobs.poll_ms", self.poll_ms, 10, 86_400_000);
        within("jobs.lease_s", self.lease_s, 1, 3_600);
    }

    #[must_use]
    pub fn poll(&self) -> Duration {
        Duration::from_millis(self.poll_ms)
    }

    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_s)
    }
}
