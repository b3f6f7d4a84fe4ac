//! Which batch goes next: what is live before what has waited.
//!
//! Batches are numbered as they come. From the live lane's first number on they go at once, in order; what is
//! below is backlog, oldest first, at a bounded rate and only while nothing live waits. So how late live data
//! is does not depend on how much has piled up. After an outage the live lane begins anew with the newest
//! epoch; a control plane that cannot keep up meets the newest few.

use std::time::Duration;

use tokio::time::Instant;

use crate::spool::Standing;

/// The two lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    /// First number of the live lane.
    live_from: u64,
    /// Between two batches of the backlog.
    interval: Duration,
    next_backlog: Instant,
}

impl Lanes {
    /// What is there now is backlog.
    pub(super) fn new(standing: &Standing, backlog_per_second: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / backlog_per_second.max(0.001));
        Self { live_from: standing.next_number, interval, next_backlog: Instant::now() }
    }

    /// Where the live lane begins.
    pub(super) fn live_from(&mut self, standing: &Standing) -> u64 {
        self.live_from = self.live_from.max(standing.recent.min(standing.next_number));
        self.live_from
    }

    /// An outage: what waits is backlog, but for the newest epoch.
    pub(super) fn restart(&mut self, standing: &Standing) {
        self.live_from = self.live_from.max(standing.newest);
    }

    pub(super) fn is_backlog(&self, number: u64) -> bool {
        number < self.live_from
    }

    /// When the next batch of the backlog may go.
    pub(super) fn backlog_at(&self) -> Instant {
        self.next_backlog
    }

    /// One has gone.
    pub(super) fn sent(&mut self, number: u64) {
        if self.is_backlog(number) {
            self.next_backlog = Instant::now() + self.interval;
        }
    }
}
