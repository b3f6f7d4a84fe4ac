//! The drain task: owns the kernel tables and ends epochs, by time, early where a table fills, and once
//! more when the sensor stops.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::Handover;
use super::proof::Proof;
use super::source::{Source, Stop, Wakes};
use crate::kernel::{FilterAction, FilterRule, WakeReason, Wakeup};
use crate::metrics::Metrics;

/// A flip waits for an RCU grace period and a wake-up comes with a full table: more often than this, early
/// drains would only burn time.
const LEAST_GAP: Duration = Duration::from_millis(5);

/// Failed flips in a row after which the sensor gives up, and its supervisor starts it anew.
pub(super) const MAX_FAILURES: u32 = 10;

/// Settings that may change while the sensor runs.
#[derive(Debug)]
pub struct Steer {
    pub epoch: Duration,
    pub sampling_interval: u32,
    pub rules: Vec<FilterRule>,
    pub default: FilterAction,
    /// Told whether the kernel side takes them.
    pub taken: Option<oneshot::Sender<Result<(), String>>>,
}

/// A sign of life for the health endpoints.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    /// Since when the last epoch is counted; none before the first drain.
    pub last_drain: Option<std::time::Instant>,
    pub epoch: Duration,
}

/// Why the drain task has ended before its time.
#[derive(Debug, Error)]
pub enum DrainError {
    #[error("drain the kernel tables: {attempts} attempts failed, the last: {reason}")]
    Source { attempts: u32, reason: String },
    #[error("release epoch {epoch}: {reason}")]
    Release { epoch: u64, reason: String },
    #[error("the merge stage has ended: epochs cannot be handed on")]
    Merge,
    #[error("a call into the kernel side panicked")]
    Panicked,
}

/// How the task is driven.
pub struct Pace {
    pub epoch: Duration,
    pub steer: mpsc::Receiver<Steer>,
    /// Turns true when the sensor stops.
    pub stopping: watch::Receiver<bool>,
    /// How it goes then.
    pub stop: watch::Receiver<Stop>,
    /// The last epoch of every generation that is in the spool.
    pub spooled: HashMap<Uuid, u64>,
}

/// The task.
pub struct Drain<S, W> {
    /// Empty only while a blocking call has it.
    source: Option<S>,
    wakes: W,
    pub(super) pace: Pace,
    merge: mpsc::Sender<Handover>,
    proof: Proof,
    pub(super) metrics: Arc<Metrics>,
    pulse: watch::Sender<Pulse>,
    /// The epoch that is being counted; wake-ups of earlier ones are stale.
    epoch: u64,
    last_flip: Instant,
}

/// Resolves when the sensor stops, or when nobody is left who could stop it.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // The guard that comes with the answer must not be held across an await.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

enum Event {
    Due,
    Early(WakeReason),
    Stale,
    Steer(Option<Steer>),
    Stop,
}

impl<S: Source, W: Wakes> Drain<S, W> {
    pub fn new(
        source: S,
        wakes: W,
        pace: Pace,
        merge: mpsc::Sender<Handover>,
        proof: Proof,
        metrics: Arc<Metrics>,
        pulse: watch::Sender<Pulse>,
    ) -> Self {
        let last_flip = Instant::now();
        Self { source: Some(source), wakes, pace, merge, proof, metrics, pulse, epoch: 0, last_flip }
    }

    /// Runs until the sensor stops; the last epoch is then safe.
    pub async fn run(mut self) -> Result<(), DrainError> {
        self.recover().await?;
        let mut steerable = true;
        loop {
            match self.next_event(steerable).await {
                Event::Due => self.drain().await?,
                Event::Early(reason) => {
                    let reason = match reason {
                        WakeReason::Filling => "filling",
                        WakeReason::Overflow => "overflow",
                    };
                    self.metrics.early_drains.with_label_values(&[reason]).inc();
                    sleep_until(self.last_flip + LEAST_GAP).await;
                    self.drain().await?;
                }
                Event::Stale => {}
                Event::Steer(Some(steer)) => self.steer(steer).await?,
                Event::Steer(None) => steerable = false,
                Event::Stop => return self.stop().await,
            }
        }
    }

    /// The last drain.
    async fn stop(&mut self) -> Result<(), DrainError> {
        let stop = *self.pace.stop.borrow();
        // Before the last flip: where nothing is to count on, nothing is counted that nobody drains.
        if let Err(error) = self.blocking(move |source| source.stop(stop)).await? {
            tracing::warn!(%error, "an interface did not let go; the last drain goes on");
        }
        self.drain().await?;
        if let Err(error) = self.blocking(move |source| source.end(stop)).await? {
            tracing::warn!(%error, "the kernel side did not end as it should");
        }
        Ok(())
    }

    async fn next_event(&mut self, steerable: bool) -> Event {
        let due = self.last_flip + self.pace.epoch;
        tokio::select! {
            biased;
            () = stopped(&mut self.pace.stopping) => Event::Stop,
            steer = self.pace.steer.recv(), if steerable => Event::Steer(steer),
            () = sleep_until(due) => Event::Due,
            wake = self.wakes.next() => match wake {
                Ok(Wakeup { epoch, reason, .. }) if epoch >= self.epoch => Event::Early(reason),
                Ok(_) => Event::Stale,
                Err(error) => {
                    tracing::warn!(%error, "the kernel's wake-ups cannot be read; epochs end by time alone");
                    sleep(self.pace.epoch).await;
                    Event::Stale
                }
            },
        }
    }

    /// One epoch: ended, read, handed on, and released when it is safe.
    async fn drain(&mut self) -> Result<(), DrainError> {
        let drained = self.flip().await?;
        let epoch = drained.epoch;
        self.epoch = epoch + 1;
        self.metrics.drained(&drained);
        self.proof.judge(&drained.points, &self.metrics);
        let generation = self.generation()?;
        self.hand_over(generation, drained).await?;
        self.blocking(move |source| source.release(epoch))
            .await?
            .map_err(|error| DrainError::Release { epoch, reason: error.to_string() })?;
        self.pulse.send_modify(|pulse| pulse.last_drain = Some(std::time::Instant::now()));
        Ok(())
    }

    pub(super) fn generation(&self) -> Result<Uuid, DrainError> {
        self.source.as_ref().map(Source::generation).ok_or(DrainError::Panicked)
    }

    /// Returns when the epoch is safe.
    pub(super) async fn hand_over(
        &mut self,
        generation: Uuid,
        drained: crate::kernel::Drained,
    ) -> Result<(), DrainError> {
        let (safe, is_safe) = oneshot::channel();
        self.merge.send(Handover { generation, drained, safe }).await.map_err(|_| DrainError::Merge)?;
        is_safe.await.map_err(|_| DrainError::Merge)
    }

    async fn flip(&mut self) -> Result<crate::kernel::Drained, DrainError> {
        let mut attempts = 0;
        loop {
            self.last_flip = Instant::now();
            match self.blocking(Source::flip).await? {
                Ok(drained) => return Ok(drained),
                Err(error) => {
                    attempts += 1;
                    self.metrics.drain_failures.inc();
                    tracing::error!(%error, attempts, "the kernel tables cannot be drained");
                    if attempts >= MAX_FAILURES {
                        return Err(DrainError::Source { attempts, reason: error.to_string() });
                    }
                    sleep(self.pace.epoch.min(Duration::from_secs(1))).await;
                }
            }
        }
    }

    async fn steer(&mut self, steer: Steer) -> Result<(), DrainError> {
        let Steer { epoch, sampling_interval, rules, default, taken } = steer;
        let updated = self.blocking(move |source| source.update(sampling_interval, &rules, default)).await?;
        if let Some(taken) = taken {
            // Whoever asked may have gone.
            let _ = taken.send(updated.as_ref().copied().map_err(ToString::to_string));
        }
        match updated {
            Ok(()) => {
                self.pace.epoch = epoch;
                self.pulse.send_modify(|pulse| pulse.epoch = epoch);
                self.metrics.reloads.with_label_values(&["applied"]).inc();
                tracing::info!(?epoch, sampling_interval, "new settings apply from the next epoch on");
            }
            Err(error) => {
                self.metrics.reloads.with_label_values(&["refused"]).inc();
                tracing::error!(%error, "the kernel side refused the new settings; the old ones stay");
            }
        }
        Ok(())
    }

    /// Runs a call that may block where it disturbs no other task.
    pub(super) async fn blocking<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Result<T, DrainError> {
        let mut source = self.source.take().ok_or(DrainError::Panicked)?;
        let done = tokio::task::spawn_blocking(move || {
            let result = call(&mut source);
            (source, result)
        });
        let (source, result) = done.await.map_err(|_| DrainError::Panicked)?;
        self.source = Some(source);
        Ok(result)
    }
}
