//! Beaconing: a host inside calls the same service outside at regular intervals. MITRE ATT&CK T1071.
//!
//! **Method.** The dispersion test of RITA (Real Intelligence Threat Analytics, Active Countermeasures), on
//! the intervals between starts of connections of one client to one port of one address outside: of the last
//! `intervals`, `regular_percent` must be within `jitter_percent` of their median, and that median between
//! `min_interval` and `max_interval`. Connections within a second of each other are one call. How much the
//! calls carry is in the evidence, and calls of the same size are taken more seriously.
//!
//! Also finds: updates, telemetry, mail clients and monitoring that ask by the clock; that is why it is of
//! low severity. `allow` is for services that are known; `ignore_ports` leaves out DNS and NTP.
//!
//! **Counts** calls. **Memory**: 8,192 pairs, some 200 bytes each.

use super::attempts::{SYN, TCP};
use super::memory::{Memory, Told, nanoseconds};
use super::networks::contains;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::Beaconing as Settings;
use crate::flow::Record;

const PAIRS: usize = 8_192;
/// Calls closer than this are one.
const ONE_CALL_NS: i64 = 1_000_000_000;
/// How far, in percent of the median, sizes may differ to be called the same.
const SAME_SIZE_PERCENT: u32 = 10;

pub(super) struct Beaconing {
    settings: Settings,
    pairs: Memory<Subject, Calls>,
    alight: Vec<Subject>,
}

#[derive(Default)]
struct Calls {
    last_ns: Option<i64>,
    /// Milliseconds, the newest last.
    intervals: Vec<u32>,
    octets: Vec<u32>,
    alight: bool,
    /// When the calls that were not told yet began, and how many there are.
    untold: Option<(i64, u64)>,
}

impl Beaconing {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, pairs: Memory::new(PAIRS), alight: Vec::new() }
    }

    fn is_call(&self, record: &Record, view: &View<'_>) -> bool {
        let key = &record.key;
        record.start_ns == record.first_ns
            && record.reverse_packets > 0
            && key.dst_port != 0
            && (key.protocol != TCP || record.tcp_flags & SYN != 0)
            && !self.settings.ignore_ports.contains(&key.dst_port)
            && view.networks.internal(key.src)
            && view.networks.external(key.dst)
            && !contains(&self.settings.allow, key.src)
            && !contains(&self.settings.allow, key.dst)
    }
}

impl Detector for Beaconing {
    fn record(&mut self, record: &Record, view: &View<'_>) {
        if !self.is_call(record, view) {
            return;
        }
        let subject = Subject::of(&record.key);
        let calls = self.pairs.entry(subject.clone());
        let at_ns = record.start_ns;
        let Some(last_ns) = calls.last_ns else {
            calls.last_ns = Some(at_ns);
            return;
        };
        // Of the same call, or of an earlier one: an epoch's records are in no order of time.
        if at_ns.saturating_sub(last_ns) < ONE_CALL_NS {
            return;
        }
        calls.last_ns = Some(at_ns);
        let octets = record.octets.saturating_add(record.reverse_octets);
        push(&mut calls.intervals, (at_ns - last_ns) / 1_000_000, self.settings.intervals);
        push(&mut calls.octets, octets, self.settings.intervals);
        let Some(median) = self.settings.regular(&calls.intervals) else {
            calls.alight = false;
            return;
        };
        let announced = calls.untold.is_some();
        if calls.alight {
            let (_, count) = calls.untold.get_or_insert((at_ns, 0));
            *count += 1;
        } else {
            calls.alight = true;
            let since = at_ns.saturating_sub(i64::from(median) * 1_000_000 * calls.intervals.len() as i64);
            calls.untold = Some((since, calls.intervals.len() as u64 + 1));
        }
        if !announced {
            self.alight.push(subject);
        }
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        for subject in std::mem::take(&mut self.alight) {
            let Some(calls) = self.pairs.get(&subject) else { continue };
            let Some((first_ns, count)) = calls.untold.take() else { continue };
            let (interval_ms, octets) = (median(&calls.intervals), median(&calls.octets));
            let same_size = share(&calls.octets, octets, SAME_SIZE_PERCENT) >= self.settings.regular_percent;
            let severity = if same_size { Severity::Medium } else { Severity::Low };
            let told = Told { first_ns, last_ns: calls.last_ns.unwrap_or(first_ns), count };
            let regular = share(&calls.intervals, interval_ms, self.settings.jitter_percent);
            let evidence = Evidence::default()
                .with("interval_ms", u64::from(interval_ms))
                .with("regular_percent", u64::from(regular))
                .with("octets", u64::from(octets))
                .with("same_size", if same_size { "yes" } else { "no" });
            found.push(Detection::new(Kind::Beaconing, severity, subject, told, evidence));
        }
    }

    fn kind(&self) -> Kind {
        Kind::Beaconing
    }

    fn forgotten(&self) -> u64 {
        self.pairs.forgotten()
    }
}

impl Settings {
    /// The median of the intervals, if they are regular.
    fn regular(&self, intervals: &[u32]) -> Option<u32> {
        let bounds = nanoseconds(self.min_interval.0)..=nanoseconds(self.max_interval.0);
        let median = median(intervals);
        (intervals.len() >= self.intervals
            && bounds.contains(&(i64::from(median) * 1_000_000))
            && share(intervals, median, self.jitter_percent) >= self.regular_percent)
            .then_some(median)
    }
}

/// Adds a value; the oldest goes.
fn push(values: &mut Vec<u32>, value: impl TryInto<u32>, most: usize) {
    if values.len() >= most {
        values.remove(0);
    }
    values.push(value.try_into().unwrap_or(u32::MAX));
}

fn median(values: &[u32]) -> u32 {
    let mut values = values.to_vec();
    let middle = values.len() / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(middle).1 }
}

/// How many, in percent, are so near the median.
fn share(values: &[u32], median: u32, percent: u32) -> u32 {
    let near = u64::from(median) * u64::from(percent) / 100;
    let regular = values.iter().filter(|value| u64::from(value.abs_diff(median)) <= near).count();
    (regular * 100).checked_div(values.len()).unwrap_or(0) as u32
}
