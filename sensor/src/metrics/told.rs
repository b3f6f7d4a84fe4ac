//! What the stages tell the metrics, and in which terms.

use std::sync::Arc;

use prometheus::IntCounter;
use weir_wire::{DropReason, NameSource};

use super::{EventRefusal, Metrics, direction, unix_seconds};
use crate::detect::{Engine, Kind, Watch};
use crate::device::Devices;
use crate::enrich::names::{Forgotten, Outcome};
use crate::kernel::{Drained, EventClass, FlowObservation, Listed, PointTotals};
use crate::observe::Seen;
use crate::spool::Standing;

impl Metrics {
    /// A series that begins with its first event hides that event from a rate.
    pub(super) fn begin_at_zero(&self) {
        for reason in DropReason::GIVEN.map(DropReason::word) {
            self.spool_dropped_batches.with_label_values(&[reason]);
            self.spool_dropped_records.with_label_values(&[reason]);
            self.spool_dropped_packets.with_label_values(&[reason]);
        }
        for class in EventClass::ALL {
            for counter in [&self.events_chosen, &self.events, &self.event_octets, &self.events_cut] {
                counter.with_label_values(&[class.name()]);
            }
            for reason in EventRefusal::ALL {
                self.event_refused(class, reason, 0);
            }
        }
        for (counter, words) in [
            (&self.observations, Seen::WORDS.as_slice()),
            (&self.observe_panics, &["parser", "names"]),
            (&self.names_forgotten, &["looked_up", "carried", "questions"]),
            (&self.dns_lookups, &["answered", "failed", "timed_out", "unasked"]),
            (&self.named_records, &NameSource::GIVEN.map(NameSource::word)),
            (&self.heartbeats, &["answered", "failed"]),
            (&self.credential_renewals, &["done", "failed"]),
            (&self.certificate_renewals, &["done", "failed"]),
            (&self.pushed, &["applied", "refused"]),
        ] {
            for word in words {
                counter.with_label_values(&[word]);
            }
        }
        for kind in Kind::ALL.map(Kind::word) {
            self.detections.with_label_values(&[kind]);
            self.detect_forgotten.with_label_values(&[kind]);
        }
    }

    /// Counts packets that were chosen and are not read.
    pub fn event_refused(&self, class: EventClass, reason: EventRefusal, packets: u64) {
        self.events_refused.with_label_values(&[class.name(), reason.word()]).inc_by(packets);
    }

    /// Counts the end of a lookup.
    pub fn exchange(&self, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Answered { latency_ns: None, .. } => "unasked",
            Outcome::Answered { rcode: 0, .. } => "answered",
            Outcome::Answered { .. } => "failed",
            Outcome::TimedOut => "timed_out",
        };
        self.dns_lookups.with_label_values(&[result]).inc();
        if let Outcome::Answered { latency_ns: Some(latency_ns), .. } = outcome {
            self.dns_seconds.observe(*latency_ns as f64 / 1e9);
        }
    }

    /// Takes in what is known of names.
    pub fn named(&self, octets: usize, forgotten: Forgotten) {
        self.names_octets.set(octets as i64);
        let Forgotten { looked_up, carried, questions } = forgotten;
        for (what, sum) in [("looked_up", looked_up), ("carried", carried), ("questions", questions)] {
            raise(&self.names_forgotten.with_label_values(&[what]), sum);
        }
    }

    /// Takes in what is held of messages that are not whole.
    pub fn observing(&self, octets: usize, forgotten: u64) {
        self.observe_octets.set(octets as i64);
        raise(&self.observe_forgotten, forgotten);
    }

    /// Takes in what is open and what was forgotten for it.
    pub fn detected(&self, engine: &Engine) {
        self.detections_open.set(engine.open() as i64);
        for (kind, forgotten) in engine.forgotten() {
            raise(&self.detect_forgotten.with_label_values(&[kind.word()]), forgotten);
        }
        raise(&self.detect_untold, engine.untold());
    }

    /// Takes in what is known of devices, and what was forgotten for it.
    pub fn devices(&self, devices: &Devices) {
        self.devices.set(devices.len() as i64);
        raise(&self.devices_forgotten, devices.forgotten());
        raise(&self.devices_joined, devices.joined());
    }

    /// Takes in what the detectors of what packets say have forgotten.
    pub fn watched(&self, watch: &Watch) {
        for (kind, forgotten) in watch.forgotten() {
            raise(&self.detect_forgotten.with_label_values(&[kind.word()]), forgotten);
        }
    }

    /// The names of the threat lists, by number from 1: labels that the configuration has chosen.
    pub fn name_lists(&self, names: Arc<[String]>) {
        for name in names.iter() {
            self.list_hits.with_label_values(&[name]);
            self.list_dropped.with_label_values(&[name]);
            self.list_spared.with_label_values(&[name]);
            self.list_refresh_failures.with_label_values(&[name]);
        }
        // Lists change with a restart only.
        let _ = self.list_names.set(names);
    }

    /// Counts the packets of listed flows.
    fn hits(&self, flows: &[FlowObservation]) {
        let Some(names) = self.list_names.get().filter(|names| !names.is_empty()) else { return };
        let mut hits = vec![0; names.len()];
        for flow in flows.iter().filter(|flow| flow.listed.is_listed()) {
            let Listed { src, dst, .. } = flow.listed;
            // A flow between two addresses of one list hits it once.
            for list in [src, if dst == src { 0 } else { dst }] {
                if let Some(hits) = usize::from(list).checked_sub(1).and_then(|place| hits.get_mut(place)) {
                    *hits += flow.packets;
                }
            }
        }
        for (name, hits) in names.iter().zip(hits).filter(|(_, hits)| *hits > 0) {
            self.list_hits.with_label_values(&[name]).inc_by(hits);
        }
    }

    /// Takes in what a drain found.
    pub fn drained(&self, drained: &Drained) {
        self.hits(&drained.flows);
        self.drains.inc();
        self.grace_seconds.observe(drained.figures.grace.as_secs_f64());
        self.read_seconds.observe(drained.figures.read.as_secs_f64());
        self.slots_used.set(drained.figures.slots_used as i64);
        self.slots.set(drained.figures.slots as i64);
        self.sampling_interval.set(i64::from(drained.sampling_interval));
        self.last_drain.set(unix_seconds());
        let step_ns = drained.figures.clock_step_ns;
        if step_ns != 0 {
            let seconds = step_ns as f64 / 1e9;
            self.clock_steps.inc();
            self.clock_step.set(seconds);
            tracing::warn!(
                epoch = drained.epoch,
                seconds,
                "the wall clock was set: times of this epoch follow the new one"
            );
        }
        for point in &drained.points {
            self.point(point);
        }
    }

    /// Takes in how the spool stands.
    pub fn spooled(&self, standing: &Standing) {
        self.spool_batches.set(standing.batches as i64);
        self.spool_bytes.set(standing.bytes as i64);
        self.spool_oldest_age.set(standing.oldest_age.as_secs_f64());
        self.spool_tombstones.set(standing.tombstones as i64);
        self.spool_degraded.set(i64::from(standing.degraded.is_some()));
        self.quarantine_batches.set(standing.quarantined_batches as i64);
        self.quarantine_bytes.set(standing.quarantined_bytes as i64);
        self.quarantine_packets.set(standing.quarantined_packets as i64);
        self.ledger_epochs.set(standing.epochs as i64);
    }

    fn point(&self, point: &PointTotals) {
        let labels = [point.interface.as_str(), direction(point.direction)];
        let totals = &point.totals;
        self.frames.with_label_values(&labels).inc_by(totals.frames);
        self.octets.with_label_values(&labels).inc_by(totals.octets_l2);
        self.flow_octets.with_label_values(&labels).inc_by(totals.flow_octets);
        for (verdict, packets) in [
            ("flow", totals.flow_packets),
            ("overflow", totals.overflow),
            ("non_ip", totals.non_ip),
            ("malformed", totals.malformed),
            // What sampling leaves out is told apart from what a rule does.
            ("filtered", totals.filtered.saturating_sub(totals.unsampled)),
            ("unsampled", totals.unsampled),
        ] {
            self.packets.with_label_values(&[labels[0], labels[1], verdict]).inc_by(packets);
        }
        self.unaccounted.inc_by(totals.frames.abs_diff(totals.accounted()));
    }
}

/// Brings a counter up to a sum that its owner keeps.
fn raise(counter: &IntCounter, sum: u64) {
    counter.inc_by(sum.saturating_sub(counter.get()));
}
