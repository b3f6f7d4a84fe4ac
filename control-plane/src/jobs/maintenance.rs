//! The upkeep of the tables: partitions made ahead of time, old ones dropped, erasures carried out, rollups
//!  trimmed, indexes brought up to date.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Job, Run};
use crate::config::Retention;
use crate::store::compaction;
use crate::store::dictionary;
use crate::store::maintenance;
use crate::store::partitions::{self, Known, Parent, Partition};
use crate::store::{Pool, StoreError, detections, devices, erasure, events, processes, sensors};
use crate::telemetry::Metrics;

/// Partitions made ahead, so that midnight meets one that is there even if this job is late.
const DAYS_AHEAD: usize = 2;

/// Buckets are looked at for this long after they were written, a restart of the server included.
const COMPACTION_OVERLAP: SignedDuration = SignedDuration::from_mins(2);

/// The upkeep of the tables, with what it needs.
#[derive(Clone)]
pub struct Maintenance {
    pub pool: Pool,
    pub known: Known,
    pub retention: Retention,
    /// Keys that a rollup bucket keeps in each dimension when it is over.
    pub rollup_keys: usize,
    pub metrics: Metrics,
}

impl Maintenance {
    /// What one instance does for all.
    pub fn jobs(&self) -> Vec<Job> {
        let quarter = Duration::from_mins(15);
        let hour = Duration::from_hours(1);
        vec![
            self.job("partitions", quarter, |this, run| async move {
                // What fails does not keep the rest from being done.
                let made = this.make_ahead(run.now).await;
                made.and(this.drop_expired(run.now).await)
            }),
            self.job("ledger-retention", hour, |this, run| async move { this.forget_keys(run.now).await }),
            self.job("event-retention", hour, |this, run| async move { this.forget_events(run.now).await }),
            self.job("domain-retention", hour, |this, run| async move { this.forget_domains(run.now).await }),
            self.job("detection-retention", hour, |this, run| async move {
                this.forget_detections(run.now).await
            }),
            self.job("device-retention", hour, |this, run| async move { this.forget_devices(run.now).await }),
            self.job("erasure", hour, |this, _| async move { this.erase().await }),
            self.job("rollups", quarter, |this, run| async move { this.compact(&run).await }),
            self.job("index-summaries", quarter, |this, run| async move { this.summarize(run.now).await }),
        ]
    }

    /// What each instance shows, whoever does the work.
    pub fn gauges(&self) -> Job {
        self.job("sensor-gauges", Duration::from_mins(1), |this, _| async move { this.tally().await })
    }

    fn job<W, R>(&self, name: &'static str, deadline: Duration, work: W) -> Job
    where
        W: Fn(Self, Run) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), StoreError>> + Send + 'static,
    {
        let this = self.clone();
        let interval = Duration::from_secs(self.retention.interval_s);
        Job::new(name, interval, deadline, move |run| {
            let this = this.clone();
            let work = work(this, run);
            async move { Ok(work.await?) }
        })
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

    /// Domains and processes that no flow and no rollup can refer to any more: the last batch that used one came two
    /// days before the last window that is kept, and a window lies at most a day ahead.
    async fn forget_domains(&self, now: Timestamp) -> Result<(), StoreError> {
        let Retention { flows_days, rollup_1m_days, rollup_1h_days, .. } = self.retention;
        let end = days_before(now, flows_days.max(rollup_1m_days).max(rollup_1h_days) + 2);
        let deleted = dictionary::forget_before(&self.pool, end).await?;
        if deleted > 0 {
            tracing::info!(rows = deleted, "domains deleted: no flow refers to them");
        }
        let deleted = processes::forget_before(&self.pool, end).await?;
        if deleted > 0 {
            tracing::info!(rows = deleted, "processes deleted: no flow refers to them");
        }
        Ok(())
    }

    async fn forget_detections(&self, now: Timestamp) -> Result<(), StoreError> {
        let before = days_before(now, self.retention.detections_days);
        let deleted = detections::delete_before(&self.pool, before).await?;
        if deleted > 0 {
            tracing::info!(detections = deleted, "detections deleted: past their retention");
        }
        Ok(())
    }

    async fn forget_devices(&self, now: Timestamp) -> Result<(), StoreError> {
        let before = days_before(now, self.retention.devices_days);
        let deleted = devices::delete_before(&self.pool, before).await?;
        if deleted > 0 {
            tracing::info!(devices = deleted, "devices deleted: past their retention");
        }
        devices::forget_merges(&self.pool, before).await?;
        devices::forget_tombstones(&self.pool, self.retention.keys_since(now), before).await?;
        Ok(())
    }

    /// What is left of users and sensors that were erased. One that fails does not hold up the others.
    async fn erase(&self) -> Result<(), StoreError> {
        let mut failure = None;
        for erasure_id in erasure::open(&self.pool).await? {
            match erasure::work(&self.pool, erasure_id).await {
                Ok(None) => {}
                Ok(Some(done)) => {
                    let rows: i64 = done.places.iter().map(|place| place.erased).sum();
                    let kind = done.kind.name();
                    tracing::info!(erasure_id, kind, subject_id = done.subject_id, rows, "erased");
                    self.metrics.erasures.with_label_values(&[kind]).inc();
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
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

    /// Buckets written since the last run that came to its end, and a bit longer.
    async fn compact(&self, run: &Run) -> Result<(), StoreError> {
        let back =
            SignedDuration::from_secs(2 * self.retention.interval_s.cast_signed()) + COMPACTION_OVERLAP;
        let usual = before(run.now, back);
        let since = run.last_done.map_or(usual, |done| usual.min(before(done, COMPACTION_OVERLAP)));
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
    before(now, SignedDuration::from_hours(24 * i64::from(days)))
}

fn before(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::UNIX_EPOCH)
}
