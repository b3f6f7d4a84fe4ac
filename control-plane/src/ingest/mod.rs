//! The write path: from the body of a request to a committed transaction.
//!
//! [`Ingest::accept`] admits a bounded number of batches, decodes and checks each before a connection is
//! taken, and stores it once. What comes back is an outcome to acknowledge, or an [`IngestError`] that
//! says whether the same batch may be sent again.

mod admission;
mod batch;
pub mod rollup;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use weir_wire::CodecError;

use crate::config;
use crate::store::batches::{self, Clock, Stored};
use crate::store::partitions::{self, Known};
use crate::store::{Pool, StoreError};
use crate::telemetry::Metrics;

pub use admission::{Admission, Busy, Permit, Place};
pub use batch::{Batch, Point};
pub use validate::{Horizon, Invalid};

/// Skew beyond this is flagged on the sensor; its batches are kept all the same.
const SKEW_TOLERANCE: Duration = Duration::from_mins(5);

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the sensor was revoked")]
    Revoked,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("decoding failed")]
    Panicked,
}

/// A batch that is now in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub duplicate: bool,
    pub records: usize,
}

/// The write path with what it needs.
#[derive(Clone)]
pub struct Ingest {
    pool: Pool,
    known: Known,
    settings: Arc<config::Ingest>,
    metrics: Metrics,
}

impl Ingest {
    #[must_use]
    pub fn new(pool: Pool, known: Known, settings: config::Ingest, metrics: Metrics) -> Self {
        Self { pool, known, settings: Arc::new(settings), metrics }
    }

    /// Stores a batch of an authenticated sensor. The permit is held until it is done with.
    pub async fn accept(
        &self,
        sensor_id: i32,
        body: Bytes,
        sent_at_ms: Option<i64>,
        _permit: Permit,
    ) -> Result<Accepted, IngestError> {
        self.metrics.ingest_bytes.inc_by(body.len() as u64);
        let result = self.decode_and_store(sensor_id, body, sent_at_ms).await;
        let outcome = match &result {
            Ok(Accepted { duplicate: false, .. }) => "stored",
            Ok(_) => "duplicate",
            Err(IngestError::Store(_) | IngestError::Panicked) => "failed",
            Err(_) => "refused",
        };
        self.metrics.ingest_batches.with_label_values(&[outcome]).inc();
        if let Ok(Accepted { duplicate: false, records }) = &result {
            self.metrics.ingest_rows.inc_by(*records as u64);
        }
        result
    }

    async fn decode_and_store(
        &self,
        sensor_id: i32,
        body: Bytes,
        sent_at_ms: Option<i64>,
    ) -> Result<Accepted, IngestError> {
        let now = Timestamp::now();
        let now_ns = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let horizon = Horizon::around(now_ns, self.settings.max_past_days, self.settings.max_future_hours);
        // Milliseconds of computing: on a thread that may take them.
        let batch = tokio::task::spawn_blocking(move || {
            Ok::<_, IngestError>(Arc::new(validate::check(weir_wire::decode(&body)?, horizon)?))
        })
        .await
        .map_err(|_| IngestError::Panicked)??;

        let clock = self.measure_clock(now.as_millisecond(), sent_at_ms);
        let stored = self.store(sensor_id, &batch, clock).await?;
        let records = batch.flows.len();
        match stored {
            Stored::Revoked => Err(IngestError::Revoked),
            Stored::Duplicate => Ok(Accepted { duplicate: true, records }),
            Stored::New => {
                let lag_ns = Timestamp::now().as_nanosecond() - i128::from(batch.window_end_ns);
                self.metrics.ingest_lag_seconds.observe((lag_ns as f64 / 1e9).max(0.0));
                Ok(Accepted { duplicate: false, records })
            }
        }
    }

    /// Stores the batch; once more if a partition went away after we last saw it.
    async fn store(&self, sensor_id: i32, batch: &Arc<Batch>, clock: Clock) -> Result<Stored, StoreError> {
        let wanted = batches::partitions(batch)?;
        for attempt in 0.. {
            partitions::ensure(&self.pool, &self.known, &wanted).await?;
            let rollup = {
                let (batch, keys) = (Arc::clone(batch), self.settings.rollup_keys);
                tokio::task::spawn_blocking(move || rollup::of_batch(&batch, keys))
            };
            let rollup =
                async { rollup.await.map_err(|_| StoreError::Unavailable("a rollup failed".to_owned())) };
            match batches::store(&self.pool, sensor_id, batch, clock, rollup).await {
                Err(StoreError::MissingPartition(_)) if attempt == 0 => self.known.forget(),
                result => return result,
            }
        }
        unreachable!("the second attempt returns")
    }

    fn measure_clock(&self, now_ms: i64, sent_at_ms: Option<i64>) -> Clock {
        let skew_ms = sent_at_ms.map(|sent_at_ms| now_ms.saturating_sub(sent_at_ms));
        let flagged =
            skew_ms.is_some_and(|skew| u128::from(skew.unsigned_abs()) > SKEW_TOLERANCE.as_millis());
        if let Some(skew_ms) = skew_ms {
            self.metrics.clock_skew_seconds.observe(skew_ms.unsigned_abs() as f64 / 1e3);
        }
        if flagged {
            self.metrics.clock_flagged.inc();
        }
        Clock { skew_ms, flagged }
    }
}
