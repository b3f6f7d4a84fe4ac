//! A batch, decoded: one JSON object, its flows with the field names of `weir-sensor pcap`.

use std::net::IpAddr;

use serde::Serialize;
use weir_wire::{Batch, link};

use super::render::precise;
use crate::metrics::direction;
use crate::spool::Listed;

/// A batch.
#[derive(Serialize)]
pub(super) struct Exported<'a> {
    #[serde(flatten)]
    listed: &'a Listed,
    sampling_interval: u32,
    crossing_packets: u64,
    crossing_octets: u64,
    points: Vec<Point<'a>>,
    flows: Vec<Flow>,
}

#[derive(Serialize)]
struct Point<'a> {
    id: u32,
    interface: &'a str,
    direction: &'static str,
    /// Both only in part 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flow_packets: Option<u64>,
}

#[derive(Serialize)]
struct Flow {
    src: IpAddr,
    dst: IpAddr,
    proto: u32,
    sport: u32,
    dport: u32,
    l2: Vec<String>,
    packets: u64,
    octets: u64,
    reverse_packets: u64,
    reverse_octets: u64,
    tcp_flags: u32,
    reverse_tcp_flags: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    handshake_rtt_us: Option<u32>,
    fragment: bool,
    icmp_type: u32,
    icmp_code: u32,
    point: u32,
    first: String,
    last: String,
}

impl<'a> Exported<'a> {
    pub(super) fn of(listed: &'a Listed, batch: &'a Batch) -> Self {
        let point = |point: &'a weir_wire::Point| Point {
            id: point.id,
            interface: &point.interface,
            direction: direction(point.direction()),
            frames: point.totals.map(|totals| totals.frames),
            flow_packets: point.totals.map(|totals| totals.flow_packets),
        };
        Self {
            listed,
            sampling_interval: batch.sampling_interval,
            crossing_packets: batch.crossing_packets,
            crossing_octets: batch.crossing_octets,
            points: batch.points.iter().map(point).collect(),
            flows: batch.flows.iter().map(|flow| Flow::of(flow, batch)).collect(),
        }
    }
}

impl Flow {
    fn of(flow: &weir_wire::Flow, batch: &Batch) -> Self {
        let at = |relative: i64| precise(batch.window_start_ns.saturating_add(relative));
        let stack = (flow.link as usize).checked_sub(1).and_then(|index| batch.links.get(index));
        let headers = stack.map(|stack| &stack.headers[..]).unwrap_or_default();
        Self {
            src: flow.src(),
            dst: flow.dst(),
            proto: flow.protocol,
            sport: flow.src_port,
            dport: flow.dst_port,
            l2: headers.iter().filter_map(|header| link::label(*header)).collect(),
            packets: flow.packets,
            octets: flow.octets,
            reverse_packets: flow.reverse_packets,
            reverse_octets: flow.reverse_octets,
            tcp_flags: flow.tcp_flags,
            reverse_tcp_flags: flow.reverse_tcp_flags,
            handshake_rtt_us: flow.handshake_rtt_us,
            fragment: flow.fragment,
            icmp_type: flow.icmp_type,
            icmp_code: flow.icmp_code,
            point: flow.point,
            first: at(flow.first_ns),
            last: at(flow.last_ns),
        }
    }
}
