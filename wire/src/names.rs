//! What a sensor learned about a flow beyond its counts: what the responder is called, where addresses are.

use prost::{Enumeration, Message};

/// Where a name was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum NameSource {
    Unknown = 0,
    /// The initiator asked for the name and was given the responder's address.
    Dns = 1,
    /// Server name indication of a TLS hello (RFC 6066).
    Tls = 2,
    /// The same in a QUIC Initial packet (RFC 9001).
    Quic = 3,
    /// `Host` of an HTTP request.
    Http = 4,
}

impl NameSource {
    /// Every source that a name has.
    pub const GIVEN: [Self; 4] = [Self::Dns, Self::Tls, Self::Quic, Self::Http];

    /// The word for it, in answers, filters and NDJSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Http => "http",
        }
    }
}

/// Where an address is, by the sensor's databases. A field that they do not tell is empty or 0.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Place {
    /// ISO 3166-1 alpha-2, capitals.
    #[prost(string, tag = "1")]
    pub country: String,
    /// Number of the autonomous system (RFC 6793).
    #[prost(uint32, tag = "2")]
    pub asn: u32,
    /// Who runs that system.
    #[prost(string, tag = "3")]
    pub organisation: String,
}
