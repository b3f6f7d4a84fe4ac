//! S9: SIGTERM drains what the kernel holds, delivers it, and exits with status 0.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use weir_e2e::{Site, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::traffic::Replay;
use weir_testbed::weir::Watch;

#[test]
fn what_was_never_drained_before_is_delivered() {
    let site = Site::new().expect("a control plane starts");
    let (sender, receiver) = ends(&site);
    // An epoch that is longer than this test: the last drain is the only one that can bring the frames.
    let watch = Watch { epoch: Duration::from_mins(1), ..Watch::interface("rx", "native", "off") };
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    let capture = Capture::named("pcpp-example2").expect("the capture is there");
    let sent = Replay::default().send(&sender, "tx", &capture.pcap).expect("every frame is sent");
    let before = site.control_plane.ledger("receiver").expect("the ledger is read");
    assert_eq!(before.total.frames, 0, "the epoch has not ended");

    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());

    let ledger = site.control_plane.ledger("receiver").expect("the ledger is read");
    assert_eq!((ledger.total.frames, ledger.total.octets_l2), (sent.frames, sent.octets));
    assert!(ledger.kernel_balanced && ledger.balanced, "{ledger:#?}");
}

#[test]
fn under_traffic_every_counted_packet_is_delivered() {
    let site = Site::new().expect("a control plane starts");
    let (sender, receiver) = ends(&site);
    let watch = Watch::interface("rx", "native", "off");
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    let capture = Capture::named("pcpp-tls2").expect("the capture is there");
    let enough = AtomicBool::new(false);
    let replay = Replay { loops: 1000, pps: Some(50_000), at_most_s: 60 };
    let stop = || enough.load(Ordering::Relaxed);
    let status = thread::scope(|scope| {
        let traffic = scope.spawn(|| replay.send_unless(&sender, "tx", &capture.pcap, stop));
        site.ledger_when("receiver", "traffic", |ledger| ledger.total.frames > 10_000);
        let status = sensor.stop();
        enough.store(true, Ordering::Relaxed);
        let sent = traffic.join().expect("the traffic does not panic").expect("frames are sent");
        assert_eq!(sent, None, "the sensor ended while frames were on the wire");
        status
    });
    assert!(status.expect("the sensor ends").success(), "{}", sensor.log());
    let ledger = site.control_plane.ledger("receiver").expect("the ledger is read");
    let received = receiver.counters("rx").expect("the receiver has counters");
    assert!(ledger.kernel_balanced && ledger.balanced, "{ledger:#?}");
    assert!(ledger.total.frames <= received.rx_packets, "{ledger:#?} {received:?}");
}

fn ends(site: &Site) -> (Namespace, Namespace) {
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    (sender, receiver)
}
