//! SYN flood: connections to one port of one host that are begun and never completed. MITRE ATT&CK T1499.001;
//! the attack and its signs are in RFC 4987.
//!
//! **Method.** Attempts whose initiator never sent an ACK, to one port of one host, `per_second` of them on
//! the average over `window`. How many sources they come from is estimated: many, for a single machine, are
//! forged. A scan spreads over ports or hosts and does not get there. Sampled counts are scaled up.
//!
//! **Counts** attempts. **Memory**: 4,096 destinations, some 200 bytes each, whatever the number of sources.

use std::hash::RandomState;
use std::net::IpAddr;

use super::memory::{Burst, Memory, Sketch};
use super::networks::contains;
use super::{Attempt, Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::SynFlood as Settings;

const DESTINATIONS: usize = 4_096;

pub(super) struct SynFlood {
    settings: Settings,
    destinations: Memory<(IpAddr, u16), Destination>,
    alight: Vec<(IpAddr, u16)>,
    state: RandomState,
}

#[derive(Default)]
struct Destination {
    burst: Burst,
    sources: Sketch,
    /// One of them.
    source: Option<IpAddr>,
}

impl SynFlood {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            destinations: Memory::new(DESTINATIONS),
            alight: Vec::new(),
            state: RandomState::new(),
        }
    }
}

impl Detector for SynFlood {
    fn attempt(&mut self, attempt: &Attempt, view: &View<'_>) {
        let Attempt { src, dst, port, at_ns, completed } = *attempt;
        if completed || contains(&self.settings.allow, src) || contains(&self.settings.allow, dst) {
            return;
        }
        let window = self.settings.window.0;
        let threshold = self.settings.per_second.saturating_mul(window.as_secs().max(1));
        let destination = self.destinations.entry((dst, port));
        if destination.burst.turn(at_ns, window) {
            destination.sources.clear();
        }
        destination.source = Some(src);
        destination.sources.add(src, &self.state);
        destination.burst.add(at_ns, view.sampling);
        if destination.burst.count() >= threshold {
            destination.burst.kindle();
        }
        if destination.burst.announces() {
            self.alight.push((dst, port));
        }
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        for (dst, port) in std::mem::take(&mut self.alight) {
            let Some(destination) = self.destinations.get(&(dst, port)) else { continue };
            let Some(told) = destination.burst.take() else { continue };
            let evidence = Evidence::default()
                .with("port", port)
                .with("sources_about", destination.sources.estimate())
                .with_all("source", destination.source);
            let subject = Subject::Address(dst);
            found.push(Detection::new(Kind::SynFlood, Severity::High, subject, told, evidence));
        }
    }

    fn kind(&self) -> Kind {
        Kind::SynFlood
    }

    fn forgotten(&self) -> u64 {
        self.destinations.forgotten()
    }
}
