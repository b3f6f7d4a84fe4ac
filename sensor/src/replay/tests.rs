//! `pcap` without a kernel: what reaches the program, what is printed, and how files fail.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;

use weir_wire::{Direction, Totals, link};

use super::*;
use crate::config::Detect;
use crate::kernel::{self, DrainFigures, Drained, FlowKey, FlowObservation, Listed, PointTotals, fragment};

/// Counts bare IPv4 without options, over two CPUs; the first byte of a MAC address is a VLAN to invent.
struct Fake {
    link: Link,
    totals: Totals,
    flows: HashMap<(FlowKey, u32, usize), FlowObservation>,
}

impl Program for Fake {
    fn load(link: Link, _: &kernel::Settings) -> anyhow::Result<Self> {
        Ok(Self { link, totals: Totals::default(), flows: HashMap::new() })
    }

    fn install(&mut self, _: &[kernel::ListedPrefix]) -> anyhow::Result<()> {
        Ok(())
    }

    fn frame(&mut self, bytes: &[u8], time_ns: i64) -> Result<(), FeedError> {
        assert!((14..=65_549).contains(&bytes.len()), "{} bytes", bytes.len());
        self.totals.frames += 1;
        self.totals.octets_l2 += bytes.len() as u64;
        let (stack, ip) = match self.link {
            Link::Ethernet if bytes[12..14] == [8, 0] => (u32::from(bytes[0]), &bytes[14..]),
            Link::RawIp => (0, bytes),
            Link::Ethernet => {
                self.totals.non_ip += 1;
                return Ok(());
            }
        };
        let octets = u64::from(u16::from_be_bytes([ip[2], ip[3]]));
        if octets > ip.len() as u64 {
            self.totals.malformed += 1;
            return Ok(());
        }
        self.totals.flow_packets += 1;
        let address = |at: usize| IpAddr::from([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]]);
        let port = |at: usize| u16::from_be_bytes([ip[at], ip[at + 1]]);
        let key = FlowKey {
            src: address(12),
            dst: address(16),
            protocol: ip[9],
            src_port: port(20),
            dst_port: port(22),
        };
        let cpu = self.totals.frames as usize % 2;
        let flow = self.flows.entry((key, stack, cpu)).or_insert(FlowObservation {
            key,
            point: 3,
            link: stack,
            packets: 0,
            octets: 0,
            first_ns: time_ns,
            last_ns: time_ns,
            tcp_flags: ip[33],
            first_tcp_flags: ip[33],
            fragments: if ip[6] & 0x20 == 0 { 0 } else { fragment::FIRST },
            icmp_type: 0,
            icmp_code: 0,
            listed: Listed::default(),
        });
        flow.packets += 1;
        flow.tcp_flags |= ip[33];
        flow.octets += octets;
        flow.last_ns = time_ns;
        Ok(())
    }

    fn events(&mut self) -> Vec<kernel::Event> {
        Vec::new()
    }

    fn finish(self) -> anyhow::Result<Drained> {
        Ok(Drained {
            epoch: 0,
            window_start_ns: 0,
            window_end_ns: 0,
            sampling_interval: 1,
            points: vec![PointTotals {
                id: 3,
                interface: "capture".to_owned(),
                ifindex: 0,
                direction: Direction::Ingress,
                stack: 0,
                totals: self.totals,
            }],
            links: vec![vec![link::VLAN + 10], vec![link::VLAN + 20, link::MPLS + 16]],
            flows: self.flows.into_values().collect(),
            figures: DrainFigures::default(),
        })
    }
}

/// An IPv4/TCP packet of 40 octets.
fn packet(source: u8, destination: u8, flags: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    (packet[0], packet[3], packet[9]) = (0x45, 40, 6);
    packet[12..16].copy_from_slice(&[10, 0, 0, source]);
    packet[16..20].copy_from_slice(&[10, 0, 0, destination]);
    packet[20..24].copy_from_slice(&[0, source, 0, destination]);
    packet[33] = flags;
    packet
}

fn ethernet(stack: u8, packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 14];
    (frame[0], frame[12]) = (stack, 8);
    [frame, packet.to_vec()].concat()
}

/// A capture in microseconds; each frame with its original length.
fn capture(link: u32, frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32.to_le_bytes(), [2, 0, 4, 0], [0; 4], [0; 4]].concat();
    file.extend([65_535_u32.to_le_bytes(), link.to_le_bytes()].concat());
    for (number, (original, bytes)) in (0_u32..).zip(frames) {
        file.extend(
            [1_700_000_000_u32, number, bytes.len() as u32, *original].map(u32::to_le_bytes).concat(),
        );
        file.extend(bytes);
    }
    file
}

struct Ran {
    out: String,
    messages: String,
    unreadable: usize,
}

fn run_files(files: &[(&str, Vec<u8>)], output: Output, unidirectional: bool) -> Ran {
    run_with(
        &Options {
            output,
            unidirectional,
            also: Also::default(),
            settings: kernel::Settings::default(),
            lists: ReplayLists::default(),
            detect: Detect::default(),
        },
        files,
    )
}

fn run_with(options: &Options, files: &[(&str, Vec<u8>)]) -> Ran {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let paths: Vec<PathBuf> = files
        .iter()
        .map(|(name, bytes)| {
            let path = folder.path().join(name);
            // A file without bytes is one that is not there.
            if !bytes.is_empty() {
                std::fs::write(&path, bytes).expect("a file is written");
            }
            path
        })
        .collect();
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    let unreadable = run::<Fake>(&paths, options, &mut out, &mut messages).expect("the program runs");
    let text = |bytes| {
        let prefix = format!("{}/", folder.path().display());
        String::from_utf8(bytes).expect("UTF-8").replace(&prefix, "")
    };
    Ran { out: text(out), messages: text(messages), unreadable }
}

fn whole(bytes: Vec<u8>) -> (u32, Vec<u8>) {
    (bytes.len() as u32, bytes)
}

#[test]
fn flows_are_lines_with_the_named_fields_and_a_last_line_of_totals() {
    let file = capture(
        1,
        &[
            whole(ethernet(0, &packet(1, 2, 2))),
            whole(ethernet(0, &packet(1, 2, 16))),
            whole(ethernet(2, &packet(1, 2, 16))),
            whole([&[0; 12][..], &[8, 6], &[0; 28]].concat()),
        ],
    );
    let ran = run_files(&[("a.pcap", file)], Output::Json, true);
    let expected = concat!(
        r#"{"type":"flow","file":"a.pcap","src":"10.0.0.1","dst":"10.0.0.2","proto":6,"sport":1,"dport":2,"l2":[],"#,
        r#""packets":2,"octets":80,"tcp_flags":18,"fragment":false,"icmp_type":0,"icmp_code":0,"#,
        r#""first":"2023-11-14T22:13:20.000000000Z","last":"2023-11-14T22:13:20.000001000Z"}"#,
        "\n",
        r#"{"type":"flow","file":"a.pcap","src":"10.0.0.1","dst":"10.0.0.2","proto":6,"sport":1,"dport":2,"#,
        r#""l2":["vlan:20","mpls:16"],"packets":1,"octets":40,"tcp_flags":16,"fragment":false,"icmp_type":0,"#,
        r#""icmp_code":0,"first":"2023-11-14T22:13:20.000002000Z","last":"2023-11-14T22:13:20.000002000Z"}"#,
        "\n",
        r#"{"type":"totals","file":"a.pcap","frames":4,"octets_l2":204,"flow_packets":3,"overflow":0,"non_ip":1,"#,
        r#""malformed":0,"filtered":0,"refused":0}"#,
        "\n",
    );
    assert_eq!((ran.out.as_str(), ran.messages.as_str(), ran.unreadable), (expected, "", 0));
}

#[test]
fn connections_join_both_directions() {
    let file = capture(
        1,
        &[
            whole(ethernet(0, &packet(1, 2, 2))),
            whole(ethernet(0, &packet(2, 1, 18))),
            whole(ethernet(0, &packet(1, 2, 16))),
        ],
    );
    let ran = run_files(&[("a.pcap", file.clone())], Output::Json, false);
    let line: serde_json::Value =
        serde_json::from_str(ran.out.lines().next().expect("a line")).expect("each line is JSON");
    assert_eq!(line["type"], "connection");
    assert_eq!(
        (&line["src"], &line["packets"], &line["reverse_packets"]),
        (&"10.0.0.1".into(), &2.into(), &1.into())
    );
    assert_eq!((&line["handshake_rtt_us"], &line["tcp_state"]), (&1.into(), &"established".into()));
    let table = run_files(&[("a.pcap", file)], Output::Table { limit: 5 }, false).out;
    assert!(table.contains("10.0.0.1:1") && table.contains("3 frames"), "{table}");
}

#[test]
fn a_frame_captured_short_is_padded_and_a_frame_too_large_refused() {
    let mut long = packet(1, 2, 2);
    long[2..4].copy_from_slice(&1_000_u16.to_be_bytes());
    let file = capture(
        1,
        &[
            (1_014, ethernet(0, &long)),
            (65_549, ethernet(0, &packet(1, 2, 2))),
            (65_550, ethernet(0, &packet(1, 2, 2))),
            (u32::MAX, ethernet(0, &packet(1, 2, 2))),
            whole(vec![0; 13]),
        ],
    );
    let ran = run_files(&[("a.pcap", file)], Output::Json, true);
    let totals: serde_json::Value =
        serde_json::from_str(ran.out.lines().last().expect("totals")).expect("JSON");
    assert_eq!(
        (&totals["frames"], &totals["octets_l2"], &totals["refused"], &totals["malformed"]),
        (&2.into(), &(1_014 + 65_549).into(), &3.into(), &0.into())
    );
    assert_eq!(ran.unreadable, 0, "a refused frame is no unreadable file");
}

#[test]
fn other_link_types_reach_the_program_as_ip() {
    let ip = packet(1, 2, 2);
    let cooked = |protocol: [u8; 2]| [&[0; 14][..], &protocol, &ip].concat();
    for (link, frames, octets) in [
        (101, vec![ip.clone()], 40),
        (12, vec![ip.clone()], 40),
        (0, vec![[&[2, 0, 0, 0][..], &ip].concat()], 40),
        (113, vec![cooked([8, 0]), cooked([8, 6])], 80),
    ] {
        let count = frames.len() as u64;
        let file = capture(link, &frames.into_iter().map(whole).collect::<Vec<_>>());
        let ran = run_files(&[("a.pcap", file)], Output::Json, true);
        let totals: serde_json::Value =
            serde_json::from_str(ran.out.lines().last().expect("totals")).expect("JSON");
        assert_eq!(
            (&totals["frames"], &totals["flow_packets"], &totals["non_ip"], &totals["octets_l2"]),
            (&count.into(), &1.into(), &(count - 1).into(), &octets.into()),
            "link type {link}"
        );
    }
}

#[test]
fn an_unreadable_file_is_named_and_the_others_are_done() {
    let good = capture(1, &[whole(ethernet(0, &packet(1, 2, 2)))]);
    let mut cut = capture(1, &[whole(ethernet(0, &packet(1, 2, 2))), whole(ethernet(0, &packet(1, 2, 2)))]);
    cut.truncate(cut.len() - 5);
    let files = [
        ("missing.pcap", Vec::new()),
        ("text.pcap", b"not a capture".to_vec()),
        ("wifi.pcap", capture(105, &[])),
        ("cut.pcap", cut),
        ("good.pcap", good),
    ];
    let ran = run_files(&files, Output::Json, true);
    assert_eq!(ran.unreadable, 4);
    for name in ["missing.pcap", "text.pcap", "wifi.pcap", "cut.pcap"] {
        assert!(ran.messages.lines().any(|line| line.contains(name)), "{name}: {}", ran.messages);
    }
    let totals = |name: &str| {
        let lines = ran.out.lines().filter(|line| line.contains(r#""type":"totals""#));
        lines.filter(|line| line.contains(name)).count()
    };
    assert_eq!((totals("good.pcap"), totals("cut.pcap"), totals("text.pcap")), (1, 1, 0));
    let cut =
        ran.out.lines().find(|line| line.contains("cut.pcap") && line.contains("totals")).expect("totals");
    assert!(cut.contains(r#""frames":1,"#), "{cut}");
}

#[test]
fn an_empty_capture_has_totals_of_nothing() {
    let ran = run_files(&[("a.pcap", capture(1, &[]))], Output::Json, false);
    assert_eq!((ran.out.lines().count(), ran.unreadable), (1, 0));
    assert!(ran.out.contains(r#""frames":0,"#));
}

/// A UDP datagram of DNS: a name of one label, and its address in an answer.
fn dns(source: u8, destination: u8, ports: [u16; 2], answer: Option<u8>) -> Vec<u8> {
    let flags: [u8; 2] = if answer.is_some() { [0x81, 0x80] } else { [1, 0] };
    let mut message = [&[0, 7], &flags[..], &[0, 1, 0, u8::from(answer.is_some()), 0, 0, 0, 0]].concat();
    message.extend_from_slice(b"\x04\x1b[2J\0\0\x01\0\x01");
    if let Some(last) = answer {
        message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 10, 0, 0, last]);
    }
    let octets = (28 + message.len()) as u16;
    let mut packet = vec![0; 28];
    (packet[0], packet[9]) = (0x45, 17);
    packet[2..4].copy_from_slice(&octets.to_be_bytes());
    packet[12..16].copy_from_slice(&[10, 0, 0, source]);
    packet[16..20].copy_from_slice(&[10, 0, 0, destination]);
    packet[20..22].copy_from_slice(&ports[0].to_be_bytes());
    packet[22..24].copy_from_slice(&ports[1].to_be_bytes());
    packet[24..26].copy_from_slice(&(octets - 20).to_be_bytes());
    [packet, message].concat()
}

#[test]
fn observations_are_lines_and_name_connections_and_a_terminal_is_safe_from_them() {
    // The stand-in program reads TCP's flags where these packets have them not; it needs their octet 33.
    let file = capture(
        1,
        &[
            whole(ethernet(0, &dns(1, 53, [40_000, 53], None))),
            whole(ethernet(0, &dns(53, 1, [53, 40_000], Some(2)))),
            whole(ethernet(0, &packet(1, 2, 2))),
        ],
    );
    let run = |output| {
        let options = Options {
            output,
            unidirectional: false,
            also: Also { observations: true, ..Also::default() },
            settings: kernel::Settings::default(),
            lists: ReplayLists::default(),
            detect: Detect::default(),
        };
        run_with(&options, &[("a.pcap", file.clone())]).out
    };
    let json = run(Output::Json);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&lines[0]["type"], &lines[0]["response"]), (&"dns".into(), &false.into()));
    assert_eq!((&lines[1]["latency_us"], &lines[1]["sport"]), (&1.into(), &53.into()));
    assert_eq!(lines[1]["answers"][0]["a"], "10.0.0.2");
    let named: Vec<_> = lines.iter().filter(|line| line.get("name_source").is_some()).collect();
    assert_eq!(named.len(), 1, "{json}");
    assert_eq!((&named[0]["dst"], &named[0]["name"]), (&"10.0.0.2".into(), &"\\u{1b}[2J".into()));
    let table = run(Output::Table { limit: 5 });
    assert!(table.contains("2 of 2 observations") && table.contains("DNS: 1 answers"), "{table}");
    // I6: nothing moves a cursor.
    assert!(!format!("{json}{table}").contains('\u{1b}'));
}
