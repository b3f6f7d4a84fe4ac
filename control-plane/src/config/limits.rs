//! How often who may ask, and where instances share what they counted.

use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{ConfigError, hidden};

/// A bucket for each principal, by class of request. Generous: they keep one caller from taking what is
/// everybody's.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// `GET /api/v1/flows…`
    pub query: Rate,
    /// Other questions.
    pub read: Rate,
    /// Whatever changes something.
    pub write: Rate,
    /// A sensor's batches.
    pub ingest: Rate,
}

/// Tokens that come in a minute, and those that a full bucket holds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_minute: u32,
    pub burst: u32,
}

/// A Redis or Valkey server that all instances share; each limits by itself without one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://user:password@host:port/database`.
    #[serde(serialize_with = "hidden")]
    pub url: Option<SecretString>,
    /// File that holds the URL, instead of `url`.
    pub url_file: Option<PathBuf>,
    /// How long a request waits for it before it is decided locally.
    pub timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            query: Rate { per_minute: 3_000, burst: 600 },
            read: Rate { per_minute: 6_000, burst: 1_200 },
            write: Rate { per_minute: 1_200, burst: 300 },
            // A sensor that comes back after an outage brings hours of batches.
            ingest: Rate { per_minute: 60_000, burst: 6_000 },
        }
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self { url: None, url_file: None, timeout_ms: 100 }
    }
}

impl Limits {
    pub(super) fn validate(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        for (class, rate) in
            [("query", self.query), ("read", self.read), ("write", self.write), ("ingest", self.ingest)]
        {
            within(&format!("limits.{class}.per_minute"), u64::from(rate.per_minute), 1, 6_000_000);
            within(&format!("limits.{class}.burst"), u64::from(rate.burst), 1, 1_000_000);
        }
    }
}

impl Redis {
    /// The URL, from wherever it is kept, if there is one.
    pub fn connection_url(&self) -> Result<Option<SecretString>, ConfigError> {
        let Some(path) = &self.url_file else { return Ok(self.url.clone()) };
        match std::fs::read_to_string(path) {
            Ok(url) => Ok(Some(SecretString::from(url.trim().to_owned()))),
            Err(error) => Err(ConfigError::one(format!("redis.url_file: read {}: {error}", path.display()))),
        }
    }
}
