//! Live streams: how many, and how far a client may fall behind.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bounds of the live streams of one instance.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stream {
    /// Streams at once.
    pub max_clients: usize,
    /// The same of one user, API token, or the admin token.
    pub max_clients_per_caller: usize,
    /// Events and bytes that wait for a client that takes them slowly; one more, and it is closed.
    pub buffer_events: usize,
    pub buffer_bytes: usize,
    /// A client hears something at least so often.
    pub heartbeat_s: u64,
    /// A WebSocket client that is not heard of for so long (it answers pings) is closed.
    pub idle_timeout_s: u64,
    /// How long a goodbye may take to get through to a client that does not read.
    pub close_timeout_ms: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            max_clients: 2_000,
            max_clients_per_caller: 50,
            buffer_events: 1_000,
            buffer_bytes: 1 << 20,
            heartbeat_s: 15,
            idle_timeout_s: 60,
            close_timeout_ms: 5_000,
        }
    }
}

impl Stream {
    pub(super) fn validate(&self, within: &mut impl FnMut(&str, u64, u64, u64)) {
        within("stream.max_clients", self.max_clients as u64, 1, 100_000);
        within("stream.max_clients_per_caller", self.max_clients_per_caller as u64, 1, 100_000);
        within("stream.buffer_events", self.buffer_events as u64, 1, 1_000_000);
        // An event has 17 KiB at most.
        within("stream.buffer_bytes", self.buffer_bytes as u64, 32 << 10, 1 << 30);
        within("stream.heartbeat_s", self.heartbeat_s, 1, 3_600);
        within("stream.idle_timeout_s", self.idle_timeout_s, self.heartbeat_s.saturating_mul(2), 86_400);
        within("stream.close_timeout_ms", self.close_timeout_ms, 10, 600_000);
    }

    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.heartbeat_s)
    }

    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_s)
    }

    #[must_use]
    pub fn close_timeout(&self) -> Duration {
        Duration::from_millis(self.close_timeout_ms)
    }
}
