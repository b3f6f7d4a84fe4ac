//! The wire that the end-to-end tests count on: what is sent arrives, nothing else does.
#![forbid(unsafe_code)]

use std::path::Path;

use weir_testbed::capture::Capture;
use weir_testbed::netns::{End, Namespace, Veth};
use weir_testbed::traffic::Replay;

#[test]
fn a_replay_arrives_whole_and_alone() {
    let (sender, receiver) = pair(1500);
    let capture = Capture::named("tcpreplay-test").expect("the capture is there");
    let sent = Replay::default().send(&sender, "tx", &capture.pcap).expect("every frame is sent");
    let received = receiver.counters("rx").expect("the receiver has counters");
    assert_eq!(sent.frames, capture.truth.totals.frames);
    assert_eq!((received.rx_packets, received.rx_octets), (sent.frames, sent.octets));
    assert_eq!(received.tx_packets, 0);
}

#[test]
fn a_frame_that_does_not_fit_is_an_error() {
    let (sender, _receiver) = pair(1500);
    let capture = Capture::named("trex-udp-9k").expect("the capture is there");
    assert!(!capture.fits(1500));
    let error = Replay::default().send(&sender, "tx", &capture.pcap).expect_err("10 frames are too large");
    assert!(error.to_string().contains("10 frames were not sent"), "{error}");
}

#[test]
fn a_namespace_goes_with_its_guard() {
    let namespace = Namespace::new("guard").expect("root makes namespaces");
    let path = namespace.path().to_owned();
    assert!(path.exists());
    drop(namespace);
    assert!(!Path::new(&path).exists());
}

fn pair(mtu: u32) -> (Namespace, Namespace) {
    let sender = Namespace::new("sender").expect("root makes namespaces");
    let receiver = Namespace::new("receiver").expect("root makes namespaces");
    let left = End { namespace: Some(&sender), interface: "tx" };
    let right = End { namespace: Some(&receiver), interface: "rx" };
    Veth { mtu, ..Veth::default() }.join(left, right).expect("root makes veth pairs");
    (sender, receiver)
}
