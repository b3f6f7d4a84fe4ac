//! Everything that the sensor tells Prometheus, declared together.
//!
//! One [`Metrics`] is made by `run` and shared; each part sets its own. What must stay true: labels are
//! bounded by the configuration (at most 127 interfaces, two directions, 63 threat lists, and the fixed words
//! below), never by what a packet, a server or a stranger sends.

mod told;

use std::sync::{Arc, OnceLock};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use weir_wire::Direction;

/// Declares the struct and its constructor: one line a metric, its doc comment is its help text.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:tt $([$($label:literal),+])? = $name:literal;)+) => {
        /// All metrics of the sensor.
        pub struct Metrics {
            registry: Registry,
            list_names: OnceLock<Arc<[String]>>,
            $($(#[doc = $help])+ pub $field: metrics!(@type $kind),)+
        }

        impl Metrics {
            /// A registry of its own, with every metric in it.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let name = concat!("weir_sensor_", $name);
                    let help = concat!($($help),+).trim_start();
                    let $field = metrics!(@new $kind name help [$($($label),+)?]);
                    registry.register(Box::new($field.clone()))?;
                )+
                let metrics = Self { registry, list_names: OnceLock::new(), $($field),+ };
                metrics.begin_at_zero();
                Ok(metrics)
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type counters) => { IntCounterVec };
    (@type gauge) => { IntGauge };
    (@type gauges) => { IntGaugeVec };
    (@type float) => { Gauge };
    (@type floats) => { GaugeVec };
    (@type seconds) => { Histogram };
    (@new counter $name:ident $help:ident []) => { IntCounter::new($name, $help)? };
    (@new gauge $name:ident $help:ident []) => { IntGauge::new($name, $help)? };
    (@new float $name:ident $help:ident []) => { Gauge::new($name, $help)? };
    (@new seconds $name:ident $help:ident []) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()))?
    };
    (@new counters $name:ident $help:ident [$($label:literal),+]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),+])?
    };
    (@new floats $name:ident $help:ident [$($label:literal),+]) => {
        GaugeVec::new(Opts::new($name, $help), &[$($label),+])?
    };
    (@new gauges $name:ident $help:ident [$($label:literal),+]) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),+])?
    };
}

/// From a grace period on an idle machine to a request that times out.
const SECONDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

metrics! {
    /// Version of the sensor, as a label; always 1
    build: gauges["version"] = "build_info";
    /// Memory that the process holds, without the kernel tables that it has not touched
    resident_bytes: gauge = "resident_memory_bytes";

    /// Frames seen by the kernel program
    frames: counters["interface", "direction"] = "frames_total";
    /// Layer-2 octets of the frames seen by the kernel program
    octets: counters["interface", "direction"] = "octets_total";
    /// Frames by what became of them: flow, overflow, `non_ip`, malformed, filtered, unsampled
    packets: counters["interface", "direction", "verdict"] = "packets_total";
    /// Layer-3 octets counted into flows
    flow_octets: counters["interface", "direction"] = "flow_octets_total";
    /// Frames for which no verdict was counted; anything but 0 is a defect of the sensor
    unaccounted: counter = "unaccounted_frames_total";
    /// 1 while an interface moves packets that its kernel program does not see
    blind: gauges["interface", "direction"] = "point_blind";

    /// Epochs drained from the kernel
    drains: counter = "drains_total";
    /// Epochs that were drained before their time, by reason: filling, overflow
    early_drains: counters["reason"] = "early_drains_total";
    /// Drains that failed and were tried again
    drain_failures: counter = "drain_failures_total";
    /// From the epoch flip until no kernel program could hold the old epoch
    grace_seconds: seconds = "drain_grace_seconds";
    /// Reading and decoding a drained half
    read_seconds: seconds = "drain_read_seconds";
    /// Merging observations into connections and packing them
    merge_seconds: seconds = "merge_seconds";
    /// Waiting until an epoch is safe in the spool, while the kernel tables absorb
    outbox_wait_seconds: seconds = "outbox_wait_seconds";
    /// Slots in use in the drained half, over all CPUs
    slots_used: gauge = "table_slots_used";
    /// Slots of a half, over all CPUs
    slots: gauge = "table_slots";
    /// When the last epoch was drained, seconds since the Unix epoch
    last_drain: float = "last_drain_timestamp_seconds";
    /// Epochs in which the wall clock was set
    clock_steps: counter = "clock_steps_total";
    /// By how much the wall clock was set last; positive is forward
    clock_step: float = "clock_step_seconds";
    /// One packet in this many is counted
    sampling_interval: gauge = "sampling_interval";

    /// 1 while packets are read for names and devices
    events_read: gauge = "events_read";
    /// Packets that the kernel programs chose to be read, by class: each is in `events_total` or refused
    events_chosen: counters["class"] = "events_chosen_total";
    /// Packets that were handed over to be read, by class
    events: counters["class"] = "events_total";
    /// Octets of frames in them
    event_octets: counters["class"] = "event_octets_total";
    /// Packets that were chosen and not read, by reason: budget, `ring_full`, unreadable, `queue_full`
    events_refused: counters["class", "reason"] = "events_refused_total";
    /// Packets that were handed over up to `events.snap_octets` only
    events_cut: counters["class"] = "events_cut_total";
    /// Waiting until what the packets of an epoch say is read, before its flows are named
    event_wait: seconds = "event_wait_seconds";
    /// Epochs whose flows were named before all that their packets say was read
    events_late: counter = "events_late_total";
    /// What was read in packets, by type
    observations: counters["type"] = "observations_total";
    /// Octets of messages that are not whole yet
    observe_octets: gauge = "observe_waiting_bytes";
    /// Messages that were given up for want of room before they were whole
    observe_forgotten: counter = "observe_forgotten_total";
    /// Panics over what a packet said, by part; anything but 0 is a defect of the sensor
    observe_panics: counters["part"] = "observe_panics_total";
    /// Records that have a name, by its source
    named_records: counters["source"] = "named_records_total";
    /// Octets of the names that are remembered
    names_octets: gauge = "names_bytes";
    /// What was forgotten for want of room: names that were `looked_up` or carried, questions
    names_forgotten: counters["what"] = "names_forgotten_total";
    /// Records that go without their name, as the day has had `events.names.per_day` different ones
    names_over_daily: counter = "names_over_daily_total";
    /// DNS lookups by how they ended: answered, failed, `timed_out`; unasked where the question was not seen
    dns_lookups: counters["result"] = "dns_lookups_total";
    /// From a question to its answer
    dns_seconds: seconds = "dns_lookup_seconds";

    /// Connections remembered
    connections: gauge = "connections";
    /// Connections whose start was forgotten for want of room; their counts were kept
    evictions: counter = "connection_evictions_total";
    /// Records made
    records: counter = "records_total";
    /// Packets in records
    record_packets: counter = "record_packets_total";
    /// Packets seen again at a further observation point, in no record
    crossing_packets: counter = "crossing_packets_total";
    /// Records whose packets no record or crossing counter holds; anything but 0 is a defect of the sensor
    unmerged_packets: counter = "unmerged_packets_total";

    /// Detections that were opened, by kind
    detections: counters["kind"] = "detections_total";
    /// Detections that are open
    detections_open: gauge = "detections_open";
    /// Entries that a detector forgot for want of room, by kind
    detect_forgotten: counters["kind"] = "detect_forgotten_total";
    /// Sightings that were not told because `detect.max_open` was reached
    detect_untold: counter = "detect_untold_total";
    /// Devices that are remembered
    devices: gauge = "devices";
    /// Devices that were forgotten because `devices.max` was reached
    devices_forgotten: counter = "devices_forgotten_total";
    /// Devices that turned out to be one with another
    devices_joined: counter = "devices_joined_total";

    /// Looking through an epoch for detections
    detect_seconds: seconds = "detect_seconds";

    /// Batches that wait for delivery, tombstones among them
    spool_batches: gauge = "spool_batches";
    /// Bytes of what waits for delivery
    spool_bytes: gauge = "spool_bytes";
    /// Bytes that the spool holds before the oldest batches are given up
    spool_capacity: gauge = "spool_capacity_bytes";
    /// Age of the oldest batch that waits
    spool_oldest_age: float = "spool_oldest_age_seconds";
    /// Tombstones that wait for delivery
    spool_tombstones: gauge = "spool_tombstones";
    /// 1 while the spool cannot be written: an epoch is held in memory and the kernel tables absorb
    spool_degraded: gauge = "spool_degraded";
    /// Failures to open, read or write the spool's file
    spool_failures: counter = "spool_failures_total";
    /// Damaged spool files that were put aside
    spool_damaged: counter = "spool_damaged_files_total";
    /// Writing an epoch to the spool
    spool_write_seconds: seconds = "spool_write_seconds";
    /// Batches whose flows were given up, by reason: `spool_bytes`, `spool_age`, quarantine, corrupt
    spool_dropped_batches: counters["reason"] = "spool_dropped_batches_total";
    /// Records in batches whose flows were given up, by reason
    spool_dropped_records: counters["reason"] = "spool_dropped_records_total";
    /// Packets in batches whose flows were given up, by reason
    spool_dropped_packets: counters["reason"] = "spool_dropped_packets_total";
    /// Batches that were given up without a tombstone: gaps
    spool_lost_batches: counter = "spool_lost_batches_total";
    /// Batches in the quarantine
    quarantine_batches: gauge = "quarantine_batches";
    /// Bytes in the quarantine
    quarantine_bytes: gauge = "quarantine_bytes";
    /// Packets in the quarantine
    quarantine_packets: gauge = "quarantine_packets";
    /// Epochs in the sensor's own ledger
    ledger_epochs: gauge = "ledger_epochs";
    /// Batches acknowledged by the control plane, or locally where there is none
    shipped_batches: counter = "shipped_batches_total";
    /// Records in acknowledged batches
    shipped_records: counter = "shipped_records_total";
    /// Bytes of acknowledged batches
    shipped_bytes: counter = "shipped_bytes_total";
    /// Packets in acknowledged batches
    shipped_packets: counter = "shipped_packets_total";
    /// Batches answered as stored by an earlier delivery
    duplicate_batches: counter = "duplicate_batches_total";
    /// Batches that the control plane refused for good, or that could not be packed
    refused_batches: counter = "refused_batches_total";
    /// Records in refused batches
    refused_records: counter = "refused_records_total";
    /// Packets in refused batches
    refused_packets: counter = "refused_packets_total";
    /// Attempts that will be repeated, by reason: connection, timeout, server, throttled, credential, address,
    /// revoked
    retries: counters["reason"] = "ship_retries_total";
    /// 1 while the control plane refuses the credential or the address is wrong: nothing is delivered
    misconfigured: gauge = "ship_misconfigured";
    /// 1 while the control plane says that this sensor is revoked or deleted
    revoked: gauge = "ship_revoked";
    /// Circuit breaker of delivery: 0 closed, 1 open, 2 half-open
    breaker_state: gauge = "ship_breaker_state";
    /// Times that the circuit breaker has opened
    breaker_openings: counter = "ship_breaker_openings_total";
    /// Spans, by outcome: exported, dropped (the queue was full), refused (the collector did not take them)
    spans: counters["outcome"] = "trace_spans_total";
    /// One attempt to deliver a batch
    ship_seconds: seconds = "ship_seconds";
    /// When the last batch was acknowledged, seconds since the Unix epoch
    last_delivery: float = "last_delivery_timestamp_seconds";
    /// Clock of the control plane less ours, as its last answer told it (to the second)
    clock_skew: float = "clock_skew_seconds";

    /// Heartbeats, by result: answered, failed
    heartbeats: counters["result"] = "heartbeats_total";
    /// When the control plane answered the last heartbeat, seconds since the Unix epoch
    last_heartbeat: float = "last_heartbeat_timestamp_seconds";
    /// When the credential ends by itself, seconds since the Unix epoch; 0: never, or not known yet
    credential_expiry: float = "credential_expiry_timestamp_seconds";
    /// Attempts to get the next credential, by result: done, failed
    credential_renewals: counters["result"] = "credential_renewals_total";
    /// When the certificate that the sensor shows ends, seconds since the Unix epoch; 0: it shows none
    certificate_expiry: float = "certificate_expiry_timestamp_seconds";
    /// Attempts to get the next certificate, by result: done, failed
    certificate_renewals: counters["result"] = "certificate_renewals_total";

    /// Settings that the control plane pushed, by what became of them: applied, refused
    pushed: counters["result"] = "pushed_settings_total";

    /// 1 while the programs that tell processes of sockets are attached; 0: /proc alone is read
    process_programs: gauge = "process_programs";
    /// Flows of local sockets whose process is remembered
    process_flows: gauge = "process_flows";
    /// Sockets that the programs told of, each once for every peer
    process_joins: counter = "process_joins_total";
    /// Sockets that they could not tell of: the ring was full
    process_joins_lost: counter = "process_joins_lost_total";

    /// Entries of a threat list: prefixes and domains
    list_entries: gauges["list"] = "list_entries";
    /// Lines of a threat list that could not be read
    list_errors: gauges["list"] = "list_unread_lines";
    /// Packets of flows whose address a threat list has, at every observation point
    list_hits: counters["list"] = "list_hits_total";
    /// Packets that were dropped on behalf of a threat list
    list_dropped: counters["list"] = "list_dropped_packets_total";
    /// Packets that a threat list would have dropped if enforcement held
    list_spared: counters["list"] = "list_spared_packets_total";
    /// Refreshes of a threat list that failed: it stayed as it was
    list_refresh_failures: counters["list"] = "list_refresh_failures_total";
    /// When a threat list was last known to be what is there, seconds since the Unix epoch
    list_refreshed: floats["list"] = "list_refreshed_timestamp_seconds";
    /// 1 while a threat list has missed three refreshes
    list_stale: gauges["list"] = "list_stale";
    /// Prefixes of all threat lists in the kernel, after merging
    listed_prefixes: gauge = "listed_prefixes";
    /// 1 while packets of threat lists are dropped
    lists_enforced: gauge = "lists_enforced";

    /// Reloads of the configuration, by result: applied, refused
    reloads: counters["result"] = "config_reloads_total";

    /// Readings of country and ASN databases, by result: read, failed
    place_reads: counters["result"] = "place_database_reads_total";
}

/// Why an event is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventRefusal {
    /// Its class had spent its budget on that CPU.
    Budget,
    RingFull,
    /// The kernel could not give the bytes.
    Unreadable,
    QueueFull,
}

impl EventRefusal {
    const ALL: [Self; 4] = [Self::Budget, Self::RingFull, Self::Unreadable, Self::QueueFull];

    const fn word(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::RingFull => "ring_full",
            Self::Unreadable => "unreadable",
            Self::QueueFull => "queue_full",
        }
    }
}

/// The label of a direction.
#[must_use]
pub fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

impl Metrics {
    /// The text that Prometheus scrapes.
    pub fn encode(&self) -> prometheus::Result<String> {
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes);
        }
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Seconds since the Unix epoch.
#[must_use]
pub fn unix_seconds() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{DrainFigures, Drained, PointTotals};
    use weir_wire::Totals;

    #[test]
    fn a_drain_shows_in_the_text() {
        let metrics = Metrics::new().expect("every metric is declared once");
        let totals = Totals {
            frames: 10,
            octets_l2: 1_000,
            flow_packets: 4,
            flow_octets: 300,
            overflow: 1,
            non_ip: 1,
            malformed: 1,
            filtered: 3,
            unsampled: 2,
            ..Totals::default()
        };
        metrics.drained(&Drained {
            epoch: 0,
            window_start_ns: 0,
            window_end_ns: 1,
            sampling_interval: 3,
            points: vec![PointTotals {
                id: 1,
                interface: "eth0".to_owned(),
                ifindex: 2,
                direction: Direction::Egress,
                stack: 0,
                totals,
            }],
            links: Vec::new(),
            flows: Vec::new(),
            figures: DrainFigures::default(),
        });
        let text = metrics.encode().expect("it encodes");
        for line in [
            "weir_sensor_frames_total{direction=\"egress\",interface=\"eth0\"} 10",
            "weir_sensor_packets_total{direction=\"egress\",interface=\"eth0\",verdict=\"filtered\"} 1",
            "weir_sensor_packets_total{direction=\"egress\",interface=\"eth0\",verdict=\"unsampled\"} 2",
            "weir_sensor_unaccounted_frames_total 0",
            "weir_sensor_drains_total 1",
            "# HELP weir_sensor_connections Connections remembered",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains("weir_sensor_resident_memory_bytes "));
    }
}
