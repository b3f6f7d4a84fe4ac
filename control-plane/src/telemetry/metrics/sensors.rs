//! Sensors: their clocks, what they lost, how they stand.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::{Builder, SKEW};
use crate::ingest::Reason;

/// What batches told of their sensors' clocks.
#[derive(Debug)]
pub struct Clocks {
    pub skew_seconds: Histogram,
    pub flagged: IntCounter,
    pub moved: IntCounter,
    pub steps: IntCounter,
}

impl Clocks {
    pub(super) fn new(b: &Builder) -> Self {
        Self {
            skew_seconds: b.histogram(
                "weir_ingest_clock_skew_seconds",
                "Distance between a sensor's clock and ours as a batch arrived, the way included",
                SKEW,
            ),
            flagged: b.counter(
                "weir_ingest_clock_flagged_total",
                "Batches from a sensor whose clock was over five minutes off",
            ),
            moved: b.counter(
                "weir_ingest_clock_moved_total",
                "Batches stored at another time than their sensor said, since that could not be true",
            ),
            steps: b.counter("weir_ingest_clock_steps_total", "Epochs within which a sensor's clock was set"),
        }
    }
}

/// Flows that were counted and are not stored, by reason.
#[derive(Debug)]
pub struct Losses {
    pub batches: IntCounterVec,
    pub packets: IntCounterVec,
}

impl Losses {
    pub(super) fn new(b: &Builder) -> Self {
        let losses = Self {
            batches: b.counters(
                "weir_ingest_dropped_batches_total",
                "Batches whose flows are not stored, by reason: spool_bytes, spool_age, quarantine, corrupt \
                 (the sensor's notices), expired (came too late)",
                &["reason"],
            ),
            packets: b.counters(
                "weir_ingest_dropped_packets_total",
                "Packets in flows that were counted and are not stored, by reason",
                &["reason"],
            ),
        };
        // A counter that appears with its first loss would hide that loss from a rate.
        for reason in Reason::ALL {
            losses.batches.with_label_values(&[reason.name()]);
            losses.packets.with_label_values(&[reason.name()]);
        }
        losses
    }
}

/// How the sensors stand, as a job last saw it in the database; the same on every instance.
#[derive(Debug)]
pub struct SensorGauges {
    pub active: IntGauge,
    pub clock_flagged: IntGauge,
    pub spool_degraded: IntGauge,
    pub quarantining: IntGauge,
    pub waiting_batches: IntGauge,
}

impl SensorGauges {
    pub(super) fn new(b: &Builder) -> Self {
        Self {
            active: b.gauge("weir_sensors", "Sensors that are neither revoked nor deleted"),
            clock_flagged: b
                .gauge("weir_sensors_clock_flagged", "Sensors whose clock is over five minutes off"),
            spool_degraded: b
                .gauge("weir_sensors_spool_degraded", "Sensors that cannot write their spool's disk"),
            quarantining: b
                .gauge("weir_sensors_quarantining", "Sensors that keep batches aside which we refused"),
            waiting_batches: b
                .gauge("weir_sensors_waiting_batches", "Batches that wait in the spools of all sensors"),
        }
    }
}

/// Which sensors are there, as the watch last saw it; the same on every instance.
#[derive(Debug)]
pub struct PresenceMetrics {
    pub online: IntGauge,
    pub offline: IntGauge,
    pub never: IntGauge,
    /// to
    changes: IntCounterVec,
}

impl PresenceMetrics {
    pub(super) fn new(b: &Builder) -> Self {
        let presence = Self {
            online: b.gauge("weir_sensors_online", "Sensors that are there, revoked ones apart"),
            offline: b.gauge(
                "weir_sensors_offline",
                "Sensors that were there and are silent for sensors.offline_after_s, revoked ones apart",
            ),
            never: b.gauge("weir_sensors_never_seen", "Sensors that were never heard of, revoked ones apart"),
            changes: b.counters(
                "weir_sensor_presence_changes_total",
                "Sensors that this instance told to be online again, or offline",
                &["to"],
            ),
        };
        presence.changed("online", 0);
        presence.changed("offline", 0);
        presence
    }

    pub fn changed(&self, to: &str, sensors: usize) {
        self.changes.with_label_values(&[to]).inc_by(sensors as u64);
    }
}
