//! What the merge yields: one record per connection with activity in the epoch.

use std::sync::Arc;

use weir_wire::{EndReason, NameSource, Place, Process, TcpState};

use crate::kernel::{DrainFigures, FlowKey, Listed, PointTotals};

/// The headers between Ethernet and IP, outermost first; `None` is a bare frame. A thin pointer, since
/// every remembered connection has two and nearly all are bare.
pub type Stack = Option<Arc<Vec<u32>>>;

/// An epoch, merged.
#[derive(Clone, Debug)]
pub struct Merged {
    pub epoch: u64,
    /// Nanoseconds since the Unix epoch.
    pub window_start_ns: i64,
    pub window_end_ns: i64,
    pub sampling_interval: u32,
    pub points: Vec<PointTotals>,
    /// In the order of their five-tuples.
    pub records: Vec<Record>,
    /// Where `records` is cut; at least one.
    pub parts: Vec<Part>,
    /// Packets seen again at a further observation point, and therefore in no record.
    pub crossing_packets: u64,
    /// Their layer-3 octets.
    pub crossing_octets: u64,
    pub figures: DrainFigures,
    /// Connections whose state was given up for want of room. Their counts are in `records`.
    pub evicted: u64,
}

/// A run of records that travels together.
///
/// Cut between five-tuples by the number of their *observations*, which are the kernel's, and never by
/// records, which depend on what the merger remembers: an epoch that is read and merged again, after a
/// crash that took that memory, has the same parts with the same sums of packets, whatever crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many of the records.
    pub records: usize,
    pub crossing_packets: u64,
    pub crossing_octets: u64,
}

/// One connection's traffic in one epoch, the initiator's side first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// From the initiator to the responder.
    pub key: FlowKey,
    /// Of the initiator's packets where they were counted, else of the responder's.
    pub link: Stack,
    pub packets: u64,
    /// Layer-3 octets.
    pub octets: u64,
    pub reverse_packets: u64,
    pub reverse_octets: u64,
    /// Nanoseconds since the Unix epoch: of the connection, and of its first and last packet in this epoch.
    pub start_ns: i64,
    pub first_ns: i64,
    pub last_ns: i64,
    /// OR of the TCP flags in this epoch.
    pub tcp_flags: u8,
    pub reverse_tcp_flags: u8,
    /// In the record of the epoch in which the handshake was completed, so that it is told once.
    pub handshake_rtt_us: Option<u32>,
    pub tcp_state: TcpState,
    pub end_reason: EndReason,
    /// Holds first or later fragments.
    pub fragment: bool,
    /// Of the connection's first packet in this epoch.
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// The threat lists that have its addresses: `src` is the initiator.
    pub listed: Listed,
    /// Where the initiator's packets were counted, else the responder's.
    pub point: u16,
    /// Further points that the same packets crossed, in order of time.
    pub path: Box<[u16]>,
    /// Boxed: most records of a flood have none.
    pub context: Option<Box<Context>>,
}

/// What is known of a connection beyond its counts. The merge leaves it empty; [`crate::enrich`] fills it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// What the responder was called.
    pub name: Option<Name>,
    /// Where the initiator's address is.
    pub src_place: Option<Arc<Place>>,
    pub dst_place: Option<Arc<Place>>,
    /// Whose the initiator's socket is, on this host.
    pub src_process: Option<Arc<Process>>,
    pub dst_process: Option<Arc<Process>>,
}

/// A responder's name, cleaned, and where it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: Arc<str>,
    pub source: NameSource,
}
