//! What happens by itself: named jobs, each run once at a time across all instances.
//!
//! A [`Job`] has an interval, a deadline and its work. [`Jobs`] looks at the board that all instances share
//! ([`crate::store::jobs`]), takes what is due for the length of a lease, renews that while the work goes on,
//! and writes down how it ended. An instance that dies holds nothing beyond its lease; one that only seems
//! dead finds its number outdated. So work may be cut off at any `.await` and begun again: whatever hangs
//! a job in here makes it of steps that may be repeated.

mod maintenance;
mod presence;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::config;
use crate::store::jobs::{self, Requested, Standing, Turn};
use crate::store::{Pool, StoreError, audit::Author};
use crate::telemetry::Metrics;

pub use maintenance::Maintenance;
pub use presence::Presence;

type Work = Arc<dyn Fn(Run) -> futures_util::future::BoxFuture<'static, Result<(), JobError>> + Send + Sync>;

/// Something that is done again and again.
#[derive(Clone)]
pub struct Job {
    /// Small letters and dashes; for the API, the log and the metrics.
    pub name: &'static str,
    /// From the beginning of one run to that of the next.
    pub interval: Duration,
    /// A run that takes longer is cut off.
    pub deadline: Duration,
    work: Work,
}

/// One run of a job, for its work.
#[derive(Clone, Debug)]
pub struct Run {
    pub now: Timestamp,
    /// When the last run that came to its end began.
    pub last_done: Option<Timestamp>,
    /// For [`jobs::hold`], where a late write of a run that lost its job would do harm. `None` for what every
    /// instance does for itself.
    pub turn: Option<Turn>,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Failed(String),
}

impl Job {
    pub fn new<F, R>(name: &'static str, interval: Duration, deadline: Duration, work: F) -> Self
    where
        F: Fn(Run) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        Self { name, interval, deadline, work: Arc::new(move |run| Box::pin(work(run))) }
    }
}

/// All jobs of one instance. Cheap to clone.
#[derive(Clone)]
pub struct Jobs(Arc<Inner>);

struct Inner {
    pool: Pool,
    metrics: Metrics,
    settings: config::Jobs,
    /// This process, for the board.
    instance: Uuid,
    /// Done by one instance at a time.
    shared: Vec<Job>,
    /// Done by every instance for itself, such as gauges.
    own: Vec<Job>,
    wake: Notify,
}

impl Jobs {
    /// Puts the jobs on the board that instances share.
    pub async fn new(
        pool: Pool,
        metrics: Metrics,
        settings: config::Jobs,
        shared: Vec<Job>,
        own: Vec<Job>,
    ) -> Result<Self, StoreError> {
        let rows: Vec<_> = shared.iter().map(|job| (job.name, job.interval)).collect();
        jobs::register(&pool, &rows).await?;
        for job in &shared {
            metrics.jobs.known(job.name);
        }
        let instance = Uuid::new_v4();
        Ok(Self(Arc::new(Inner { pool, metrics, settings, instance, shared, own, wake: Notify::new() })))
    }

    /// The jobs of this version, in the order in which they are hung in.
    pub fn all(&self) -> &[Job] {
        &self.0.shared
    }

    /// How they stand, by name.
    pub async fn board(&self) -> Result<Vec<Standing>, StoreError> {
        let board = jobs::board(&self.0.pool).await?;
        let known = |name: &str| self.0.shared.iter().any(|job| job.name == name);
        Ok(board.into_iter().filter(|standing| known(&standing.name)).collect())
    }

    /// Asks for a run now, by whichever instance comes first.
    pub async fn request(&self, author: &Author, name: &str) -> Result<Requested, StoreError> {
        if !self.0.shared.iter().any(|job| job.name == name) {
            return Ok(Requested::Unknown);
        }
        let requested = jobs::request(&self.0.pool, author, name).await?;
        self.0.wake.notify_one();
        Ok(requested)
    }

    /// Looks at the board at once instead of a moment later.
    pub fn wake(&self) {
        self.0.wake.notify_one();
    }

    /// Looks for what is due until `stop` changes or its sender is gone, and waits for what it began.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        tokio::join!(self.shared(stop.clone()), self.own(stop));
    }

    /// Everything once, one after the other, due or not; `false` if another instance has one of them. What
    /// fails does not keep the rest from being done.
    pub async fn round(&self, now: Timestamp) -> Result<bool, JobError> {
        let mut failure = None;
        let mut all = true;
        for job in &self.0.own {
            let run = Run { now, last_done: None, turn: None };
            failure = failure.or((job.work)(run).await.err());
        }
        for job in &self.0.shared {
            match self.take(job, true).await? {
                None => all = false,
                Some(turn) => failure = failure.or(self.perform(job, turn, now, None).await.err()),
            }
        }
        failure.map_or(Ok(all), Err)
    }
}
