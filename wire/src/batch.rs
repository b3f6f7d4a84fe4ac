//! The messages. Names are IPFIX's where IPFIX has one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use prost::{Enumeration, Message};

use crate::names::{NameSource, Place};
use crate::process::Process;

/// A part of one drained epoch of one sensor.
#[derive(Clone, PartialEq, Message)]
pub struct Batch {
    /// Format version, [`crate::VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Identity of the kernel tables that counted, 16 bytes (a UUID). New tables, new generation.
    #[prost(bytes = "vec", tag = "2")]
    pub generation: Vec<u8>,
    /// Epoch within the generation, from 0, without gaps.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// This part, from 0.
    #[prost(uint32, tag = "4")]
    pub part: u32,
    /// How many parts the epoch has; at least 1.
    #[prost(uint32, tag = "5")]
    pub parts: u32,
    /// When the epoch began, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "6")]
    pub window_start_ns: i64,
    /// When the epoch ended, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "7")]
    pub window_end_ns: i64,
    /// IPFIX samplingInterval: one packet in this many was counted. 1 is every packet.
    #[prost(uint32, tag = "8")]
    pub sampling_interval: u32,
    /// Observation points that `flows` and the ledger refer to by id. Totals only in part 0.
    #[prost(message, repeated, tag = "9")]
    pub points: Vec<Point>,
    /// Link stacks; `Flow::link` is an index into these plus one.
    #[prost(message, repeated, tag = "10")]
    pub links: Vec<LinkStack>,
    #[prost(message, repeated, tag = "11")]
    pub flows: Vec<Flow>,
    /// Packets of this part that were seen again at a further observation point of the same host, and
    /// are therefore not in `flows`. Over all parts and points:
    /// `sum(flows) + crossing_packets + dropped.packets == sum(points.totals.flow_packets)`.
    #[prost(uint64, tag = "12")]
    pub crossing_packets: u64,
    /// Layer-3 octets of `crossing_packets`.
    #[prost(uint64, tag = "13")]
    pub crossing_octets: u64,
    /// Set where the sensor could not keep this part's flows: `flows` is empty, the rest is as it was, and
    /// this says how much went and why. It takes the part's place under the same key.
    #[prost(message, optional, tag = "14")]
    pub dropped: Option<Dropped>,
    /// How the sensor's spool stood when the epoch was drained; part 0 only.
    #[prost(message, optional, tag = "15")]
    pub spool: Option<Spool>,
    /// By how much the sensor's wall clock was set, against its monotonic clock, during the epoch; part 0
    /// only. Positive is forward; what a clock drifts by is not counted.
    #[prost(sint64, tag = "16")]
    pub clock_step_ns: i64,
    /// Names of this part's flows; each at most once.
    #[prost(string, repeated, tag = "17")]
    pub names: Vec<String>,
    /// Places of this part's addresses; each at most once.
    #[prost(message, repeated, tag = "18")]
    pub places: Vec<Place>,
    /// What is a problem, the worst first; part 0 only. In what stands for a dropped batch the worst alone,
    /// without evidence.
    #[prost(message, repeated, tag = "19")]
    pub detections: Vec<crate::Detection>,
    /// Devices of which something new was learned, or that were told long ago; part 0 only.
    #[prost(message, repeated, tag = "22")]
    pub devices: Vec<crate::Device>,
    /// Processes of this part's flows; each at most once.
    #[prost(message, repeated, tag = "26")]
    pub processes: Vec<Process>,
}

/// Flows that were counted but not kept.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Dropped {
    #[prost(enumeration = "DropReason", tag = "1")]
    pub reason: i32,
    #[prost(uint64, tag = "2")]
    pub records: u64,
    /// Both directions.
    #[prost(uint64, tag = "3")]
    pub packets: u64,
    /// Layer-3 octets.
    #[prost(uint64, tag = "4")]
    pub octets: u64,
}

/// Why a sensor dropped a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DropReason {
    Unknown = 0,
    /// The spool reached its bound of bytes: the oldest went.
    SpoolBytes = 1,
    /// Older than the spool keeps.
    SpoolAge = 2,
    /// Refused for good, and the quarantine reached its bound.
    Quarantine = 3,
    /// The spool's file was damaged here.
    Corrupt = 4,
}

impl DropReason {
    /// Every reason that this version gives.
    pub const GIVEN: [Self; 4] = [Self::SpoolBytes, Self::SpoolAge, Self::Quarantine, Self::Corrupt];

    /// The word for it, in metrics, tables and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::SpoolBytes => "spool_bytes",
            Self::SpoolAge => "spool_age",
            Self::Quarantine => "quarantine",
            Self::Corrupt => "corrupt",
        }
    }
}

/// The state of a sensor's spool.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Spool {
    /// Batches that wait for delivery.
    #[prost(uint64, tag = "1")]
    pub batches: u64,
    #[prost(uint64, tag = "2")]
    pub bytes: u64,
    /// The bound of `bytes`.
    #[prost(uint64, tag = "3")]
    pub capacity_bytes: u64,
    /// Age of the oldest, milliseconds.
    #[prost(uint64, tag = "4")]
    pub oldest_age_ms: u64,
    /// Batches that the control plane refused for good and that are kept aside.
    #[prost(uint64, tag = "5")]
    pub quarantined_batches: u64,
    #[prost(uint64, tag = "6")]
    pub quarantined_packets: u64,
    /// The disk cannot be written: batches wait in memory, and the kernel's half until they are delivered.
    #[prost(bool, tag = "7")]
    pub degraded: bool,
}

/// An observation point: one direction of one interface.
#[derive(Clone, PartialEq, Message)]
pub struct Point {
    /// IPFIX observationPointId, unique in the generation.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    #[prost(string, tag = "2")]
    pub interface: String,
    #[prost(uint32, tag = "3")]
    pub ifindex: u32,
    #[prost(enumeration = "Direction", tag = "4")]
    pub direction: i32,
    /// The kernel's totals of this point in this epoch; only in part 0.
    #[prost(message, optional, tag = "5")]
    pub totals: Option<Totals>,
}

/// IPFIX flowDirection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum Direction {
    Ingress = 0,
    Egress = 1,
}

/// The kernel ledger of one point:
/// `frames == flow_packets + overflow + non_ip + malformed + filtered`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Totals {
    #[prost(uint64, tag = "1")]
    pub frames: u64,
    /// Layer-2 octets, without the frame check sequence.
    #[prost(uint64, tag = "2")]
    pub octets_l2: u64,
    /// Packets counted into flows.
    #[prost(uint64, tag = "3")]
    pub flow_packets: u64,
    /// Layer-3 octets counted into flows.
    #[prost(uint64, tag = "4")]
    pub flow_octets: u64,
    /// IP packets for which the table had no room.
    #[prost(uint64, tag = "5")]
    pub overflow: u64,
    /// Layer-3 octets of `overflow`.
    #[prost(uint64, tag = "6")]
    pub overflow_octets: u64,
    #[prost(uint64, tag = "7")]
    pub non_ip: u64,
    #[prost(uint64, tag = "8")]
    pub malformed: u64,
    /// Packets left out by a filter rule or by sampling.
    #[prost(uint64, tag = "9")]
    pub filtered: u64,
    /// The part of `filtered` that sampling left out.
    #[prost(uint64, tag = "10")]
    pub unsampled: u64,
}

impl Totals {
    /// Frames for which some verdict was counted; equal to `frames` unless something is broken.
    #[must_use]
    pub fn accounted(&self) -> u64 {
        self.flow_packets + self.overflow + self.non_ip + self.malformed + self.filtered
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, more: Self) {
        self.frames += more.frames;
        self.octets_l2 += more.octets_l2;
        self.flow_packets += more.flow_packets;
        self.flow_octets += more.flow_octets;
        self.overflow += more.overflow;
        self.overflow_octets += more.overflow_octets;
        self.non_ip += more.non_ip;
        self.malformed += more.malformed;
        self.filtered += more.filtered;
        self.unsampled += more.unsampled;
    }
}

/// What stood between Ethernet and IP, outermost first; each entry as in [`crate::link`].
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct LinkStack {
    #[prost(uint32, repeated, tag = "1")]
    pub headers: Vec<u32>,
}

/// One connection's traffic in one epoch (a biflow, RFC 5103): the initiator's side first.
///
/// Times are nanoseconds relative to [`Batch::window_start_ns`] and may be negative.
#[derive(Clone, PartialEq, Message)]
pub struct Flow {
    /// 4 or 6.
    #[prost(uint32, tag = "1")]
    pub ip_version: u32,
    /// High 64 bits of the initiator's address; 0 for IPv4.
    #[prost(fixed64, tag = "2")]
    pub src_high: u64,
    /// Low 64 bits of the initiator's address; IPv4 in the lowest 32.
    #[prost(fixed64, tag = "3")]
    pub src_low: u64,
    #[prost(fixed64, tag = "4")]
    pub dst_high: u64,
    #[prost(fixed64, tag = "5")]
    pub dst_low: u64,
    /// IPFIX protocolIdentifier.
    #[prost(uint32, tag = "6")]
    pub protocol: u32,
    #[prost(uint32, tag = "7")]
    pub src_port: u32,
    #[prost(uint32, tag = "8")]
    pub dst_port: u32,
    /// Initiator to responder, in this epoch.
    #[prost(uint64, tag = "9")]
    pub packets: u64,
    /// Layer-3 octets.
    #[prost(uint64, tag = "10")]
    pub octets: u64,
    /// Responder to initiator, in this epoch.
    #[prost(uint64, tag = "11")]
    pub reverse_packets: u64,
    #[prost(uint64, tag = "12")]
    pub reverse_octets: u64,
    /// When the connection was first seen, in this epoch or an earlier one.
    #[prost(sint64, tag = "13")]
    pub start_ns: i64,
    /// First packet in this epoch.
    #[prost(sint64, tag = "14")]
    pub first_ns: i64,
    /// Last packet in this epoch.
    #[prost(sint64, tag = "15")]
    pub last_ns: i64,
    /// OR of the TCP flags (byte 13 of the header) of the initiator's packets.
    #[prost(uint32, tag = "16")]
    pub tcp_flags: u32,
    #[prost(uint32, tag = "17")]
    pub reverse_tcp_flags: u32,
    /// From SYN to SYN-ACK, microseconds.
    #[prost(uint32, optional, tag = "18")]
    pub handshake_rtt_us: Option<u32>,
    #[prost(enumeration = "TcpState", tag = "19")]
    pub tcp_state: i32,
    /// IPFIX flowEndReason.
    #[prost(enumeration = "EndReason", tag = "20")]
    pub end_reason: i32,
    /// Holds fragments (first ones carry ports, later ones are a flow with ports 0).
    #[prost(bool, tag = "21")]
    pub fragment: bool,
    /// Of the first ICMP or ICMPv6 packet.
    #[prost(uint32, tag = "22")]
    pub icmp_type: u32,
    #[prost(uint32, tag = "23")]
    pub icmp_code: u32,
    /// Observation point where the counted packets of the initiator's side (else of the other) were seen.
    #[prost(uint32, tag = "24")]
    pub point: u32,
    /// Index into [`Batch::links`] plus one; 0 is a bare frame.
    #[prost(uint32, tag = "25")]
    pub link: u32,
    /// Further observation points that the same packets crossed, in order of time.
    #[prost(uint32, repeated, tag = "26")]
    pub path: Vec<u32>,
    /// Retransmitted segments, where the kernel offers the count.
    #[prost(uint32, tag = "27")]
    pub retransmits: u32,
    /// What the responder was called: index into [`Batch::names`] plus one; 0 is not known.
    #[prost(uint32, tag = "28")]
    pub name: u32,
    /// Where `name` was read.
    #[prost(enumeration = "NameSource", tag = "29")]
    pub name_source: i32,
    /// Where the initiator's address is: index into [`Batch::places`] plus one; 0 is not known.
    #[prost(uint32, tag = "30")]
    pub src_place: u32,
    #[prost(uint32, tag = "31")]
    pub dst_place: u32,
    /// Whose the initiator's socket is, where it is on the sensor's host: index into [`Batch::processes`] plus
    /// one; 0 is not known.
    #[prost(uint32, tag = "32")]
    pub src_process: u32,
    #[prost(uint32, tag = "33")]
    pub dst_process: u32,
}

impl Flow {
    /// The initiator's address.
    #[must_use]
    pub fn src(&self) -> IpAddr {
        self.address(self.src_high, self.src_low)
    }

    /// The responder's address.
    #[must_use]
    pub fn dst(&self) -> IpAddr {
        self.address(self.dst_high, self.dst_low)
    }

    fn address(&self, high: u64, low: u64) -> IpAddr {
        if self.ip_version == 6 {
            Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low)).into()
        } else {
            Ipv4Addr::from_bits(low as u32).into()
        }
    }
}

/// Where a TCP connection stands at the end of the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum TcpState {
    /// Not TCP, or nothing known (picked up in the middle with no flags seen).
    Unknown = 0,
    SynSent = 1,
    SynReceived = 2,
    Established = 3,
    Closing = 4,
    Closed = 5,
    Reset = 6,
}

/// IPFIX flowEndReason (information element 136).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum EndReason {
    Unknown = 0,
    IdleTimeout = 1,
    /// The connection goes on: this record is a delta.
    ActiveTimeout = 2,
    EndOfFlow = 3,
    ForcedEnd = 4,
    LackOfResources = 5,
}
