//! Listed address: traffic with an address that a threat list has. What the list knows of it is the list's word;
//! MITRE ATT&CK T1071 (application layer protocol), which is what most lists of servers are about.
//!
//! **Method.** The kernel programs look both addresses of a flow up when it begins ([`crate::threat`]); here a
//! connection with such a mark is told. One that a host inside began is about that host and the service, and
//! severe where it was answered; one that a listed host began is about the listed host.
//!
//! Also finds: what a list is wrong about; `threats.allow` is for those.
//!
//! **Counts** connections. **Memory**: 4,096 connections that were counted already.

use std::sync::Arc;

use super::counted::Counted;
use super::findings::Findings;
use super::memory::Told;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::flow::Record;

const CONNECTIONS: usize = 4_096;

pub(super) struct ListedAddress {
    /// Of the lists, by number from 1.
    names: Arc<[String]>,
    counted: Counted,
    /// Of this epoch.
    findings: Findings,
}

impl ListedAddress {
    pub(super) fn new(names: Arc<[String]>) -> Self {
        Self { names, counted: Counted::new(CONNECTIONS), findings: Findings::new(CONNECTIONS) }
    }

    fn name(&self, list: u8) -> Option<&str> {
        usize::from(list).checked_sub(1).and_then(|place| self.names.get(place)).map(String::as_str)
    }

    fn evidence(&self, record: &Record) -> Evidence {
        let sides = [(record.listed.src, record.key.src), (record.listed.dst, record.key.dst)];
        let listed = || sides.iter().filter_map(|(list, address)| Some((self.name(*list)?, *address)));
        Evidence::default()
            .with_all("list", listed().map(|(name, _)| name))
            .with_all("listed", listed().map(|(_, address)| address))
    }
}

impl Detector for ListedAddress {
    fn record(&mut self, record: &Record, view: &View<'_>) {
        if !record.listed.is_listed() || !self.counted.is_new(record) {
            return;
        }
        let key = &record.key;
        let began_inside = view.networks.internal(key.src);
        let answered = record.packets > 0 && record.reverse_packets > 0;
        let severity = match (began_inside, answered) {
            (true, true) => Severity::High,
            (true, false) | (false, true) => Severity::Medium,
            // The Internet knocks on every door.
            (false, false) => Severity::Low,
        };
        let subject = if began_inside { Subject::of(key) } else { Subject::Address(key.src) };
        let evidence = self.evidence(record);
        let told = Told { first_ns: record.first_ns, last_ns: record.last_ns, count: 1 };
        self.findings.add(Detection::new(Kind::ListedAddress, severity, subject, told, evidence));
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        found.extend(self.findings.take());
    }

    fn kind(&self) -> Kind {
        Kind::ListedAddress
    }

    fn forgotten(&self) -> u64 {
        self.counted.forgotten() + self.findings.untold()
    }
}
