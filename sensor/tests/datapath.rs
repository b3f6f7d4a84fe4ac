//! The real programs on the real kernel, fed with `BPF_PROG_TEST_RUN` (K1, K2, K3, K5, K9). Needs root.

use std::net::IpAddr;

use weir_sensor::kernel::{
    Drained, FilterAction, FilterRule, Replay, ReplayLink, ReplayProgram, Settings, TableSizes, WakeReason,
    bench::{Hook, Ip, Rig},
};

const PROGRAMS: [ReplayProgram; 3] = [ReplayProgram::Xdp, ReplayProgram::TcEgress, ReplayProgram::TcIngress];

/// A UDP packet of 46 octets from `192.0.2.host:sport` to `198.51.100.1:dport`, in a frame of 60.
fn udp(host: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, host, 198, 51, 100, 1]);
    frame.extend(sport.to_be_bytes());
    frame.extend(dport.to_be_bytes());
    frame.extend([0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

fn count(program: ReplayProgram, settings: &Settings, frames: &[Vec<u8>]) -> Drained {
    let mut replay = Replay::through(program, settings, ReplayLink::Ethernet)
        .expect("the program loads; this test needs root");
    for (place, frame) in frames.iter().enumerate() {
        replay.frame(frame, place as i64).expect("the kernel runs the frame");
    }
    replay.finish().expect("the tables are drained")
}

/// Packets in flows, filtered, of these unsampled; checks that the ledger adds up.
fn verdicts(drained: &Drained, frames: usize) -> (u64, u64, u64) {
    let mut all = weir_wire::Totals::default();
    for point in &drained.points {
        all += point.totals;
    }
    assert_eq!(all.frames, frames as u64);
    assert_eq!(all.accounted(), all.frames, "K3: {all:?}");
    assert_eq!(all.flow_packets, drained.flows.iter().map(|flow| flow.packets).sum::<u64>());
    (all.flow_packets, all.filtered, all.unsampled)
}

#[test]
fn k2_every_program_counts_a_frame_the_same() {
    let frames: Vec<_> = (0..50).map(|place| udp(place % 5, 1000, 53)).collect();
    for program in PROGRAMS {
        let drained = count(program, &Settings::default(), &frames);
        assert_eq!(verdicts(&drained, 50), (50, 0, 0), "{program:?}");
        assert_eq!(drained.flows.len(), 5, "{program:?}");
        assert!(drained.flows.iter().all(|flow| (flow.packets, flow.octets) == (10, 460)), "{program:?}");
    }
}

fn rule(action: FilterAction, cidr: Option<(&str, u8)>, port: Option<u16>) -> FilterRule {
    FilterRule {
        action,
        cidr: cidr.map(|(address, length)| (address.parse::<IpAddr>().expect("an address"), length)),
        ports: port.map(|port| port..=port),
        protocol: None,
    }
}

#[test]
fn k9_the_first_rule_that_matches_decides() {
    let settings = Settings {
        filter: vec![
            rule(FilterAction::Allow, Some(("192.0.2.1", 32)), None),
            rule(FilterAction::Deny, Some(("192.0.2.0", 24)), Some(53)),
        ],
        ..Settings::default()
    };
    let frames: Vec<_> = (0..30)
        .flat_map(|_| [udp(1, 1000, 53), udp(2, 1000, 53), udp(2, 1000, 80), udp(2, 53, 1000)])
        .collect();
    for program in PROGRAMS {
        let drained = count(program, &settings, &frames);
        assert_eq!(verdicts(&drained, 120), (60, 60, 0), "{program:?}");
        let counted: Vec<_> =
            drained.flows.iter().map(|flow| (flow.key.src_port, flow.key.dst_port)).collect();
        assert!(!counted.contains(&(53, 1000)), "a rule's port is either side's");
    }
}

#[test]
fn k9_a_default_of_deny_counts_only_what_is_allowed() {
    let settings = Settings {
        filter: vec![rule(FilterAction::Allow, None, Some(443))],
        filter_default: FilterAction::Deny,
        ..Settings::default()
    };
    let frames = [udp(1, 1000, 443), udp(1, 1000, 80), udp(1, 1000, 443)];
    assert_eq!(verdicts(&count(ReplayProgram::Xdp, &settings, &frames), 3), (2, 1, 0));
}

#[test]
fn k9_sampling_carries_its_rate_and_accounts_for_the_rest() {
    let settings = Settings { sampling_interval: 4, ..Settings::default() };
    let frames = vec![udp(1, 1000, 53); 8000];
    let drained = count(ReplayProgram::Xdp, &settings, &frames);
    let (counted, filtered, unsampled) = verdicts(&drained, 8000);
    assert_eq!(drained.sampling_interval, 4);
    assert_eq!(filtered, unsampled);
    // Binomial with mean 2000 and a standard deviation below 39: twelve of them never happen.
    assert!((1530..=2470).contains(&counted), "{counted} of 8000 at 1 in 4");
}

#[test]
fn k1_no_packet_is_lost_or_doubled_under_full_load_on_all_cpus_with_drains_running() {
    const PACKETS: u32 = 50_000_000;
    let cpus: Vec<usize> = (0..std::thread::available_parallelism().map_or(1, usize::from).min(2)).collect();
    let mut rig =
        Rig::new(Hook::Xdp, Ip::V4, 1 << 17, &Settings::default()).expect("the rig loads; needs root");
    let counted = rig.drain_under_load(&cpus, 16_384, PACKETS).expect("drains go on under load");
    println!("{counted:?}");
    assert_eq!(counted.sent, u64::from(PACKETS) * cpus.len() as u64);
    assert_eq!(counted.frames, counted.sent, "frames seen");
    assert_eq!(counted.in_flows + counted.overflow, counted.sent, "packets accounted for");
    assert_eq!(counted.overflow, 0, "an eighth of the table is in use");
    assert!(counted.drains > 10, "{} drains", counted.drains);
}

#[test]
fn k1_the_egress_program_and_ipv6_lose_nothing_either() {
    for (hook, ip) in [(Hook::Tc, Ip::V4), (Hook::Xdp, Ip::V6), (Hook::Tc, Ip::V6)] {
        let mut rig = Rig::new(hook, ip, 1 << 17, &Settings::default()).expect("the rig loads; needs root");
        let counted = rig.drain_under_load(&[0, 0], 16_384, 3_000_000).expect("drains go on under load");
        assert_eq!((counted.frames, counted.in_flows), (counted.sent, counted.sent), "{hook:?} {ip:?}");
    }
}

#[test]
fn k5_a_full_table_accounts_for_every_packet_and_asks_for_a_drain() {
    let mut rig = Rig::new(Hook::Xdp, Ip::V4, 1024, &Settings::default()).expect("the rig loads; needs root");
    let counted = rig.drain_under_load(&[0], 1 << 20, 4_000_000).expect("drains go on under load");
    println!("{counted:?}");
    assert_eq!(counted.frames, counted.sent);
    assert_eq!(counted.in_flows + counted.overflow, counted.sent);
    assert!(counted.overflow > 0, "a million flows do not fit into 1024 slots");
    let wakeups = rig.wakeups().expect("the ring is read");
    for reason in [WakeReason::Filling, WakeReason::Overflow] {
        assert!(wakeups.iter().any(|wakeup| wakeup.reason == reason), "{reason:?} among {wakeups:?}");
    }
}

#[test]
fn k3_tables_of_a_replay_may_be_smaller_than_its_capture() {
    let tables = TableSizes { ipv4_slots: 4096, ipv6_slots: 16 };
    let frames: Vec<_> = (0..20_000_u32).map(|place| udp((place >> 14) as u8, place as u16, 53)).collect();
    let drained = count(ReplayProgram::Xdp, &Settings { tables, ..Settings::default() }, &frames);
    assert_eq!(verdicts(&drained, 20_000).0, 20_000);
}
