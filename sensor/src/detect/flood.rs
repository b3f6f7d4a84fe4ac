//! UDP and ICMP floods: more packets to one address than any use of it explains. MITRE ATT&CK T1498.001.
//!
//! **Method.** Packets to one address, `per_second` of them on the average over `window`. Of UDP only those
//! to which hardly anything comes back (less than one packet in 64) count: a stream that is acknowledged is
//! wanted; those to a group are left out. ICMP and ICMPv6 are told by their rate alone: nothing but a
//! flood (or `ping -f`, which is one) sends hundreds of them a second. Sampled counts are scaled up; a record
//! that is longer than the window counts with its average.
//!
//! **Counts** packets. **Memory**: 4,096 destinations, some 200 bytes each.

use std::hash::RandomState;
use std::net::IpAddr;
use std::time::Duration;

use super::memory::{Burst, Memory, Sketch, nanoseconds};
use super::networks::{contains, unicast};
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::Cidr;
use crate::config::detect::{IcmpFlood, UdpFlood};
use crate::flow::Record;

const DESTINATIONS: usize = 4_096;
/// One packet back for so many: somebody wants them.
const WANTED: u64 = 64;

pub(super) struct Flood {
    kind: Kind,
    protocols: &'static [u8],
    allow: Vec<Cidr>,
    window: Duration,
    threshold: u64,
    destinations: Memory<IpAddr, Destination>,
    alight: Vec<IpAddr>,
    state: RandomState,
}

#[derive(Default)]
struct Destination {
    burst: Burst,
    sources: Sketch,
    source: Option<IpAddr>,
    port: u16,
}

impl Flood {
    pub(super) fn udp(settings: &UdpFlood) -> Self {
        let (allow, window) = (settings.allow.clone(), settings.window.0);
        Self::new(Kind::UdpFlood, &[17], allow, window, settings.per_second)
    }

    pub(super) fn icmp(settings: &IcmpFlood) -> Self {
        let (allow, window) = (settings.allow.clone(), settings.window.0);
        Self::new(Kind::IcmpFlood, &[1, 58], allow, window, settings.per_second)
    }

    fn new(
        kind: Kind,
        protocols: &'static [u8],
        allow: Vec<Cidr>,
        window: Duration,
        per_second: u64,
    ) -> Self {
        Self {
            kind,
            protocols,
            allow,
            window,
            threshold: per_second.saturating_mul(window.as_secs().max(1)),
            destinations: Memory::new(DESTINATIONS),
            alight: Vec::new(),
            state: RandomState::new(),
        }
    }
}

impl Flood {
    /// Packets of a record from one side to the other.
    fn count(
        &mut self,
        (from, to, port): (IpAddr, IpAddr, u16),
        packets: u64,
        record: &Record,
        sampling: u64,
    ) {
        // What of it falls into one window.
        let (window_ns, lasted_ns) = (nanoseconds(self.window), record.last_ns - record.first_ns);
        let packets = packets.saturating_mul(sampling);
        let packets = if lasted_ns > window_ns {
            (u128::from(packets) * window_ns as u128 / lasted_ns as u128) as u64
        } else {
            packets
        };
        let destination = self.destinations.entry(to);
        if destination.burst.turn(record.first_ns, self.window) {
            destination.sources.clear();
        }
        (destination.source, destination.port) = (Some(from), port);
        destination.sources.add(from, &self.state);
        destination.burst.add(record.first_ns, packets);
        if destination.burst.count() >= self.threshold {
            destination.burst.kindle();
        }
        if destination.burst.announces() {
            self.alight.push(to);
        }
    }
}

impl Detector for Flood {
    fn record(&mut self, record: &Record, view: &View<'_>) {
        let key = &record.key;
        if !self.protocols.contains(&key.protocol)
            || contains(&self.allow, key.src)
            || contains(&self.allow, key.dst)
        {
            return;
        }
        if self.kind == Kind::UdpFlood {
            let wanted = record.reverse_packets.saturating_mul(WANTED) >= record.packets;
            if !wanted && unicast(key.dst) {
                self.count((key.src, key.dst, key.dst_port), record.packets, record, view.sampling);
            }
            return;
        }
        // Which side began is chance where one is flooded with answers.
        if record.packets > 0 {
            self.count((key.src, key.dst, 0), record.packets, record, view.sampling);
        }
        if record.reverse_packets > 0 {
            self.count((key.dst, key.src, 0), record.reverse_packets, record, view.sampling);
        }
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        for dst in std::mem::take(&mut self.alight) {
            let Some(destination) = self.destinations.get(&dst) else { continue };
            let Some(told) = destination.burst.take() else { continue };
            let mut evidence = Evidence::default()
                .with("sources_about", destination.sources.estimate())
                .with_all("source", destination.source);
            if self.kind == Kind::UdpFlood {
                evidence = evidence.with("port", destination.port);
            }
            found.push(Detection::new(self.kind, Severity::High, Subject::Address(dst), told, evidence));
        }
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn forgotten(&self) -> u64 {
        self.destinations.forgotten()
    }
}
