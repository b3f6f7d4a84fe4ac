//! How the spool stands, for the courier, the health endpoints, the metrics and the batches themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Published after every change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Batches that wait for delivery, tombstones among them.
    pub batches: u64,
    pub bytes: u64,
    /// The bound of `bytes`.
    pub capacity_bytes: u64,
    pub tombstones: u64,
    pub oldest_age: Duration,
    pub quarantined_batches: u64,
    pub quarantined_packets: u64,
    pub quarantined_bytes: u64,
    /// Epochs in the ledger.
    pub epochs: u64,
    /// Why the disk cannot be written.
    pub degraded: Option<String>,
    /// Batches that are in memory only, with the kernel's half behind them.
    pub held_batches: u64,
    /// Number of the first batch of the newest epoch.
    pub newest: u64,
    /// Number of the first batch of the few newest epochs: what comes after is live, what came before is
    /// backlog.
    pub recent: u64,
    /// The number that the next batch gets.
    pub next_number: u64,
    /// The intake is closed: what is here is all.
    pub complete: bool,
}

impl Standing {
    /// As a batch tells it.
    #[must_use]
    pub fn wire(&self) -> weir_wire::Spool {
        weir_wire::Spool {
            batches: self.batches,
            bytes: self.bytes,
            capacity_bytes: self.capacity_bytes,
            oldest_age_ms: u64::try_from(self.oldest_age.as_millis()).unwrap_or(u64::MAX),
            quarantined_batches: self.quarantined_batches,
            quarantined_packets: self.quarantined_packets,
            degraded: self.degraded.is_some(),
        }
    }
}
