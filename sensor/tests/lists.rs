//! Threat lists in the real programs (K10): what is matched, what is dropped, and that the ledger holds. Needs
//! root.

use std::net::IpAddr;

use weir_sensor::kernel::{
    Drained, FilterAction, FilterRule, ListedPrefix, Replay, ReplayLink, ReplayProgram, Settings, TableSizes,
    address_bits,
};

const PROGRAMS: [ReplayProgram; 3] = [ReplayProgram::Xdp, ReplayProgram::TcEgress, ReplayProgram::TcIngress];

fn settings() -> Settings {
    Settings { tables: TableSizes { ipv4_slots: 4096, ipv6_slots: 1024 }, ..Settings::default() }
}

/// A listed prefix, as it is written.
fn prefix(cidr: &str, list: u8, drops: bool) -> ListedPrefix {
    let (address, length) = cidr.split_once('/').expect("a prefix");
    let address: IpAddr = address.parse().expect("an address");
    let length: u8 = length.parse().expect("a length");
    let length = if address.is_ipv4() { length + 96 } else { length };
    ListedPrefix { bits: address_bits(address), length, list, drops }
}

/// A UDP packet in an Ethernet frame.
fn udp(src: &str, dst: &str) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match (src.parse().expect("an address"), dst.parse().expect("an address")) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 26, 17, 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => panic!("addresses of one version"),
    }
    frame.extend([0x04, 0xd2, 0, 53, 0, 26, 0, 0]);
    frame.resize(frame.len() + 18, 0);
    frame
}

/// A flow's source, the lists of its source and destination, and whether it is dropped.
type Mark = (String, u8, u8, bool);

/// Runs the frames, each so many times, and what the drain says of each flow: lists of source and destination,
/// whether it drops.
fn marks(
    program: ReplayProgram,
    settings: &Settings,
    prefixes: &[ListedPrefix],
    frames: &[Vec<u8>],
    times: usize,
) -> (Drained, Vec<Mark>, [u64; 2]) {
    let mut replay =
        Replay::through(program, settings, ReplayLink::Ethernet).expect("the program loads; needs root");
    replay.install(prefixes).expect("the trie is filled");
    for (place, frame) in frames.iter().cycle().take(frames.len() * times).enumerate() {
        replay.frame(frame, place as i64).expect("the kernel runs the frame");
    }
    let lists = replay.lists().expect("lists are installed");
    let (mut dropped, mut spared) = (0, 0);
    for list in 1..=63 {
        let enforced = lists.enforced(list).expect("counts are read");
        dropped += enforced.dropped;
        spared += enforced.spared;
    }
    let drained = replay.finish().expect("the tables are drained");
    let mut marks: Vec<_> = drained
        .flows
        .iter()
        .map(|flow| {
            let listed = flow.listed;
            (flow.key.src.to_string(), listed.src, listed.dst, listed.drops)
        })
        .collect();
    marks.sort();
    (drained, marks, [dropped, spared])
}

fn balanced(drained: &Drained, frames: u64) -> weir_wire::Totals {
    let mut all = weir_wire::Totals::default();
    for point in &drained.points {
        all += point.totals;
    }
    assert_eq!(all.frames, frames);
    assert_eq!(all.accounted(), all.frames, "K3: {all:?}");
    assert_eq!(all.flow_packets, drained.flows.iter().map(|flow| flow.packets).sum::<u64>());
    all
}

#[test]
fn k10_the_longest_prefix_of_either_version_marks_the_flow_on_both_sides() {
    let prefixes = [
        prefix("192.0.2.0/24", 1, false),
        prefix("192.0.2.7/32", 2, false),
        // Taken out of the wider one.
        prefix("192.0.2.8/31", 0, false),
        prefix("198.51.100.0/25", 3, true),
        prefix("2001:db8::/32", 4, false),
        prefix("2001:db8:1::/48", 63, true),
        prefix("0.0.0.0/8", 5, false),
    ];
    let frames = [
        udp("192.0.2.1", "203.0.113.1"),
        udp("192.0.2.7", "198.51.100.127"),
        udp("192.0.2.9", "198.51.100.128"),
        udp("203.0.113.9", "0.255.255.255"),
        udp("2001:db8::1", "2001:db8:1:ffff::"),
        udp("2001:db9::1", "2001:db7::"),
    ];
    let expected = |drained: Vec<(&str, u8, u8, bool)>| -> Vec<(String, u8, u8, bool)> {
        drained.into_iter().map(|(src, a, b, drops)| (src.to_owned(), a, b, drops)).collect()
    };
    for program in PROGRAMS {
        let (drained, marks, [dropped, spared]) = marks(program, &settings(), &prefixes, &frames, 5);
        let mut wanted = expected(vec![
            ("192.0.2.1", 1, 0, false),
            ("192.0.2.7", 2, 3, true),
            ("192.0.2.9", 0, 0, false),
            ("203.0.113.9", 0, 5, false),
            ("2001:db8::1", 4, 63, true),
            ("2001:db9::1", 0, 0, false),
        ]);
        wanted.sort();
        assert_eq!(marks, wanted, "{program:?}");
        balanced(&drained, 30);
        // A replay drops nothing; it says what would be.
        assert_eq!((dropped, spared), (0, 10), "{program:?}");
        assert!(drained.flows.iter().all(|flow| flow.packets == 5 && flow.fragments == 0));
    }
}

#[test]
fn k10_every_length_of_prefix_is_found_and_its_neighbours_are_not() {
    let mut replay = Replay::through(ReplayProgram::Xdp, &settings(), ReplayLink::Ethernet)
        .expect("the program loads; needs root");
    let mut wanted = std::collections::BTreeMap::new();
    // The length of each is in the destination.
    let v4 = (8..=32).map(|length| (format!("100.64.77.9/{length}"), format!("203.0.{length}.")));
    let v6 = (8..=128)
        .map(|length| (format!("2001:db8:77:9:1234:5678:9abc:def0/{length}"), format!("2002::{length}:")));
    for (text, dst) in v4.chain(v6) {
        let inside = prefix(&text, 1, false);
        let below = u128::MAX.checked_shr(inside.length.into()).unwrap_or(0);
        let first = inside.bits & !below;
        replay.install(&[ListedPrefix { bits: first, ..inside }]).expect("the trie is filled");
        let sources = [(first, 1), (first | below, 1), (first - 1, 0), ((first | below) + 1, 0)];
        for (place, (source, list)) in (1..).zip(sources) {
            let source = std::net::Ipv6Addr::from_bits(source).to_canonical().to_string();
            let dst = format!("{dst}{place}");
            replay.frame(&udp(&source, &dst), 1).expect("the kernel runs the frame");
            wanted.insert(dst.parse::<IpAddr>().expect("an address"), list);
        }
    }
    let drained = replay.finish().expect("the tables are drained");
    let found: std::collections::BTreeMap<IpAddr, u8> =
        drained.flows.iter().map(|flow| (flow.key.dst, flow.listed.src)).collect();
    assert_eq!(found, wanted);
}

#[test]
fn k10_packets_without_a_slot_are_judged_all_the_same() {
    let prefixes = [prefix("192.0.2.0/24", 1, true)];
    let frames = [udp("192.0.2.1", "203.0.113.1"), udp("203.0.113.2", "203.0.113.1")];
    // Denied by a rule: no slot, and dropped where that is wanted.
    let denied = Settings {
        filter: vec![FilterRule {
            action: FilterAction::Deny,
            cidr: Some(("203.0.113.1".parse().expect("an address"), 32)),
            ports: None,
            protocol: None,
        }],
        ..settings()
    };
    let (drained, _, [_, spared]) = marks(ReplayProgram::Xdp, &denied, &prefixes, &frames, 10);
    assert_eq!((balanced(&drained, 20).filtered, spared), (20, 10));
    // Left out by sampling: every packet of the flow is judged, counted or not.
    let sampled = Settings { sampling_interval: 3, ..settings() };
    let (drained, _, [_, spared]) = marks(ReplayProgram::TcEgress, &sampled, &prefixes, &frames, 1000);
    let totals = balanced(&drained, 2000);
    assert_eq!(spared, 1000, "{totals:?}");
    assert_eq!(totals.flow_packets + totals.unsampled, 2000);
}

#[test]
fn k10_new_lists_replace_the_old_ones_at_once() {
    let mut replay = Replay::through(ReplayProgram::Xdp, &settings(), ReplayLink::Ethernet)
        .expect("the program loads; needs root");
    let many: Vec<ListedPrefix> = (0..20_000_u32)
        .map(|place| ListedPrefix {
            bits: address_bits(IpAddr::from((0x0a00_0000 | place).to_be_bytes())),
            length: 128,
            list: 1,
            drops: false,
        })
        .collect();
    replay.install(&many).expect("the trie is filled");
    replay.frame(&udp("10.0.78.31", "203.0.113.1"), 1).expect("the kernel runs the frame");
    replay.install(&[prefix("10.0.78.0/24", 2, false)]).expect("the trie is filled");
    replay.frame(&udp("10.0.78.30", "203.0.113.1"), 2).expect("the kernel runs the frame");
    replay.frame(&udp("10.0.0.1", "203.0.113.1"), 3).expect("the kernel runs the frame");
    replay.install(&[]).expect("the trie is emptied");
    replay.frame(&udp("10.0.78.29", "203.0.113.1"), 4).expect("the kernel runs the frame");
    let drained = replay.finish().expect("the tables are drained");
    let mut lists: Vec<_> =
        drained.flows.iter().map(|flow| (flow.key.src.to_string(), flow.listed.src)).collect();
    lists.sort();
    let wanted = [("10.0.0.1", 0), ("10.0.78.29", 0), ("10.0.78.30", 2), ("10.0.78.31", 1)];
    assert_eq!(lists, wanted.map(|(src, list)| (src.to_owned(), list)));
}

/// A classic capture of these frames.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(word.to_le_bytes());
    }
    for (second, frame) in (1_u32..).zip(frames) {
        for word in [second, 0, frame.len() as u32, frame.len() as u32] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(frame);
    }
    capture
}

#[test]
fn s6_a_capture_shows_which_connections_a_list_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let frames = [
        udp("192.0.2.1", "203.0.113.1"),
        udp("203.0.113.1", "192.0.2.9"),
        udp("2001:db8::1", "2001:db8::2"),
        udp("198.51.100.1", "198.51.100.2"),
    ];
    std::fs::write(path("a.pcap"), capture(&frames)).expect("it is written");
    std::fs::write(path("bad.txt"), "192.0.2.0/29\n2001:db8::2\n").expect("it is written");
    std::fs::write(path("worse.txt"), "# x\n203.0.113.0-203.0.113.7\nbad.example.org\n")
        .expect("it is written");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir-sensor"))
        .args(["pcap", "--json", "--list"])
        .arg(path("bad.txt"))
        .arg("--list")
        .arg(path("worse.txt"))
        .arg(path("a.pcap"))
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut listed: Vec<(String, String)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|line| line["type"] == "connection")
        .map(|line| (line["src"].as_str().unwrap_or_default().to_owned(), line["listed"].to_string()))
        .collect();
    listed.sort();
    let wanted = [
        ("192.0.2.1", r#"{"dst":"worse","src":"bad"}"#),
        ("198.51.100.1", "null"),
        ("2001:db8::1", r#"{"dst":"bad"}"#),
        ("203.0.113.1", r#"{"src":"worse"}"#),
    ];
    assert_eq!(listed, wanted.map(|(src, lists)| (src.to_owned(), lists.to_owned())));
}
