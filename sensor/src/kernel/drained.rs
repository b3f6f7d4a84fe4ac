//! What a drain yields: the input of the `flow` stage. Wall-clock times, addresses and link stacks are
//! resolved here; nothing of the kernel layout leaks past this module.

use std::net::IpAddr;

use weir_wire::{Direction, Totals};

/// Everything that the kernel counted in one epoch.
#[derive(Clone, Debug)]
pub struct Drained {
    /// Epoch within this generation of tables, from 0, without gaps.
    pub epoch: u64,
    /// When the epoch began and ended, nanoseconds since the Unix epoch (capture time in a replay).
    pub window_start_ns: i64,
    pub window_end_ns: i64,
    /// One packet in this many was counted; 1 is every packet.
    pub sampling_interval: u32,
    /// Every observation point that is attached or was in this epoch, with its totals.
    pub points: Vec<PointTotals>,
    /// Link stacks of this epoch, outermost header first (see [`weir_wire::link`]).
    pub links: Vec<Vec<u32>>,
    /// One entry per slot: the same key may stand here once per CPU and per point.
    pub flows: Vec<FlowObservation>,
    /// What the drain itself cost and met, for the metrics.
    pub figures: DrainFigures,
}

/// One direction of one interface, and what the kernel counted there in the epoch.
#[derive(Clone, Debug)]
pub struct PointTotals {
    /// IPFIX observationPointId, unique in this generation.
    pub id: u16,
    pub interface: String,
    pub ifindex: u32,
    pub direction: Direction,
    /// Interfaces stacked on each other (a bridge and its ports, a VLAN device and its parent) share a
    /// number: a packet crosses all of them.
    pub stack: u32,
    pub totals: Totals,
}

/// The unidirectional flow key of the RFCs, without the observation point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    /// 0 where the protocol has none, in later fragments, and where the header is cut short.
    pub src_port: u16,
    pub dst_port: u16,
}

impl FlowKey {
    /// The key of the packets that go back.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, src_port: self.dst_port, dst_port: self.src_port, ..self }
    }
}

/// One slot of a kernel table.
#[derive(Clone, Copy, Debug)]
pub struct FlowObservation {
    pub key: FlowKey,
    /// Refers to [`PointTotals::id`].
    pub point: u16,
    /// Index into [`Drained::links`] plus one; 0 is a bare frame.
    pub link: u32,
    pub packets: u64,
    /// Layer-3 octets.
    pub octets: u64,
    /// Nanoseconds since the Unix epoch. `first` is precise; `last` may lag by a kernel tick (1 to 10 ms)
    /// but is never before `first`.
    pub first_ns: i64,
    pub last_ns: i64,
    /// OR of byte 13 of the TCP headers.
    pub tcp_flags: u8,
    /// Byte 13 of the first packet's TCP header: a SYN here makes `first_ns` a handshake time.
    pub first_tcp_flags: u8,
    /// OR of [`fragment`] bits.
    pub fragments: u8,
    /// Of the first packet, for ICMP and ICMPv6.
    pub icmp_type: u8,
    pub icmp_code: u8,
    /// What the threat lists said when the flow began in this epoch.
    pub listed: Listed,
}

/// The threat lists that have a flow's addresses, by number; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    pub src: u8,
    pub dst: u8,
    /// Whether the flow's packets are dropped where enforcement holds.
    pub drops: bool,
}

impl Listed {
    /// Whether any list has either address.
    #[must_use]
    pub fn is_listed(self) -> bool {
        self != Self::default()
    }

    /// The same of a packet that goes the other way.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }

    /// What either says: lists may have changed between two observations of one flow.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let first = |a, b| if a == 0 { b } else { a };
        Self {
            src: first(self.src, other.src),
            dst: first(self.dst, other.dst),
            drops: self.drops || other.drops,
        }
    }
}

/// Bits of [`FlowObservation::fragments`].
pub mod fragment {
    /// First fragments: offset 0, more to come. They carry ports.
    pub const FIRST: u8 = 1;
    /// Later fragments: no ports.
    pub const LATER: u8 = 2;
    /// IPv6 atomic fragments (RFC 6946): a fragment header around a whole packet.
    pub const ATOMIC: u8 = 4;
}

/// Costs and findings of one drain.
#[derive(Clone, Copy, Debug, Default)]
pub struct DrainFigures {
    /// From the flip until no program could hold the old epoch.
    pub grace: std::time::Duration,
    /// Reading and decoding the half.
    pub read: std::time::Duration,
    /// Slots in use and slots there, over all CPUs, IPv4 and IPv6.
    pub slots_used: u64,
    pub slots: u64,
    /// By how much the wall clock was set against `CLOCK_MONOTONIC` in the epoch (the machine's sleep counts
    /// as well); 0 where it only drifted.
    pub clock_step_ns: i64,
}
