//! What a sensor says is a problem, as it travels in a [`crate::Batch`].

use prost::{Enumeration, Message, Oneof};

/// What an epoch adds to a detection: so much more of this, of that subject, since when, until when. Stored
/// once with its batch, additions may be summed in any order.
///
/// Times are nanoseconds relative to [`crate::Batch::window_start_ns`] and may be negative.
#[derive(Clone, PartialEq, Message)]
pub struct Detection {
    /// A word such as `port_scan`; letters, digits and `_`. New sensors know words that an old reader does not.
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(enumeration = "Severity", tag = "2")]
    pub severity: i32,
    /// Whom it is about, as text. One detection of a kind is open for each.
    #[prost(string, tag = "3")]
    pub subject: String,
    /// The subject's address, 4 or 16 bytes; empty where it has none.
    #[prost(bytes = "vec", tag = "4")]
    pub address: Vec<u8>,
    /// When the detection began, in this epoch or an earlier one.
    #[prost(sint64, tag = "5")]
    pub first_ns: i64,
    #[prost(sint64, tag = "6")]
    pub last_ns: i64,
    /// What the kind counts, since the detection was told last.
    #[prost(uint64, tag = "7")]
    pub count: u64,
    /// MITRE ATT&CK technique.
    #[prost(string, tag = "8")]
    pub technique: String,
    /// What it was found in: `flows`, `dns`, ...
    #[prost(string, tag = "9")]
    pub source: String,
    /// None in what stands for a dropped batch.
    #[prost(message, repeated, tag = "10")]
    pub evidence: Vec<Fact>,
}

/// How bad it is if it is what it looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Severity {
    Info = 0,
    Low = 1,
    Medium = 2,
    High = 3,
    Critical = 4,
}

impl Severity {
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word for it, in tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Something that was seen. Several of one name are its values.
#[derive(Clone, PartialEq, Message)]
pub struct Fact {
    /// Letters, digits and `_`.
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(oneof = "FactValue", tags = "2, 3, 4")]
    pub value: Option<FactValue>,
}

/// What was seen.
#[derive(Clone, PartialEq, Eq, Oneof)]
pub enum FactValue {
    #[prost(uint64, tag = "2")]
    Number(u64),
    /// May come from a packet: any characters.
    #[prost(string, tag = "3")]
    Text(String),
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "4")]
    Address(Vec<u8>),
}
