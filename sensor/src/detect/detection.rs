//! What a detector says: one kind of trouble with one subject, and the evidence for it.

use std::fmt;
use std::net::IpAddr;

pub use weir_wire::Severity;

use super::memory::Told;
use crate::kernel::FlowKey;
use crate::observe::Mac;

/// Values under one name in an evidence.
const MAX_VALUES: usize = 8;
/// Facts in an evidence.
const MAX_FACTS: usize = 32;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    PortScan,
    SynFlood,
    UdpFlood,
    IcmpFlood,
    BruteForce,
    Beaconing,
    Exfiltration,
    Cleartext,
    ListedAddress,
    ArpSpoof,
    AddressConflict,
    RogueDhcp,
    RogueRa,
    NewDevice,
    DnsTunnel,
    Dga,
    DeprecatedTls,
    ListedDomain,
    NewCountry,
    NewAsn,
}

impl Kind {
    pub const ALL: [Self; 20] = [
        Self::PortScan,
        Self::SynFlood,
        Self::UdpFlood,
        Self::IcmpFlood,
        Self::BruteForce,
        Self::Beaconing,
        Self::Exfiltration,
        Self::Cleartext,
        Self::ListedAddress,
        Self::ArpSpoof,
        Self::AddressConflict,
        Self::RogueDhcp,
        Self::RogueRa,
        Self::NewDevice,
        Self::DnsTunnel,
        Self::Dga,
        Self::DeprecatedTls,
        Self::ListedDomain,
        Self::NewCountry,
        Self::NewAsn,
    ];

    /// The word for it, in metrics, tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::PortScan => "port_scan",
            Self::SynFlood => "syn_flood",
            Self::UdpFlood => "udp_flood",
            Self::IcmpFlood => "icmp_flood",
            Self::BruteForce => "brute_force",
            Self::Beaconing => "beaconing",
            Self::Exfiltration => "exfiltration",
            Self::Cleartext => "cleartext",
            Self::ListedAddress => "listed_address",
            Self::ArpSpoof => "arp_spoof",
            Self::AddressConflict => "address_conflict",
            Self::RogueDhcp => "rogue_dhcp",
            Self::RogueRa => "rogue_ra",
            Self::NewDevice => "new_device",
            Self::DnsTunnel => "dns_tunnel",
            Self::Dga => "dga",
            Self::DeprecatedTls => "deprecated_tls",
            Self::ListedDomain => "listed_domain",
            Self::NewCountry => "new_country",
            Self::NewAsn => "new_asn",
        }
    }

    /// What it is found in.
    #[must_use]
    pub fn source(self) -> &'static str {
        match self {
            Self::ArpSpoof | Self::AddressConflict | Self::RogueDhcp | Self::RogueRa | Self::NewDevice => {
                "link"
            }
            Self::DnsTunnel | Self::Dga => "dns",
            Self::DeprecatedTls => "tls",
            Self::ListedDomain => "names",
            _ => "flows",
        }
    }

    /// MITRE ATT&CK technique.
    #[must_use]
    pub fn technique(self) -> &'static str {
        match self {
            Self::PortScan => "T1046",
            Self::SynFlood => "T1499.001",
            Self::UdpFlood | Self::IcmpFlood => "T1498.001",
            Self::BruteForce => "T1110",
            Self::Beaconing | Self::ListedAddress | Self::ListedDomain | Self::NewCountry | Self::NewAsn => {
                "T1071"
            }
            Self::Exfiltration => "T1048",
            Self::Cleartext | Self::DeprecatedTls => "T1040",
            Self::DnsTunnel => "T1071.004",
            Self::Dga => "T1568.002",
            Self::ArpSpoof => "T1557.002",
            Self::RogueDhcp => "T1557.003",
            Self::AddressConflict | Self::RogueRa => "T1557",
            Self::NewDevice => "T1200",
        }
    }
}

/// Whom it is about. One detection of a kind is open for each.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    Address(IpAddr),
    /// A network card.
    Card(Mac),
    /// A client of a service.
    Use {
        client: IpAddr,
        server: IpAddr,
        port: u16,
    },
    /// A client that asks for a domain.
    Lookup {
        client: IpAddr,
        domain: Box<str>,
    },
}

impl Subject {
    /// The client of a connection, at the server's port.
    #[must_use]
    pub fn of(key: &FlowKey) -> Self {
        Self::Use { client: key.src, server: key.dst, port: key.dst_port }
    }

    /// The address to look for, where there is one.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address)
            | Self::Use { client: address, .. }
            | Self::Lookup { client: address, .. } => Some(*address),
            Self::Card(_) => None,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Card(mac) => mac.fmt(f),
            Self::Use { client, server: IpAddr::V6(server), port } => {
                write!(f, "{client} > [{server}]:{port}")
            }
            Self::Use { client, server, port } => write!(f, "{client} > {server}:{port}"),
            Self::Lookup { client, domain } => write!(f, "{client} > {domain}"),
        }
    }
}

/// A value in an evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u64),
    Text(String),
    Address(IpAddr),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What was seen, by name. Bounded: a name has a few values, of which the first stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence(Vec<(&'static str, Value)>);

impl Evidence {
    /// One of several values of a name.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.add(name, value.into());
        self
    }

    /// Several values of a name.
    #[must_use]
    pub fn with_all<V: Into<Value>>(
        mut self,
        name: &'static str,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        for value in values {
            self.add(name, value.into());
        }
        self
    }

    fn add(&mut self, name: &'static str, value: Value) {
        let same = self.0.iter().filter(|(other, _)| *other == name);
        let (mut values, mut known) = (0, false);
        for (_, other) in same {
            values += 1;
            known |= *other == value;
        }
        if !known && values < MAX_VALUES && self.0.len() < MAX_FACTS {
            // Values of a name stand together.
            let after =
                self.0.iter().rposition(|(other, _)| *other == name).map_or(self.0.len(), |at| at + 1);
            self.0.insert(after, (name, value));
        }
    }

    /// Takes in what a further sighting has.
    pub(super) fn join(&mut self, more: Self) {
        for (name, value) in more.0 {
            self.add(name, value);
        }
    }

    /// The facts, as they were found.
    pub fn facts(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.0.iter().map(|(name, value)| (*name, value))
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for (name, value) in self.facts() {
            match (name == last, last.is_empty()) {
                (true, _) => write!(f, ",{value}")?,
                (false, true) => write!(f, "{name}={value}")?,
                (false, false) => write!(f, " {name}={value}")?,
            }
            last = name;
        }
        Ok(())
    }
}

/// A detection, or what an epoch adds to one that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    pub kind: Kind,
    pub severity: Severity,
    pub subject: Subject,
    /// Nanoseconds since the Unix epoch.
    pub first_ns: i64,
    pub last_ns: i64,
    /// What the kind counts (attempts, packets, connections, windows), since it was last told.
    pub count: u64,
    pub evidence: Evidence,
    /// Whether nothing was told of it before.
    pub opens: bool,
}

impl Detection {
    /// What a detector has found; whether it opens is not the detector's to know.
    pub(super) fn new(
        kind: Kind,
        severity: Severity,
        subject: Subject,
        told: Told,
        evidence: Evidence,
    ) -> Self {
        let Told { first_ns, last_ns, count } = told;
        Self { kind, severity, subject, first_ns, last_ns, count, evidence, opens: false }
    }

    /// Takes in a further sighting of the same.
    pub(super) fn join(&mut self, more: Self) {
        self.first_ns = self.first_ns.min(more.first_ns);
        self.last_ns = self.last_ns.max(more.last_ns);
        self.count = self.count.saturating_add(more.count);
        self.severity = self.severity.max(more.severity);
        self.evidence.join(more.evidence);
    }
}
