//! The sums of one batch, by source, destination, pair, service and protocol; and by the domain, country and
//! autonomous system of the responder and by the process of a local end, where they are known.
//!
//! They are made in memory while Postgres takes the rows, so the rollup tables cost a few hundred
//! upserts a batch and no second look at the rows. A flood of a million addresses must not become a
//! million rollup rows: each dimension names at most `ingest.rollup_keys` keys of a batch (half of them the
//! largest by octets, a quarter by packets, a quarter by records) and adds the rest to one row of key
//! [`Key::OTHER`]. The sum over a dimension is therefore exact; the sum of one key is exact unless it
//! was too small to be named in some batch, and never too large. The protocol dimension names all.
//! When a bucket is over, a job trims what its batches named together in the same way
//! (`store::compaction`).

use hashbrown::HashMap;
use weir_wire::Flow;

use super::batch::Batch;

/// What a rollup row is keyed by; the numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Dimension {
    Source = 1,
    Destination = 2,
    Pair = 3,
    Service = 4,
    Protocol = 5,
    Domain = 6,
    Country = 7,
    System = 8,
    /// Of the initiator where it is known, else of the responder: each flow counts once.
    Process = 9,
}

/// An address as the wire has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub ip_version: u32,
    pub high: u64,
    pub low: u64,
}

/// The key of a row; `None` stands for "any".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub src: Option<Address>,
    pub dst: Option<Address>,
    pub protocol: Option<u8>,
    /// The responder's port, or the [`number`] of a domain, a country, a system or a process, as the dimension has it.
    pub number: Option<i32>,
}

/// What stands for a country or a system in a row.
pub mod number {
    /// A code of two ASCII letters; `None` for anything else.
    #[must_use]
    pub fn of_country(code: &str) -> Option<i32> {
        let [first, second] = code.as_bytes() else { return None };
        Some((i32::from(*first) << 8) | i32::from(*second))
    }

    /// The inverse of [`of_country`].
    #[must_use]
    pub fn country(number: i32) -> String {
        [(number >> 8) as u8, number as u8].map(char::from).iter().collect()
    }

    /// `None` for 0, which says "not known", and for the last number, which no network has (RFC 7300) and
    /// which would read as "any".
    #[must_use]
    pub fn of_system(asn: u32) -> Option<i32> {
        (asn != 0 && asn != u32::MAX).then_some(asn as i32)
    }

    /// The inverse of [`of_system`].
    #[must_use]
    pub fn system(number: i32) -> i64 {
        i64::from(number as u32)
    }
}

impl Key {
    /// What a dimension did not name.
    pub const OTHER: Self = Self { src: None, dst: None, protocol: None, number: None };
}

/// What is summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub flows: u64,
    pub packets: u64,
    pub octets: u64,
    pub reverse_packets: u64,
    pub reverse_octets: u64,
}

impl Sums {
    fn of(flow: &Flow) -> Self {
        Self {
            flows: 1,
            packets: flow.packets,
            octets: flow.octets,
            reverse_packets: flow.reverse_packets,
            reverse_octets: flow.reverse_octets,
        }
    }

    /// Cannot overflow: the sums over a checked batch fit an `i64`.
    fn add(&mut self, other: &Self) {
        self.flows += other.flows;
        self.packets += other.packets;
        self.octets += other.octets;
        self.reverse_packets += other.reverse_packets;
        self.reverse_octets += other.reverse_octets;
    }

    fn all_octets(&self) -> u64 {
        self.octets + self.reverse_octets
    }

    fn all_packets(&self) -> u64 {
        self.packets + self.reverse_packets
    }
}

/// One row of the rollup tables, without its bucket and sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub dimension: Dimension,
    pub key: Key,
    pub sums: Sums,
}

/// The rows of a batch, whose names and processes have these numbers, in key order: writers that lock rows in one order cannot deadlock.
#[must_use]
pub fn of_batch(batch: &Batch, domain_ids: &[i32], process_ids: &[i32], keys: usize) -> Vec<Row> {
    let flows = &batch.flows;
    let source =
        |flow: &Flow| Address { ip_version: flow.ip_version, high: flow.src_high, low: flow.src_low };
    let destination =
        |flow: &Flow| Address { ip_version: flow.ip_version, high: flow.dst_high, low: flow.dst_low };
    let mut rows = Vec::with_capacity(5 * keys.min(flows.len()) + 8);
    largest(&mut rows, Dimension::Source, keys, sum_by(flows, source), |src| Key {
        src: Some(src),
        ..Key::OTHER
    });
    largest(&mut rows, Dimension::Destination, keys, sum_by(flows, destination), |dst| Key {
        dst: Some(dst),
        ..Key::OTHER
    });
    let pair = |flow: &Flow| (source(flow), destination(flow));
    largest(&mut rows, Dimension::Pair, keys, sum_by(flows, pair), |(src, dst)| Key {
        src: Some(src),
        dst: Some(dst),
        ..Key::OTHER
    });
    let service = |flow: &Flow| (flow.protocol as u8, flow.dst_port as u16);
    largest(&mut rows, Dimension::Service, keys, sum_by(flows, service), |(protocol, port)| Key {
        protocol: Some(protocol),
        number: Some(i32::from(port)),
        ..Key::OTHER
    });
    let protocol = |flow: &Flow| flow.protocol as u8;
    largest(&mut rows, Dimension::Protocol, usize::MAX, sum_by(flows, protocol), |protocol| Key {
        protocol: Some(protocol),
        ..Key::OTHER
    });
    let domain = |flow: &Flow| batch.context.name(flow).and_then(|(index, _)| domain_ids.get(index).copied());
    let place = |flow: &Flow| batch.context.place(flow.dst_place);
    let country = |flow: &Flow| place(flow).and_then(|place| number::of_country(&place.country));
    let system = |flow: &Flow| place(flow).and_then(|place| number::of_system(place.asn));
    if domain_ids.iter().any(|id| *id > 0) {
        largest(&mut rows, Dimension::Domain, keys, known(flows, domain), numbered);
    }
    if !batch.context.places.is_empty() {
        largest(&mut rows, Dimension::Country, keys, known(flows, country), numbered);
        largest(&mut rows, Dimension::System, keys, known(flows, system), numbered);
    }
    let known_process = |number: u32| {
        let index = (number as usize).checked_sub(1)?;
        process_ids.get(index).copied().filter(|id| *id > 0)
    };
    let process = |flow: &Flow| known_process(flow.src_process).or_else(|| known_process(flow.dst_process));
    if process_ids.iter().any(|id| *id > 0) {
        largest(&mut rows, Dimension::Process, keys, known(flows, process), numbered);
    }
    rows.sort_unstable_by_key(|row| (row.dimension, row.key));
    rows
}

fn sum_by<K: Eq + std::hash::Hash>(flows: &[Flow], key: impl Fn(&Flow) -> K) -> Vec<(K, Sums)> {
    // Traffic has fewer keys than records; a quarter saves most of the growing.
    let mut sums: HashMap<K, Sums> = HashMap::with_capacity(flows.len() / 4);
    for flow in flows {
        sums.entry(key(flow)).or_default().add(&Sums::of(flow));
    }
    sums.into_iter().collect()
}

/// The sums of the flows whose key is known.
fn known(flows: &[Flow], key: impl Fn(&Flow) -> Option<i32>) -> Vec<(i32, Sums)> {
    let sums = sum_by(flows, key);
    sums.into_iter().filter_map(|(key, sums)| key.map(|key| (key, sums))).collect()
}

fn numbered(number: i32) -> Key {
    Key { number: Some(number), ..Key::OTHER }
}

/// What keys compete by.
type Rank = fn(&Sums) -> u64;

fn largest<K: Copy>(
    rows: &mut Vec<Row>,
    dimension: Dimension,
    keys: usize,
    mut sums: Vec<(K, Sums)>,
    key: impl Fn(K) -> Key,
) {
    let mut named = 0;
    if sums.len() <= keys {
        named = sums.len();
    } else {
        let ranks: [(usize, Rank); 3] = [
            (keys / 4, Sums::all_packets),
            (keys / 4, |sums| sums.flows),
            (keys - 2 * (keys / 4), Sums::all_octets),
        ];
        for (count, rank) in ranks {
            // Those named so far are in front; the rest competes for the next places.
            let rest = &mut sums[named..];
            if count > 0 && count < rest.len() {
                rest.select_nth_unstable_by_key(count - 1, |(_, sums)| std::cmp::Reverse(rank(sums)));
            }
            named += count;
        }
    }
    let (front, rest) = sums.split_at(named.min(sums.len()));
    rows.extend(front.iter().map(|(k, sums)| Row { dimension, key: key(*k), sums: *sums }));
    if !rest.is_empty() {
        let mut other = Sums::default();
        for (_, sums) in rest {
            other.add(sums);
        }
        rows.push(Row { dimension, key: Key::OTHER, sums: other });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(flows: Vec<Flow>) -> Batch {
        Batch {
            generation: uuid::Uuid::nil(),
            epoch: 0,
            part: 0,
            parts: 1,
            window_start_ns: 0,
            window_end_ns: 0,
            sampling_interval: 1,
            points: Vec::new(),
            links: Vec::new(),
            flows,
            context: crate::ingest::Context::default(),
            crossing_packets: 0,
            crossing_octets: 0,
            packets: 0,
            octets: 0,
            dropped: None,
            spool: None,
            detections: Vec::new(),
            devices: Vec::new(),
            clock_step_ns: 0,
            placement: crate::ingest::Placement { start_ns: 0, shift_ns: 0 },
            clipped: crate::ingest::Clipped::default(),
        }
    }

    fn flow(src: u64, dst: u64, octets: u64) -> Flow {
        let (ip_version, protocol) = (4, 6);
        let reverse_octets = octets / 2;
        Flow {
            ip_version,
            protocol,
            src_low: src,
            dst_low: dst,
            packets: 1,
            octets,
            reverse_octets,
            ..Flow::default()
        }
    }

    /// A4, P4: however many keys a batch has, each dimension sums to the whole.
    #[test]
    fn every_dimension_sums_to_the_whole() {
        let flows: Vec<Flow> =
            (0..5_000_u64).map(|i| flow(i * 7 % 1_999, i * 13 % 2_003, i * i % 4_099)).collect();
        let octets: u64 = flows.iter().map(|flow| flow.octets + flow.reverse_octets).sum();
        let rows = of_batch(&batch(flows), &[], &[], 100);
        for dimension in [
            Dimension::Source,
            Dimension::Destination,
            Dimension::Pair,
            Dimension::Service,
            Dimension::Protocol,
        ] {
            let of: Vec<&Row> = rows.iter().filter(|row| row.dimension == dimension).collect();
            assert!(of.len() <= 101, "{dimension:?} has {} rows", of.len());
            assert_eq!(of.iter().map(|row| row.sums.flows).sum::<u64>(), 5_000, "{dimension:?}");
            assert_eq!(of.iter().map(|row| row.sums.all_octets()).sum::<u64>(), octets, "{dimension:?}");
        }
    }

    #[test]
    fn the_busiest_server_is_named_though_each_of_its_clients_is_small() {
        let mut flows: Vec<Flow> = (0..3_000).map(|i| flow(i, 1 << 20, 10)).collect();
        flows.extend((0..3_000).map(|i| flow(i, i, 11)));
        let rows = of_batch(&batch(flows), &[], &[], 10);
        let server = rows
            .iter()
            .find(|row| {
                row.dimension == Dimension::Destination && row.key.dst.is_some_and(|dst| dst.low == 1 << 20)
            })
            .expect("it has the most octets of all destinations");
        assert_eq!((server.sums.flows, server.sums.octets), (3_000, 30_000));
    }

    /// S5: a flow between two local processes is the initiator's, and what is nobody's is in no row.
    #[test]
    fn s5_a_flow_counts_once_for_the_process_of_its_local_end() {
        let of = |src_process, dst_process| Flow { src_process, dst_process, ..flow(1, 2, 100) };
        let flows = vec![of(1, 0), of(0, 2), of(1, 2), of(3, 2), of(0, 0), of(3, 0)];
        // The third one has no name: no number stands for it.
        let rows = of_batch(&batch(flows), &[], &[11, 12, 0], 10);
        let of_processes = rows.iter().filter(|row| row.dimension == Dimension::Process);
        let found: Vec<_> = of_processes.map(|row| (row.key.number, row.sums.flows)).collect();
        assert_eq!(found, [(Some(11), 2), (Some(12), 2)]);
    }

    #[test]
    fn rows_come_in_key_order_and_no_key_twice() {
        let rows = of_batch(&batch((0..999).map(|i| flow(i % 97, i % 89, i)).collect()), &[], &[], 20);
        assert!(
            rows.windows(2)
                .all(|pair| { (pair[0].dimension, pair[0].key) < (pair[1].dimension, pair[1].key) })
        );
    }
}
