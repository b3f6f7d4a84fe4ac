//! One JSON object a line: the fields that scripts and tests rely on, in a fixed order.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::IpAddr;

use serde::{Serialize, Serializer};
use weir_wire::{TcpState, Totals, link};

use super::lists::ReplayLists;
use super::unidirectional::Flow;
use crate::detect::{Detection, Value};
use crate::device::Device;
use crate::enrich::names::{Exchange, Outcome};
use crate::flow::Record;
use crate::kernel::{Event, Listed};
use crate::observe::{Mac, Observation, Seen};

/// Capture time, RFC 3339 with nanoseconds.
#[derive(Clone, Copy)]
struct Time(i64);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&rfc3339(self.0))
    }
}

/// Nanoseconds since the Unix epoch as RFC 3339, always with nine digits of a second.
pub(super) fn rfc3339(nanoseconds: i64) -> impl std::fmt::Display {
    // Every i64 of nanoseconds is between 1677 and 2262, which jiff's range contains.
    let time =
        jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{time:.9}")
}

#[derive(Serialize)]
struct FlowLine<'a> {
    r#type: &'static str,
    file: &'a str,
    /// IPv6 as in RFC 5952.
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    sport: u16,
    dport: u16,
    l2: Vec<String>,
    packets: u64,
    octets: u64,
    tcp_flags: u8,
    fragment: bool,
    icmp_type: u8,
    icmp_code: u8,
    first: Time,
    last: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<Hits<'a>>,
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    r#type: &'static str,
    file: &'a str,
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    sport: u16,
    dport: u16,
    l2: Vec<String>,
    packets: u64,
    octets: u64,
    reverse_packets: u64,
    reverse_octets: u64,
    tcp_flags: u8,
    reverse_tcp_flags: u8,
    tcp_state: &'static str,
    handshake_rtt_us: Option<u32>,
    fragment: bool,
    icmp_type: u8,
    icmp_code: u8,
    first: Time,
    last: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    listed: Option<Hits<'a>>,
    /// Of the server, and where it is from. Only with observations, and where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_source: Option<&'static str>,
}

/// The threat lists that have the addresses.
#[derive(Serialize)]
struct Hits<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<&'a str>,
}

fn hits(listed: Listed, lists: &ReplayLists) -> Option<Hits<'_>> {
    listed.is_listed().then(|| Hits { src: lists.name(listed.src), dst: lists.name(listed.dst) })
}

/// What a frame says; its type and fields are those of `Seen`.
#[derive(Serialize)]
struct ObservationLine<'a> {
    file: &'a str,
    time: Time,
    src_mac: Option<Mac>,
    dst_mac: Option<Mac>,
    l2: Vec<String>,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    proto: Option<u8>,
    sport: Option<u16>,
    dport: Option<u16>,
    /// Of an answer whose question was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<u64>,
    #[serde(flatten)]
    seen: &'a Seen,
}

/// A question that nobody answered.
#[derive(Serialize)]
struct UnansweredLine<'a> {
    r#type: &'static str,
    file: &'a str,
    client: IpAddr,
    server: IpAddr,
    name: &'a str,
    kind: u16,
}

#[derive(Serialize)]
struct DetectionLine<'a> {
    r#type: &'static str,
    file: &'a str,
    kind: &'static str,
    severity: &'static str,
    subject: String,
    technique: &'static str,
    count: u64,
    first: Time,
    last: Time,
    /// Each name with its values.
    evidence: BTreeMap<&'static str, Vec<serde_json::Value>>,
}

#[derive(Serialize)]
struct DeviceLine<'a> {
    r#type: &'static str,
    file: &'a str,
    name: Option<&'a str>,
    vendor: Option<&'a str>,
    device_type: Option<&'static str>,
    /// Kind and value.
    keys: Vec<(&'static str, String)>,
    addresses: Vec<IpAddr>,
    /// Who told it, and the name.
    names: Vec<(&'static str, &'a str)>,
    reasons: Vec<Reason<'a>>,
    first: Time,
    last: Time,
}

/// Why a device may be of a type.
#[derive(Serialize)]
struct Reason<'a> {
    rule: &'a str,
    r#type: &'static str,
    weight: u32,
    /// Where the rule comes from.
    source: &'a str,
    seen: &'a str,
}

#[derive(Serialize)]
struct TotalsLine<'a> {
    r#type: &'static str,
    file: &'a str,
    frames: u64,
    octets_l2: u64,
    flow_packets: u64,
    overflow: u64,
    non_ip: u64,
    malformed: u64,
    filtered: u64,
    /// Frames that cannot be run, and are in none of the above.
    refused: u64,
}

#[derive(Serialize)]
struct EventLine<'a> {
    r#type: &'static str,
    file: &'a str,
    /// Number of the frame in the file, from 1.
    frame: u64,
    class: &'static str,
    octets: u32,
    captured: usize,
    time: Time,
}

pub(super) fn event(out: &mut impl Write, file: &str, event: &Event) -> io::Result<()> {
    line(
        out,
        &EventLine {
            r#type: "event",
            file,
            frame: event.frame,
            class: event.class.name(),
            octets: event.octets,
            captured: event.bytes.len(),
            time: Time(event.time_ns),
        },
    )
}

pub(super) fn flow(out: &mut impl Write, file: &str, flow: &Flow, lists: &ReplayLists) -> io::Result<()> {
    line(
        out,
        &FlowLine {
            r#type: "flow",
            file,
            src: flow.key.src,
            dst: flow.key.dst,
            proto: flow.key.protocol,
            sport: flow.key.src_port,
            dport: flow.key.dst_port,
            l2: labels(&flow.link),
            packets: flow.packets,
            octets: flow.octets,
            tcp_flags: flow.tcp_flags,
            fragment: flow.fragment,
            icmp_type: flow.icmp_type,
            icmp_code: flow.icmp_code,
            first: Time(flow.first_ns),
            last: Time(flow.last_ns),
            listed: hits(flow.listed, lists),
        },
    )
}

pub(super) fn connection(
    out: &mut impl Write,
    file: &str,
    record: &Record,
    lists: &ReplayLists,
) -> io::Result<()> {
    let name = record.context.as_ref().and_then(|context| context.name.as_ref());
    line(
        out,
        &ConnectionLine {
            r#type: "connection",
            file,
            src: record.key.src,
            dst: record.key.dst,
            proto: record.key.protocol,
            sport: record.key.src_port,
            dport: record.key.dst_port,
            l2: labels(record.link.as_deref().map(Vec::as_slice).unwrap_or_default()),
            packets: record.packets,
            octets: record.octets,
            reverse_packets: record.reverse_packets,
            reverse_octets: record.reverse_octets,
            tcp_flags: record.tcp_flags,
            reverse_tcp_flags: record.reverse_tcp_flags,
            tcp_state: state(record.tcp_state),
            handshake_rtt_us: record.handshake_rtt_us,
            fragment: record.fragment,
            icmp_type: record.icmp_type,
            icmp_code: record.icmp_code,
            first: Time(record.first_ns),
            last: Time(record.last_ns),
            listed: hits(record.listed, lists),
            name: name.map(|name| &*name.text),
            name_source: name.map(|name| name.source.word()),
        },
    )
}

pub(super) fn observation(
    out: &mut impl Write,
    file: &str,
    observation: &Observation,
    exchange: Option<&Exchange>,
) -> io::Result<()> {
    let Observation { time_ns, origin, seen } = observation;
    let latency_us = exchange.and_then(|exchange| match exchange.outcome {
        Outcome::Answered { latency_ns, .. } => latency_ns.map(|latency_ns| latency_ns / 1000),
        Outcome::TimedOut => None,
    });
    line(
        out,
        &ObservationLine {
            file,
            time: Time(*time_ns),
            src_mac: origin.src_mac,
            dst_mac: origin.dst_mac,
            l2: labels(&origin.link),
            src: origin.flow.map(|flow| flow.src),
            dst: origin.flow.map(|flow| flow.dst),
            proto: origin.flow.map(|flow| flow.protocol),
            sport: origin.flow.map(|flow| flow.src_port),
            dport: origin.flow.map(|flow| flow.dst_port),
            latency_us,
            seen,
        },
    )
}

pub(super) fn unanswered(out: &mut impl Write, file: &str, exchange: &Exchange) -> io::Result<()> {
    line(
        out,
        &UnansweredLine {
            r#type: "dns_unanswered",
            file,
            client: exchange.client,
            server: exchange.server,
            name: exchange.name.as_str(),
            kind: exchange.kind,
        },
    )
}

pub(super) fn detection(out: &mut impl Write, file: &str, detection: &Detection) -> io::Result<()> {
    let mut evidence: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (name, value) in detection.evidence.facts() {
        let value = match value {
            Value::Number(number) => (*number).into(),
            Value::Text(text) => text.as_str().into(),
            Value::Address(address) => address.to_string().into(),
        };
        evidence.entry(name).or_default().push(value);
    }
    line(
        out,
        &DetectionLine {
            r#type: "detection",
            file,
            kind: detection.kind.word(),
            severity: detection.severity.word(),
            subject: detection.subject.to_string(),
            technique: detection.kind.technique(),
            count: detection.count,
            first: Time(detection.first_ns),
            last: Time(detection.last_ns),
            evidence,
        },
    )
}

pub(super) fn device(out: &mut impl Write, file: &str, device: &Device) -> io::Result<()> {
    let verdict = device.reasons.verdict();
    line(
        out,
        &DeviceLine {
            r#type: "device",
            file,
            name: device.name(),
            vendor: device.vendor.as_deref(),
            device_type: verdict.map(|(of, _)| of.word()),
            keys: device.identifiers.iter().map(|it| (it.value.kind(), it.value.to_string())).collect(),
            addresses: device.addresses.iter().map(|it| it.value).collect(),
            names: device.names.iter().map(|it| (it.value.0.word(), it.value.1.as_str())).collect(),
            reasons: device
                .reasons
                .iter()
                .map(|it| Reason {
                    rule: &it.rule().word,
                    r#type: it.rule().r#type.word(),
                    weight: it.rule().weight,
                    source: &it.rule().source,
                    seen: &it.detail,
                })
                .collect(),
            first: Time(device.first_ns),
            last: Time(device.last_ns),
        },
    )
}

pub(super) fn totals(out: &mut impl Write, file: &str, totals: &Totals, refused: u64) -> io::Result<()> {
    line(
        out,
        &TotalsLine {
            r#type: "totals",
            file,
            frames: totals.frames,
            octets_l2: totals.octets_l2,
            flow_packets: totals.flow_packets,
            overflow: totals.overflow,
            non_ip: totals.non_ip,
            malformed: totals.malformed,
            filtered: totals.filtered,
            refused,
        },
    )
}

/// The labels of a link stack; a header that has no label shows its number.
pub(super) fn labels(headers: &[u32]) -> Vec<String> {
    headers.iter().map(|&header| link::label(header).unwrap_or_else(|| format!("{header:#x}"))).collect()
}

/// The state's name, as in the API.
pub(super) fn state(state: TcpState) -> &'static str {
    match state {
        TcpState::Unknown => "unknown",
        TcpState::SynSent => "syn_sent",
        TcpState::SynReceived => "syn_received",
        TcpState::Established => "established",
        TcpState::Closing => "closing",
        TcpState::Closed => "closed",
        TcpState::Reset => "reset",
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
