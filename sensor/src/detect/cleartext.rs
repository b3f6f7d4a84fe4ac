//! Cleartext: protocols that carry passwords unprotected. MITRE ATT&CK T1040 (network sniffing is what they
//! invite); the protocols are named by RFC 4949 and, for mail, RFC 8314 section 3.
//!
//! **Method.** A TCP connection to one of `ports` over which both sides have sent something (PSH). FTP,
//! Telnet, POP3, IMAP and the `r` services by default; HTTP is not told from its harmless uses by a port.
//!
//! Also finds: POP3, IMAP and FTP that switch to TLS (STARTTLS), which counts do not show; hence of low
//! severity. What looks into the connection would be another source.
//!
//! **Counts** connections. **Memory**: 4,096 connections that were counted already.

use super::attempts::{PSH, TCP};
use super::counted::Counted;
use super::findings::Findings;
use super::memory::Told;
use super::networks::contains;
use super::{Detection, Detector, Evidence, Kind, Severity, Subject, View};
use crate::config::detect::Cleartext as Settings;
use crate::flow::Record;

const CONNECTIONS: usize = 4_096;

pub(super) struct Cleartext {
    settings: Settings,
    counted: Counted,
    /// Of this epoch.
    findings: Findings,
}

impl Cleartext {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, counted: Counted::new(CONNECTIONS), findings: Findings::new(CONNECTIONS) }
    }
}

impl Detector for Cleartext {
    fn record(&mut self, record: &Record, _: &View<'_>) {
        let key = &record.key;
        let talks = key.protocol == TCP && record.tcp_flags & record.reverse_tcp_flags & PSH != 0;
        if !talks
            || !self.settings.ports.contains(&key.dst_port)
            || contains(&self.settings.allow, key.src)
            || contains(&self.settings.allow, key.dst)
            || !self.counted.is_new(record)
        {
            return;
        }
        // A terminal is worth more than a mailbox that may have switched to TLS.
        let severity = if matches!(key.dst_port, 110 | 143) { Severity::Low } else { Severity::Medium };
        let told = Told { first_ns: record.first_ns, last_ns: record.last_ns, count: 1 };
        let evidence = Evidence::default().with("protocol", protocol(key.dst_port));
        self.findings.add(Detection::new(Kind::Cleartext, severity, Subject::of(key), told, evidence));
    }

    fn tell(&mut self, _: &View<'_>, found: &mut Vec<Detection>) {
        found.extend(self.findings.take());
    }

    fn kind(&self) -> Kind {
        Kind::Cleartext
    }

    fn forgotten(&self) -> u64 {
        self.counted.forgotten() + self.findings.untold()
    }
}

/// The service's name.
fn protocol(port: u16) -> &'static str {
    match port {
        21 => "ftp",
        23 => "telnet",
        110 => "pop3",
        143 => "imap",
        512 => "rexec",
        513 => "rlogin",
        514 => "rsh",
        _ => "other",
    }
}
