//! S2 and K7: connections are joined, and every packet is in exactly one record or has crossed.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use weir_wire::{Direction, EndReason, TcpState, Totals, link};

use super::*;
use crate::kernel::{DrainFigures, Drained, FlowKey, FlowObservation, Listed, PointTotals, fragment};

const MS: i64 = 1_000_000;
const SYN: u8 = 2;
const ACK: u8 = 0x10;
const FIN: u8 = 1;
const RST: u8 = 4;

fn limits() -> Limits {
    Limits {
        connections: 1_000,
        idle_timeout: Duration::from_mins(2),
        closed_timeout: Duration::from_secs(10),
    }
}

/// Points 0.. of the given (direction, stack) pairs.
fn points(points: &[(Direction, u32)]) -> Vec<PointTotals> {
    (0..)
        .zip(points)
        .map(|(id, &(direction, stack))| PointTotals {
            id,
            interface: format!("eth{}", id / 2),
            ifindex: u32::from(id / 2) + 1,
            direction,
            stack,
            totals: Totals::default(),
        })
        .collect()
}

/// One host with two separate interfaces, both directions observed.
fn router() -> Vec<PointTotals> {
    points(&[
        (Direction::Ingress, 1),
        (Direction::Egress, 1),
        (Direction::Ingress, 2),
        (Direction::Egress, 2),
    ])
}

fn epoch(number: u64, points: Vec<PointTotals>, flows: Vec<FlowObservation>) -> Drained {
    Drained {
        epoch: number,
        window_start_ns: 0,
        window_end_ns: 5_000 * MS * (number as i64 + 1),
        sampling_interval: 1,
        points,
        links: vec![vec![link::VLAN + 10], vec![link::VLAN + 20]],
        flows,
        figures: DrainFigures::default(),
    }
}

fn key(src: &str, src_port: u16, dst: &str, dst_port: u16) -> FlowKey {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    FlowKey { src: address(src), dst: address(dst), protocol: 6, src_port, dst_port }
}

fn there() -> FlowKey {
    key("10.0.0.1", 40_000, "192.0.2.1", 443)
}

fn back() -> FlowKey {
    key("192.0.2.1", 443, "10.0.0.1", 40_000)
}

/// `packets` packets of 100 octets each, at `point`, from `first_ms` on.
fn seen(key: FlowKey, point: u16, packets: u64, first_ms: i64) -> FlowObservation {
    FlowObservation {
        key,
        point,
        link: 0,
        packets,
        octets: packets * 100,
        first_ns: first_ms * MS,
        last_ns: (first_ms + 10) * MS,
        tcp_flags: ACK,
        first_tcp_flags: ACK,
        fragments: 0,
        icmp_type: 0,
        icmp_code: 0,
        listed: Listed::default(),
    }
}

fn flags(mut observation: FlowObservation, first: u8, all: u8) -> FlowObservation {
    observation.first_tcp_flags = first;
    observation.tcp_flags = all;
    observation
}

fn on_link(mut observation: FlowObservation, link: u32) -> FlowObservation {
    observation.link = link;
    observation
}

#[test]
fn both_directions_are_one_record_with_the_initiator_first() {
    let mut merger = Merger::new(limits());
    // The answer stands first in the drain and comes from the lower address.
    let flows = vec![
        flags(seen(back(), 0, 3, 7), SYN | ACK, SYN | ACK),
        flags(seen(there(), 1, 5, 5), SYN, SYN | ACK),
    ];
    let merged = merger.merge(epoch(0, router(), flows));
    let [record] = &merged.records[..] else { panic!("one connection: {:?}", merged.records) };
    assert_eq!(record.key, there());
    assert_eq!(
        (record.packets, record.octets, record.reverse_packets, record.reverse_octets),
        (5, 500, 3, 300)
    );
    assert_eq!((record.start_ns, record.first_ns, record.last_ns), (5 * MS, 5 * MS, 17 * MS));
    assert_eq!(record.handshake_rtt_us, Some(2_000));
    assert_eq!(record.tcp_state, TcpState::Established);
    assert_eq!(record.end_reason, EndReason::ActiveTimeout);
    assert_eq!(record.point, 1);
}

#[test]
fn a_long_connection_yields_deltas_with_its_start_and_its_initiator() {
    let mut merger = Merger::new(limits());
    merger.merge(epoch(0, router(), vec![flags(seen(there(), 1, 1, 5), SYN, SYN)]));
    let second = vec![flags(seen(back(), 0, 9, 5_001), SYN | ACK, SYN | ACK), seen(there(), 1, 2, 5_002)];
    let merged = merger.merge(epoch(1, router(), second));
    let record = &merged.records[0];
    assert_eq!((record.key, record.start_ns, record.first_ns), (there(), 5 * MS, 5_001 * MS));
    assert_eq!((record.packets, record.reverse_packets), (2, 9));
    assert_eq!(record.handshake_rtt_us, Some(4_996_000), "the SYN was in the epoch before");
    let third = merger.merge(epoch(2, router(), vec![flags(seen(back(), 0, 1, 10_001), SYN | ACK, ACK)]));
    assert_eq!(third.records[0].handshake_rtt_us, None, "told once");
    assert_eq!(third.records[0].key, there());
}

/// I4: the clock was set back by an hour between the two packets.
#[test]
fn no_connection_begins_after_one_of_its_packets() {
    let mut merger = Merger::new(limits());
    merger.merge(epoch(0, router(), vec![seen(there(), 1, 1, 3_600_000)]));
    for (number, ms) in [(1, 1_000), (2, 2_000)] {
        let merged = merger.merge(epoch(number, router(), vec![seen(there(), 1, 2, ms)]));
        let record = &merged.records[0];
        assert_eq!((record.start_ns, record.first_ns, record.packets), (1_000 * MS, ms * MS, 2));
    }
}

#[test]
fn connections_end_with_fin_of_both_or_reset() {
    let mut merger = Merger::new(limits());
    let closing = merger.merge(epoch(0, router(), vec![flags(seen(there(), 1, 1, 5), SYN, SYN | ACK | FIN)]));
    assert_eq!(closing.records[0].tcp_state, TcpState::Closing);
    assert_eq!(closing.records[0].end_reason, EndReason::ActiveTimeout);
    let closed = merger.merge(epoch(1, router(), vec![flags(seen(back(), 0, 1, 5_001), ACK, ACK | FIN)]));
    assert_eq!(closed.records[0].tcp_state, TcpState::Closed);
    assert_eq!(closed.records[0].end_reason, EndReason::EndOfFlow);

    let other = key("10.0.0.1", 40_001, "192.0.2.1", 443);
    let reset = merger.merge(epoch(2, router(), vec![flags(seen(other, 1, 1, 10_001), SYN, SYN | RST)]));
    assert_eq!(
        (reset.records[0].tcp_state, reset.records[0].end_reason),
        (TcpState::Reset, EndReason::EndOfFlow)
    );
}

#[test]
fn ports_used_again_are_a_new_connection() {
    let mut merger = Merger::new(limits());
    let ended =
        [flags(seen(there(), 1, 4, 5), SYN, SYN | ACK | FIN), flags(seen(back(), 0, 4, 6), SYN | ACK, 0x13)];
    merger.merge(epoch(0, router(), ended.to_vec()));
    // This time the other end begins.
    let merged = merger.merge(epoch(1, router(), vec![flags(seen(back(), 0, 1, 5_100), SYN, SYN)]));
    let record = &merged.records[0];
    assert_eq!((record.key, record.start_ns, record.tcp_state), (back(), 5_100 * MS, TcpState::SynSent));
}

#[test]
fn without_a_syn_the_earlier_side_began_and_at_a_tie_the_higher_port() {
    let udp = |mut flow: FlowObservation| {
        flow.key.protocol = 17;
        flags(flow, 0, 0)
    };
    let mut merger = Merger::new(limits());
    let merged =
        merger.merge(epoch(0, router(), vec![udp(seen(back(), 0, 1, 5)), udp(seen(there(), 1, 1, 6))]));
    assert_eq!(merged.records[0].key.src_port, 443);
    let mut merger = Merger::new(limits());
    let merged =
        merger.merge(epoch(0, router(), vec![udp(seen(back(), 0, 1, 5)), udp(seen(there(), 1, 1, 5))]));
    assert_eq!(merged.records[0].key.src_port, 40_000);
    assert_eq!(merged.records[0].tcp_state, TcpState::Unknown);
}

/// K7: in at one interface, out at another.
#[test]
fn a_routed_packet_counts_once_and_keeps_its_path() {
    let mut merger = Merger::new(limits());
    let merged = merger.merge(epoch(0, router(), vec![seen(there(), 3, 7, 6), seen(there(), 0, 7, 5)]));
    let [record] = &merged.records[..] else { panic!("one connection") };
    assert_eq!((record.packets, record.point, &record.path[..]), (7, 0, &[3][..]));
    assert_eq!((merged.crossing_packets, merged.crossing_octets), (7, 700));
}

/// K7: the flip may fall between the two sights of a packet, in either order, at any packet.
#[test]
fn a_flip_between_in_and_out_counts_each_packet_once() {
    for (first, second) in [(0, 3), (1, 0)] {
        let mut merger = Merger::new(limits());
        let mut counted = 0;
        // Ten packets; `first` sees each in the epoch before `second` does.
        for number in 0..11 {
            let at = number as i64 * 5_000 + 4_999;
            let mut flows = Vec::new();
            if number < 10 {
                flows.push(seen(there(), first, 1, at));
            }
            if number > 0 {
                flows.push(seen(there(), second, 1, at - 4_998));
            }
            let merged = merger.merge(epoch(number, router(), flows));
            counted += merged.records.iter().map(|record| record.packets).sum::<u64>();
        }
        assert_eq!(counted, 10, "seen at {first}, then at {second}");
    }
}

/// K7: on the loopback device every packet leaves and enters.
#[test]
fn loopback_counts_ingress() {
    let mut merger = Merger::new(limits());
    let lo = points(&[(Direction::Ingress, 1), (Direction::Egress, 1)]);
    let merged = merger.merge(epoch(0, lo, vec![seen(there(), 1, 4, 5), seen(there(), 0, 4, 5)]));
    assert_eq!((merged.records[0].packets, merged.crossing_packets), (4, 4));
}

/// K7: a bridge and its port, a VLAN device and its parent.
#[test]
fn stacked_interfaces_count_once_and_separate_ones_add_up() {
    let stacked = points(&[(Direction::Ingress, 1), (Direction::Ingress, 1), (Direction::Ingress, 2)]);
    let flows = vec![on_link(seen(there(), 0, 4, 5), 1), seen(there(), 1, 4, 6), seen(there(), 2, 3, 7)];
    let mut merger = Merger::new(limits());
    let merged = merger.merge(epoch(0, stacked, flows));
    let packets: Vec<_> =
        merged.records.iter().map(|record| (record.link.is_some(), record.packets)).collect();
    assert_eq!((packets, merged.crossing_packets), (vec![(true, 4), (false, 3)], 4));
}

/// A bond's members each see a part, the bond sees all.
#[test]
fn of_a_stack_the_point_that_saw_most_counts() {
    let bond = points(&[(Direction::Ingress, 1), (Direction::Ingress, 1), (Direction::Ingress, 1)]);
    let flows = vec![seen(there(), 0, 5, 5), seen(there(), 1, 5, 5), seen(there(), 2, 10, 6)];
    let merged = Merger::new(limits()).merge(epoch(0, bond, flows));
    assert_eq!((merged.records[0].packets, merged.records[0].point, merged.crossing_packets), (10, 2, 10));
}

#[test]
fn a_connection_that_moves_to_another_point_is_counted_there() {
    let mut merger = Merger::new(limits());
    merger.merge(epoch(0, router(), vec![seen(there(), 0, 5, 5), seen(there(), 3, 5, 6)]));
    // The route changed: it now leaves without having come in anywhere that is observed.
    let merged = merger.merge(epoch(1, router(), vec![seen(there(), 1, 5, 8_000)]));
    assert_eq!((merged.records[0].packets, merged.crossing_packets), (5, 0));
}

#[test]
fn the_same_addresses_in_two_vlans_are_two_connections() {
    let flows = vec![
        on_link(seen(there(), 0, 1, 5), 1),
        on_link(seen(there(), 0, 2, 6), 2),
        on_link(seen(back(), 0, 3, 7), 2),
        on_link(seen(back(), 0, 4, 8), 1),
    ];
    let merged = Merger::new(limits()).merge(epoch(0, router(), flows));
    let mut pairs: Vec<_> =
        merged.records.iter().map(|record| (record.packets, record.reverse_packets)).collect();
    pairs.sort_unstable();
    assert_eq!(pairs, [(1, 4), (2, 3)]);
}

#[test]
fn a_routed_connection_that_answers_with_another_tag_is_one() {
    let flows = vec![on_link(seen(there(), 0, 1, 5), 1), on_link(seen(back(), 2, 2, 6), 2)];
    let merged = Merger::new(limits()).merge(epoch(0, router(), flows));
    let [record] = &merged.records[..] else { panic!("one connection") };
    assert_eq!((record.packets, record.reverse_packets), (1, 2));
    assert_eq!(record.link.as_deref(), Some(&vec![link::VLAN + 10]));
}

#[test]
fn atomic_fragments_are_no_fragments() {
    let mut atomic = seen(there(), 0, 1, 5);
    atomic.fragments = fragment::ATOMIC;
    assert!(!Merger::new(limits()).merge(epoch(0, router(), vec![atomic])).records[0].fragment);
    atomic.fragments = fragment::ATOMIC | fragment::LATER;
    assert!(Merger::new(limits()).merge(epoch(0, router(), vec![atomic])).records[0].fragment);
}

#[test]
fn a_full_connection_table_forgets_the_oldest_and_loses_no_count() {
    let mut merger = Merger::new(Limits { connections: 10, ..limits() });
    let flow = |port: u16| seen(key("10.0.0.1", port, "192.0.2.1", 443), 1, 1, i64::from(port));
    let merged = merger.merge(epoch(0, router(), (1..=25).map(flow).collect()));
    assert_eq!((merged.records.len(), merged.evicted, merger.connections()), (25, 15, 10));
    // The newest are remembered, the oldest begin anew.
    let later = |port: u16| seen(key("10.0.0.1", port, "192.0.2.1", 443), 1, 1, 5_000);
    let merged = merger.merge(epoch(1, router(), vec![later(1), later(25)]));
    let starts: Vec<_> =
        merged.records.iter().map(|record| (record.key.src_port, record.start_ns / MS)).collect();
    assert_eq!(starts, [(1, 5_000), (25, 25)]);
}

#[test]
fn silence_ends_a_connection() {
    let mut merger = Merger::new(limits());
    merger.merge(epoch(0, router(), vec![seen(there(), 1, 1, 5)]));
    assert_eq!(merger.connections(), 1);
    merger.merge(epoch(30, router(), Vec::new()));
    assert_eq!(merger.connections(), 0);
}

#[test]
fn invented_tags_cannot_fill_one_conversation() {
    let mut drained = epoch(0, router(), Vec::new());
    drained.links = (0..1_000).map(|label| vec![link::MPLS | label]).collect();
    drained.flows = (1..=1_000).map(|link| on_link(seen(there(), 0, 1, i64::from(link)), link)).collect();
    let mut merger = Merger::new(Limits { connections: 100_000, ..limits() });
    let merged = merger.merge(drained);
    assert_eq!((merged.records.len(), merger.connections()), (1_000, 64));
}

/// Few values, so that keys, points and times collide often.
fn observation() -> impl Strategy<Value = FlowObservation> {
    (
        (0..4_u8, 0..4_u8, 0..3_u16, 0..3_u16, prop_oneof![Just(6_u8), Just(17), Just(1)]),
        (0..7_u16, 0..4_u32, 1..1_000_u64, 20..1_500_u64),
        (0..12_000_i64, 0..3_000_i64, any::<u8>(), any::<u8>(), 0..8_u8, any::<u8>()),
    )
        .prop_map(|((src, dst, sport, dport, protocol), (point, link, packets, size), times)| {
            let (first, lasting, tcp_flags, first_tcp_flags, fragments, icmp_type) = times;
            FlowObservation {
                key: FlowKey {
                    src: IpAddr::from([10, 0, 0, src]),
                    dst: IpAddr::from([10, 0, 0, dst]),
                    protocol,
                    src_port: sport,
                    dst_port: dport,
                },
                point,
                link,
                packets,
                octets: packets * size,
                first_ns: first * MS,
                last_ns: (first + lasting) * MS,
                tcp_flags,
                first_tcp_flags,
                fragments,
                icmp_type,
                icmp_code: icmp_type / 2,
                listed: Listed::default(),
            }
        })
}

/// Some points share a stack; point 6 is not described at all.
fn some_points() -> Vec<PointTotals> {
    points(&[
        (Direction::Ingress, 1),
        (Direction::Egress, 1),
        (Direction::Ingress, 1),
        (Direction::Egress, 2),
        (Direction::Ingress, 3),
        (Direction::Egress, 3),
    ])
}

fn counted(merged: &Merged) -> (u64, u64) {
    merged.records.iter().fold(
        (merged.crossing_packets, merged.crossing_octets),
        |(packets, octets), record| {
            (
                packets + record.packets + record.reverse_packets,
                octets + record.octets + record.reverse_octets,
            )
        },
    )
}

/// Packets and octets of each part: in records and crossing.
fn part_sums(merged: &Merged) -> Vec<(u64, u64)> {
    let mut records = merged.records.iter();
    let sum = |part: &Part| {
        let mut sum = (part.crossing_packets, part.crossing_octets);
        for record in records.by_ref().take(part.records) {
            sum.0 += record.packets + record.reverse_packets;
            sum.1 += record.octets + record.reverse_octets;
        }
        sum
    };
    merged.parts.iter().map(sum).collect()
}

proptest! {
    /// K7: nothing is lost and nothing is counted twice, over any epochs, with a table that is too small.
    #[test]
    fn records_and_crossing_add_up_to_the_observations(
        epochs in prop::collection::vec(prop::collection::vec(observation(), 0..60), 1..4),
        connections in 0..40_usize,
    ) {
        let mut merger = Merger::new(Limits { connections, ..limits() });
        for (number, flows) in (0..).zip(epochs) {
            let packets: u64 = flows.iter().map(|flow| flow.packets).sum();
            let octets: u64 = flows.iter().map(|flow| flow.octets).sum();
            let merged = merger.merge(epoch(number, some_points(), flows));
            prop_assert_eq!(counted(&merged), (packets, octets));
            prop_assert!(merger.connections() <= connections);
        }
    }

    /// The order of slots is chance: it decides nothing.
    #[test]
    fn the_order_of_observations_changes_nothing(
        (first, first_shuffled) in prop::collection::vec(observation(), 0..60)
            .prop_flat_map(|flows| (Just(flows.clone()), Just(flows).prop_shuffle())),
        (second, second_shuffled) in prop::collection::vec(observation(), 0..60)
            .prop_flat_map(|flows| (Just(flows.clone()), Just(flows).prop_shuffle())),
    ) {
        let (mut one, mut other) = (Merger::new(limits()), Merger::new(limits()));
        for (number, (flows, shuffled)) in (0..).zip([(first, first_shuffled), (second, second_shuffled)]) {
            let merged = one.merge(epoch(number, some_points(), flows));
            let shuffled = other.merge(epoch(number, some_points(), shuffled));
            prop_assert_eq!(merged.records, shuffled.records);
            prop_assert_eq!(merged.crossing_packets, shuffled.crossing_packets);
        }
    }

    /// S8: a crash takes the merger's memory. The epoch that is read and merged again has the same parts:
    /// whichever of two versions of each part arrives, every packet arrives once.
    #[test]
    fn parts_do_not_depend_on_what_is_remembered(
        before in prop::collection::vec(prop::collection::vec(observation(), 0..60), 0..3),
        flows in prop::collection::vec(observation(), 0..60),
        part_observations in 1..20_usize,
    ) {
        let mut remembering = Merger::new(limits()).cut_at(part_observations);
        for (number, flows) in (0..).zip(&before) {
            remembering.merge(epoch(number, some_points(), flows.clone()));
        }
        let number = before.len() as u64;
        let one = remembering.merge(epoch(number, some_points(), flows.clone()));
        let other = Merger::new(limits()).cut_at(part_observations).merge(epoch(number, some_points(), flows));
        let sums = part_sums(&one);
        prop_assert_eq!(&sums, &part_sums(&other));
        prop_assert_eq!(sums.iter().map(|sum| sum.0).sum::<u64>(), counted(&one).0);
        prop_assert_eq!(one.parts.iter().map(|part| part.records).sum::<usize>(), one.records.len());
        prop_assert!(!one.parts.is_empty());
    }

    /// Slots of one key on several CPUs are the same as one slot that holds their sum.
    #[test]
    fn the_number_of_cpus_changes_nothing(flows in prop::collection::vec(observation(), 1..40)) {
        let split: Vec<_> = flows
            .iter()
            .flat_map(|flow| {
                let half = flow.packets / 2;
                let part = |packets, octets| FlowObservation { packets, octets, ..*flow };
                [part(half, flow.octets / 2), part(flow.packets - half, flow.octets - flow.octets / 2)]
            })
            .collect();
        let whole = Merger::new(limits()).merge(epoch(0, some_points(), flows));
        let split = Merger::new(limits()).merge(epoch(0, some_points(), split));
        prop_assert_eq!(whole.records, split.records);
    }
}

/// K7: the path stays known where a flip falls between a packet's two sights.
#[test]
fn a_path_is_remembered_until_another_is_seen() {
    let mut merger = Merger::new(limits());
    let mut paths = Vec::new();
    for (number, sights) in (0..).zip([&[0, 3][..], &[0], &[0, 1], &[0]]) {
        let at = number as i64 * 5_000;
        let flows = sights.iter().map(|&point| seen(there(), point, 1, at + i64::from(point))).collect();
        paths.push(merger.merge(epoch(number, router(), flows)).records[0].path.to_vec());
    }
    assert_eq!(paths, [[3], [3], [1], [1]]);
}

/// P3: a table of connections is the sensor's largest piece of memory after the kernel's own.
const _: () = assert!(merge::REMEMBERED_BYTES <= 208 && size_of::<Record>() <= 176);
