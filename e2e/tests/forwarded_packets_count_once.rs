//! K7: a host that forwards sees each packet twice, coming in and going out. With both interfaces watched
//! it counts once, and its path is kept.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use weir_e2e::hosts::{Host, introduce, transfer};
use weir_e2e::{Site, wire};
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::weir::{PathPoint, Watch};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const TO_CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TO_SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

#[test]
fn a_forwarded_packet_counts_once_and_keeps_its_path() {
    let site = Site::new().expect("a control plane starts");
    let [client, router, server] = [("client", 0), ("router", 1), ("server", 2)]
        .map(|(label, number)| site.member(label, number).expect("a member is made"));
    let veth = Veth { arp: true, ..Veth::default() };
    wire((&client, "up"), (&router, "inside"), veth).expect("the client's wire is made");
    wire((&router, "outside"), (&server, "up"), veth).expect("the server's wire is made");
    link((&client, CLIENT), (&router, "inside", TO_CLIENT));
    link((&server, SERVER), (&router, "outside", TO_SERVER));
    router.set("net.ipv4.ip_forward", "1").expect("the router forwards");
    client.ip(&["route", "add", "198.51.100.0/24", "via", "192.0.2.1"]).expect("a route is set");
    server.ip(&["route", "add", "192.0.2.0/24", "via", "198.51.100.1"]).expect("a route is set");
    let watch = Watch::interface("inside", "native", "auto").and("outside", "native", "auto");
    let mut sensor = site.sensor("router", &watch, &router).expect("the sensor starts");

    transfer(&client, &server, SERVER, "20M").expect("the bytes are transferred");

    // What either end sent is what the router forwarded: nothing else is on these wires. The octets are
    // layer 3: a veth's counters leave Ethernet's header out where native XDP is at the other end.
    let sent = || {
        let [client, server] =
            [&client, &server].map(|host| host.counters("up").expect("the ends have counters"));
        (client.tx_packets + server.tx_packets, client.tx_octets + server.tx_octets)
    };
    let ledger = site.ledger_when("router", "every packet, twice", |ledger| {
        ledger.total.frames == 2 * sent().0 && ledger.balanced
    });
    let (packets, octets) = sent();
    assert_eq!(ledger.total.flow_packets, 2 * packets);
    assert_eq!((ledger.committed_packets, ledger.crossing_packets), (packets, packets));
    assert_eq!(ledger.committed_octets, octets);
    assert_eq!(ledger.crossing_octets, ledger.committed_octets);

    let flows = site.control_plane.flows("router").expect("the flows are read");
    assert!(!flows.is_empty());
    for flow in &flows {
        // The client is the initiator: it comes in at `inside` and goes out at `outside`.
        assert_eq!((flow.src.as_str(), flow.dst.as_str()), ("192.0.2.10", "198.51.100.10"));
        if flow.packets > 0 {
            assert_eq!((flow.interface.as_str(), flow.direction.as_str()), ("inside", "ingress"));
            let out = PathPoint { interface: "outside".to_owned(), direction: "egress".to_owned() };
            assert!(flow.path.contains(&out), "{flow:?}");
        }
    }
    assert!(sensor.stop().expect("it ends").success(), "{}", sensor.log());
}

fn link(end: (&Namespace, Ipv4Addr), router: (&Namespace, &str, Ipv4Addr)) {
    introduce(
        Host { namespace: end.0, interface: "up", address: end.1 },
        Host { namespace: router.0, interface: router.1, address: router.2 },
    )
    .expect("the ends know each other");
}
