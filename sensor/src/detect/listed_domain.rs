//! Listed domain: a name that a threat list has, asked for or connected to. MITRE ATT&CK T1071 (application layer
//! protocol), which is what most lists of names are about.
//!
//! **Method.** Questions of DNS, and the names in TLS and QUIC hellos and HTTP requests, are looked up in the lists
//! ([`crate::threat`]). Who asks has not yet talked to anybody: medium; a connection is severe.
//!
//! Also finds: what a list is wrong about; `threats.allow` is for those. Does not find: names in encrypted DNS and
//! encrypted hellos.
//!
//! **Counts** questions and connections. **Memory**: 4,096 that were counted already, since what is forwarded is seen
//! twice.

use std::sync::Arc;

use tokio::sync::watch;

use super::domain::registered;
use super::findings::Findings;
use super::memory::{Moment, Told};
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::kernel::FlowKey;
use crate::observe::{DnsKind, Name, Observation, Seen};
use crate::threat::Known;

const SIGHTINGS: usize = 4_096;

pub(super) struct ListedDomain {
    /// What the lists say now.
    known: watch::Receiver<Arc<Known>>,
    counted: Moment<FlowKey>,
    findings: Findings,
}

impl ListedDomain {
    pub(super) fn new(known: watch::Receiver<Arc<Known>>) -> Self {
        Self { known, counted: Moment::new(SIGHTINGS), findings: Findings::new(SIGHTINGS) }
    }
}

/// The name that is asked for or connected to.
fn named(seen: &Seen) -> Option<(&Name, bool)> {
    match seen {
        Seen::Dns(message) if message.kind == DnsKind::Dns && !message.response => {
            message.questions.first().map(|question| (&question.name, false))
        }
        Seen::ClientHello(hello) => hello.sni.as_ref().map(|name| (name, true)),
        Seen::Http(head) => head.host.as_ref().map(|name| (name, true)),
        _ => None,
    }
}

impl Looker for ListedDomain {
    fn observe(&mut self, observation: &Observation) {
        let (Some((name, connects)), Some(flow)) = (named(&observation.seen), observation.origin.flow) else {
            return;
        };
        // A request may say the port.
        let text = name.as_str().split(':').next().unwrap_or_default();
        let known = Arc::clone(&self.known.borrow());
        let Some(list) = known.listed(text) else { return };
        let at_ns = observation.time_ns;
        if self.counted.has(flow, at_ns) {
            return;
        }
        let (subject, severity) = if connects {
            (Subject::of(&flow), Severity::High)
        } else {
            let lower = text.to_ascii_lowercase();
            let domain = registered(&lower).unwrap_or(&lower).into();
            (Subject::Lookup { client: flow.src, domain }, Severity::Medium)
        };
        let told = Told { first_ns: at_ns, last_ns: at_ns, count: 1 };
        let evidence = Evidence::default().with_all("list", known.name(list)).with("name", text);
        self.findings.add(Detection::new(Kind::ListedDomain, severity, subject, told, evidence));
    }

    fn take(&mut self) -> Vec<Detection> {
        self.findings.take().collect()
    }

    fn kind(&self) -> Kind {
        Kind::ListedDomain
    }

    fn forgotten(&self) -> u64 {
        self.counted.forgotten() + self.findings.untold()
    }
}
