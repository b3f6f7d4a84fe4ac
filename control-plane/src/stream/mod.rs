//! What happens, to whoever follows it.
//!
//! ```text
//! a change -> store::events (pending) -> publisher (cursors) -> whoever reads by cursor
//! ```
//!
//! Every instance runs a publisher; Postgres makes them take turns. One connection of each instance listens;
//! what it misses is found by looking every [`LOOK_EVERY`].

mod publisher;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::store::{Pool, events, notices};
use crate::telemetry::Metrics;

/// How late an event is whose notice got lost.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The live side of this instance; cheap to clone.
#[derive(Clone)]
pub struct Stream(Arc<Shared>);

struct Shared {
    pool: Pool,
    metrics: Metrics,
    /// Events wait for their cursors.
    pending: Notify,
}

impl Stream {
    #[must_use]
    pub fn new(pool: Pool, metrics: Metrics) -> Self {
        Self(Arc::new(Shared { pool, metrics, pending: Notify::new() }))
    }

    /// Says that a transaction with an event was committed.
    pub fn wake(&self) {
        self.0.pending.notify_one();
    }

    /// Publishes until `stop` changes.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let heard = |channel: &str| {
            if channel == events::PENDING {
                self.0.pending.notify_one();
            }
        };
        let connected = |up: bool| self.0.metrics.stream.listening.set(i64::from(up));
        tokio::join!(
            notices::listen(&self.0.pool, &[events::PENDING], heard, connected, stop.clone()),
            publisher::run(&self.0, stop.clone()),
        );
    }
}
