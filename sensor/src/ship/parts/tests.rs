//! Parts hold what was merged, within the wire's limits.

use std::collections::HashSet;

use super::*;
use crate::flow::Name;
use crate::flow::PART_OBSERVATIONS as PART_RECORDS;
use crate::kernel::{DrainFigures, FlowKey, PointTotals};
use weir_wire::{Direction, EndReason, Process, TcpState, Totals, link};

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
        listed: crate::kernel::Listed::default(),
        point: 1,
        path: Box::default(),
        context: Some(Box::new(context(number))),
    }
}

/// Every second record has a name, every third a place.
fn context(number: u32) -> Context {
    let place = Place { country: "NL".to_owned(), asn: number % 5, ..Place::default() };
    Context {
        name: number
            .is_multiple_of(2)
            .then(|| Name { text: format!("host-{}.example", number % 11).into(), source: NameSource::Dns }),
        src_place: None,
        dst_place: number.is_multiple_of(3).then(|| Arc::new(place)),
        src_process: number.is_multiple_of(5).then(|| Arc::new(process(number))),
        dst_process: None,
    }
}

fn process(number: u32) -> Process {
    Process { name: format!("task-{}", number % 7), ..Process::default() }
}

/// One that takes all the room that there is.
fn large_process(word: u64) -> Process {
    let text = |octets: usize| format!("{word:016x}").chars().cycle().take(octets).collect();
    Process {
        name: text(limits::MAX_PROCESS_NAME),
        executable: text(limits::MAX_EXECUTABLE),
        container: text(limits::MAX_CONTAINER),
        unit: text(limits::MAX_UNIT),
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
    packed.iter().map(|packed| weir_wire::decode(&packed.body).expect("what was packed decodes")).collect()
}

#[test]
fn an_idle_epoch_ships_its_ledger() {
    let packed = pack(&merged(Vec::new()), &[], &[], Uuid::from_u128(5), None).expect("it packs");
    let batches = unpack(&packed);
    let [batch] = &batches[..] else { panic!("one part") };
    assert_eq!((batch.epoch, batch.part, batch.parts, batch.flows.len()), (9, 0, 1, 0));
    assert_eq!(batch.generation, Uuid::from_u128(5).as_bytes());
    assert_eq!(batch.points[0].totals.map(|totals| totals.frames), Some(1));
    assert_eq!((batch.crossing_packets, batch.crossing_octets), (7, 700));
}

#[test]
fn the_worst_detections_outlive_their_flows_without_evidence() {
    use crate::detect::{Evidence, Kind, Severity, Subject};
    let found = |number: u8| Detection {
        kind: Kind::PortScan,
        severity: Severity::High,
        subject: Subject::Address(IpAddr::from([10, 0, 0, number])),
        first_ns: 500,
        last_ns: 1_500,
        count: 20,
        evidence: Evidence::default().with("port", 22_u16).with("host", IpAddr::from([10, 0, 0, 1])),
        opens: true,
    };
    let found: Vec<_> = (0..20).map(found).collect();
    let whole = merged((0..=PART_RECORDS as u32).map(record).collect());
    let packed = pack(&whole, &found, &[], Uuid::nil(), None).expect("it packs");
    let batches = unpack(&packed);
    assert_eq!(batches.iter().map(|batch| batch.detections.len()).collect::<Vec<_>>(), [20, 0]);
    let first = &batches[0].detections[0];
    assert_eq!((first.kind.as_str(), first.subject.as_str(), first.count), ("port_scan", "10.0.0.0", 20));
    assert_eq!((first.first_ns, first.last_ns, &first.address[..]), (-500, 500, &[10, 0, 0, 0][..]));
    assert_eq!(first.evidence[0].value, Some(FactValue::Number(22)));
    assert_eq!(first.evidence[1].value, Some(FactValue::Address(vec![10, 0, 0, 1])));
    let kept = &packed[0].husk.detections;
    assert_eq!(kept.len(), limits::MAX_KEPT_DETECTIONS);
    assert_eq!(kept[0], weir_wire::Detection { evidence: Vec::new(), ..first.clone() });
}

#[test]
fn parts_hold_all_records_and_the_ledger_once() {
    let count = 2 * PART_RECORDS as u32 + 1;
    let whole = merged((0..count).map(record).collect());
    let packed = pack(&whole, &[], &[], Uuid::nil(), None).expect("it packs");
    let batches = unpack(&packed);
    assert_eq!(batches.iter().map(|batch| batch.flows.len()).collect::<Vec<_>>(), [25_000, 25_000, 1]);
    let keys: Vec<_> = batches.iter().map(|batch| (batch.part, batch.parts)).collect();
    assert_eq!(keys, [(0, 3), (1, 3), (2, 3)]);
    assert_eq!(batches.iter().map(|batch| batch.crossing_packets).sum::<u64>(), 21, "each part its own");
    assert_eq!(batches.iter().filter(|batch| batch.points[0].totals.is_some()).count(), 1);
    assert_eq!(packed.iter().map(|packed| packed.packets).sum::<u64>(), 5 * u64::from(count));
    assert_eq!(packed.iter().map(|packed| packed.octets).sum::<u64>(), 500 * u64::from(count));
    for (packed, batch) in packed.iter().zip(&batches) {
        let husk = Batch {
            flows: batch.flows.clone(),
            links: batch.links.clone(),
            names: batch.names.clone(),
            places: batch.places.clone(),
            processes: batch.processes.clone(),
            ..*packed.husk.clone()
        };
        assert_eq!(husk, *batch, "a husk is its batch without flows and their dictionaries");
        let unique: HashSet<&String> = batch.names.iter().collect();
        assert_eq!(unique.len(), batch.names.len(), "a name stands once");
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
        let name = (flow.name as usize).checked_sub(1).map(|index| batch.names[index].as_str());
        let context = context(number);
        assert_eq!(name, context.name.as_ref().map(|name| &*name.text));
        assert_eq!(flow.name_source != 0, name.is_some());
        let place = (flow.dst_place as usize).checked_sub(1).map(|index| &batch.places[index]);
        assert_eq!((place, flow.src_place), (context.dst_place.as_deref(), 0));
        let process = (flow.src_process as usize).checked_sub(1).map(|index| &batch.processes[index]);
        assert_eq!((process, flow.dst_process), (context.src_process.as_deref(), 0));
    }
}

fn large_name(word: &mut impl FnMut() -> u64) -> Arc<str> {
    let letters = (0..limits::MAX_NAME).map(|_| (b'!' + (word() % 90) as u8) as char);
    letters.collect::<String>().into()
}

fn large_place(word: u64) -> Place {
    let organisation = format!("{word:016x}").repeat(limits::MAX_ORGANISATION / 16);
    Place { country: "NL".to_owned(), asn: word as u32 | 1 << 31, organisation }
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
            listed: crate::kernel::Listed::default(),
            point: 254,
            path: (0..16).map(|_| 128 + word() as u16 % 127).collect(),
            context: Some(Box::new(Context {
                name: Some(Name { text: large_name(&mut word), source: NameSource::Http }),
                src_place: Some(Arc::new(large_place(word()))),
                dst_place: Some(Arc::new(large_place(word()))),
                src_process: Some(Arc::new(large_process(word()))),
                dst_process: Some(Arc::new(large_process(word()))),
            })),
        }
    };
    let whole = merged((0..PART_RECORDS).map(|_| large()).collect());
    let packed = pack(&whole, &[], &[], Uuid::nil(), None).expect("it packs");
    let [part] = &packed[..] else { panic!("one part") };
    assert!(part.body.len() < limits::MAX_COMPRESSED, "{} bytes", part.body.len());
    assert_eq!(unpack(&packed)[0].flows.len(), PART_RECORDS);
}
