//! The watch over sensors: who has gone silent, who is there again.

use std::time::Duration;

use super::Job;
use crate::config;
use crate::store::{Pool, StoreError, presence};
use crate::telemetry::Metrics;

/// The watch, with what it needs.
#[derive(Clone)]
pub struct Presence {
    pub pool: Pool,
    pub settings: config::Sensors,
    pub metrics: Metrics,
}

impl Presence {
    /// Whatever was not written before this instance began was not silence.
    pub async fn begin(&self) -> Result<(), StoreError> {
        presence::begin(&self.pool, self.settings.patience()).await
    }

    /// What one instance does for all.
    pub fn job(&self) -> Job {
        let this = self.clone();
        Job::new("sensor-presence", self.settings.watch_interval(), Duration::from_secs(30), move |run| {
            let this = this.clone();
            async move {
                let changes =
                    presence::watch(&this.pool, run.turn.as_ref(), this.settings.patience()).await?;
                this.metrics.presence.changed("online", changes.online);
                this.metrics.presence.changed("offline", changes.offline);
                if changes.offline > 0 {
                    tracing::warn!(sensors = changes.offline, "sensors have gone silent");
                }
                Ok(())
            }
        })
    }

    /// What each instance shows, whoever does the work.
    pub fn gauges(&self) -> Job {
        let this = self.clone();
        Job::new("presence-gauges", self.settings.watch_interval(), Duration::from_secs(30), move |_| {
            let this = this.clone();
            async move {
                let tally = presence::tally(&this.pool).await?;
                let gauges = &this.metrics.presence;
                gauges.online.set(tally.online);
                gauges.offline.set(tally.offline);
                gauges.never.set(tally.never);
                Ok(())
            }
        })
    }
}
