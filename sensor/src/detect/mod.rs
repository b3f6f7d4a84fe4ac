//! Detections: which of the traffic is a problem, and why.
//!
//! Called by the merge task with every merged epoch, and by `replay` with every file. An [`Engine`] owns the
//! detectors of flows, one module each, and what is open; those of what packets say are a [`Watch`]'s. Every
//! module's head says its method and where that comes from; its parameters are in [`crate::config::detect`]. What must stay true:
//!
//! - *Time is the flows' own*, never the wall clock: a capture is judged as the traffic was.
//! - *Memory is bounded* whatever arrives ([`memory`]); what is forgotten for want of room is counted. The
//!   detector of a flood must not be its victim.
//! - *One detection is open for each kind and subject*; what an epoch yields is what it adds to those, so
//!   that epochs can be counted once each, in any order, by whoever receives them ([`open`]).

mod attempts;
mod beaconing;
mod bindings;
mod brute_force;
mod cleartext;
mod counted;
mod deprecated_tls;
mod detection;
mod dga;
mod dns_tunnel;
mod domain;
mod exfiltration;
mod findings;
mod flood;
mod listed;
mod listed_domain;
mod memory;
mod networks;
mod new_device;
mod new_place;
mod open;
mod port_scan;
mod retune;
mod servers;
mod syn_flood;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use attempts::Attempt;
pub use detection::{Detection, Evidence, Kind, Severity, Subject, Value};
pub use watch::Watch;

use crate::config::Detect;
use crate::flow::{Merged, Record};
use attempts::Attempts;
use networks::Networks;
use open::Open;

/// What every detector may look at beside its own memory.
pub(crate) struct View<'a> {
    networks: &'a Networks,
    /// One packet in so many was counted.
    sampling: u64,
}

/// One method of detection; owns what it remembers.
trait Detector: Send {
    /// A connection's traffic in this epoch.
    fn record(&mut self, _record: &Record, _view: &View<'_>) {}
    /// How an attempt at a TCP connection ended.
    fn attempt(&mut self, _attempt: &Attempt, _view: &View<'_>) {}
    /// The epoch is through: what is there to tell.
    fn tell(&mut self, view: &View<'_>, found: &mut Vec<Detection>);
    fn kind(&self) -> Kind;
    /// Entries that were forgotten for want of room, ever.
    fn forgotten(&self) -> u64;
}

/// All detectors that are on.
pub struct Engine {
    detectors: Vec<Box<dyn Detector>>,
    attempts: Attempts,
    networks: Networks,
    open: Open,
    /// The parameters that the detectors have.
    config: Detect,
    /// Names of the threat lists.
    lists: Arc<[String]>,
    /// What detectors forgot that were replaced since.
    past: BTreeMap<Kind, u64>,
}

impl Engine {
    #[must_use]
    pub fn new(config: &Detect) -> Self {
        let mut detectors: Vec<Box<dyn Detector>> = Vec::new();
        let mut add = |on: bool, detector: Box<dyn Detector>| {
            if config.enabled && on {
                detectors.push(detector);
            }
        };
        add(config.port_scan.enabled, Box::new(port_scan::PortScan::new(config.port_scan.clone())));
        add(config.syn_flood.enabled, Box::new(syn_flood::SynFlood::new(config.syn_flood.clone())));
        add(config.udp_flood.enabled, Box::new(flood::Flood::udp(&config.udp_flood)));
        add(config.icmp_flood.enabled, Box::new(flood::Flood::icmp(&config.icmp_flood)));
        add(config.brute_force.enabled, Box::new(brute_force::BruteForce::new(config.brute_force.clone())));
        add(config.beaconing.enabled, Box::new(beaconing::Beaconing::new(config.beaconing.clone())));
        add(
            config.exfiltration.enabled,
            Box::new(exfiltration::Exfiltration::new(config.exfiltration.clone())),
        );
        add(config.cleartext.enabled, Box::new(cleartext::Cleartext::new(config.cleartext.clone())));
        for (kind, settings) in [(Kind::NewCountry, &config.new_country), (Kind::NewAsn, &config.new_asn)] {
            add(settings.enabled, Box::new(new_place::NewPlace::new(kind, settings.clone())));
        }
        Self {
            detectors,
            attempts: Attempts::default(),
            networks: Networks::new(&config.internal),
            open: Open::new(config.max_open, config.quiet.0),
            config: config.clone(),
            lists: Arc::default(),
            past: BTreeMap::new(),
        }
    }

    /// With the threat lists of these names, by number from 1: their hits are told.
    #[must_use]
    pub fn with_lists(mut self, config: &Detect, names: Arc<[String]>) -> Self {
        if config.enabled && !names.is_empty() {
            self.detectors.push(Box::new(listed::ListedAddress::new(Arc::clone(&names))));
        }
        self.lists = names;
        self
    }

    /// Takes an epoch in.
    pub fn observe(&mut self, merged: &Merged) {
        if self.detectors.is_empty() {
            return;
        }
        let view = View::of(&self.networks, merged);
        for record in &merged.records {
            let attempt = self.attempts.judge(record, merged.window_end_ns);
            for detector in &mut self.detectors {
                detector.record(record, &view);
                if let Some(attempt) = &attempt {
                    detector.attempt(attempt, &view);
                }
            }
        }
        settle(&mut self.attempts, &mut self.detectors, &view);
        self.tell(merged);
    }

    /// Nothing follows: handshakes that wait for the next epoch are judged.
    pub fn end(&mut self, merged: &Merged) {
        let view = View::of(&self.networks, merged);
        settle(&mut self.attempts, &mut self.detectors, &view);
        self.tell(merged);
    }

    fn tell(&mut self, merged: &Merged) {
        let view = View::of(&self.networks, merged);
        let mut found = Vec::new();
        for detector in &mut self.detectors {
            detector.tell(&view, &mut found);
        }
        self.open.extend(found, merged.window_end_ns);
    }

    /// Takes in what a [`Watch`] has found, before [`Self::take`].
    pub fn tell_of(&mut self, found: Vec<Detection>, now_ns: i64) {
        if !found.is_empty() {
            self.open.extend(found, now_ns);
        }
    }

    /// What is there to tell, the worst first; at most so many, the rest with the next epoch.
    pub fn take(&mut self, most: usize) -> Vec<Detection> {
        self.open.take(most)
    }

    /// Detections that are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// By kind: entries that its detector forgot for want of room, ever.
    pub fn forgotten(&self) -> impl Iterator<Item = (Kind, u64)> {
        let past = |kind| self.past.get(&kind).copied().unwrap_or_default();
        self.detectors
            .iter()
            .map(move |detector| (detector.kind(), past(detector.kind()) + detector.forgotten()))
    }

    /// Detections that were not told for want of room, ever.
    #[must_use]
    pub fn untold(&self) -> u64 {
        self.open.untold()
    }
}

/// Attempts that an earlier epoch cut and this one did not go on with.
fn settle(attempts: &mut Attempts, detectors: &mut [Box<dyn Detector>], view: &View<'_>) {
    for attempt in attempts.settle() {
        for detector in &mut *detectors {
            detector.attempt(&attempt, view);
        }
    }
}

impl<'a> View<'a> {
    fn of(networks: &'a Networks, merged: &Merged) -> Self {
        Self { networks, sampling: u64::from(merged.sampling_interval.max(1)) }
    }

    /// What comes from inside is the operator's own trouble; the Internet knocks on every door.
    fn by_origin(&self, address: IpAddr, inside: Severity, outside: Severity) -> Severity {
        if self.networks.internal(address) { inside } else { outside }
    }
}
