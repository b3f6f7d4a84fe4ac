//! K6: TCP leaves a host in segments that the kernel joins and splits again after the hook. The sensor
//! counts what is on the wire: the same as the peer's interface received.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use weir_e2e::hosts::{Host, introduce, transfer};
use weir_e2e::{Site, wire};
use weir_testbed::netns::Veth;
use weir_testbed::weir::Watch;

const SENDER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Ethernet's header, which a veth's counters leave out where native XDP is attached.
const HEADER: u64 = 14;

#[test]
fn segmented_tcp_is_counted_as_the_peer_received_it() {
    let site = Site::new().expect("a control plane starts");
    let sender = site.member("sender", 0).expect("a member is made");
    let receiver = site.member("receiver", 1).expect("a member is made");
    let veth = Veth { arp: true, offloads: true, ..Veth::default() };
    wire((&sender, "tx"), (&receiver, "rx"), veth).expect("the wire is made");
    for (namespace, interface) in [(&sender, "tx"), (&receiver, "rx")] {
        namespace.queue(interface).expect("a queue is set");
    }
    introduce(
        Host { namespace: &sender, interface: "tx", address: SENDER },
        Host { namespace: &receiver, interface: "rx", address: RECEIVER },
    )
    .expect("the ends know each other");
    // Native XDP on the receiver's end makes the kernel split what the sender's hook saw joined.
    let arriving = site.sensor("receiver", &Watch::interface("rx", "native", "off"), &receiver);
    let mut arriving = arriving.expect("the receiver's sensor starts");
    let leaving = site.sensor("sender", &Watch::interface("tx", "off", "auto"), &sender);
    let mut leaving = leaving.expect("the sender's sensor starts");

    transfer(&sender, &receiver, RECEIVER, "200M").expect("the bytes are transferred");

    let left = sender.counters("tx").expect("the sender has counters");
    assert_eq!(left.tx_dropped, 0, "what the hook saw reached the wire");
    let received = || receiver.counters("rx").expect("the receiver has counters");
    let egress = site.ledger_when("sender", "every packet on the wire", |ledger| {
        ledger.point("tx", "egress").frames == received().rx_packets && ledger.balanced
    });
    let ingress = site.ledger_when("receiver", "every packet on the wire", |ledger| {
        ledger.point("rx", "ingress").frames == received().rx_packets && ledger.balanced
    });
    let received = received();
    assert!(received.rx_packets > 200_000_000 / 1500, "{received:?}");
    for point in [egress.point("tx", "egress"), ingress.point("rx", "ingress")] {
        // All of it is IPv4 in bare frames, without padding.
        assert_eq!((point.frames, point.flow_packets), (received.rx_packets, received.rx_packets));
        assert_eq!(point.flow_octets, received.rx_octets);
        assert_eq!(point.octets_l2, received.rx_octets + HEADER * received.rx_packets);
    }
    assert!(arriving.stop().expect("it ends").success(), "{}", arriving.log());
    assert!(leaving.stop().expect("it ends").success(), "{}", leaving.log());
}
