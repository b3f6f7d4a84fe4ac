//! Deprecated TLS: a connection for which the server chose a version that must not be used any more: SSL (RFC 6176, RFC
//! 7568), TLS 1.0 and 1.1 and DTLS 1.0 (RFC 8996). MITRE ATT&CK T1040 (network sniffing is what it invites).
//!
//! **Method.** The version in the ServerHello: what a client merely offers is no connection.
//!
//! Also finds: old devices that can do no better; `allow` them, or better, replace them. Does not find: connections
//! whose handshake was not seen.
//!
//! **Counts** connections. **Memory**: 4,096 connections that were counted already, since a forwarded one is seen twice.

use super::findings::Findings;
use super::memory::{Moment, Told};
use super::networks::contains;
use super::watch::Looker;
use super::{Detection, Evidence, Kind, Severity, Subject};
use crate::config::detect::DeprecatedTls as Settings;
use crate::kernel::FlowKey;
use crate::observe::{Carrier, Observation, Seen};

const CONNECTIONS: usize = 4_096;

pub(super) struct DeprecatedTls {
    settings: Settings,
    counted: Moment<FlowKey>,
    findings: Findings,
}

impl DeprecatedTls {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, counted: Moment::new(CONNECTIONS), findings: Findings::new(CONNECTIONS) }
    }
}

/// What the version is called, where it is one that must not be used.
fn deprecated(carrier: Carrier, version: u16) -> Option<&'static str> {
    match (carrier, version) {
        (Carrier::Tcp, 0x0300) => Some("SSL 3.0"),
        (Carrier::Tcp, 0x0301) => Some("TLS 1.0"),
        (Carrier::Tcp, 0x0302) => Some("TLS 1.1"),
        (Carrier::Dtls, 0xfeff) => Some("DTLS 1.0"),
        _ => None,
    }
}

impl Looker for DeprecatedTls {
    fn observe(&mut self, observation: &Observation) {
        let (Seen::ServerHello(hello), Some(flow)) = (&observation.seen, observation.origin.flow) else {
            return;
        };
        let Some(version) = deprecated(hello.carrier, hello.version) else { return };
        if contains(&self.settings.allow, flow.src) || contains(&self.settings.allow, flow.dst) {
            return;
        }
        let at_ns = observation.time_ns;
        if self.counted.has(flow, at_ns) {
            return;
        }
        let severity = if version == "SSL 3.0" { Severity::High } else { Severity::Medium };
        let subject = Subject::Use { client: flow.dst, server: flow.src, port: flow.src_port };
        let told = Told { first_ns: at_ns, last_ns: at_ns, count: 1 };
        let evidence =
            Evidence::default().with("version", version).with("cipher", format!("{:#06x}", hello.cipher));
        self.findings.add(Detection::new(Kind::DeprecatedTls, severity, subject, told, evidence));
    }

    fn take(&mut self) -> Vec<Detection> {
        self.findings.take().collect()
    }

    fn kind(&self) -> Kind {
        Kind::DeprecatedTls
    }

    fn forgotten(&self) -> u64 {
        self.counted.forgotten() + self.findings.untold()
    }
}
