//! A merged epoch as batches: cut to the wire's limits, with dictionaries of their own.
//!
//! Every epoch has at least one part: an idle one still ships its ledger.

use std::collections::HashMap;
use std::net::IpAddr;

use bytes::Bytes;
use thiserror::Error;
use uuid::Uuid;
use weir_wire::{Batch, Flow, LinkStack, Point, VERSION};

use crate::flow::{Merged, Part, Record};

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
    /// The batch without its flows and link stacks: what stands for it once they are gone.
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

/// Encodes the parts of an epoch. `spool` is how the spool stood when it was drained.
pub fn pack(
    merged: &Merged,
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
        batch.links = Vec::new();
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

fn batch(merged: &Merged, generation: Uuid, number: u32, part: &Part, records: &[Record]) -> Batch {
    let mut links: Vec<LinkStack> = Vec::new();
    let mut known: HashMap<&[u32], u32> = HashMap::new();
    let mut flows = Vec::with_capacity(records.len());
    for record in records {
        let link = match &record.link {
            None => 0,
            Some(headers) => *known.entry(headers).or_insert_with(|| {
                links.push(LinkStack { headers: headers.as_ref().clone() });
                links.len() as u32
            }),
        };
        flows.push(flow(record, merged.window_start_ns, link));
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
        links,
        flows,
        crossing_packets: part.crossing_packets,
        crossing_octets: part.crossing_octets,
        dropped: None,
        spool: None,
        clock_step_ns: 0,
    }
}

fn flow(record: &Record, window_start_ns: i64, link: u32) -> Flow {
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
        link,
        path: record.path.iter().map(|&point| u32::from(point)).collect(),
        // The kernel programs of this version do not count them.
        retransmits: 0,
    }
}

/// An address as two words; IPv4 in the lowest 32 bits.
fn words(address: IpAddr) -> (u64, u64) {
    match address {
        IpAddr::V4(address) => (0, u64::from(address.to_bits())),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64, address.to_bits() as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flow::PART_OBSERVATIONS as PART_RECORDS;
    use crate::kernel::{DrainFigures, FlowKey, PointTotals};
    use weir_wire::{Direction, EndReason, TcpState, Totals, limits, link};

    fn record(number: u32) -> Record {
        let high = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Record {
            key: FlowKey {
                src: IpAddr::V6(high.into()),
                dst: "2001:db8::1".parse().expect("an address"),
                protocol: 17,
                src_port: number as u16,
                dst_port: 53,
            },
            link: number.is_multiple_of(3).then(|| Arc::new(vec![link::VLAN | (number % 7)])),
            packets: 3,
            octets: 300,
            reverse_packets: 2,
            reverse_octets: 200,
            start_ns: 900,
            first_ns: 1_100,
            last_ns: 1_200,
            tcp_flags: 0,
            reverse_tcp_flags: 0,
            handshake_rtt_us: None,
            tcp_state: TcpState::Unknown,
            end_reason: EndReason::ActiveTimeout,
            fragment: false,
            icmp_type: 0,
            icmp_code: 0,
            point: 1,
            path: Box::default(),
        }
    }

    fn merged(records: Vec<Record>) -> Merged {
        Merged {
            epoch: 9,
            window_start_ns: 1_000,
            window_end_ns: 2_000,
            sampling_interval: 1,
            points: vec![PointTotals {
                id: 1,
                interface: "eth0".to_owned(),
                ifindex: 2,
                direction: Direction::Ingress,
                stack: 2,
                totals: Totals { frames: 1, non_ip: 1, ..Totals::default() },
            }],
            parts: records
                .chunks(PART_RECORDS)
                .map(|records| Part { records: records.len(), crossing_packets: 7, crossing_octets: 700 })
                .chain(records.is_empty().then_some(Part {
                    records: 0,
                    crossing_packets: 7,
                    crossing_octets: 700,
                }))
                .collect(),
            records,
            crossing_packets: 7,
            crossing_octets: 700,
            figures: DrainFigures::default(),
            evicted: 0,
        }
    }

    fn unpack(packed: &[Packed]) -> Vec<Batch> {
        packed
            .iter()
            .map(|packed| weir_wire::decode(&packed.body).expect("what was packed decodes"))
            .collect()
    }

    #[test]
    fn an_idle_epoch_ships_its_ledger() {
        let packed = pack(&merged(Vec::new()), Uuid::from_u128(5), None).expect("it packs");
        let batches = unpack(&packed);
        let [batch] = &batches[..] else { panic!("one part") };
        assert_eq!((batch.epoch, batch.part, batch.parts, batch.flows.len()), (9, 0, 1, 0));
        assert_eq!(batch.generation, Uuid::from_u128(5).as_bytes());
        assert_eq!(batch.points[0].totals.map(|totals| totals.frames), Some(1));
        assert_eq!((batch.crossing_packets, batch.crossing_octets), (7, 700));
    }

    #[test]
    fn parts_hold_all_records_and_the_ledger_once() {
        let count = 2 * PART_RECORDS as u32 + 1;
        let whole = merged((0..count).map(record).collect());
        let packed = pack(&whole, Uuid::nil(), None).expect("it packs");
        let batches = unpack(&packed);
        assert_eq!(batches.iter().map(|batch| batch.flows.len()).collect::<Vec<_>>(), [25_000, 25_000, 1]);
        let keys: Vec<_> = batches.iter().map(|batch| (batch.part, batch.parts)).collect();
        assert_eq!(keys, [(0, 3), (1, 3), (2, 3)]);
        assert_eq!(batches.iter().map(|batch| batch.crossing_packets).sum::<u64>(), 21, "each part its own");
        assert_eq!(batches.iter().filter(|batch| batch.points[0].totals.is_some()).count(), 1);
        assert_eq!(packed.iter().map(|packed| packed.packets).sum::<u64>(), 5 * u64::from(count));
        assert_eq!(packed.iter().map(|packed| packed.octets).sum::<u64>(), 500 * u64::from(count));
        for (packed, batch) in packed.iter().zip(&batches) {
            let husk =
                Batch { flows: batch.flows.clone(), links: batch.links.clone(), ..*packed.husk.clone() };
            assert_eq!(husk, *batch, "a husk is its batch without flows and link stacks");
        }
        for (number, flow) in
            (0..).zip(batches.iter().flat_map(|batch| batch.flows.iter().map(move |flow| (batch, flow))))
        {
            let (batch, flow) = flow;
            let record = record(number);
            assert_eq!((flow.src_high, flow.src_low), words(record.key.src));
            assert_eq!((flow.start_ns, flow.first_ns, flow.last_ns), (-100, 100, 200));
            let headers = (flow.link as usize).checked_sub(1).map(|index| &batch.links[index].headers[..]);
            assert_eq!(headers, record.link.as_deref().map(Vec::as_slice));
        }
    }

    /// As large as a record can be, and with nothing that repeats, so that compression helps little.
    #[test]
    fn records_of_the_largest_size_stay_within_the_limits() {
        use rand::{Rng as _, SeedableRng as _};
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let mut large = || {
            let mut word = || random.random::<u64>();
            Record {
                key: FlowKey {
                    src: IpAddr::V6((u128::from(word()) << 64 | u128::from(word())).into()),
                    dst: IpAddr::V6((u128::from(word()) << 64 | u128::from(word())).into()),
                    protocol: word() as u8 | 0x80,
                    src_port: word() as u16 | 0x8000,
                    dst_port: word() as u16 | 0x8000,
                },
                link: Some(Arc::new((0..16).map(|_| link::MPLS | word() as u32 & 0xf_ffff).collect())),
                packets: word() >> 16,
                octets: word() | 1 << 63,
                reverse_packets: word() >> 16,
                reverse_octets: word() | 1 << 63,
                start_ns: i64::MIN + (word() >> 2) as i64,
                first_ns: i64::MIN + (word() >> 2) as i64,
                last_ns: i64::MIN + (word() >> 2) as i64,
                tcp_flags: word() as u8 | 0x80,
                reverse_tcp_flags: word() as u8 | 0x80,
                handshake_rtt_us: Some(word() as u32 | 1 << 31),
                tcp_state: TcpState::Reset,
                end_reason: EndReason::EndOfFlow,
                fragment: true,
                icmp_type: word() as u8 | 0x80,
                icmp_code: word() as u8 | 0x80,
                point: 254,
                path: (0..16).map(|_| 128 + word() as u16 % 127).collect(),
            }
        };
        let whole = merged((0..PART_RECORDS).map(|_| large()).collect());
        let packed = pack(&whole, Uuid::nil(), None).expect("it packs");
        let [part] = &packed[..] else { panic!("one part") };
        assert!(part.body.len() < limits::MAX_COMPRESSED, "{} bytes", part.body.len());
        assert_eq!(unpack(&packed)[0].flows.len(), PART_RECORDS);
    }
}
