//! What a flow can be asked about: names, kinds, the words that stand for numbers.

use weir_wire::{Direction, EndReason, NameSource, TcpState};

use crate::naming::Scope;

/// What values a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address or a prefix.
    Network,
    /// A whole number up to this one, with comparisons and ranges.
    Number(u64),
    /// A number that also has names.
    Protocol,
    /// A whole number up to this one that is there or not: equality alone.
    Label(u64),
    /// One of a few words.
    Words(&'static [(&'static str, i16)]),
    /// A name, with patterns.
    Name,
    /// `true` or `false`.
    Flag,
    /// Two letters of ISO 3166-1.
    Country,
}

/// Declares the fields: one line each, its doc comment is its description.
macro_rules! fields {
    ($($(#[doc = $help:literal])+ $field:ident = $name:literal, $kind:expr;)+) => {
        /// A property of a flow that can be tested.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Field { $($(#[doc = $help])+ $field,)+ }

        impl Field {
            /// All of them, in the order in which they are offered.
            pub const ALL: &'static [Self] = &[$(Self::$field),+];

            /// As it stands in an expression.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$field => $name,)+ }
            }

            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$field => $kind,)+ }
            }

            /// For a person.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(Self::$field => concat!($($help),+).trim_start(),)+ }
            }
        }
    };
}

const PORT: Kind = Kind::Number(u16::MAX as u64);
const ASN: Kind = Kind::Number(u32::MAX as u64);
const COUNT: Kind = Kind::Number(i64::MAX as u64);

fields! {
    /// Initiator's address or network
    Src = "src", Kind::Network;
    /// Responder's address or network
    Dst = "dst", Kind::Network;
    /// Address or network of either side
    Address = "address", Kind::Network;
    /// Device of either side, by name or id
    Device = "device", Kind::Name;
    /// Initiator's device
    SrcDevice = "src_device", Kind::Name;
    /// Responder's device
    DstDevice = "dst_device", Kind::Name;
    /// Named network of the initiator's address
    SrcNetwork = "src_network", Kind::Name;
    /// Named network of the responder's address
    DstNetwork = "dst_network", Kind::Name;
    /// Named network of either side's address
    Network = "network", Kind::Name;
    /// Where it goes, by whose its addresses are
    Scope = "scope", Kind::Words(SCOPES);
    /// Initiator's port
    SrcPort = "src_port", PORT;
    /// Responder's port
    DstPort = "dst_port", PORT;
    /// Port of either side
    Port = "port", PORT;
    /// What the responder's port is called, with its protocol
    Service = "service", Kind::Name;
    /// IP protocol, by number or name
    Protocol = "protocol", Kind::Protocol;
    /// Packets from the initiator in one epoch
    Packets = "packets", COUNT;
    /// Layer-3 octets from the initiator in one epoch
    Octets = "octets", COUNT;
    /// Packets from the responder in one epoch
    ReversePackets = "reverse_packets", COUNT;
    /// Layer-3 octets from the responder in one epoch
    ReverseOctets = "reverse_octets", COUNT;
    /// Packets of both directions in one epoch
    TotalPackets = "total_packets", COUNT;
    /// Layer-3 octets of both directions in one epoch
    TotalOctets = "total_octets", COUNT;
    /// Sensor's name
    Sensor = "sensor", Kind::Name;
    /// Interface that counted it
    Interface = "interface", Kind::Name;
    /// Which way it crossed that interface
    Direction = "direction", Kind::Words(DIRECTIONS);
    /// Where the TCP connection stood at the end of the epoch
    TcpState = "tcp_state", Kind::Words(TCP_STATES);
    /// IPFIX flowEndReason
    EndReason = "end_reason", Kind::Words(END_REASONS);
    /// From SYN to SYN-ACK, microseconds
    HandshakeRttUs = "handshake_rtt_us", Kind::Number(u32::MAX as u64);
    /// Whether it holds fragments
    Fragment = "fragment", Kind::Flag;
    /// Of the first ICMP packet
    IcmpType = "icmp_type", Kind::Number(255);
    /// Of the first ICMP packet
    IcmpCode = "icmp_code", Kind::Number(255);
    /// VLAN identifier in the link stack
    Vlan = "vlan", Kind::Label(4_095);
    /// MPLS label in the link stack
    Mpls = "mpls", Kind::Label(1_048_575);
    /// One packet in this many was counted
    SamplingInterval = "sampling_interval", Kind::Number(i32::MAX as u64);
    /// What the responder was called, wherever that was read
    Name = "name", Kind::Name;
    /// Responder's name in a TLS or QUIC hello
    Sni = "sni", Kind::Name;
    /// Where the responder's name was read
    NameSource = "name_source", Kind::Words(NAME_SOURCES);
    /// Country of either side, two letters
    Country = "country", Kind::Country;
    /// Country of the initiator's address
    SrcCountry = "src_country", Kind::Country;
    /// Country of the responder's address
    DstCountry = "dst_country", Kind::Country;
    /// Autonomous system of either side
    Asn = "asn", ASN;
    /// Autonomous system of the initiator's address
    SrcAsn = "src_asn", ASN;
    /// Autonomous system of the responder's address
    DstAsn = "dst_asn", ASN;
    /// Process of either side, where it is on the sensor's host
    Process = "process", Kind::Name;
    /// Initiator's process
    SrcProcess = "src_process", Kind::Name;
    /// Responder's process
    DstProcess = "dst_process", Kind::Name;
    /// Path of the file that either side's process runs
    Executable = "executable", Kind::Name;
    /// Container of either side's process
    Container = "container", Kind::Name;
    /// Service manager's unit of either side's process
    Unit = "unit", Kind::Name;
}

const DIRECTIONS: &[(&str, i16)] =
    &[("ingress", Direction::Ingress as i16), ("egress", Direction::Egress as i16)];

const SCOPES: &[(&str, i16)] = &[
    (Scope::Internal.word(), Scope::Internal as i16),
    (Scope::Outbound.word(), Scope::Outbound as i16),
    (Scope::Inbound.word(), Scope::Inbound as i16),
    (Scope::External.word(), Scope::External as i16),
    (Scope::Multicast.word(), Scope::Multicast as i16),
    (Scope::Broadcast.word(), Scope::Broadcast as i16),
];

const TCP_STATES: &[(&str, i16)] = &[
    ("unknown", TcpState::Unknown as i16),
    ("syn_sent", TcpState::SynSent as i16),
    ("syn_received", TcpState::SynReceived as i16),
    ("established", TcpState::Established as i16),
    ("closing", TcpState::Closing as i16),
    ("closed", TcpState::Closed as i16),
    ("reset", TcpState::Reset as i16),
];

const END_REASONS: &[(&str, i16)] = &[
    ("unknown", EndReason::Unknown as i16),
    ("idle_timeout", EndReason::IdleTimeout as i16),
    ("active_timeout", EndReason::ActiveTimeout as i16),
    ("end_of_flow", EndReason::EndOfFlow as i16),
    ("forced_end", EndReason::ForcedEnd as i16),
    ("lack_of_resources", EndReason::LackOfResources as i16),
];

const NAME_SOURCES: &[(&str, i16)] = &[
    ("dns", NameSource::Dns as i16),
    ("tls", NameSource::Tls as i16),
    ("quic", NameSource::Quic as i16),
    ("http", NameSource::Http as i16),
];

/// Names of the protocols that people filter by, from IANA's list.
pub(super) const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
];

/// An IP protocol's number, from its name or digits.
#[must_use]
pub fn protocol_number(text: &str) -> Option<u8> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    PROTOCOLS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)).map(|(_, number)| *number)
}

impl Field {
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| name.eq_ignore_ascii_case(field.name()))
    }

    /// Whether its names are those of devices, whose addresses stand in flows.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Device | Self::SrcDevice | Self::DstDevice)
    }

    /// Whether a flow passes its tests by what networks are called, or by whose they are.
    #[must_use]
    pub const fn is_of_networks(self) -> bool {
        matches!(self, Self::Network | Self::SrcNetwork | Self::DstNetwork | Self::Scope)
    }

    /// The operators that it can stand before.
    pub(super) const fn operators(self) -> &'static [&'static str] {
        match self.kind() {
            Kind::Number(_) => &["=", "!=", "<", "<=", ">", ">=", "in", "not in"],
            Kind::Name => &["=", "!=", "~", "!~", "in", "not in"],
            Kind::Flag => &["=", "!="],
            Kind::Network | Kind::Protocol | Kind::Label(_) | Kind::Words(_) | Kind::Country => {
                &["=", "!=", "in", "not in"]
            }
        }
    }

    /// What its values look like; completes "expected …".
    pub(super) fn values(self) -> String {
        match self.kind() {
            Kind::Network => "an IP address or network, such as 10.0.0.0/8".to_owned(),
            Kind::Number(most) => format!("a number between 0 and {most}, such as 443, 10k or 1000..2000"),
            Kind::Protocol => "a protocol's number or name, such as tcp".to_owned(),
            Kind::Label(most) => format!("a number between 0 and {most}"),
            Kind::Words(words) => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("one of {}", words.join(", "))
            }
            Kind::Name => "a name, such as \"edge-1\"".to_owned(),
            Kind::Flag => "true or false".to_owned(),
            Kind::Country => "two letters of ISO 3166-1, such as NL".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_have_numbers_and_names() {
        assert_eq!(protocol_number("TCP"), Some(6));
        assert_eq!(protocol_number("255"), Some(255));
        for wrong in ["", "256", "-6", "tcpp", "6 "] {
            assert_eq!(protocol_number(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_field_is_found_by_its_name() {
        for field in Field::ALL {
            assert_eq!(Field::named(&field.name().to_uppercase()), Some(*field));
        }
    }
}
