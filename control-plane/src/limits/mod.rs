//! How often who may ask: a token bucket for each class of request and each principal (A7).
//!
//! With Redis all instances share the buckets; without it, or while it is away, each instance has its own of
//! the same size. Both are the same algorithm ([`gcra`]). A lane bounds how many questions are in work at
//! once, so that they are turned away before the connection pool is exhausted; ingest has its own
//! ([`crate::ingest::Admission`]).

pub mod gcra;
mod local;
mod shared;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Method;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{self, ConfigError};
use crate::telemetry::Metrics;
pub use gcra::{Rate, Verdict};
use local::Local;
use shared::Shared;

/// What a request is, for its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Looks through flows.
    Query,
    /// Any other question.
    Read,
    /// Changes something.
    Write,
    /// A sensor's batch.
    Ingest,
}

impl Class {
    /// By a route's template.
    #[must_use]
    pub fn of(method: &Method, route: &str) -> Self {
        match (method, route) {
            (_, "/api/v1/ingest") => Self::Ingest,
            (&Method::GET | &Method::HEAD, route) if route.starts_with("/api/v1/flows") => Self::Query,
            (&Method::GET | &Method::HEAD, _) => Self::Read,
            _ => Self::Write,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Read => "read",
            Self::Write => "write",
            Self::Ingest => "ingest",
        }
    }
}

/// The limits with their state; cheap to clone.
#[derive(Clone)]
pub struct Limits {
    rates: config::Limits,
    local: Arc<Local>,
    shared: Option<Arc<Shared>>,
    lane: Arc<Semaphore>,
    patience: Duration,
    metrics: Metrics,
}

impl Limits {
    /// Begins to connect to Redis where one is configured.
    pub fn new(config: &config::Config, metrics: Metrics) -> Result<Self, ConfigError> {
        let shared = match config.redis.connection_url()? {
            None => None,
            Some(url) => {
                let patience = Duration::from_millis(config.redis.timeout_ms);
                let shared = Shared::start(&url, patience, Arc::clone(&metrics));
                // The parser's own message may quote the URL, password and all.
                Some(
                    shared
                        .map_err(|_| ConfigError::one("redis.url: not of the form redis://host:port/db"))?,
                )
            }
        };
        Ok(Self {
            rates: config.limits.clone(),
            local: Arc::new(Local::new()),
            shared,
            lane: Arc::new(Semaphore::new(config.api.max_concurrent)),
            patience: Duration::from_millis(config.api.queue_timeout_ms),
            metrics,
        })
    }

    #[must_use]
    pub fn rate(&self, class: Class) -> Rate {
        let rate = match class {
            Class::Query => self.rates.query,
            Class::Read => self.rates.read,
            Class::Write => self.rates.write,
            Class::Ingest => self.rates.ingest,
        };
        Rate::per_minute(rate.per_minute, rate.burst)
    }

    /// Takes a token of a principal's bucket.
    pub async fn decide(&self, class: Class, principal: &str) -> Verdict {
        let key = format!("weir:limit:{}:{principal}", class.name());
        let rate = self.rate(class);
        let shared = match &self.shared {
            Some(shared) => shared.decide(&key, rate).await,
            None => None,
        };
        let by = if shared.is_some() { "redis" } else { "local" };
        self.metrics.limits.decisions.with_label_values(&[by]).inc();
        let verdict = shared.unwrap_or_else(|| self.local.decide(&key, rate));
        if !verdict.allowed {
            self.metrics.limits.limited.with_label_values(&[class.name()]).inc();
        }
        verdict
    }

    /// A place among the questions in work, if one comes free in time. A batch needs none.
    pub async fn lane(&self, class: Class) -> Result<Option<OwnedSemaphorePermit>, Full> {
        if class == Class::Ingest {
            return Ok(None);
        }
        let place = tokio::time::timeout(self.patience, Arc::clone(&self.lane).acquire_owned()).await;
        if let Ok(Ok(place)) = place {
            return Ok(Some(place));
        }
        self.metrics.limits.shed.inc();
        Err(Full)
    }

    /// Whether Redis is there and how long it takes, where one is configured.
    pub async fn redis(&self, patience: Duration) -> Option<Ping> {
        let shared = self.shared.as_ref()?;
        let started = Instant::now();
        Some(match tokio::time::timeout(patience, shared.ping()).await {
            Ok(Some(latency)) => Ping { state: "up", latency },
            Ok(None) => Ping { state: "down", latency: started.elapsed() },
            Err(_) => Ping { state: "slow", latency: started.elapsed() },
        })
    }
}

/// As many questions as are allowed are in work.
#[derive(Clone, Copy, Debug)]
pub struct Full;

/// An answer, or none, to "are you there".
#[derive(Clone, Copy, Debug)]
pub struct Ping {
    pub state: &'static str,
    pub latency: Duration,
}
