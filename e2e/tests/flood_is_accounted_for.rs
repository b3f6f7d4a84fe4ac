//! K5, S11: a flood of more flows than the table holds. Every packet is in a flow or counted as overflow, and
//! the early drains show in the metrics.
#![forbid(unsafe_code)]

use std::fs;
use std::time::Duration;

use weir_e2e::{Site, wire};
use weir_testbed::netns::Veth;
use weir_testbed::scratch::Scratch;
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

/// Flows in the flood, one frame each.
const FLOWS: u32 = 60_000;

/// A classic capture of UDP packets, each from another address and port.
fn flood() -> Vec<u8> {
    let mut capture = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        capture.extend(word.to_le_bytes());
    }
    for flow in 0..FLOWS {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
        frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend((0x0a00_0000 | flow).to_be_bytes());
        frame.extend([198, 51, 100, 1]);
        frame.extend(((flow >> 4) as u16).to_be_bytes());
        frame.extend([0, 53, 0, 26, 0, 0]);
        frame.resize(60, 0);
        for word in [0, flow, 60, 60] {
            capture.extend(word.to_le_bytes());
        }
        capture.extend(frame);
    }
    capture
}

#[test]
fn a_flood_of_flows_is_counted_to_the_last_packet() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("a wire is made");
    // An epoch that is longer than this test: only wake-ups drain before the end.
    let watch = Watch {
        epoch: Duration::from_mins(1),
        more: "[tables]\nipv4_slots = 4096\nipv6_slots = 16\n".to_owned(),
        ..Watch::interface("rx", "native", "off")
    };
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    let folder = Scratch::new("flood").expect("a folder is made");
    let capture = folder.path().join("flood.pcap");
    fs::write(&capture, flood()).expect("the capture is written");
    let sent = Replay::default().send(&sender, "tx", &capture).expect("every frame is sent");
    assert_eq!(sent.frames, u64::from(FLOWS));
    let received = receiver.counters("rx").expect("the receiver has counters");

    let early = sensor.metric("weir_sensor_early_drains_total").expect("metrics are served");
    assert!(early.is_some_and(|early| early >= 1.0), "early drains: {early:?}");
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());

    let ledger = site.control_plane.ledger("receiver").expect("the ledger is read");
    let total = &ledger.total;
    assert_eq!(total.frames, received.rx_packets);
    assert_eq!(total.flow_packets + total.overflow, total.frames, "{ledger:#?}");
    assert!(total.overflow > 0, "the flood was too small to fill the table");
    assert!(ledger.kernel_balanced && ledger.balanced, "{ledger:#?}");
}
