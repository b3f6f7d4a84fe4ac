//! Rules, whom they tell, and where requests to the outside may go.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::store::filter::Network;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Alerts {
    /// Time between two looks at all rules.
    pub interval_s: u64,
    /// How long one rule's question may take.
    pub rule_timeout_ms: u64,
    /// Time between two looks at what is to be delivered.
    pub delivery_interval_s: u64,
    /// After so long a delivery is given up.
    pub give_up_hours: u32,
    /// Folder of the receivers' secrets, a file each; receivers name the file.
    pub secrets_dir: Option<PathBuf>,
    /// Resolved alerts and ended deliveries that can be looked up.
    pub history_days: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Outbound {
    /// Networks that requests may go to though they are private, or this host's own.
    pub allow: Vec<String>,
    /// How long a request may take, its answer included.
    pub timeout_ms: u64,
    /// Authorities that are believed beside the system's, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Whether mail may go to a server without TLS.
    pub allow_plain_mail: bool,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            interval_s: 15,
            rule_timeout_ms: 5_000,
            delivery_interval_s: 2,
            give_up_hours: 24,
            secrets_dir: None,
            history_days: 90,
        }
    }
}

impl Default for Outbound {
    fn default() -> Self {
        Self { allow: Vec::new(), timeout_ms: 10_000, ca_file: None, allow_plain_mail: false }
    }
}

impl Alerts {
    pub(super) fn validate(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("alerts.interval_s", self.interval_s, 1, 86_400);
        within("alerts.rule_timeout_ms", self.rule_timeout_ms, 100, 600_000);
        within("alerts.delivery_interval_s", self.delivery_interval_s, 1, 86_400);
        within("alerts.give_up_hours", u64::from(self.give_up_hours), 1, 720);
        within("alerts.history_days", u64::from(self.history_days), 1, 3_660);
    }

    #[must_use]
    pub fn rule_timeout(&self) -> Duration {
        Duration::from_millis(self.rule_timeout_ms)
    }
}

impl Outbound {
    pub(super) fn validate(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("outbound.timeout_ms", self.timeout_ms, 100, 120_000);
    }

    /// What is wrong with the networks, a line each.
    pub(super) fn faults(&self) -> Vec<String> {
        let wrong = self.allow.iter().filter(|text| Network::parse(text).is_none());
        wrong.map(|text| format!("outbound.allow: `{text}` is not an address or a network")).collect()
    }

    pub(crate) fn networks(&self) -> Vec<Network> {
        self.allow.iter().filter_map(|text| Network::parse(text)).collect()
    }
}
