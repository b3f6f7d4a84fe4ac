//! Who is one and who is two: identities over time (S4), and bounds.

use std::net::IpAddr;

use super::*;
use crate::config;
use crate::kernel::FlowKey;
use crate::observe::{
    Answer, Arp, Dhcp4, Dhcp6, Dns, DnsKind, Mac, Name, Ndp, NdpKind, Origin, Rdata, Seen, Ssdp,
};

const SECOND: i64 = 1_000_000_000;
const BROADCAST: Mac = Mac([0xff; 6]);
const CARD: Mac = Mac([0xb0, 0xc5, 0x54, 1, 2, 3]);
const MADE_UP: [Mac; 3] =
    [Mac([0x02, 1, 1, 1, 1, 1]), Mac([0x06, 2, 2, 2, 2, 2]), Mac([0x0a, 3, 3, 3, 3, 3])];

fn devices(max: usize) -> Devices {
    Devices::new(&config::Devices { max, ..config::Devices::default() }).expect("the registry reads")
}

fn at(seconds: i64, origin: Origin, seen: Seen) -> Observation {
    Observation { time_ns: seconds * SECOND, origin, seen }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn udp(src_mac: Mac, dst_mac: Mac, src: &str, dst: &str, port: u16) -> Origin {
    Origin {
        src_mac: Some(src_mac),
        dst_mac: Some(dst_mac),
        flow: Some(FlowKey {
            src: address(src),
            dst: address(dst),
            protocol: 17,
            src_port: port,
            dst_port: port,
        }),
        ..Origin::default()
    }
}

fn arp(seconds: i64, sender: Mac, sender_ip: &str) -> Observation {
    let message = Arp {
        operation: 1,
        sender,
        sender_ip: sender_ip.parse().expect("an address"),
        target: Mac([0; 6]),
        target_ip: [10, 0, 0, 1].into(),
    };
    at(seconds, Origin::default(), Seen::Arp(message))
}

fn advertises(seconds: i64, mac: Mac, target: &str) -> Observation {
    let message = Ndp {
        kind: NdpKind::NeighbourAdvertisement,
        target: Some(target.parse().expect("an address")),
        link_address: Some(mac),
        router: None,
    };
    at(seconds, udp(mac, BROADCAST, target, "ff02::1", 0), Seen::Ndp(message))
}

/// What a client asks for.
fn request(client: Mac) -> Dhcp4 {
    let none = std::net::Ipv4Addr::UNSPECIFIED;
    Dhcp4 {
        message: Some(3),
        reply: false,
        transaction: 1,
        client: Some(client),
        client_id: None,
        hostname: None,
        client_fqdn: None,
        vendor_class: None,
        parameters: vec![1, 3, 6, 15, 26, 28],
        requested: None,
        client_ip: none,
        assigned: none,
        relay: none,
        server: None,
        lease_s: None,
        routers: vec![],
        name_servers: vec![],
    }
}

fn dhcp(seconds: i64, message: Dhcp4) -> Observation {
    let client = message.client.expect("a client");
    at(seconds, udp(client, BROADCAST, "0.0.0.0", "255.255.255.255", 68), Seen::Dhcp4(message))
}

fn named(client: Mac, hostname: &str) -> Dhcp4 {
    Dhcp4 { hostname: Some(hostname.to_owned()), ..request(client) }
}

fn with_client_id(client: Mac, client_id: &str) -> Dhcp4 {
    Dhcp4 { client_id: Some(client_id.to_owned()), ..request(client) }
}

/// How many devices these observations make, in this order.
fn count(observations: &[Observation]) -> usize {
    let mut devices = devices(1_000);
    for observation in observations {
        devices.observe(observation);
    }
    devices.len()
}

#[test]
fn s4_privacy_addresses_and_renewals_are_one_device() {
    let mut devices = devices(100);
    for (seconds, observation) in [
        arp(1, CARD, "10.0.0.5"),
        arp(2, CARD, "10.0.0.77"),
        advertises(3, CARD, "fe80::1"),
        advertises(4, CARD, "2001:db8::a1"),
        advertises(5, CARD, "2001:db8::a2"),
        dhcp(6, named(CARD, "Ann's laptop\u{202e}")),
    ]
    .into_iter()
    .enumerate()
    {
        devices.observe(&observation);
        assert_eq!(devices.len(), 1, "after {}", seconds + 1);
    }
    let device = devices.all().next().expect("the device");
    assert_eq!(device.addresses.len(), 5);
    assert_eq!(device.vendor.as_deref(), Some("D-Link International"));
    assert_eq!((device.first_ns, device.last_ns), (SECOND, 6 * SECOND));
}

#[test]
fn s4_an_identifier_that_lasts_joins_made_up_addresses() {
    // The DUID as option 61 (RFC 4361), and the same for IPv6.
    let duid = "00020000ab11aabbccdd";
    let v4 = |seconds, mac| dhcp(seconds, with_client_id(mac, &format!("ff00000001{duid}")));
    let v6 = |seconds, mac: Mac| {
        let message = Dhcp6 {
            messages: vec![3],
            transaction: None,
            client_id: Some(duid.to_owned()),
            server_id: None,
            client_fqdn: None,
            vendor_enterprise: None,
            vendor_class: vec![],
            options: vec![],
            assigned: vec![],
        };
        at(seconds, udp(mac, BROADCAST, "fe80::5", "ff02::1:2", 546), Seen::Dhcp6(message))
    };
    assert_eq!(count(&[v4(1, MADE_UP[0]), v6(2, MADE_UP[1]), v4(3, MADE_UP[2])]), 1);
    // In any order, and though each was somebody of its own before.
    assert_eq!(
        count(&[
            arp(1, MADE_UP[0], "10.0.0.1"),
            arp(1, MADE_UP[1], "10.0.0.2"),
            v4(2, MADE_UP[1]),
            v4(3, MADE_UP[0])
        ]),
        1
    );
    // A laptop whose wireless card makes up its address, and whose other one does not.
    assert_eq!(count(&[v4(1, CARD), v4(2, MADE_UP[0])]), 1);
    let uuid = |seconds, mac| {
        let message = Ssdp {
            method: Some("NOTIFY".to_owned()),
            unique_name: Some("uuid:2f402f80-da50-11e1-9b23-001788102201::upnp:rootdevice".to_owned()),
            ..Ssdp::default()
        };
        at(seconds, udp(mac, BROADCAST, "10.0.0.9", "239.255.255.250", 1900), Seen::Ssdp(message))
    };
    assert_eq!(count(&[uuid(1, MADE_UP[0]), uuid(2, MADE_UP[1])]), 1);
}

#[test]
fn s4_two_cards_are_never_joined_and_a_clones_identifier_names_nobody() {
    let other = Mac([0xb0, 0xc5, 0x54, 9, 9, 9]);
    let clone = |seconds, mac| dhcp(seconds, with_client_id(mac, "ff0000000100020000ab11aabbccdd"));
    assert_eq!(count(&[clone(1, CARD), clone(2, other)]), 2);
    assert_eq!(count(&[clone(1, CARD), clone(2, other), clone(3, MADE_UP[0]), clone(4, MADE_UP[1])]), 4);
    // A name and a fingerprint are no reason either.
    assert_eq!(count(&[dhcp(1, named(CARD, "reception")), dhcp(9, named(other, "reception"))]), 2);
}

#[test]
fn s4_a_name_of_its_own_and_the_same_behaviour_recognise_a_changed_address() {
    let first = dhcp(1, named(MADE_UP[0], "anns-phone"));
    assert_eq!(count(&[first.clone(), dhcp(500, named(MADE_UP[1], "Anns-Phone"))]), 1);
    assert_eq!(
        count(&[first.clone(), arp(400, MADE_UP[1], "10.0.0.9"), dhcp(500, named(MADE_UP[1], "anns-phone"))]),
        1,
        "it was seen before it asked"
    );
    for (why, second) in [
        ("another name", named(MADE_UP[1], "bobs-phone")),
        ("another fingerprint", Dhcp4 { parameters: vec![1, 3, 6], ..named(MADE_UP[1], "anns-phone") }),
        ("another maker", Dhcp4 { vendor_class: Some("x".to_owned()), ..named(MADE_UP[1], "anns-phone") }),
        ("a card of its own", named(CARD, "anns-phone")),
        ("no name", request(MADE_UP[1])),
    ] {
        assert_eq!(count(&[first.clone(), dhcp(500, second)]), 2, "{why}");
    }
    let common = |seconds, mac| dhcp(seconds, named(mac, "iPhone"));
    assert_eq!(count(&[common(1, MADE_UP[0]), common(500, MADE_UP[1])]), 2, "everybody's name");
    assert_eq!(
        count(&[
            arp(1, MADE_UP[1], "10.0.0.9"),
            first,
            arp(3, MADE_UP[1], "10.0.0.9"),
            dhcp(4, named(MADE_UP[1], "anns-phone")),
        ]),
        2,
        "both are there at once"
    );
}

#[test]
fn what_comes_through_a_router_is_nobodys_there() {
    let mut devices = devices(100);
    devices.observe(&arp(1, CARD, "10.0.0.1"));
    let hello = |mac| {
        let head = crate::observe::Http {
            method: "GET".to_owned(),
            host: None,
            user_agent: Some("Mozilla/5.0 (Windows NT 10.0)".to_owned()),
        };
        at(2, udp(mac, CARD, "10.0.0.5", "192.0.2.1", 80), Seen::Http(head))
    };
    devices.observe(&hello(CARD));
    assert_eq!(devices.all().map(|device| device.reasons.iter().count()).sum::<usize>(), 0);
    devices.observe(&arp(3, MADE_UP[0], "10.0.0.5"));
    devices.observe(&hello(CARD));
    assert_eq!(
        devices.all().map(|device| device.reasons.iter().count()).sum::<usize>(),
        0,
        "the router's frame"
    );
    devices.observe(&hello(MADE_UP[0]));
    let windows = devices.all().find(|device| device.has_mac(MADE_UP[0])).expect("the client");
    assert_eq!(windows.reasons.verdict(), Some((Type::Computer, 30)));
}

#[test]
fn a_reflected_name_goes_to_whom_it_names() {
    let mut devices = devices(100);
    devices.observe(&arp(1, CARD, "10.0.0.1"));
    devices.observe(&arp(1, MADE_UP[0], "10.0.0.5"));
    let answer =
        |name: &[u8], data| Answer { name: Name::from_dotted(name), kind: 1, class: 1, ttl_s: 120, data };
    let message = Dns {
        kind: DnsKind::Mdns,
        id: 0,
        response: true,
        opcode: 0,
        rcode: 0,
        truncated: false,
        questions: vec![],
        answers: vec![
            answer(b"office.local", Rdata::A([10, 0, 0, 5].into())),
            answer(
                b"Office._ipp._tcp.local",
                Rdata::Srv { target: Name::from_dotted(b"office.local"), port: 631 },
            ),
        ],
        complete: true,
    };
    // The router passes on what the printer of another link said.
    let group = Mac([1, 0, 0x5e, 0, 0, 0xfb]);
    devices.observe(&at(2, udp(CARD, group, "10.0.0.1", "224.0.0.251", 5353), Seen::Dns(message.clone())));
    let of =
        |devices: &Devices, mac| devices.all().find(|device| device.has_mac(mac)).expect("known").clone();
    assert_eq!(of(&devices, CARD).name(), None);
    assert_eq!(of(&devices, CARD).reasons.verdict(), None);
    assert_eq!(of(&devices, MADE_UP[0]).name(), Some("office"));
    devices.observe(&at(3, udp(MADE_UP[0], group, "10.0.0.5", "224.0.0.251", 5353), Seen::Dns(message)));
    assert_eq!(of(&devices, MADE_UP[0]).reasons.verdict(), Some((Type::Printer, 60)));
}

#[test]
fn a_flood_of_addresses_and_names_pushes_out_itself() {
    let mut devices = devices(256);
    for n in 0..50_u8 {
        let mac = Mac([0xb0, 0xc5, 0x54, 0, 0, n]);
        devices.observe(&dhcp(1, named(mac, &format!("host-{n}"))));
    }
    for n in 0..20_000_u32 {
        let [a, b, c, d] = n.to_be_bytes();
        let mac = Mac([2, 0, a, b, c, d]);
        devices.observe(&arp(10, mac, &format!("10.{b}.{c}.{d}")));
        devices.observe(&dhcp(10, named(CARD, &format!("name-{n}"))));
    }
    assert!(devices.len() <= 256, "{}", devices.len());
    assert_eq!(devices.forgotten() + devices.len() as u64, 20_051);
    let regular = devices.all().filter(|device| device.name().is_some_and(|name| name.starts_with("host-")));
    assert_eq!(regular.count(), 50);
    let bounded = devices.all().all(|device| {
        device.names.len() <= weir_wire::limits::MAX_DEVICE_NAMES
            && device.addresses.len() <= weir_wire::limits::MAX_DEVICE_ADDRESSES
    });
    assert!(bounded);
}

#[test]
fn what_is_new_is_told_at_once_and_the_rest_in_its_turn() {
    let mut devices = devices(100);
    devices.observe(&arp(1, CARD, "10.0.0.5"));
    devices.observe(&arp(1, MADE_UP[0], "10.0.0.6"));
    assert_eq!(devices.take(1, 5 * SECOND).len(), 1, "no more than asked for");
    assert_eq!(devices.take(9, 10 * SECOND).len(), 1, "the other one");
    devices.observe(&arp(11, CARD, "10.0.0.5"));
    assert_eq!(devices.take(9, 15 * SECOND).len(), 0, "nothing new, and told just now");
    devices.observe(&arp(16, CARD, "10.0.0.7"));
    let told = devices.take(9, 20 * SECOND);
    assert_eq!(told.iter().map(|device| device.addresses.len()).collect::<Vec<_>>(), [2], "all of it");
    devices.observe(&arp(90, CARD, "10.0.0.7"));
    assert_eq!(devices.take(9, 95 * SECOND).len(), 1, "it is still there");
    assert_eq!(devices.take(9, 300 * SECOND).len(), 0, "silent since");
}
