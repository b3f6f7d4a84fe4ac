//! Each detector on flows that are an attack and on flows that look a little like one (S6).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use weir_wire::{EndReason, TcpState};

use super::attempts::{ACK, FIN, PSH, RST, SYN, TCP};
use super::*;
use crate::config::{Bytes, Period};
use crate::kernel::{DrainFigures, FlowKey, Listed};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;
/// 2026-01-01: no test may depend on the clock on the wall.
const START: i64 = 1_767_225_600 * SECOND;
const ESTABLISHED: (u8, u8) = (SYN | ACK | PSH | FIN, SYN | ACK | PSH | FIN);
const UNANSWERED: (u8, u8) = (SYN, 0);
const REFUSED: (u8, u8) = (SYN, RST | ACK);
const HALF_OPEN: (u8, u8) = (SYN, SYN | ACK);

fn inside(host: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + host).into()
}

fn outside(host: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xcb00_7100 + host).into()
}

/// A connection that begins and ends at once; each has a port of its own.
fn tcp(src: IpAddr, dst: IpAddr, port: u16, at_ns: i64, (flags, reverse): (u8, u8)) -> Record {
    let back = u64::from(reverse != 0);
    Record {
        key: FlowKey { src, dst, protocol: TCP, src_port: 32_768 | (at_ns / 1_000) as u16, dst_port: port },
        link: None,
        packets: 1,
        octets: 60,
        reverse_packets: back,
        reverse_octets: 60 * back,
        start_ns: at_ns,
        first_ns: at_ns,
        last_ns: at_ns + SECOND / 10,
        tcp_flags: flags,
        reverse_tcp_flags: reverse,
        handshake_rtt_us: None,
        tcp_state: TcpState::Unknown,
        end_reason: EndReason::ActiveTimeout,
        fragment: false,
        icmp_type: 0,
        icmp_code: 0,
        listed: Listed::default(),
        point: 1,
        path: Box::default(),
        context: None,
    }
}

fn udp(src: IpAddr, dst: IpAddr, port: u16, at_ns: i64, packets: u64, back: u64) -> Record {
    let mut record = tcp(src, dst, port, at_ns, (0, 0));
    record.key.protocol = 17;
    (record.packets, record.octets) = (packets, packets * 100);
    (record.reverse_packets, record.reverse_octets) = (back, back * 100);
    record
}

/// Epochs of five seconds from the first record to the last.
fn epochs(mut records: Vec<Record>) -> Vec<Merged> {
    let length = 5 * SECOND;
    let last = records.iter().map(|record| (record.first_ns - START).div_euclid(length)).max();
    let mut by_epoch: BTreeMap<i64, Vec<Record>> =
        (0..=last.unwrap_or(0)).map(|epoch| (epoch, Vec::new())).collect();
    for record in records.drain(..) {
        by_epoch.entry((record.first_ns - START).div_euclid(length)).or_default().push(record);
    }
    by_epoch
        .into_iter()
        .map(|(epoch, records)| Merged {
            epoch: epoch as u64,
            window_start_ns: START + epoch * length,
            window_end_ns: START + (epoch + 1) * length,
            sampling_interval: 1,
            points: Vec::new(),
            records,
            parts: Vec::new(),
            crossing_packets: 0,
            crossing_octets: 0,
            figures: DrainFigures::default(),
            evicted: 0,
        })
        .collect()
}

/// All that is told of the records, epoch by epoch and to the end.
fn told_by(engine: &mut Engine, records: Vec<Record>) -> Vec<Detection> {
    let epochs = epochs(records);
    let mut told = Vec::new();
    for epoch in &epochs {
        engine.observe(epoch);
        told.extend(engine.take(256));
    }
    engine.end(epochs.last().expect("an epoch"));
    told.extend(engine.take(256));
    told
}

/// The additions to each detection, summed.
fn detect(config: &Detect, records: Vec<Record>) -> Vec<(Kind, String, Severity, u64)> {
    let mut sums: BTreeMap<(Kind, String), (Severity, u64)> = BTreeMap::new();
    for detection in told_by(&mut Engine::new(config), records) {
        let key = (detection.kind, detection.subject.to_string());
        let sum = sums.entry(key).or_insert((Severity::Info, 0));
        *sum = (sum.0.max(detection.severity), sum.1 + detection.count);
    }
    sums.into_iter().map(|((kind, subject), (severity, count))| (kind, subject, severity, count)).collect()
}

fn found(records: Vec<Record>) -> Vec<(Kind, String, Severity, u64)> {
    detect(&Detect::default(), records)
}

fn nothing() -> Vec<(Kind, String, Severity, u64)> {
    Vec::new()
}

fn at(millis: i64) -> i64 {
    START + millis * 1_000_000
}

#[test]
fn a_scan_over_hosts_is_found_from_inside_and_from_outside() {
    let scan = |src| (0..40).map(move |n| tcp(src, inside(100 + n), 445, at(i64::from(n) * 200), UNANSWERED));
    assert_eq!(
        found(scan(inside(1)).collect()),
        [(Kind::PortScan, "10.0.0.1".to_owned(), Severity::High, 40)]
    );
    assert_eq!(
        found(scan(outside(1)).collect()),
        [(Kind::PortScan, "203.0.113.1".to_owned(), Severity::Low, 40)]
    );
}

#[test]
fn a_scan_over_ports_is_found_whether_refused_silent_half_open_or_without_flags() {
    for flags in [REFUSED, UNANSWERED, HALF_OPEN, (0, 0), (FIN, 0), (FIN | PSH | 0x20, 0)] {
        let records = (1..=30).map(|n| tcp(inside(1), inside(2), n, at(i64::from(n) * 100), flags));
        let told = told_by(&mut Engine::new(&Detect::default()), records.collect());
        assert_eq!(told.iter().map(|detection| detection.count).sum::<u64>(), 30, "{flags:?}");
        let evidence = told[0].evidence.to_string();
        assert_eq!(evidence, "mode=vertical protocol=tcp host=10.0.0.2 port=1,2,3,4,5,6,7,8");
    }
}

#[test]
fn a_scan_slower_than_the_window_is_found_by_the_hour() {
    // One attempt in 30 seconds, each at another host and port.
    let scan = |n: u32| tcp(inside(1), inside(100 + n), 1_000 + n as u16, at(i64::from(n) * 30_000), REFUSED);
    let told = told_by(&mut Engine::new(&Detect::default()), (0..70).map(scan).collect());
    assert_eq!(told.iter().map(|detection| detection.count).sum::<u64>(), 70);
    assert!(told[0].evidence.to_string().starts_with("mode=slow"), "{}", told[0].evidence);
}

#[test]
fn udp_ports_tried_in_vain_are_a_scan_and_answers_or_traceroute_are_none() {
    let one = |port: u16, back| udp(inside(1), inside(2), port, at(i64::from(port)), 1, back);
    let scan = (1..=50).map(|n| one(n, 0)).collect();
    assert_eq!(found(scan), [(Kind::PortScan, "10.0.0.1".to_owned(), Severity::High, 50)]);
    assert_eq!(found((1..=50).map(|n| one(n, 1)).collect()), nothing());
    let answers = (0..90).map(|n| {
        let mut answer = one(53, 0);
        (answer.key.src_port, answer.key.dst_port) = (53, 40_000 + n);
        answer
    });
    assert_eq!(found(answers.collect()), nothing(), "a server whose questions were not seen");
    let traceroute = (33_434..33_524).map(|port| {
        let mut probe = one(port, 0);
        probe.key.src_port = 50_000;
        probe
    });
    assert_eq!(found(traceroute.collect()), nothing());
}

#[test]
fn a_busy_client_is_no_scanner() {
    // A crawler: 300 hosts in a minute, a few of them dead.
    let crawl = |n: u32| {
        let flags = if n.is_multiple_of(10) { UNANSWERED } else { ESTABLISHED };
        tcp(inside(1), Ipv4Addr::from_bits(0x0808_0000 + n).into(), 443, at(i64::from(n) * 200), flags)
    };
    assert_eq!(found((0..300).map(crawl).collect()), nothing());
    // A service that is down, tried again and again.
    let down = |n: u32| tcp(inside(1), inside(2), 8_080, at(i64::from(n) * 100), REFUSED);
    assert_eq!(found((0..500).map(down).collect()), nothing());
    // 19 hosts are below the threshold of 20.
    let few = |n: u32| tcp(inside(1), inside(100 + n), 22, at(i64::from(n) * 100), UNANSWERED);
    assert_eq!(found((0..19).map(few).collect()), nothing());
    assert_eq!(found((0..20).map(few).collect()).len(), 1);
}

#[test]
fn a_handshake_that_an_epoch_cuts_is_judged_in_the_next() {
    // 25 connections begin half a second before an epoch ends.
    let cut = |n: u32, flags| tcp(inside(1), inside(100 + n), 443, at(4_500 + i64::from(n)), flags);
    let mut records: Vec<_> = (0..25).map(|n| cut(n, UNANSWERED)).collect();
    records.extend((0..25).map(|n| Record {
        first_ns: at(5_010),
        last_ns: at(5_500),
        ..cut(n, (ACK | PSH, SYN | ACK | PSH))
    }));
    assert_eq!(found(records), nothing());
    let records: Vec<_> = (0..25).map(|n| cut(n, UNANSWERED)).collect();
    assert_eq!(found(records).len(), 1, "and what nobody answers is told in the end");
}

#[test]
fn a_syn_flood_is_found_with_its_port_and_a_scan_or_a_rush_is_none() {
    let flood = |n: u32| {
        let flags = if n.is_multiple_of(2) { HALF_OPEN } else { UNANSWERED };
        tcp(Ipv4Addr::from_bits(0x0101_0000 + n).into(), inside(1), 80, at(i64::from(n) * 2), flags)
    };
    let told = told_by(&mut Engine::new(&Detect::default()), (0..2_000).map(flood).collect());
    let told: Vec<_> = told.iter().filter(|detection| detection.kind == Kind::SynFlood).collect();
    assert_eq!(told.iter().map(|detection| detection.count).sum::<u64>(), 2_000);
    assert_eq!(told[0].subject, Subject::Address(inside(1)));
    assert!(told[0].evidence.to_string().starts_with("port=80 sources_about="), "{}", told[0].evidence);
    let rush = |n: u32| {
        tcp(Ipv4Addr::from_bits(0x0101_0000 + n).into(), inside(1), 80, at(i64::from(n) * 2), ESTABLISHED)
    };
    assert_eq!(found((0..2_000).map(rush).collect()), nothing(), "everyone is let in");
    let scan = |n: u32| tcp(inside(9), inside(1), n as u16, at(i64::from(n) * 2), REFUSED);
    let kinds: Vec<_> = found((1..2_000).map(scan).collect()).iter().map(|found| found.0).collect();
    assert_eq!(kinds, [Kind::PortScan]);
}

#[test]
fn floods_are_told_by_their_rate_and_by_silence() {
    let (seconds, attacker, victim) = (0..20_i64, outside(1), inside(1));
    let flood = |back| seconds.clone().map(move |n| udp(attacker, victim, 123, at(n * 1_000), 20_000, back));
    assert_eq!(found(flood(0).collect()), [(Kind::UdpFlood, "10.0.0.1".to_owned(), Severity::High, 400_000)]);
    assert_eq!(found(flood(400).collect()), nothing(), "a stream that is acknowledged");
    let group = "239.1.2.3".parse().expect("a group");
    let stream = (0..20).map(|n| udp(inside(1), group, 5_000, at(n * 1_000), 20_000, 0));
    assert_eq!(found(stream.collect()), nothing(), "a group asked for it");
    let ping = |packets| {
        seconds.clone().map(move |n| {
            let mut ping = udp(attacker, victim, 0, at(n * 1_000), packets, packets);
            ping.key.protocol = 1;
            ping
        })
    };
    assert_eq!(
        found(ping(500).collect()),
        [
            (Kind::IcmpFlood, "10.0.0.1".to_owned(), Severity::High, 10_000),
            (Kind::IcmpFlood, "203.0.113.1".to_owned(), Severity::High, 10_000),
        ],
        "both sides suffer"
    );
    assert_eq!(found(ping(10).collect()), nothing());
}

#[test]
fn a_record_longer_than_the_window_counts_with_its_average() {
    let mut long = udp(outside(1), inside(1), 5_000, START, 1_000_000, 0);
    long.last_ns = START + 3_600 * SECOND;
    assert_eq!(found(vec![long]), nothing(), "278 packets a second");
}

#[test]
fn sampled_counts_are_scaled_up() {
    let mut records = epochs((0..10).map(|n| udp(outside(1), inside(1), 53, at(n * 100), 200, 0)).collect());
    let mut engine = Engine::new(&Detect::default());
    for epoch in &mut records {
        epoch.sampling_interval = 100;
        engine.observe(epoch);
    }
    let told = engine.take(10);
    assert_eq!((told[0].kind, told[0].count), (Kind::UdpFlood, 200_000));
}

#[test]
fn passwords_that_are_tried_are_found_and_sessions_are_not() {
    let one = |n: u32| {
        let mut try_ = tcp(outside(7), inside(1), 22, at(i64::from(n) * 3_000), ESTABLISHED);
        (try_.octets, try_.reverse_octets) = (3_000, 4_000);
        try_
    };
    assert_eq!(
        found((0..30).map(one).collect()),
        [(Kind::BruteForce, "203.0.113.7".to_owned(), Severity::Medium, 30)]
    );
    let let_in = |n: u32| Record { reverse_octets: 1 << 20, ..one(n) };
    assert_eq!(found((0..30).map(let_in).collect()), nothing());
    let mut config = Detect::default();
    config.brute_force.allow = vec!["203.0.113.0/24".parse().expect("a network")];
    assert_eq!(detect(&config, (0..30).map(one).collect()), nothing());
    config.brute_force.allow.clear();
    config.brute_force.enabled = false;
    assert_eq!(detect(&config, (0..30).map(one).collect()), nothing());
}

#[test]
fn s6_a_password_that_is_tried_while_an_epoch_ends_counts_once() {
    let tries = |connections: i64| -> Vec<Record> {
        let cut = |n: i64| {
            // The client ends it in one epoch, the server in the next.
            let begun =
                tcp(outside(7), inside(1), 22, at(n * 10_000 + 4_000), (SYN | ACK | PSH | FIN, SYN | ACK));
            let (first_ns, last_ns) = (begun.first_ns + 2 * SECOND, begun.last_ns + 2 * SECOND);
            let ended =
                Record { first_ns, last_ns, tcp_flags: ACK, reverse_tcp_flags: FIN | ACK, ..begun.clone() };
            [begun, ended]
        };
        (0..connections).flat_map(cut).collect()
    };
    assert_eq!(found(tries(19)), nothing());
    assert_eq!(
        found(tries(20)),
        [(Kind::BruteForce, "203.0.113.7".to_owned(), Severity::Medium, 20)],
        "not 40"
    );
}

/// A call each minute, off by the given milliseconds.
fn calls(to: IpAddr, off: impl Fn(i64) -> i64) -> Vec<Record> {
    let call = |n: i64| tcp(inside(5), to, 443, at(n * 60_000 + off(n)), ESTABLISHED);
    (0..40).map(call).collect()
}

#[test]
fn a_beacon_is_found_in_spite_of_jitter_and_people_are_not_regular() {
    let jitter = |n: i64| (n * 7_919) % 2_000;
    let told = told_by(&mut Engine::new(&Detect::default()), calls(outside(9), jitter));
    assert_eq!(told[0].subject.to_string(), "10.0.0.5 > 203.0.113.9:443");
    assert_eq!(told.iter().map(|detection| detection.count).sum::<u64>(), 40);
    assert!(told[0].evidence.to_string().ends_with("same_size=yes"), "{}", told[0].evidence);
    assert_eq!(found(calls(outside(9), |n| (n * n * 7_919) % 50_000)), nothing());
    assert_eq!(found(calls(inside(9), jitter)), nothing(), "monitoring inside");
}

#[test]
fn a_host_that_sends_far_more_than_ever_is_found_and_only_then() {
    let mut config = Detect::default();
    config.exfiltration.learn_windows = 24;
    config.exfiltration.min_octets = Bytes(100 << 20);
    let hour = |n: i64, host, octets| {
        let mut sent = tcp(inside(host), outside(1), 443, START + n * 3_600 * SECOND, ESTABLISHED);
        sent.octets = octets;
        sent
    };
    let usual = |n: i64| hour(n, 1, (10 << 20) + ((n as u64 * 7_919) % 5) * (1 << 20));
    let mut records: Vec<_> = (0..30).map(usual).collect();
    records.push(hour(30, 1, 2 << 30));
    // A server that always sends that much, and a host that is new.
    records.extend((0..31).map(|n| hour(n, 2, 2 << 30)));
    records.push(hour(30, 3, 2 << 30));
    records.sort_by_key(|record| record.first_ns);
    let found = detect(&config, records);
    let leaks: Vec<_> = found.iter().filter(|found| found.0 == Kind::Exfiltration).collect();
    assert_eq!(leaks, [&(Kind::Exfiltration, "10.0.0.1".to_owned(), Severity::High, 1)]);
}

#[test]
fn a_connection_in_the_clear_counts_once_however_many_epochs_it_lasts() {
    let start = tcp(inside(1), inside(2), 23, at(100), (SYN | ACK | PSH, SYN | ACK | PSH));
    let mut records = vec![tcp(inside(3), inside(2), 23, at(50), REFUSED)];
    for n in 0..5 {
        let (first_ns, last_ns) = (at(100 + n * 5_000), at(200 + n * 5_000));
        records.push(Record { first_ns, last_ns, tcp_flags: ACK | PSH, ..start.clone() });
    }
    assert_eq!(found(records), [(Kind::Cleartext, "10.0.0.1 > 10.0.0.2:23".to_owned(), Severity::Medium, 1)]);
}

#[test]
fn one_detection_is_open_for_a_kind_and_subject_until_it_is_quiet() {
    let scan = |from_ms: i64, n: u32| {
        tcp(inside(1), inside(100 + n), 445, at(from_ms + i64::from(n) * 500), UNANSWERED)
    };
    let mut engine = Engine::new(&Detect::default());
    let mut records: Vec<_> = (0..100).map(|n| scan(0, n)).collect();
    // Two hours later.
    records.extend((0..100).map(|n| scan(7_200_000, n)));
    let told = told_by(&mut engine, records);
    let opened: Vec<_> =
        told.iter().filter(|told| told.opens).map(|told| (told.first_ns - START) / SECOND).collect();
    assert_eq!(opened, [0, 7_200]);
    assert!(told.len() > 10, "each epoch tells what it adds");
    assert_eq!(told.iter().map(|told| told.count).sum::<u64>(), 200);
    assert_eq!(engine.open(), 1);
}

#[test]
fn a_flood_of_invented_sources_does_not_hide_a_scanner_nor_grow_the_memory() {
    let mut records = Vec::new();
    let stranger = |n: u32| Ipv4Addr::from_bits(0x2000_0000 + n).into();
    for n in 0..60_000_u32 {
        records.push(tcp(stranger(n), inside(1), 80, at(i64::from(n)), UNANSWERED));
        if n.is_multiple_of(1_000) {
            records.push(tcp(inside(66), inside(1_000 + n), 445, at(i64::from(n)), UNANSWERED));
        }
    }
    let mut engine = Engine::new(&Detect::default());
    let told = told_by(&mut engine, records);
    let of = |kind| told.iter().filter(move |told| told.kind == kind);
    assert_eq!(of(Kind::SynFlood).map(|told| told.count).sum::<u64>(), 60_000);
    let scanners: std::collections::BTreeSet<_> = of(Kind::PortScan).map(|told| &told.subject).collect();
    assert_eq!(Vec::from_iter(scanners), [&Subject::Address(inside(66))]);
    let forgotten: BTreeMap<_, _> = engine.forgotten().collect();
    assert!(forgotten[&Kind::PortScan] > 50_000, "{forgotten:?}");
}

#[test]
fn what_finds_no_room_is_counted_and_what_is_not_taken_waits() {
    let config = Detect { max_open: 8, ..Detect::default() };
    let scan = |host: u32, n: u32| tcp(inside(host), inside(1_000 + n), 445, at(i64::from(n)), UNANSWERED);
    let records = (0..10).flat_map(|host| (0..20).map(move |n| scan(host, n))).collect();
    let mut engine = Engine::new(&config);
    engine.observe(&epochs(records)[0]);
    assert_eq!((engine.open(), engine.untold()), (8, 2));
    assert_eq!((engine.take(5).len(), engine.take(5).len(), engine.take(5).len()), (5, 3, 0));
}

#[test]
fn turned_off_nothing_is_found() {
    let config =
        Detect { enabled: false, quiet: Period(std::time::Duration::from_secs(1)), ..Detect::default() };
    let scan = (0..40).map(|n| tcp(inside(1), inside(100 + n), 445, at(i64::from(n)), UNANSWERED));
    assert_eq!(detect(&config, scan.collect()), nothing());
}

#[test]
fn s6_a_listed_address_is_told_by_who_began_and_who_answered() {
    let names: std::sync::Arc<[String]> = ["own".to_owned(), "feed".to_owned()].into();
    let config = Detect::default();
    let mut engine = Engine::new(&config).with_lists(&config, names);
    let listed = |mut record: Record, src, dst| {
        record.listed = Listed { src, dst, drops: false };
        record
    };
    let mut records = vec![
        // A host inside talks to a listed server, twice; and to another that is not listed.
        listed(tcp(inside(1), outside(1), 443, START, ESTABLISHED), 0, 2),
        listed(tcp(inside(1), outside(1), 443, START + SECOND, ESTABLISHED), 0, 2),
        tcp(inside(2), outside(2), 443, START, ESTABLISHED),
        // A listed host knocks on two doors, unanswered.
        listed(tcp(outside(3), inside(3), 22, START, UNANSWERED), 1, 0),
        listed(tcp(outside(3), inside(3), 23, START, UNANSWERED), 1, 0),
    ];
    // The first goes on: it is one connection.
    let mut later = records[0].clone();
    (later.first_ns, later.last_ns) = (START + 6 * SECOND, START + 7 * SECOND);
    records.push(later);
    let told = told_by(&mut engine, records);
    let mut found: Vec<String> = told
        .iter()
        .filter(|detection| detection.kind == Kind::ListedAddress)
        .map(|found| {
            format!("{} {} {} {}", found.severity.word(), found.subject, found.count, found.evidence)
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "high 10.0.0.1 > 203.0.113.1:443 2 list=feed listed=203.0.113.1",
            "low 203.0.113.3 2 list=own listed=203.0.113.3",
        ]
    );
}

#[test]
fn s6_a_country_and_a_system_that_a_host_never_met_are_told_once() {
    let mut config = Detect::default();
    config.new_asn.enabled = true;
    let placed = |host: u32, peer: u32, country: &str, asn: u32, at_ns: i64| {
        let mut record = tcp(inside(host), outside(peer), 443, at_ns, ESTABLISHED);
        let place = weir_wire::Place { country: country.to_owned(), asn, organisation: "Example".to_owned() };
        let place = Some(std::sync::Arc::new(place));
        record.context = Some(Box::new(crate::flow::Context { dst_place: place, ..Default::default() }));
        record
    };
    let mut unanswered = placed(1, 9, "KP", 9, START + 2 * DAY);
    (unanswered.reverse_packets, unanswered.reverse_octets) = (0, 0);
    let records = vec![
        // What it meets on its first day is its own.
        placed(1, 1, "NL", 64_496, START),
        placed(1, 2, "DE", 64_497, START + DAY / 2),
        placed(1, 1, "NL", 64_496, START + 2 * DAY),
        unanswered,
        placed(1, 3, "BR", 64_498, START + 2 * DAY + SECOND),
        placed(1, 3, "BR", 64_498, START + 2 * DAY + 2 * SECOND),
        // The same country for another host, which is new itself.
        placed(2, 3, "BR", 64_498, START + 2 * DAY),
    ];
    // One epoch: between days there would be many empty ones.
    let merged = Merged { records, ..epochs(Vec::new()).remove(0) };
    let mut engine = Engine::new(&config);
    engine.observe(&merged);
    let mut found: Vec<String> = engine
        .take(10)
        .iter()
        .map(|it| format!("{} {} {} {}", it.kind.word(), it.subject, it.count, it.evidence))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "new_asn 10.0.0.1 1 asn=64498 organisation=Example peer=203.0.113.3",
            "new_country 10.0.0.1 1 country=BR peer=203.0.113.3",
        ]
    );
}
