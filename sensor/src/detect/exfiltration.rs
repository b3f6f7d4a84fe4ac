//! Exfiltration: a host inside sends far more outside than it ever does. MITRE ATT&CK T1048.
//!
//! **Method.** A control chart of its own for each host (Shewhart's, with an exponentially weighted mean and
//! variance as in Roberts, "Control Chart Tests Based on Geometric Moving Averages", 1959): octets sent to
//! addresses outside, by window. A window is told if it has `min_octets`, is `deviations` standard deviations
//! above the mean, and `factor` times the mean; and only after `learn_windows`. A window that is told does not
//! teach: a leak does not become the rule. Sampled counts are scaled up.
//!
//! Also finds: the first backup to a cloud, a large upload that was meant. After a restart of the sensor hosts
//! are learnt anew.
//!
//! **Counts** windows; the octets are in the evidence. **Memory**: 8,192 hosts, some 100 bytes each.

use std::net::IpAddr;

use super::memory::{Memory, Told, nanoseconds};
use super::networks::contains;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::Exfiltration as Settings;
use crate::flow::Record;

const HOSTS: usize = 8_192;
/// Weight of the newest window: the mean forgets half in some seven windows.
const WEIGHT: f64 = 0.1;
/// Silent windows after which nothing more is to be learnt from silence.
const MOST_SILENT: i64 = 100;

pub(super) struct Exfiltration {
    settings: Settings,
    hosts: Memory<IpAddr, Host>,
    alight: Vec<IpAddr>,
}

#[derive(Default)]
struct Host {
    /// Number of the window since the Unix epoch.
    window: i64,
    octets: u64,
    /// To whom most of a record went.
    largest: Option<(u64, IpAddr, u16)>,
    first_ns: i64,
    last_ns: i64,
    windows: u32,
    mean: f64,
    variance: f64,
    told: bool,
}

impl Exfiltration {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, hosts: Memory::new(HOSTS), alight: Vec::new() }
    }

    fn sent(&mut self, host: IpAddr, peer: (IpAddr, u16), octets: u64, record: &Record) {
        let window = record.first_ns.div_euclid(nanoseconds(self.settings.window.0));
        let state = self.hosts.entry(host);
        state.turn(window, record.first_ns);
        state.octets = state.octets.saturating_add(octets);
        state.last_ns = state.last_ns.max(record.last_ns);
        if state.largest.is_none_or(|(most, ..)| octets > most) {
            state.largest = Some((octets, peer.0, peer.1));
        }
        if !state.told && state.is_leak(&self.settings) {
            state.told = true;
            self.alight.push(host);
        }
    }
}

impl Host {
    /// Closes windows that are over.
    fn turn(&mut self, window: i64, at_ns: i64) {
        if self.windows == 0 && self.octets == 0 {
            (self.window, self.first_ns) = (window, at_ns);
        }
        let over = window.saturating_sub(self.window);
        if over <= 0 {
            return;
        }
        if !self.told {
            self.learn(self.octets as f64);
        }
        for _ in 1..over.min(MOST_SILENT) {
            self.learn(0.0);
        }
        (self.window, self.first_ns, self.last_ns) = (window, at_ns, at_ns);
        (self.octets, self.largest, self.told) = (0, None, false);
    }

    fn learn(&mut self, octets: f64) {
        let off = octets - self.mean;
        if self.windows == 0 {
            self.mean = octets;
        } else {
            self.mean += WEIGHT * off;
            self.variance = (1.0 - WEIGHT) * (self.variance + WEIGHT * off * off);
        }
        self.windows = self.windows.saturating_add(1);
    }

    fn is_leak(&self, settings: &Settings) -> bool {
        let octets = self.octets as f64;
        self.windows >= settings.learn_windows
            && self.octets >= settings.min_octets.0
            && octets > self.mean + f64::from(settings.deviations) * self.variance.sqrt()
            && octets > f64::from(settings.factor) * self.mean
    }
}

impl Detector for Exfiltration {
    fn record(&mut self, record: &Record, view: &View<'_>) {
        let key = &record.key;
        if contains(&self.settings.allow, key.src) || contains(&self.settings.allow, key.dst) {
            return;
        }
        let inside = view.networks.internal(key.src);
        if inside && record.octets > 0 && view.networks.external(key.dst) {
            let octets = record.octets.saturating_mul(view.sampling);
            self.sent(key.src, (key.dst, key.dst_port), octets, record);
        } else if !inside && record.reverse_octets > 0 && view.networks.internal(key.dst) {
            let octets = record.reverse_octets.saturating_mul(view.sampling);
            self.sent(key.dst, (key.src, key.dst_port), octets, record);
        }
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        for host in std::mem::take(&mut self.alight) {
            let Some(state) = self.hosts.get(&host) else { continue };
            let mut evidence = Evidence::default()
                .with("octets", state.octets)
                .with("usual_octets", state.mean.round() as u64)
                .with("window_seconds", self.settings.window.0.as_secs());
            if let Some((_, peer, port)) = state.largest {
                evidence = evidence.with("peer", peer).with("port", port);
            }
            let told = Told { first_ns: state.first_ns, last_ns: state.last_ns, count: 1 };
            let subject = Subject::Address(host);
            found.push(Detection::new(Kind::Exfiltration, Severity::High, subject, told, evidence));
        }
    }

    fn kind(&self) -> Kind {
        Kind::Exfiltration
    }

    fn forgotten(&self) -> u64 {
        self.hosts.forgotten()
    }
}
