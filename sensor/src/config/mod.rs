//! What an operator can set: one typed struct per part, defaults in one place, validated as a whole.
//!
//! Called by the command line, which hands the parts to the modules that they configure; read again on
//! SIGHUP. What must stay true: a configuration that loads is complete and within bounds, and every error
//! names its key, what it is, and what is allowed; all of them are told at once.

pub mod detect;
mod devices;
mod error;
pub mod events;
mod heartbeat;
mod layers;
mod sections;
#[cfg(test)]
mod tests;
mod threats;
mod units;
mod validate;

use std::path::Path;

pub use detect::Detect;
pub use devices::Devices;
pub use error::{ConfigError, Problem};
pub use events::Events;
pub use heartbeat::{Credential, Heartbeat};
pub use layers::{Overrides, environment};
pub use sections::{
    Config, Connections, ControlPlane, Egress, Filter, FilterAction, Ingress, Interface, KernelLog, Log,
    LogFormat, LogLevel, Metrics, Pins, Processes, Rule, Sampling, Shipping, Spool, Tables,
};
pub use threats::{List, ListAction, ListColumn, ListFormat, Threats};
pub use units::{Bytes, Cidr, Period, Ports, Protocol, Secret};

impl Config {
    /// The file, then the environment, then the flags; later ones win. Without a file, the defaults.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let layers = layers::Layers::read(file, overrides)?;
        let (config, mut problems) = layers.into_config();
        validate::problems(&config, &mut problems);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Problems(problems)) }
    }

    /// Every setting with its value, secrets hidden, and where it comes from: `default`, `file`, `pushed`,
    /// `environment` or `flag`.
    pub fn origins(
        file: Option<&Path>,
        overrides: &Overrides,
    ) -> Result<Vec<(String, String, &'static str)>, ConfigError> {
        let layers = layers::Layers::read(file, overrides)?;
        let origin = layers.origin_of(overrides);
        let config = Self::load(file, overrides)?;
        let table = toml::Table::try_from(&config).map_err(|error| ConfigError::Print(error.to_string()))?;
        let mut settings = Vec::new();
        layers::leaves("", &table, &mut settings);
        Ok(settings
            .into_iter()
            .map(|(key, value)| {
                let origin = origin(&key);
                (key, value, origin)
            })
            .collect())
    }

    /// As TOML, secrets hidden.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|error| ConfigError::Print(error.to_string()))
    }

    /// What the kernel programs are loaded with.
    #[must_use]
    pub fn kernel_settings(&self) -> crate::kernel::Settings {
        crate::kernel::Settings {
            tables: crate::kernel::TableSizes {
                ipv4_slots: self.tables.ipv4_slots,
                ipv6_slots: self.tables.ipv6_slots,
            },
            sampling_interval: self.sampling.interval,
            filter: self.filter.kernel_rules(),
            filter_default: self.filter.default.into(),
            log_level: self.log.kernel.into(),
            events: self.events.settings(),
            max_points: validate::MAX_POINTS,
        }
    }
}
