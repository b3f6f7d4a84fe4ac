//! How many batches may be in work at once, in total and of one sensor.
//!
//! A sensor's place is taken before its body is read, a place in total before the body is decoded: a
//! slow sender holds its own place only. Both waits are short; a batch whose turn does not come is
//! answered 429 (this sensor has too many in work) or 503 (all sensors together have), and comes again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config;
use crate::telemetry::Metrics;

/// Why a batch was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// This sensor has too many batches in work.
    Sensor,
    /// All sensors together have.
    Total,
}

/// The places.
#[derive(Clone)]
pub struct Admission {
    total: Arc<Semaphore>,
    per_sensor: usize,
    patience: Duration,
    /// Bounded by the sensors that exist: only authenticated ones come here.
    sensors: Arc<Mutex<HashMap<i32, Arc<Semaphore>>>>,
    metrics: Metrics,
}

/// A sensor's own place, given back when dropped.
pub struct Place {
    admission: Admission,
    own: OwnedSemaphorePermit,
}

/// A place in total beside the sensor's own, given back when dropped.
pub struct Permit {
    _total: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Admission {
    #[must_use]
    pub fn new(settings: &config::Ingest, metrics: Metrics) -> Self {
        Self {
            total: Arc::new(Semaphore::new(settings.max_concurrent)),
            per_sensor: settings.max_concurrent_per_sensor,
            patience: Duration::from_millis(settings.queue_timeout_ms),
            sensors: Arc::default(),
            metrics,
        }
    }

    /// A place among this sensor's batches.
    pub async fn place(&self, sensor_id: i32) -> Result<Place, Busy> {
        let own = {
            let mut sensors = self.sensors.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(sensors.entry(sensor_id).or_insert_with(|| Arc::new(Semaphore::new(self.per_sensor))))
        };
        match self.wait(own).await {
            Some(own) => Ok(Place { admission: self.clone(), own }),
            None => Err(self.turned_away(Busy::Sensor, "sensor")),
        }
    }

    async fn wait(&self, semaphore: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::time::timeout(self.patience, semaphore.acquire_owned()).await.ok()?.ok()
    }

    fn turned_away(&self, busy: Busy, reason: &str) -> Busy {
        self.metrics.ingest_busy.with_label_values(&[reason]).inc();
        busy
    }
}

impl Place {
    /// A place among all batches.
    pub async fn enter(self) -> Result<Permit, Busy> {
        let Self { admission, own } = self;
        match admission.wait(Arc::clone(&admission.total)).await {
            Some(total) => {
                admission.metrics.ingest_in_flight.inc();
                Ok(Permit { _total: total, _own: own, metrics: admission.metrics })
            }
            None => Err(admission.turned_away(Busy::Total, "total")),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.metrics.ingest_in_flight.dec();
    }
}
