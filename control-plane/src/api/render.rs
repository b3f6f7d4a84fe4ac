//! Stored values as the API shows them.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use weir_wire::{Direction, EndReason, NameSource, TcpState, link};

use crate::store::flows::Point as StoredPoint;
use crate::store::top::Sums as StoredSums;

/// RFC 3339 with nanoseconds.
#[must_use]
pub fn time_ns(nanoseconds: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).map(time).unwrap_or_default()
}

#[must_use]
pub fn time(time: Timestamp) -> String {
    format!("{time:.9}")
}

#[must_use]
pub fn system_time(at: SystemTime) -> String {
    Timestamp::try_from(at).map(time).unwrap_or_default()
}

#[must_use]
pub fn time_us(microseconds: i64) -> String {
    Timestamp::from_microsecond(microseconds).map(time).unwrap_or_default()
}

/// IPFIX flowDirection.
#[must_use]
pub fn direction(direction: i16) -> &'static str {
    match Direction::try_from(i32::from(direction)) {
        Ok(Direction::Ingress) => "ingress",
        Ok(Direction::Egress) => "egress",
        Err(_) => "unknown",
    }
}

#[must_use]
pub fn tcp_state(state: i16) -> &'static str {
    match TcpState::try_from(i32::from(state)) {
        Ok(TcpState::SynSent) => "syn_sent",
        Ok(TcpState::SynReceived) => "syn_received",
        Ok(TcpState::Established) => "established",
        Ok(TcpState::Closing) => "closing",
        Ok(TcpState::Closed) => "closed",
        Ok(TcpState::Reset) => "reset",
        Ok(TcpState::Unknown) | Err(_) => "unknown",
    }
}

/// IPFIX flowEndReason.
#[must_use]
pub fn end_reason(reason: i16) -> &'static str {
    match EndReason::try_from(i32::from(reason)) {
        Ok(EndReason::IdleTimeout) => "idle_timeout",
        Ok(EndReason::ActiveTimeout) => "active_timeout",
        Ok(EndReason::EndOfFlow) => "end_of_flow",
        Ok(EndReason::ForcedEnd) => "forced_end",
        Ok(EndReason::LackOfResources) => "lack_of_resources",
        Ok(EndReason::Unknown) | Err(_) => "unknown",
    }
}

/// Where a name was read.
#[must_use]
pub fn name_source(source: i16) -> &'static str {
    NameSource::try_from(i32::from(source)).unwrap_or(NameSource::Unknown).word()
}

/// Link headers, outermost first.
#[must_use]
pub fn links(headers: &[i32]) -> Vec<String> {
    headers
        .iter()
        .map(|header| link::label(*header as u32).unwrap_or_else(|| format!("{header:#x}")))
        .collect()
}

/// One direction of one interface.
#[derive(Debug, Serialize, ToSchema)]
pub struct Point {
    #[schema(example = "eth0")]
    pub interface: String,
    /// `ingress` or `egress`
    #[schema(example = "ingress")]
    pub direction: &'static str,
}

impl From<StoredPoint> for Point {
    fn from(point: StoredPoint) -> Self {
        Self { interface: point.interface, direction: direction(point.direction) }
    }
}

/// Sums of flows.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Sums {
    /// Flow records; a long connection has one in each epoch
    #[schema(example = 12)]
    pub flows: i64,
    /// Initiator to responder
    #[schema(example = 3_200)]
    pub packets: i64,
    /// Layer 3, initiator to responder
    #[schema(example = 256_000)]
    pub octets: i64,
    #[schema(example = 6_100)]
    pub reverse_packets: i64,
    #[schema(example = 8_400_000)]
    pub reverse_octets: i64,
}

impl From<StoredSums> for Sums {
    fn from(sums: StoredSums) -> Self {
        Self {
            flows: sums.flows,
            packets: sums.packets,
            octets: sums.octets,
            reverse_packets: sums.reverse_packets,
            reverse_octets: sums.reverse_octets,
        }
    }
}

impl Sums {
    /// What is left after taking `other` away.
    #[must_use]
    pub fn less(self, other: &Self) -> Self {
        Self {
            flows: self.flows.saturating_sub(other.flows),
            packets: self.packets.saturating_sub(other.packets),
            octets: self.octets.saturating_sub(other.octets),
            reverse_packets: self.reverse_packets.saturating_sub(other.reverse_packets),
            reverse_octets: self.reverse_octets.saturating_sub(other.reverse_octets),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_keep_their_nanoseconds() {
        assert_eq!(time_ns(1_767_225_600_000_000_001), "2026-01-01T00:00:00.000000001Z");
        assert_eq!(time_us(1_767_225_600_000_001), "2026-01-01T00:00:00.000001000Z");
    }
}
