//! Events by the real programs on the real kernel, fed with `BPF_PROG_TEST_RUN` (S3, S4, K3, K4). Needs root.

use std::collections::BTreeMap;

use weir_sensor::kernel::{
    Drained, Event, EventClass, EventSettings, Replay, ReplayLink, ReplayProgram, Settings,
};

const PROGRAMS: [ReplayProgram; 3] = [ReplayProgram::Xdp, ReplayProgram::TcEgress, ReplayProgram::TcIngress];

const MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A frame that is not IP.
fn ethernet(ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = [&MACS[..], &ethertype, payload].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let header = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
    ethernet([8, 0], &[&header[..], payload].concat())
}

fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let mut header = vec![0x60, 0, 0, 0, high, low, protocol, 64];
    for host in [1, 2] {
        header.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
    }
    ethernet([0x86, 0xdd], &[&header[..], payload].concat())
}

fn udp(sport: u16, dport: u16, payload: &[u8]) -> Vec<u8> {
    let octets = 8 + payload.len() as u16;
    [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &octets.to_be_bytes(), &[0, 0], payload].concat()
}

fn tcp(sport: u16, dport: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let header = [&sport.to_be_bytes()[..], &dport.to_be_bytes(), &sequence.to_be_bytes(), &[0; 4]].concat();
    // With an option, so that nobody counts on twenty octets.
    [&header[..], &[0x60, 0x18, 255, 255, 0, 0, 0, 0, 1, 1, 1, 1], payload].concat()
}

/// A TLS record with a handshake message of `octets`, of which `there` are in this payload.
fn hello(kind: u8, octets: u16, there: usize) -> Vec<u8> {
    let ([a, b], [c, d]) = ((octets + 4).to_be_bytes(), octets.to_be_bytes());
    let mut payload = vec![22, 3, 1, a, b, kind, 0, c, d, 3, 3];
    payload.resize(there, 0x5a);
    payload
}

fn quic() -> Vec<u8> {
    let mut payload = vec![0xc3, 0, 0, 0, 1, 8];
    payload.resize(1200, 7);
    payload
}

/// A frame for each class.
fn wanted() -> Vec<(EventClass, Vec<u8>)> {
    use EventClass as Class;
    let tagged = |tags: &[u8], frame: &[u8]| [&frame[..12], tags, &frame[12..]].concat();
    let arp = ethernet([8, 6], &[0, 1, 8, 0, 6, 4, 0, 1]);
    let cdp = {
        let mut frame = ethernet([0, 46], &[0xaa, 0xaa, 3, 0, 0, 0x0c, 0x20, 0, 2, 180]);
        frame[..6].copy_from_slice(&[1, 0, 0x0c, 0xcc, 0xcc, 0xcc]);
        frame
    };
    let mut wanted = vec![
        (Class::Arp, arp.clone()),
        (Class::Arp, tagged(&[0x81, 0, 0, 5], &arp)),
        (Class::Arp, tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], &arp)),
        (Class::Lldp, ethernet([0x88, 0xcc], &[2, 7, 4, 1, 2, 3])),
        (Class::Cdp, cdp),
        (Class::Dns, ipv4(17, &udp(50_000, 53, b"query"))),
        (Class::Dns, ipv4(17, &udp(53, 50_000, b"answer"))),
        (Class::Dns, ipv6(17, &udp(50_000, 53, b"query"))),
        (Class::Dns, ipv4(6, &tcp(50_000, 53, 1, b"\0\x05query"))),
        (Class::Dns, tagged(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 6], &ipv4(17, &udp(50_000, 53, b"query")))),
        (Class::Mdns, ipv4(17, &udp(5353, 5353, b"query"))),
        (Class::Llmnr, ipv4(17, &udp(50_001, 5355, b"query"))),
        (Class::Nbns, ipv4(17, &udp(137, 137, b"query"))),
        (Class::Dhcpv4, ipv4(17, &udp(68, 67, &[1; 240]))),
        (Class::Dhcpv6, ipv6(17, &udp(546, 547, b"solicit"))),
        (Class::Ssdp, ipv4(17, &udp(50_002, 1900, b"M-SEARCH * HTTP/1.1"))),
        (Class::Quic, ipv4(17, &udp(50_003, 443, &quic()))),
        (Class::Quic, ipv6(17, &udp(443, 50_003, &quic()))),
        (Class::TlsClient, ipv4(6, &tcp(50_004, 443, 1, &hello(1, 500, 509)))),
        (Class::TlsServer, ipv4(6, &tcp(443, 50_004, 1, &hello(2, 90, 99)))),
        (Class::TlsClient, ipv6(6, &tcp(50_005, 8443, 1, &hello(1, 500, 509)))),
        (Class::Http, ipv4(6, &tcp(50_006, 8080, 1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))),
        (Class::Http, ipv6(6, &tcp(50_006, 80, 1, b"POST /form HTTP/1.1\r\n"))),
    ];
    wanted.extend((133..=137).map(|kind| (Class::Ndp, ipv6(58, &[kind, 0, 0, 0, 0, 0, 0, 0]))));
    wanted
}

/// Frames that look a little like the others.
fn unwanted() -> Vec<Vec<u8>> {
    vec![
        ethernet([0x88, 0xe5], b"MACsec"),
        ethernet([0, 46], &[0x42, 0x42, 3, 0, 0]),
        ipv4(17, &udp(50_000, 5000, &[22; 200])),
        ipv4(17, &udp(50_000, 443, &[0x40; 1200])),
        ipv4(6, &tcp(50_000, 443, 1, &[23, 3, 3, 0, 40, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])),
        ipv4(6, &tcp(50_000, 80, 1, b"HTTP/1.1 200 OK\r\n")),
        ipv4(6, &tcp(50_000, 53, 1, b"")),
        ipv4(6, &tcp(50_000, 443, 1, b"")),
        ipv4(1, &[8, 0, 0, 0, 0, 0, 0, 0]),
        ipv6(58, &[128, 0, 0, 0, 0, 0, 0, 0]),
        ipv4(132, &[0, 53, 0, 53, 0, 0, 0, 0]),
    ]
}

/// What became of frames: the events, each with the place of its frame, and what was counted.
fn run(program: ReplayProgram, settings: &Settings, frames: &[Vec<u8>]) -> (Vec<(usize, Event)>, Drained) {
    let mut replay = Replay::through(program, settings, ReplayLink::Ethernet)
        .expect("the program loads; this test needs root");
    let mut events = Vec::new();
    for (place, frame) in frames.iter().enumerate() {
        replay.frame(frame, place as i64).expect("the kernel runs the frame");
        events.extend(replay.events().into_iter().map(|event| (place, event)));
    }
    for class in EventClass::ALL {
        let counts = replay.event_counts(class).expect("the states are read");
        let taken = events.iter().filter(|(_, event)| event.class == class).count() as u64;
        assert_eq!(counts.selected, counts.delivered + counts.refused(), "{class:?}");
        assert_eq!((counts.delivered, counts.refused()), (taken, 0), "{class:?}: a replay refuses nothing");
    }
    (events, replay.finish().expect("the tables are drained"))
}

/// Flows, whichever CPUs counted them, and totals.
fn counts(drained: &Drained) -> String {
    let mut flows = BTreeMap::new();
    for flow in &drained.flows {
        let (packets, octets, flags) = flows.entry(flow.key).or_insert((0, 0, 0));
        *packets += flow.packets;
        *octets += flow.octets;
        *flags |= flow.tcp_flags;
    }
    let totals: Vec<_> = drained.points.iter().map(|point| point.totals).collect();
    format!("{flows:#?} {totals:?}")
}

#[test]
fn s3_each_class_is_handed_over_by_every_program_with_its_bytes() {
    let wanted = wanted();
    let frames: Vec<Vec<u8>> = wanted.iter().map(|(_, frame)| frame.clone()).collect();
    for class in EventClass::ALL {
        assert!(wanted.iter().any(|(of, _)| *of == class), "{class:?} has a frame");
    }
    for program in PROGRAMS {
        let (events, _) = run(program, &Settings::default(), &frames);
        let seen: Vec<_> = events.iter().map(|(place, event)| (*place, event.class)).collect();
        let all: Vec<_> = wanted.iter().enumerate().map(|(place, (class, _))| (place, *class)).collect();
        assert_eq!(seen, all, "{program:?}");
        for (place, event) in events {
            assert_eq!(event.bytes, frames[place], "{program:?} {:?}", event.class);
            assert_eq!((event.octets as usize, event.time_ns), (frames[place].len(), place as i64));
            assert_eq!((&*event.interface, event.layer3, event.offloaded_vlan), ("capture", false, None));
        }
    }
}

#[test]
fn p1_what_nobody_wants_is_not_handed_over() {
    for program in PROGRAMS {
        let (events, _) = run(program, &Settings::default(), &unwanted());
        assert_eq!(events, [], "{program:?}");
    }
}

#[test]
fn k3_events_change_no_count() {
    let frames: Vec<Vec<u8>> = (0..3)
        .flat_map(|_| wanted().into_iter().map(|(_, frame)| frame).chain(unwanted()))
        .flat_map(|frame| (14..=frame.len()).rev().step_by(7).map(move |octets| frame[..octets].to_vec()))
        .filter(|frame| frame.len() >= 60)
        .collect();
    for program in PROGRAMS {
        let settings = |events| Settings { events, ..Settings::default() };
        let (events, with) = run(program, &settings(EventSettings::default()), &frames);
        let (none, without) = run(program, &settings(EventSettings::none()), &frames);
        assert!(!events.is_empty() && none.is_empty(), "{program:?}");
        assert_eq!(counts(&with), counts(&without), "{program:?}");
    }
}

#[test]
fn s3_a_class_that_is_not_wanted_is_left_out() {
    let settings = Settings {
        events: EventSettings {
            classes: vec![EventClass::Dns, EventClass::Http],
            ..EventSettings::default()
        },
        ..Settings::default()
    };
    let wanted = wanted();
    let frames: Vec<Vec<u8>> = wanted.iter().map(|(_, frame)| frame.clone()).collect();
    let (events, _) = run(ReplayProgram::Xdp, &settings, &frames);
    let of = |classes: &[EventClass]| wanted.iter().filter(|(class, _)| classes.contains(class)).count();
    assert_eq!(events.len(), of(&[EventClass::Dns, EventClass::Http]));
}

/// The segments behind the first look like anything; a flow beside it is left alone.
#[test]
fn s3_a_client_hello_over_several_segments_is_handed_over_to_its_end() {
    const SEGMENT: usize = 500;
    let all = hello(1, 1800, 1809);
    let at = |start: usize| &all[start..(start + SEGMENT).min(all.len())];
    let part = |start: usize| ipv4(6, &tcp(50_000, 443, 7_000 + start as u32, at(start)));
    let other = ipv4(6, &tcp(50_001, 443, 7_500, at(500)));
    let after = ipv4(6, &tcp(50_000, 443, 7_000 + 1809, &[0x17; 300]));
    let back = ipv4(6, &tcp(443, 50_000, 7_600, at(500)));
    let frames = [
        part(500), // before the first: nobody knows it yet
        part(0),
        part(1000),
        other,
        back,
        part(500),
        part(1500),
        after,
    ];
    for program in PROGRAMS {
        let (events, _) = run(program, &Settings::default(), &frames);
        let places: Vec<usize> = events.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [1, 2, 5, 6], "{program:?}");
        assert!(events.iter().all(|(_, event)| event.class == EventClass::TlsClient), "{program:?}");
    }
}

#[test]
fn s3_a_long_frame_is_cut_at_the_snap_length() {
    let mut settings = Settings::default();
    settings.events.snap_octets = 128;
    let frames = [129, 128, 127].map(|octets| ipv4(17, &udp(50_000, 53, &vec![9; octets - 42])));
    for program in PROGRAMS {
        let (events, _) = run(program, &settings, &frames);
        let octets: Vec<_> = events.iter().map(|(_, event)| (event.octets, event.bytes.len())).collect();
        assert_eq!(octets, [(129, 128), (128, 128), (127, 127)], "{program:?}");
        assert!(events.iter().all(|(place, event)| frames[*place].starts_with(&event.bytes)), "{program:?}");
    }
}

/// Every length, because copies are made in words and in what is left of one.
#[test]
fn k4_frames_of_any_length_come_whole_up_to_the_snap_length() {
    let mut settings = Settings::default();
    settings.events.snap_octets = 4096;
    let frame = |octets: usize| {
        let payload: Vec<u8> = (0..octets - 42).map(|place| place as u8).collect();
        ipv4(17, &udp(50_000, 53, &payload))
    };
    for program in PROGRAMS {
        // A test run takes no longer skb.
        let most = if program == ReplayProgram::Xdp { 65_549 } else { 3000 };
        let lengths = (60..80).chain([1514, 2999, 4095, 4096, 4097, 9014, 65_549]);
        let frames: Vec<_> = lengths.filter(|octets| *octets <= most).map(frame).collect();
        let (events, _) = run(program, &settings, &frames);
        assert_eq!(events.len(), frames.len(), "{program:?}");
        for (place, event) in events {
            let frame = &frames[place];
            assert_eq!(event.octets as usize, frame.len(), "{program:?}");
            assert_eq!(event.bytes, frame[..frame.len().min(4096)], "{program:?} {}", frame.len());
        }
    }
}

#[test]
fn s3_frames_that_begin_with_ip_are_handed_over_as_such() {
    let frame = ipv4(17, &udp(50_000, 53, b"query"))[14..].to_vec();
    let mut replay =
        Replay::through(ReplayProgram::TcIngress, &Settings::default(), ReplayLink::RawIp).expect("it loads");
    replay.frame(&frame, 1).expect("the kernel runs the frame");
    let events = replay.events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].class, events[0].layer3, &events[0].bytes), (EventClass::Dns, true, &frame));
}

/// Nobody reads the ring: it fills, what finds no room is counted, and all are counted as frames.
#[test]
fn k5_a_ring_that_nobody_reads_refuses_and_says_how_often() {
    const FRAMES: u64 = 3000;
    let frame = ipv4(17, &udp(50_000, 53, &[1; 958]));
    for program in PROGRAMS {
        let mut replay =
            Replay::through(program, &Settings::default(), ReplayLink::Ethernet).expect("it loads");
        for time in 0..FRAMES {
            replay.frame(&frame, time as i64).expect("the kernel runs the frame");
        }
        let counts = replay.event_counts(EventClass::Dns).expect("the states are read");
        assert_eq!((counts.selected, counts.over_budget, counts.unreadable), (FRAMES, 0, 0), "{program:?}");
        assert!(counts.ring_full > 0 && counts.delivered > 900, "{program:?}: {counts:?}");
        assert_eq!(counts.delivered + counts.ring_full, FRAMES, "{program:?}");
        assert_eq!(counts.delivered_octets, counts.delivered * 1000, "{program:?}");
        assert_eq!(replay.events().len() as u64, counts.delivered, "{program:?}");
        let drained = replay.finish().expect("the tables are drained");
        let frames: u64 = drained.points.iter().map(|point| point.totals.frames).sum();
        assert_eq!((frames, drained.flows[0].packets), (FRAMES, FRAMES), "{program:?}");
    }
}
