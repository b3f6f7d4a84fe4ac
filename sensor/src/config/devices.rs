//! `[devices]`: what is kept of the devices of the network.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::units::Period;
use super::validate::Check;

/// Everything about devices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Devices {
    pub enabled: bool,
    /// Devices that are remembered; beyond it those that were seen once and long ago are forgotten.
    pub max: usize,
    /// After so long an active device is told again, though nothing is new.
    pub refresh: Period,
    /// IEEE's listing as CSV, in place of the built-in one.
    pub vendors: Vec<PathBuf>,
}

impl Default for Devices {
    fn default() -> Self {
        Self { enabled: true, max: 8_192, refresh: Period(Duration::from_mins(1)), vendors: Vec::new() }
    }
}

impl Devices {
    /// Notes everything that is out of bounds.
    pub(super) fn problems(&self, check: &mut Check<'_>) {
        check.that((64..=262_144).contains(&self.max), "devices.max", || {
            format!("is {}; 64 to 262144 are allowed", self.max)
        });
        check.period("devices.refresh", self.refresh, Duration::from_secs(1), Duration::from_hours(24));
        check.that(self.vendors.len() <= 8, "devices.vendors", || {
            format!("has {} files; 8 are allowed", self.vendors.len())
        });
    }
}
