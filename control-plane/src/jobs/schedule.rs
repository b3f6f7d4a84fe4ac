//! When a job runs, and for how long.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{Job, JobError, Jobs, Run};
use crate::backoff::Backoff;
use crate::store::StoreError;
use crate::store::jobs::{self, Outcome, Turn};

/// The first wait after a failure; a job that runs more often waits no longer than its interval.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest, for jobs that run more often than this.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// Between two looks at the board, however soon something is said to be due.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

type Stop = watch::Receiver<bool>;

impl Jobs {
    /// What one instance at a time does.
    pub(super) async fn shared(&self, mut stop: Stop) {
        let mut running = JoinSet::new();
        let mut away = false;
        loop {
            let wait = match self.look(&mut running, &stop).await {
                Ok(wait) => {
                    away = false;
                    wait
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::error!(%error, "no job is begun until the database answers");
                    }
                    self.0.settings.poll()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.0.wake.notified() => {}
                Some(_) = running.join_next() => {}
                _ = stop.changed() => break,
            }
        }
        while running.join_next().await.is_some() {}
    }

    /// Begins what is due; gives how long there is nothing to do.
    async fn look(&self, running: &mut JoinSet<()>, stop: &Stop) -> Result<Duration, StoreError> {
        let mut wait = self.0.settings.poll();
        for standing in jobs::board(&self.0.pool).await? {
            let Some(job) = self.0.shared.iter().find(|job| job.name == standing.name) else { continue };
            self.0.metrics.jobs.succeeded(job.name, standing.last_done_at);
            if standing.running {
                continue;
            }
            if !standing.due_in.is_zero() {
                wait = wait.min(standing.due_in);
                continue;
            }
            let Some(turn) = self.take(job, false).await? else { continue };
            let (jobs, job, stop) = (self.clone(), job.clone(), stop.clone());
            running.spawn(async move {
                // It is in the log, in the metrics and on the board.
                let _ = jobs.perform(&job, turn, Timestamp::now(), Some(stop)).await;
            });
        }
        Ok(wait.max(SHORTEST_LOOK))
    }

    pub(super) async fn take(&self, job: &Job, anyway: bool) -> Result<Option<Turn>, StoreError> {
        let lasts = self.0.settings.lease();
        jobs::take(&self.0.pool, job.name, self.0.instance, lasts, anyway).await
    }

    /// Does the work until it ends, its time is over, the job is lost, or `stop` changes.
    pub(super) async fn perform(
        &self,
        job: &Job,
        turn: Turn,
        now: Timestamp,
        stop: Option<Stop>,
    ) -> Result<(), JobError> {
        let started = Instant::now();
        let last_done = turn.last_done_at.and_then(|at| Timestamp::try_from(at).ok());
        let run = Run { now, last_done, turn: Some(turn.clone()) };
        // A task of its own: a panic in there ends the run and not the loop.
        let mut work = JoinSet::new();
        work.spawn((job.work)(run));
        let (outcome, result) = tokio::select! {
            ended = work.join_next() => match ended {
                Some(Ok(Ok(()))) => (Outcome::Done, Ok(())),
                Some(Ok(Err(error))) => (Outcome::Failed, Err(error)),
                Some(Err(_)) | None => (Outcome::Failed, failed("it panicked; the log has the place")),
            },
            () = tokio::time::sleep(job.deadline) => {
                let told = format!("it took more than {} s and was cut off", job.deadline.as_secs_f64());
                (Outcome::Overran, failed(told))
            }
            () = self.lost(&turn) => (Outcome::Lost, failed("another instance has it")),
            () = stopped(stop) => (Outcome::Stopped, failed("the server stops")),
        };
        // Nothing of it goes on when its end is written.
        work.shutdown().await;
        self.0.metrics.jobs.ended(job.name, outcome, started.elapsed());
        let error = result.as_ref().err().map(ToString::to_string);
        if let Some(error) = &error {
            tracing::error!(job = job.name, outcome = outcome.name(), error, "a job came to nothing");
        }
        let next = match outcome {
            Outcome::Done => job.interval,
            Outcome::Stopped => Duration::ZERO,
            Outcome::Failed | Outcome::Overran | Outcome::Lost => {
                let (first, longest) = (FIRST_WAIT.min(job.interval), LONGEST_WAIT.max(job.interval));
                Backoff { first, longest }.after(turn.failures.cast_unsigned().saturating_add(1))
            }
        };
        match jobs::end(&self.0.pool, &turn, outcome, error.as_deref(), next).await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(job = job.name, "another instance took the job over meanwhile"),
            // Its lease ends by itself.
            Err(error) => tracing::error!(job = job.name, %error, "write down how a job ended"),
        }
        result
    }

    /// Renews the lease; returns when that cannot be done in time or another instance has the job.
    async fn lost(&self, turn: &Turn) {
        let lasts = self.0.settings.lease();
        let mut held_from = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(lasts / 3).await;
            let asked = tokio::time::Instant::now();
            match tokio::time::timeout_at(held_from + lasts, jobs::renew(&self.0.pool, turn, lasts)).await {
                Ok(Ok(true)) => held_from = asked,
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(job = turn.name, %error, "renew the lease of a job"),
            }
        }
    }

    /// What each instance does for itself.
    pub(super) async fn own(&self, stop: Stop) {
        let mut loops = JoinSet::new();
        for job in self.0.own.iter().cloned() {
            let metrics = self.0.metrics.clone();
            loops.spawn(repeat(job, metrics, stop.clone()));
        }
        while loops.join_next().await.is_some() {}
    }
}

async fn repeat(job: Job, metrics: crate::telemetry::Metrics, mut stop: Stop) {
    let mut ticks = tokio::time::interval(job.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => return,
        }
        let started = Instant::now();
        let run = Run { now: Timestamp::now(), last_done: None, turn: None };
        let outcome = tokio::select! {
            ended = tokio::time::timeout(job.deadline, (job.work)(run)) => match ended {
                Ok(Ok(())) => Outcome::Done,
                Ok(Err(error)) => {
                    tracing::error!(job = job.name, %error, "a job came to nothing");
                    Outcome::Failed
                }
                Err(_) => Outcome::Overran,
            },
            _ = stop.changed() => return,
        };
        metrics.jobs.ended(job.name, outcome, started.elapsed());
    }
}

fn failed(told: impl Into<String>) -> Result<(), JobError> {
    Err(JobError::Failed(told.into()))
}

async fn stopped(stop: Option<Stop>) {
    match stop {
        None => std::future::pending().await,
        Some(mut stop) => {
            let _ = stop.changed().await;
        }
    }
}
