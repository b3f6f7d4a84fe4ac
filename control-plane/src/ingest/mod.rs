//! The write path: from the body of a request to a committed transaction.
//!
//! [`Ingest::accept`] admits a bounded number of batches, decodes and checks each before a connection is
//! taken, and stores it once. What comes back is an outcome to acknowledge, or an [`IngestError`] that
//! says whether the same batch may be sent again.

mod admission;
mod batch;
mod context;
mod detection;
mod device;
mod erased;
mod loss;
mod placement;
pub mod rollup;
mod validate;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use weir_wire::CodecError;

use crate::config;
use crate::store::batches::{self, Clock, Stored};
use crate::store::dictionary::{Dictionary, Numbers};
use crate::store::partitions::{self, Known};
use crate::store::{Pool, StoreError, devices, sensors};
use crate::stream::Stream;
use crate::telemetry::Metrics;

pub use admission::{Admission, Busy, Permit, Place};
pub use batch::{Batch, Point, Spool};
pub use context::Context;
pub use detection::{Detection, is_word};
pub use device::{Device, Fact, FactKind};
pub use erased::{Clipped, Erased, Held, clip_devices};
pub use loss::{Dropped, Reason};
pub use placement::{Horizon, Placement};
pub use validate::{Invalid, check};

/// Erasures that may come between a batch and its transaction before it is to be sent again.
const MAX_ERASURES: u32 = 16;

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the sensor was revoked")]
    Revoked,
    #[error("the sensor was deleted")]
    Gone,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("decoding failed")]
    Panicked,
}

/// What the database has under a batch's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Flows,
    /// A sensor's notice of a loss.
    Notice,
    /// The counts as a loss, since the window was too old.
    Expired,
}

/// A batch that needs not be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub duplicate: bool,
    /// By this request, or by the one before of which this is a duplicate.
    pub kept: Kept,
    pub records: usize,
}

/// The write path with what it needs.
#[derive(Clone)]
pub struct Ingest {
    pool: Pool,
    known: Known,
    dictionary: Dictionary,
    settings: Arc<config::Ingest>,
    retention: Arc<config::Retention>,
    stream: Stream,
    metrics: Metrics,
}

impl Ingest {
    #[must_use]
    pub fn new(
        pool: Pool,
        known: Known,
        settings: config::Ingest,
        retention: Arc<config::Retention>,
        stream: Stream,
        metrics: Metrics,
    ) -> Self {
        let dictionary = Dictionary::default();
        Self { pool, known, dictionary, settings: Arc::new(settings), retention, stream, metrics }
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
            Ok(Accepted { duplicate: true, .. }) => "duplicate",
            Ok(Accepted { kept: Kept::Flows, .. }) => "stored",
            Ok(Accepted { kept: Kept::Notice, .. }) => "notice",
            Ok(Accepted { kept: Kept::Expired, .. }) => "expired",
            Err(IngestError::Store(_) | IngestError::Panicked) => "failed",
            Err(_) => "refused",
        };
        self.metrics.ingest_batches.with_label_values(&[outcome]).inc();
        result
    }

    async fn decode_and_store(
        &self,
        sensor_id: i32,
        body: Bytes,
        sent_at_ms: Option<i64>,
    ) -> Result<Accepted, IngestError> {
        let now = Timestamp::now();
        // Milliseconds of computing: on a thread that may take them.
        let mut batch = tokio::task::spawn_blocking(move || {
            Ok::<_, IngestError>(validate::check(weir_wire::decode(&body)?)?)
        })
        .await
        .map_err(|_| IngestError::Panicked)??;
        let records = batch.flows.len();

        let skew_ms = sent_at_ms.map(|sent_at_ms| now.as_millisecond().saturating_sub(sent_at_ms));
        self.place(sensor_id, &mut batch, now, skew_ms).await?;
        let clock = self.measure_clock(&batch, skew_ms);
        if batch.window_start_us() < self.retention.keys_since(now).as_microsecond() {
            // Its key would be forgotten again, or was: what it counted is told once, here.
            self.count_loss(&batch);
            return Ok(Accepted { duplicate: false, kept: Kept::Expired, records });
        }
        let mut batch = Arc::new(batch);
        match self.store(sensor_id, &mut batch, clock).await? {
            Stored::Erased => {
                Err(StoreError::Unavailable("devices of the batch are being erased".to_owned()).into())
            }
            Stored::Revoked => Err(IngestError::Revoked),
            Stored::Outdated => Err(StoreError::Unavailable("names were erased meanwhile".to_owned()).into()),
            Stored::Gone => Err(IngestError::Gone),
            Stored::Duplicate(reason) => Ok(Accepted { duplicate: true, kept: kept(reason), records }),
            Stored::New { clipped_facts } => {
                self.stream.wake();
                self.count_new(&batch, clock);
                self.metrics.clipped(&batch.clipped, clipped_facts);
                Ok(Accepted { duplicate: false, kept: kept(batch.dropped.map(|it| it.reason)), records })
            }
        }
    }

    /// Decides where the batch lies; one that is too old gives up its flows.
    async fn place(
        &self,
        sensor_id: i32,
        batch: &mut Batch,
        now: Timestamp,
        skew_ms: Option<i64>,
    ) -> Result<(), StoreError> {
        let now_ns = i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX);
        let horizon = Horizon::around(now_ns, self.settings.max_past_days, self.settings.max_future_hours);
        let window = (batch.window_start_ns, batch.window_end_ns);
        batch.placement = match horizon.place(window, skew_ms) {
            Ok(placement) => placement,
            Err(outside) => {
                let since = sensors::added_at(&self.pool, sensor_id).await?;
                let since_ns = since.and_then(|at| i64::try_from(at.as_nanosecond()).ok());
                if horizon.expired(outside, since_ns.unwrap_or(i64::MAX)) {
                    batch.expire();
                    Placement { start_ns: outside.start_ns, shift_ns: outside.shift_ns }
                } else {
                    horizon.at_receipt(window)
                }
            }
        };
        Ok(())
    }

    /// Takes out what is about a device that was erased.
    async fn clip(&self, sensor_id: i32, batch: &mut Batch) -> Result<(), StoreError> {
        let words = erased::words(batch);
        let held = devices::held(&self.pool, sensor_id, batch.window_start_us(), &words).await?;
        erased::clip(batch, &held);
        Ok(())
    }

    /// The numbers of the batch's names, without those that are an erased device's.
    async fn resolve(&self, sensor_id: i32, batch: &mut Arc<Batch>) -> Result<Arc<Numbers>, StoreError> {
        for _ in 0..MAX_ERASURES {
            if let Some(numbers) = self.dictionary.resolve(&self.pool, sensor_id, batch).await? {
                return Ok(Arc::new(numbers));
            }
            self.clip(sensor_id, Arc::make_mut(batch)).await?;
        }
        Err(StoreError::Unavailable("one device of the site after the other is being erased".to_owned()))
    }

    /// Stores the batch; once more if a partition, a name or a device went away after we last saw it.
    async fn store(
        &self,
        sensor_id: i32,
        batch: &mut Arc<Batch>,
        clock: Clock,
    ) -> Result<Stored, StoreError> {
        let mut wanted = batches::partitions(batch)?.to_vec();
        if batch.flows.is_empty() {
            wanted.clear();
        }
        let mut numbers = self.resolve(sensor_id, batch).await?;
        for attempt in 0_u32.. {
            partitions::ensure(&self.pool, &self.known, &wanted).await?;
            let rollup = {
                let (batch, keys) = (Arc::clone(&*batch), self.settings.rollup_keys);
                let numbers = Arc::clone(&numbers);
                tokio::task::spawn_blocking(move || {
                    rollup::of_batch(&batch, &numbers.domains, &numbers.processes, keys)
                })
            };
            let rollup =
                async { rollup.await.map_err(|_| StoreError::Unavailable("a rollup failed".to_owned())) };
            match batches::store(&self.pool, sensor_id, batch, clock, &numbers, rollup).await {
                Err(StoreError::MissingPartition(_)) if attempt == 0 => self.known.forget(),
                Ok(Stored::Outdated) if attempt < MAX_ERASURES => {
                    self.dictionary.forget(numbers.edition);
                    numbers = self.resolve(sensor_id, batch).await?;
                }
                // One erasure after the other may come between.
                Ok(Stored::Erased) if attempt < MAX_ERASURES => {
                    self.clip(sensor_id, Arc::make_mut(batch)).await?;
                    numbers = self.resolve(sensor_id, batch).await?;
                }
                Ok(Stored::Outdated) => {
                    return Err(StoreError::Unavailable("the batch's names are being erased".to_owned()));
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// What the request says of the sensor's clock, and where the batch was placed for it.
    fn measure_clock(&self, batch: &Batch, skew_ms: Option<i64>) -> Clock {
        let off = skew_ms.map(placement::is_off);
        let moved = batch.placement.shift_ns != 0;
        if let Some(skew_ms) = skew_ms {
            self.metrics.clocks.skew_seconds.observe(skew_ms.unsigned_abs() as f64 / 1e3);
        }
        Clock { skew_ms, off, flagged: off == Some(true) || moved }
    }

    fn count_new(&self, batch: &Batch, clock: Clock) {
        if clock.flagged {
            self.metrics.clocks.flagged.inc();
        }
        if batch.placement.shift_ns != 0 {
            self.metrics.clocks.moved.inc();
        }
        if batch.clock_step_ns != 0 {
            self.metrics.clocks.steps.inc();
        }
        self.metrics.ingest_rows.inc_by(batch.flows.len() as u64);
        self.count_loss(batch);
        if batch.dropped.is_none() {
            let lag_ns = Timestamp::now().as_nanosecond() - i128::from(batch.ended_ns());
            self.metrics.ingest_lag_seconds.observe((lag_ns as f64 / 1e9).max(0.0));
        }
    }

    fn count_loss(&self, batch: &Batch) {
        if let Some(dropped) = &batch.dropped {
            let reason = [dropped.reason.name()];
            self.metrics.losses.packets.with_label_values(&reason).inc_by(dropped.packets.unsigned_abs());
            self.metrics.losses.batches.with_label_values(&reason).inc();
        }
    }
}

fn kept(reason: Option<Reason>) -> Kept {
    match reason {
        None => Kept::Flows,
        Some(Reason::Expired) => Kept::Expired,
        Some(_) => Kept::Notice,
    }
}
