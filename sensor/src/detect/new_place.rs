//! New country, new system: a host inside is answered from a country, or an autonomous system, that it never talked to
//! before. MITRE ATT&CK T1071 (application layer protocol); the idea of a profile for each host that an odd peer
//! does not fit is Denning's, "An Intrusion-Detection Model" (IEEE TSE, 1987).
//!
//! **Method.** Of each host the places of those are remembered with whom it began a connection that was answered. What
//! comes in the first `learn` is its own; a place after that is told, once. Needs place databases (`[places]`).
//!
//! Also finds: travel, a new cloud region, a new supplier; hence of low severity, and systems are off unless asked
//! for: a host that browses meets a new one every day. A sensor that restarts learns its hosts anew. A host is an
//! address here.
//!
//! **Counts** places. **Memory**: 4,096 hosts with 256 places each; of hosts with more, no new ones are told.

use std::net::IpAddr;

use super::findings::Findings;
use super::memory::{Distinct, Memory, Told, nanoseconds};
use super::networks::contains;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::NewPlace as Settings;
use crate::flow::Record;

const HOSTS: usize = 4_096;
const PLACES: usize = 256;

pub(super) struct NewPlace {
    /// Of a country, or of a system.
    kind: Kind,
    settings: Settings,
    hosts: Memory<IpAddr, Host>,
    findings: Findings,
    /// Places of hosts that had no room for them.
    unknown: u64,
}

#[derive(Default)]
struct Host {
    began_ns: Option<i64>,
    places: Distinct<u32>,
}

impl NewPlace {
    pub(super) fn new(kind: Kind, settings: Settings) -> Self {
        Self { kind, settings, hosts: Memory::new(HOSTS), findings: Findings::new(HOSTS), unknown: 0 }
    }

    /// The peer's place as a number, and as evidence.
    fn place(&self, record: &Record) -> Option<(u32, Evidence)> {
        let place = record.context.as_ref()?.dst_place.as_ref()?;
        let evidence = Evidence::default();
        if self.kind == Kind::NewCountry {
            let [a, b] = <[u8; 2]>::try_from(place.country.as_bytes()).ok()?;
            return Some((
                u32::from(a) << 8 | u32::from(b),
                evidence.with("country", place.country.as_str()),
            ));
        }
        let organisation = Some(place.organisation.as_str()).filter(|name| !name.is_empty());
        let evidence = evidence.with("asn", u64::from(place.asn)).with_all("organisation", organisation);
        (place.asn != 0).then_some((place.asn, evidence))
    }
}

impl Detector for NewPlace {
    fn record(&mut self, record: &Record, view: &View<'_>) {
        let key = &record.key;
        let answered = record.packets > 0 && record.reverse_packets > 0;
        if !answered
            || !view.networks.internal(key.src)
            || !view.networks.external(key.dst)
            || contains(&self.settings.allow, key.src)
            || contains(&self.settings.allow, key.dst)
        {
            return;
        }
        let Some((number, evidence)) = self.place(record) else { return };
        let at_ns = record.first_ns;
        let host = self.hosts.entry(key.src);
        let began_ns = *host.began_ns.get_or_insert(at_ns);
        let before = host.places.values().len();
        if host.places.add(number, PLACES) == before {
            self.unknown += u64::from(before == PLACES && !host.places.values().contains(&number));
            return;
        }
        if at_ns.saturating_sub(began_ns) < nanoseconds(self.settings.learn.0) {
            return;
        }
        let name = record.context.as_ref().and_then(|context| context.name.as_ref());
        let evidence =
            evidence.with("peer", key.dst).with_all("name", name.map(|name| name.text.to_string()));
        let severity = if self.kind == Kind::NewCountry { Severity::Low } else { Severity::Info };
        let told = Told { first_ns: at_ns, last_ns: record.last_ns, count: 1 };
        self.findings.add(Detection::new(self.kind, severity, Subject::Address(key.src), told, evidence));
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        found.extend(self.findings.take());
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn forgotten(&self) -> u64 {
        self.hosts.forgotten() + self.findings.untold() + self.unknown
    }
}
