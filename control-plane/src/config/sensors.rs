//! How long sensors' credentials last.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// A sensor's credential ends by itself after so long; it asks for the next one in time. 0: never.
    pub credential_days: u32,
    /// How long the credentials before go on when a sensor gets another one, unless that is used before.
    pub rotation_overlap_hours: u32,
}

impl Default for Sensors {
    fn default() -> Self {
        Self { credential_days: 0, rotation_overlap_hours: 24 }
    }
}

impl Sensors {
    /// How long a new credential lasts, where it has an end.
    #[must_use]
    pub fn credential_lasts(&self) -> Option<Duration> {
        (self.credential_days > 0).then(|| Duration::from_hours(24 * u64::from(self.credential_days)))
    }

    #[must_use]
    pub fn overlap(&self) -> Duration {
        Duration::from_hours(u64::from(self.rotation_overlap_hours))
    }

    pub(super) fn within(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("sensors.credential_days", u64::from(self.credential_days), 0, 3_660);
        within("sensors.rotation_overlap_hours", u64::from(self.rotation_overlap_hours), 0, 720);
    }
}
