//! A merged epoch as batches: cut to the wire's limits, with dictionaries of their own.
//!
//! Every epoch has at least one part: an idle one still ships its ledger.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;
use weir_wire::{
    Batch, Fact, FactValue, Flow, LinkStack, NameSource, Place, Point, Process, VERSION, limits,
};

use super::dictionary::Dictionary;
use crate::detect::{Detection, Value};
use crate::device::Device;
use crate::flow::{Context, Merged, Part, Record};

mod device;
#[cfg(test)]
mod tests;

/// A batch, ready to be kept and sent.
#[derive(Clone, Debug)]
pub struct Packed {
    pub generation: Uuid,
    pub epoch: u64,
    pub part: u32,
    /// For the counters of what became of it.
    pub records: u64,
    /// Both directions, without what crossed.
    pub packets: u64,
    pub octets: u64,
    /// The batch without its flows and their dictionaries, and with the worst of its detections but not their
    /// evidence: what stands for it once they are gone.
    pub husk: Box<Batch>,
    /// Protobuf, compressed.
    pub body: Bytes,
}

/// Why an epoch cannot be packed.
#[derive(Debug, Error)]
pub enum PackError {
    #[error("pack part {part} of epoch {epoch}: {source}")]
    Encode { epoch: u64, part: u32, source: weir_wire::CodecError },
}

/// Encodes the parts of an epoch. `detections` are what it adds to those that are open; they travel in the
/// first part, and `devices` with them. `spool` is how the spool stood when it was drained.
pub fn pack(
    merged: &Merged,
    detections: &[Detection],
    devices: &[Device],
    generation: Uuid,
    spool: Option<weir_wire::Spool>,
) -> Result<Vec<Packed>, PackError> {
    let mut rest = &merged.records[..];
    let mut packed = Vec::with_capacity(merged.parts.len());
    for (number, part) in (0..).zip(&merged.parts) {
        // The parts' counts are of these very records.
        let (records, others) = rest.split_at(part.records.min(rest.len()));
        rest = others;
        let mut batch = batch(merged, generation, number, part, records);
        if number == 0 {
            batch.spool = spool;
            batch.clock_step_ns = merged.figures.clock_step_ns;
            batch.detections = detections.iter().map(|it| detection(it, merged.window_start_ns)).collect();
            batch.devices = devices.iter().map(|it| device::device(it, merged.window_start_ns)).collect();
        }
        packed.push(Packed::new(batch).map_err(|source| PackError::Encode {
            epoch: merged.epoch,
            part: number,
            source,
        })?);
    }
    Ok(packed)
}

impl Packed {
    /// Encodes a batch.
    pub fn new(batch: Batch) -> Result<Self, weir_wire::CodecError> {
        let body = weir_wire::encode(&batch)?.into();
        Ok(Self::of(batch, body))
    }

    /// A batch and what it was decoded from.
    #[must_use]
    pub fn of(mut batch: Batch, body: Bytes) -> Self {
        let flows = std::mem::take(&mut batch.flows);
        // Devices are told again.
        (batch.links, batch.names, batch.places, batch.processes, batch.devices) = Default::default();
        // What is a problem outlives the flows, within a bound: tombstones are many.
        batch.detections.truncate(limits::MAX_KEPT_DETECTIONS);
        for detection in &mut batch.detections {
            detection.evidence = Vec::new();
        }
        Self {
            generation: Uuid::from_slice(&batch.generation).unwrap_or_default(),
            epoch: batch.epoch,
            part: batch.part,
            records: flows.len() as u64,
            packets: sum(&flows, |flow| [flow.packets, flow.reverse_packets]),
            octets: sum(&flows, |flow| [flow.octets, flow.reverse_octets]),
            husk: Box::new(batch),
            body,
        }
    }

    /// Whether it is what stands for a batch that was dropped.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.husk.dropped.is_some()
    }
}

/// Over both directions; a batch that was read from a disk may hold anything.
fn sum(flows: &[Flow], counts: impl Fn(&Flow) -> [u64; 2]) -> u64 {
    flows.iter().flat_map(counts).fold(0, u64::saturating_add)
}

/// The dictionaries of a batch.
struct Dictionaries<'a> {
    links: Dictionary<'a, [u32]>,
    names: Dictionary<'a, str>,
    places: Dictionary<'a, Place>,
    processes: Dictionary<'a, Process>,
}

fn batch(merged: &Merged, generation: Uuid, number: u32, part: &Part, records: &[Record]) -> Batch {
    let mut shared = Dictionaries {
        // A part has fewer records than it may have stacks.
        links: Dictionary::new(limits::MAX_LINK_STACKS),
        names: Dictionary::new(limits::MAX_NAMES),
        places: Dictionary::new(limits::MAX_PLACES),
        processes: Dictionary::new(limits::MAX_PROCESSES),
    };
    let flows = records.iter().map(|record| flow(record, merged.window_start_ns, &mut shared)).collect();
    let [names, places, processes] =
        [shared.names.turned_away, shared.places.turned_away, shared.processes.turned_away];
    if names + places + processes > 0 {
        let epoch = merged.epoch;
        tracing::debug!(
            epoch,
            part = number,
            names,
            places,
            processes,
            "flows without a name, place or process: a batch is full of them"
        );
    }
    let points = merged.points.iter().map(|point| Point {
        id: u32::from(point.id),
        interface: point.interface.clone(),
        ifindex: point.ifindex,
        direction: point.direction.into(),
        totals: (number == 0).then_some(point.totals),
    });
    Batch {
        version: VERSION,
        generation: generation.as_bytes().to_vec(),
        epoch: merged.epoch,
        part: number,
        parts: merged.parts.len() as u32,
        window_start_ns: merged.window_start_ns,
        window_end_ns: merged.window_end_ns,
        sampling_interval: merged.sampling_interval,
        points: points.collect(),
        links: shared.links.into_values(|headers| LinkStack { headers: headers.to_vec() }),
        flows,
        crossing_packets: part.crossing_packets,
        crossing_octets: part.crossing_octets,
        dropped: None,
        spool: None,
        clock_step_ns: 0,
        names: shared.names.into_values(str::to_owned),
        places: shared.places.into_values(Place::clone),
        detections: Vec::new(),
        devices: Vec::new(),
        processes: shared.processes.into_values(Process::clone),
    }
}

fn detection(detection: &Detection, window_start_ns: i64) -> weir_wire::Detection {
    let fact = |(name, value): (&str, &Value)| Fact {
        name: name.to_owned(),
        value: Some(match value {
            Value::Number(number) => FactValue::Number(*number),
            Value::Text(text) => FactValue::Text(text.clone()),
            Value::Address(address) => FactValue::Address(bytes_of(*address)),
        }),
    };
    weir_wire::Detection {
        kind: detection.kind.word().to_owned(),
        severity: detection.severity.into(),
        subject: detection.subject.to_string(),
        address: detection.subject.address().map_or_else(Vec::new, bytes_of),
        first_ns: detection.first_ns.saturating_sub(window_start_ns),
        last_ns: detection.last_ns.saturating_sub(window_start_ns),
        count: detection.count,
        technique: detection.kind.technique().to_owned(),
        source: detection.kind.source().to_owned(),
        evidence: detection.evidence.facts().map(fact).collect(),
    }
}

fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn flow<'a>(record: &'a Record, window_start_ns: i64, shared: &mut Dictionaries<'a>) -> Flow {
    let context = record.context.as_deref();
    let name = context.and_then(|context| context.name.as_ref());
    let place = |of: fn(&Context) -> &Option<Arc<Place>>| context.and_then(|context| of(context).as_deref());
    let (src_place, dst_place) = (place(|context| &context.src_place), place(|context| &context.dst_place));
    let process =
        |of: fn(&Context) -> &Option<Arc<Process>>| context.and_then(|context| of(context).as_deref());
    let src_process = process(|context| &context.src_process);
    let dst_process = process(|context| &context.dst_process);
    let numbered = shared.names.number(name.map(|name| &*name.text));
    let (src_high, src_low) = words(record.key.src);
    let (dst_high, dst_low) = words(record.key.dst);
    let relative = |time_ns: i64| time_ns.saturating_sub(window_start_ns);
    Flow {
        ip_version: if record.key.src.is_ipv4() { 4 } else { 6 },
        src_high,
        src_low,
        dst_high,
        dst_low,
        protocol: u32::from(record.key.protocol),
        src_port: u32::from(record.key.src_port),
        dst_port: u32::from(record.key.dst_port),
        packets: record.packets,
        octets: record.octets,
        reverse_packets: record.reverse_packets,
        reverse_octets: record.reverse_octets,
        start_ns: relative(record.start_ns),
        first_ns: relative(record.first_ns),
        last_ns: relative(record.last_ns),
        tcp_flags: u32::from(record.tcp_flags),
        reverse_tcp_flags: u32::from(record.reverse_tcp_flags),
        handshake_rtt_us: record.handshake_rtt_us,
        tcp_state: record.tcp_state.into(),
        end_reason: record.end_reason.into(),
        fragment: record.fragment,
        icmp_type: u32::from(record.icmp_type),
        icmp_code: u32::from(record.icmp_code),
        point: u32::from(record.point),
        link: shared.links.number(record.link.as_deref()),
        path: record.path.iter().map(|&point| u32::from(point)).collect(),
        // The kernel programs of this version do not count them.
        retransmits: 0,
        name: numbered,
        name_source: name.filter(|_| numbered > 0).map_or(NameSource::Unknown, |name| name.source).into(),
        src_place: shared.places.number(src_place),
        dst_place: shared.places.number(dst_place),
        src_process: shared.processes.number(src_process),
        dst_process: shared.processes.number(dst_process),
    }
}

/// An address as two words; IPv4 in the lowest 32 bits.
fn words(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(address) => (0, u64::from(address.to_bits())),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
    }
}
