//! What happens by itself: partitions made ahead of time, old ones dropped, deleted sensors' data deleted,
//! rollups trimmed, indexes brought up to date.
//!
//! Every instance runs the loop; an advisory lock lets one of them do the work of a round. A failed
//! round is logged and counted, and the next one tries again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config::Retention;
use crate::store::compaction;
use crate::store::maintenance::{self, Turn};
use crate::store::partitions::{self, Known, Parent, Partition};
use crate::store::{Pool, StoreError, erasure, events, sensors};
use crate::telemetry::Metrics;

/// Partitions made ahead, so that midnight meets one that is there even if this job is late.
const DAYS_AHEAD: usize = 2;

/// Buckets are looked at for this long after they were written, a restart of the server included.
const COMPACTION_OVERLAP: SignedDuration = SignedDuration::from_mins(2);

/// The jobs with what they need.
#[derive(Clone)]
pub struct Jobs {
    pub pool: Pool,
    pub known: Known,
    pub retention: Retention,
    /// Keys that a rollup bucket keeps in each dimension when it is over.
    pub rollup_keys: usize,
    pub metrics: Metrics,
}

impl Jobs {
    /// Rounds until `stop` changes or its sender is gone.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(self.retention.interval_s));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => return,
            }
            tokio::select! {
                result = self.round(Timestamp::now()) => self.report(&result),
                _ = stop.changed() => return,
            }
        }
    }

    /// One round of everything; `false` if another instance has the turn.
    pub async fn round(&self, now: Timestamp) -> Result<bool, StoreError> {
        // Each instance shows these, whoever does the work.
        let tally = self.tally().await;
        let Some(turn) = Turn::take(&self.pool).await? else {
            return tally.map(|()| false);
        };
        // What fails does not keep the rest from being done.
        let results = [
            tally,
            self.make_ahead(now).await,
            self.drop_expired(now).await,
            self.forget_keys(now).await,
            self.forget_events(now).await,
            self.erase().await,
            self.compact(now).await,
            self.summarize(now).await,
        ];
        turn.give_back().await?;
        results.into_iter().collect::<Result<(), StoreError>>().map(|()| true)
    }

    fn report(&self, result: &Result<bool, StoreError>) {
        let outcome = match result {
            Ok(true) => "done",
            Ok(false) => "elsewhere",
            Err(error) => {
                tracing::error!(%error, "maintenance failed; it is tried again in the next round");
                "failed"
            }
        };
        self.metrics.job_runs.with_label_values(&["maintenance", outcome]).inc();
    }

    /// Today's and the next days' partitions.
    pub async fn make_ahead(&self, now: Timestamp) -> Result<(), StoreError> {
        let wanted: Vec<Partition> = Parent::ALL
            .into_iter()
            .flat_map(|parent| {
                let today = Partition::holding(parent, now);
                std::iter::successors(Some(today), |partition| Some(partition.next())).take(1 + DAYS_AHEAD)
            })
            .collect();
        partitions::ensure(&self.pool, &self.known, &wanted).await
    }

    /// Partitions whose last moment is past their retention.
    async fn drop_expired(&self, now: Timestamp) -> Result<(), StoreError> {
        for parent in Parent::ALL {
            let days = match parent {
                Parent::Flow => self.retention.flows_days,
                Parent::Rollup1m => self.retention.rollup_1m_days,
                Parent::Rollup1h => self.retention.rollup_1h_days,
            };
            let oldest_day = days_before(now, days).to_zoned(jiff::tz::TimeZone::UTC).date();
            for partition in partitions::present(&self.pool, parent).await? {
                if partition.end() <= oldest_day {
                    partitions::drop(&self.pool, partition).await?;
                    self.known.forget();
                    self.metrics.partitions_dropped.inc();
                }
            }
        }
        Ok(())
    }

    async fn forget_keys(&self, now: Timestamp) -> Result<(), StoreError> {
        let deleted = maintenance::delete_ledger_before(&self.pool, self.retention.keys_since(now)).await?;
        if deleted > 0 {
            tracing::info!(rows = deleted, "ledger rows deleted: past their retention");
        }
        Ok(())
    }

    async fn forget_events(&self, now: Timestamp) -> Result<(), StoreError> {
        let before = days_before(now, self.retention.events_days);
        let pruned = events::prune(&self.pool, before, self.retention.events_max).await?;
        if pruned > 0 {
            tracing::info!(events = pruned, "events deleted: past their retention");
        }
        Ok(())
    }

    /// What is left of sensors that were deleted.
    async fn erase(&self) -> Result<(), StoreError> {
        for sensor_id in erasure::pending(&self.pool).await? {
            let erasure::Receipt { flows, rollup_rows, batches, point_totals, events } =
                erasure::erase(&self.pool, sensor_id).await?;
            tracing::info!(
                sensor_id,
                flows,
                rollup_rows,
                batches,
                point_totals,
                events,
                "a deleted sensor is erased"
            );
            self.metrics.sensors_erased.inc();
        }
        Ok(())
    }

    async fn tally(&self) -> Result<(), StoreError> {
        let tally = sensors::tally(&self.pool).await?;
        let gauges = &self.metrics.sensors;
        gauges.active.set(tally.active);
        gauges.clock_flagged.set(tally.clock_flagged);
        gauges.spool_degraded.set(tally.spool_degraded);
        gauges.quarantining.set(tally.quarantining);
        gauges.waiting_batches.set(tally.waiting_batches);
        Ok(())
    }

    /// Buckets written since the round before; another instance may have done that one, so a bit longer.
    async fn compact(&self, now: Timestamp) -> Result<(), StoreError> {
        let back =
            SignedDuration::from_secs(2 * self.retention.interval_s.cast_signed()) + COMPACTION_OVERLAP;
        let since = now.checked_sub(back).unwrap_or(Timestamp::UNIX_EPOCH);
        for rollup in compaction::ROLLUPS {
            let rows = compaction::compact(&self.pool, rollup, since, self.rollup_keys).await?;
            self.metrics.rollup_rows_pooled.inc_by(rows);
        }
        Ok(())
    }

    /// Yesterday's partition still takes late batches.
    async fn summarize(&self, now: Timestamp) -> Result<(), StoreError> {
        for day in [days_before(now, 1), now] {
            let partition = Partition::holding(Parent::Flow, day);
            maintenance::summarize(&self.pool, &partition.name()).await?;
        }
        Ok(())
    }
}

impl Retention {
    /// Batch keys of earlier windows may be gone.
    #[must_use]
    pub fn keys_since(&self, now: Timestamp) -> Timestamp {
        days_before(now, self.ledger_days)
    }

    /// Sums by the minute of earlier windows may be gone. A day later than they go, so that a question
    /// that is asked while they go is answered.
    #[must_use]
    pub fn minutes_since(&self, now: Timestamp) -> Timestamp {
        days_before(now, self.rollup_1m_days.saturating_sub(1))
    }
}

fn days_before(now: Timestamp, days: u32) -> Timestamp {
    now.checked_sub(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::UNIX_EPOCH)
}
