//! `[heartbeat]` and `[credential]`: signs of life, and the sensor's own credential.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::Period;
use super::validate::Check;

/// Signs of life to the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Heartbeat {
    /// Less than half of the control plane's `sensors.offline_after_s`.
    pub interval: Period,
}

/// The credential that the sensor was enrolled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Credential {
    /// Of its life, in percent, after which the next one is asked for; 0: never.
    pub renew_at_percent: u32,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { interval: Period(Duration::from_secs(15)) }
    }
}

impl Default for Credential {
    fn default() -> Self {
        Self { renew_at_percent: 66 }
    }
}

pub(super) fn check(heartbeat: Heartbeat, credential: Credential, check: &mut Check<'_>) {
    let bounds = (Duration::from_millis(100), Duration::from_hours(1));
    check.period("heartbeat.interval", heartbeat.interval, bounds.0, bounds.1);
    let percent = credential.renew_at_percent;
    check.that(percent <= 90, "credential.renew_at_percent", || {
        format!("is {percent}; 0 (never) to 90 are allowed")
    });
}
