//! The merge task: owns the connection table, what is looked up about addresses and the detectors, packs what
//! they yield, and puts it into the outbox.

use std::sync::Arc;
use std::time::Instant;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::{CatchUp, Handover, Onlooker};
use crate::config::Detect;
use crate::detect::{Detection, Engine};
use crate::enrich::Enricher;
use crate::flow::{Limits, Merged, Merger};
use crate::kernel::Drained;
use crate::metrics::Metrics;
use crate::ship::{Outbox, OutboxClosed, Packed, pack};

/// Why the merge task has ended before its time.
#[derive(Debug, Error)]
pub enum MergeError {
    #[error(transparent)]
    Outbox(#[from] OutboxClosed),
    #[error("merging an epoch panicked")]
    Panicked,
}

/// What an epoch goes through, in this order.
pub struct Steps {
    pub merger: Merger,
    /// Absent where no events are read.
    pub catch_up: Option<CatchUp>,
    pub enricher: Enricher,
    /// Absent where no events are read.
    pub onlooker: Option<Onlooker>,
    pub engine: Engine,
}

/// What of these may change between two epochs.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub limits: Limits,
    pub detect: Detect,
}

/// The task.
pub struct Merge<O> {
    /// Empty only while a blocking call has it.
    steps: Option<Steps>,
    epochs: mpsc::Receiver<Handover>,
    outbox: O,
    metrics: Arc<Metrics>,
    /// A sender that has gone changes nothing more.
    tuning: Option<watch::Receiver<Arc<Tuning>>>,
}

impl<O: Outbox> Merge<O> {
    pub fn new(steps: Steps, epochs: mpsc::Receiver<Handover>, outbox: O, metrics: Arc<Metrics>) -> Self {
        Self { steps: Some(steps), epochs, outbox, metrics, tuning: None }
    }

    /// Takes other parameters between two epochs.
    #[must_use]
    pub fn tuned_by(mut self, tuning: watch::Receiver<Arc<Tuning>>) -> Self {
        self.tuning = Some(tuning);
        self
    }

    /// Runs until the drain task has ended and its last epoch is in the outbox.
    pub async fn run(mut self) -> Result<(), MergeError> {
        while let Some(Handover { generation, drained, safe }) = self.epochs.recv().await {
            let packed = self.merge(generation, drained).await?;
            let started = Instant::now();
            self.outbox.put(packed).await?;
            self.metrics.outbox_wait_seconds.observe(started.elapsed().as_secs_f64());
            // A drain task that has gone needs no answer.
            let _ = safe.send(());
        }
        Ok(())
    }

    /// Merges and packs an epoch where it disturbs no other task.
    async fn merge(&mut self, generation: Uuid, drained: Drained) -> Result<Vec<Packed>, MergeError> {
        let mut steps = self.steps.take().ok_or(MergeError::Panicked)?;
        if let Some(tuning) = &mut self.tuning
            && tuning.has_changed().unwrap_or(false)
        {
            let tuning = Arc::clone(&tuning.borrow_and_update());
            steps.merger.set_limits(tuning.limits);
            steps.engine.retune(&tuning.detect);
            if let Some(onlooker) = &steps.onlooker {
                onlooker.retune(&tuning.detect);
            }
        }
        let (metrics, standing) = (Arc::clone(&self.metrics), self.outbox.standing());
        let done = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let observed: u64 = drained.flows.iter().map(|flow| flow.packets).sum();
            // What the packets of this epoch say is looked at meanwhile.
            let asked = steps.catch_up.as_ref().map(CatchUp::ask);
            let mut merged = steps.merger.merge(drained);
            count(&merged, observed, &metrics);
            metrics.connections.set(steps.merger.connections() as i64);
            if let Some(asked) = asked {
                asked.wait();
            }
            steps.enricher.enrich(&mut merged.records);
            let (devices, found) = steps.onlooker.as_ref().map_or_else(Default::default, |onlooker| {
                onlooker.epoch(&merged.records, merged.window_end_ns, &metrics)
            });
            let detections = detect(&mut steps.engine, &merged, found, &metrics);
            let packed = pack(&merged, &detections, &devices, generation, standing).unwrap_or_else(|error| {
                // No limit that this crate knows of lets this happen; were it to, going on is the lesser loss.
                let records = merged.records.len();
                tracing::error!(%error, epoch = merged.epoch, records, "an epoch cannot be packed and is lost");
                metrics.refused_batches.inc();
                metrics.refused_records.inc_by(records as u64);
                metrics.refused_packets.inc_by(observed.saturating_sub(merged.crossing_packets));
                Vec::new()
            });
            metrics.merge_seconds.observe(started.elapsed().as_secs_f64());
            (steps, packed)
        });
        let (steps, packed) = done.await.map_err(|_| MergeError::Panicked)?;
        self.steps = Some(steps);
        Ok(packed)
    }
}

/// What this epoch adds to the detections that are open; new ones are said in the log.
fn detect(engine: &mut Engine, merged: &Merged, found: Vec<Detection>, metrics: &Metrics) -> Vec<Detection> {
    let started = Instant::now();
    engine.observe(merged);
    engine.tell_of(found, merged.window_end_ns);
    let detections = engine.take(weir_wire::limits::MAX_DETECTIONS);
    for detection in detections.iter().filter(|detection| detection.opens) {
        metrics.detections.with_label_values(&[detection.kind.word()]).inc();
        tracing::warn!(
            kind = detection.kind.word(), severity = detection.severity.word(), subject = %detection.subject,
            count = detection.count, technique = detection.kind.technique(), evidence = %detection.evidence,
            "detected"
        );
    }
    metrics.detected(engine);
    metrics.detect_seconds.observe(started.elapsed().as_secs_f64());
    detections
}

fn count(merged: &Merged, observed: u64, metrics: &Metrics) {
    let packets: u64 = merged.records.iter().map(|record| record.packets + record.reverse_packets).sum();
    metrics.records.inc_by(merged.records.len() as u64);
    metrics.record_packets.inc_by(packets);
    metrics.crossing_packets.inc_by(merged.crossing_packets);
    metrics.evictions.inc_by(merged.evicted);
    let unmerged = observed.abs_diff(packets + merged.crossing_packets);
    if unmerged > 0 {
        metrics.unmerged_packets.inc_by(unmerged);
        tracing::error!(
            epoch = merged.epoch,
            observed,
            packets,
            crossing = merged.crossing_packets,
            "the merge does not add up; this is a defect of the sensor"
        );
    }
}
