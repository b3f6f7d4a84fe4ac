//! K1, K2, K3, I2: captures replayed over a wire at top speed, with the epoch flipping every 50 ms, are in
//! Postgres flow by flow, packet by packet, octet by octet.
#![forbid(unsafe_code)]

use weir_e2e::{Site, captures, committed, truth, wire};
use weir_testbed::capture::Capture;
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::traffic::{Replay, Sent};
use weir_testbed::weir::{Ledger, Watch};

#[test]
fn native_xdp_counts_what_was_sent() {
    ingress("native");
}

#[test]
fn generic_xdp_counts_what_was_sent() {
    ingress("generic");
}

#[test]
fn egress_counts_what_was_sent() {
    let site = Site::new().expect("a control plane starts");
    let (sender, _receiver) = ends(&site);
    let watch = Watch::interface("tx", "off", "auto");
    let mut sensor = site.sensor("sender", &watch, &sender).expect("the sensor starts");
    let captures = captures().expect("the captures are there");
    let sent = replay(&sender, &captures);
    // A frame that the wire refused and tcpreplay sent again would have passed the hook twice.
    assert_eq!(sent.retried, 0, "the wire took every frame at once");
    let ledger = site.ledger_when("sender", "the last frame", |ledger| {
        ledger.point("tx", "egress").frames >= sent.frames && ledger.balanced
    });
    compare(&ledger, "tx", "egress", sent);
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());
    let stored = site.control_plane.flows("sender").expect("the flows are read");
    assert_flows(&stored, &captures);
}

fn ingress(mode: &'static str) {
    let site = Site::new().expect("a control plane starts");
    let (sender, receiver) = ends(&site);
    let watch = Watch::interface("rx", mode, "off");
    let mut sensor = site.sensor("receiver", &watch, &receiver).expect("the sensor starts");
    let captures = captures().expect("the captures are there");
    let sent = replay(&sender, &captures);
    let received = receiver.counters("rx").expect("the receiver has counters");
    assert_eq!(received.rx_packets, sent.frames);
    let ledger = site.ledger_when("receiver", "the last frame", |ledger| {
        ledger.point("rx", "ingress").frames >= sent.frames && ledger.balanced
    });
    compare(&ledger, "rx", "ingress", sent);
    assert!(sensor.stop().expect("the sensor ends").success(), "{}", sensor.log());
    let stored = site.control_plane.flows("receiver").expect("the flows are read");
    assert_flows(&stored, &captures);
}

fn ends(site: &Site) -> (Namespace, Namespace) {
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    wire((&sender, "tx"), (&receiver, "rx"), Veth::default()).expect("the wire is made");
    sender.queue("tx").expect("a queue is set");
    (sender, receiver)
}

/// Sends all of them, one after the other, at top speed.
fn replay(sender: &Namespace, captures: &[Capture]) -> Sent {
    assert!(captures.len() >= 35, "only {} captures can be compared", captures.len());
    captures.iter().fold(Sent { frames: 0, octets: 0, retried: 0 }, |sum, capture| {
        let sent = Replay::default().send(sender, "tx", &capture.pcap).expect("every frame is sent");
        assert_eq!(sent.frames, capture.truth.totals.frames, "{}", capture.name);
        Sent {
            frames: sum.frames + sent.frames,
            octets: sum.octets + sent.octets,
            retried: sum.retried + sent.retried,
        }
    })
}

fn compare(ledger: &Ledger, interface: &str, direction: &str, sent: Sent) {
    let point = ledger.point(interface, direction);
    assert_eq!((point.frames, point.octets_l2), (sent.frames, sent.octets));
    assert_eq!(point.overflow, 0, "the tables have room for these captures");
    assert!(ledger.kernel_balanced && ledger.balanced, "{ledger:#?}");
    assert!(ledger.gaps.is_empty(), "{:?}", ledger.gaps);
}

/// Names the flows that differ, and no others.
fn assert_flows(stored: &[weir_testbed::weir::Flow], captures: &[Capture]) {
    let (stored, expected) = (committed(stored), truth(captures));
    let differ: Vec<_> = expected
        .keys()
        .chain(stored.keys())
        .filter(|key| expected.get(*key) != stored.get(*key))
        .map(|key| format!("{key:?}: expected {:?}, stored {:?}", expected.get(key), stored.get(key)))
        .collect();
    assert!(differ.is_empty(), "{} flows differ:\n{}", differ.len(), differ.join("\n"));
}
