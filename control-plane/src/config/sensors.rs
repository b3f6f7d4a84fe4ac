//! How long sensors' credentials last, and when a sensor is taken to be gone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::presence::Patience;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensors {
    /// A sensor's credential ends by itself after so long; it asks for the next one in time. 0: never.
    pub credential_days: u32,
    /// How long the credentials before go on when a sensor gets another one, unless that is used before.
    pub rotation_overlap_hours: u32,
    /// A sensor that is silent for so long is offline.
    pub offline_after_s: u32,
    /// Time between two looks at who is silent.
    pub watch_interval_s: u32,
}

impl Default for Sensors {
    fn default() -> Self {
        Self { credential_days: 0, rotation_overlap_hours: 24, offline_after_s: 30, watch_interval_s: 5 }
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

    #[must_use]
    pub fn watch_interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.watch_interval_s))
    }

    /// When sensors are taken to be gone.
    #[must_use]
    pub fn patience(&self) -> Patience {
        let silence = Duration::from_secs(u64::from(self.offline_after_s));
        Patience { silence, gap: self.watch_interval() * 2 }
    }

    pub(super) fn within(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("sensors.credential_days", u64::from(self.credential_days), 0, 3_660);
        within("sensors.offline_after_s", u64::from(self.offline_after_s), 1, 86_400);
        within("sensors.watch_interval_s", u64::from(self.watch_interval_s), 1, 86_400);
        within("sensors.rotation_overlap_hours", u64::from(self.rotation_overlap_hours), 0, 720);
    }
}
