//! Brute force: passwords tried one connection after the other. MITRE ATT&CK T1110.
//!
//! **Method.** As Hellemons et al., "A Flow-Based SSH Intrusion Detection System" (AIMS 2012), tell
//! the brute-force phase: completed and ended connections from one source to one of `ports` of one host, that
//! are short (`max_duration`) and small (`max_octets`) because the password was wrong; `connections` of them
//! within `window`. Someone who gets in stays, or carries more.
//!
//! Also finds: scripts that connect for each command (CI, configuration management, health checks faster than
//! one in fifteen seconds). `allow` is for them.
//!
//! **Counts** connections. **Memory**: 4,096 pairs of client and service, 4,096 connections that were counted already:
//! an epoch may fall between the two ends of one.

use super::attempts::{ACK, FIN, RST, TCP};
use super::counted::Counted;
use super::memory::{Burst, Memory, nanoseconds};
use super::networks::contains;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::BruteForce as Settings;
use crate::flow::Record;

const PAIRS: usize = 4_096;
const CONNECTIONS: usize = 4_096;

/// Client, server, port.
type Pair = (std::net::IpAddr, std::net::IpAddr, u16);

pub(super) struct BruteForce {
    settings: Settings,
    pairs: Memory<Pair, Burst>,
    counted: Counted,
    alight: Vec<Pair>,
}

impl BruteForce {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, pairs: Memory::new(PAIRS), counted: Counted::new(CONNECTIONS), alight: Vec::new() }
    }

    fn is_try(&self, record: &Record) -> bool {
        let key = &record.key;
        let ended = (record.tcp_flags | record.reverse_tcp_flags) & (FIN | RST) != 0;
        key.protocol == TCP
            && ended
            && record.tcp_flags & ACK != 0
            && record.packets > 0
            && record.reverse_packets > 0
            && self.settings.ports.contains(&key.dst_port)
            && record.last_ns.saturating_sub(record.start_ns) <= nanoseconds(self.settings.max_duration.0)
            && record.octets.max(record.reverse_octets) <= self.settings.max_octets.0
            && !contains(&self.settings.allow, key.src)
            && !contains(&self.settings.allow, key.dst)
    }
}

impl Detector for BruteForce {
    fn record(&mut self, record: &Record, _: &View<'_>) {
        if !self.is_try(record) || !self.counted.is_new(record) {
            return;
        }
        let pair = (record.key.src, record.key.dst, record.key.dst_port);
        let burst = self.pairs.entry(pair);
        burst.turn(record.last_ns, self.settings.window.0);
        burst.add(record.last_ns, 1);
        if burst.count() >= self.settings.connections {
            burst.kindle();
        }
        if burst.announces() {
            self.alight.push(pair);
        }
    }

    fn tell(&mut self, view: &View<'_>, found: &mut Vec<Detection>) {
        for pair in std::mem::take(&mut self.alight) {
            let Some(told) = self.pairs.get(&pair).and_then(Burst::take) else { continue };
            let (src, dst, port) = pair;
            let severity = view.by_origin(src, Severity::High, Severity::Medium);
            let evidence = Evidence::default().with("host", dst).with("port", port);
            found.push(Detection::new(Kind::BruteForce, severity, Subject::Address(src), told, evidence));
        }
    }

    fn kind(&self) -> Kind {
        Kind::BruteForce
    }

    fn forgotten(&self) -> u64 {
        self.pairs.forgotten() + self.counted.forgotten()
    }
}
