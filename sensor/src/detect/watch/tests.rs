use std::net::IpAddr;

use super::*;
use crate::detect::{Engine, Subject};
use crate::kernel::FlowKey;
use crate::observe::{Arp, Dhcp4, Mac, Ndp, NdpKind, Origin, Router, Seen};

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3_600;
const GATEWAY: Mac = Mac([0xb0, 0xc5, 0x54, 0, 0, 1]);
const VICTIM: Mac = Mac([0xb0, 0xc5, 0x54, 0, 0, 2]);
const ATTACKER: Mac = Mac([0xb0, 0xc5, 0x54, 0, 0, 66]);

fn watch(observations: impl IntoIterator<Item = Observation>) -> Vec<Detection> {
    let mut watch = Watch::new(&Detect::default());
    for observation in observations {
        watch.observe(&observation);
    }
    watch.take()
}

fn kinds(found: &[Detection]) -> Vec<(&'static str, String)> {
    found.iter().map(|it| (it.kind.word(), it.subject.to_string())).collect()
}

fn arp(seconds: i64, operation: u16, sender: Mac, sender_ip: [u8; 4], target_ip: [u8; 4]) -> Observation {
    let message =
        Arp { operation, sender, sender_ip: sender_ip.into(), target: VICTIM, target_ip: target_ip.into() };
    Observation { time_ns: seconds * SECOND, origin: Origin::default(), seen: Seen::Arp(message) }
}

const ROUTER_IP: [u8; 4] = [10, 0, 0, 1];
const VICTIM_IP: [u8; 4] = [10, 0, 0, 2];

/// T1557.002: the victim is told every two seconds that the gateway is at the attacker's card, while the gateway
/// goes on as before.
fn poisoning() -> Vec<Observation> {
    (0..5)
        .flat_map(|n| {
            [
                arp(4 * n, 1, GATEWAY, ROUTER_IP, VICTIM_IP),
                arp(4 * n + 1, 2, ATTACKER, ROUTER_IP, VICTIM_IP),
                arp(4 * n + 3, 2, ATTACKER, ROUTER_IP, VICTIM_IP),
            ]
        })
        .collect()
}

#[test]
fn poisoned_caches_are_found_and_who_poisons_is_named() {
    let found = watch(poisoning());
    assert_eq!(kinds(&found), [("arp_spoof", "10.0.0.1".to_owned())]);
    let detection = &found[0];
    assert_eq!((detection.count, detection.first_ns, detection.last_ns), (9, SECOND, 17 * SECOND));
    let named = format!("unsolicited={ATTACKER}");
    assert!(detection.evidence.to_string().contains(&named), "{}", detection.evidence);
    assert_eq!(detection.kind.technique(), "T1557.002");
}

#[test]
fn two_that_both_answer_for_an_address_are_in_conflict() {
    let asks = |seconds| arp(seconds, 1, VICTIM, VICTIM_IP, ROUTER_IP);
    let conflict = (0..4).flat_map(|n| {
        [
            asks(n * 10),
            arp(n * 10, 2, GATEWAY, ROUTER_IP, VICTIM_IP),
            arp(n * 10 + 1, 2, ATTACKER, ROUTER_IP, VICTIM_IP),
        ]
    });
    assert_eq!(kinds(&watch(conflict)), [("address_conflict", "10.0.0.1".to_owned())]);
}

#[test]
fn a_lease_that_moves_and_a_standby_that_takes_over_are_nothing() {
    let announces = |seconds, mac, ip| arp(seconds, 2, mac, ip, ip);
    // A lease goes from one to another, and later to a third.
    let leases = [
        arp(0, 1, GATEWAY, VICTIM_IP, ROUTER_IP),
        arp(60, 1, VICTIM, VICTIM_IP, ROUTER_IP),
        arp(120, 1, ATTACKER, VICTIM_IP, ROUTER_IP),
    ];
    assert_eq!(watch(leases), []);
    // A standby announces itself five times, and the first one comes back an hour later.
    let standby = (0..5).map(|n| announces(n, ATTACKER, ROUTER_IP));
    let back = (0..5).map(|n| announces(HOUR + n, GATEWAY, ROUTER_IP));
    let failover = std::iter::once(arp(0, 1, GATEWAY, ROUTER_IP, VICTIM_IP)).chain(standby).chain(back);
    assert_eq!(watch(failover), []);
}

fn offer(seconds: i64, mac: Mac, server: [u8; 4]) -> Observation {
    let none = std::net::Ipv4Addr::UNSPECIFIED;
    let message = Dhcp4 {
        message: Some(2),
        reply: true,
        transaction: 1,
        client: Some(VICTIM),
        client_id: None,
        hostname: None,
        client_fqdn: None,
        vendor_class: None,
        parameters: vec![],
        requested: None,
        client_ip: none,
        assigned: VICTIM_IP.into(),
        relay: none,
        server: Some(server.into()),
        lease_s: None,
        routers: vec![server.into()],
        name_servers: vec![],
    };
    let flow = FlowKey {
        src: IpAddr::from(server),
        dst: IpAddr::from([255; 4]),
        protocol: 17,
        src_port: 67,
        dst_port: 68,
    };
    let origin = Origin { src_mac: Some(mac), flow: Some(flow), ..Origin::default() };
    Observation { time_ns: seconds * SECOND, origin, seen: Seen::Dhcp4(message) }
}

#[test]
fn a_dhcp_server_that_was_not_there_is_found() {
    let own = [
        offer(0, GATEWAY, ROUTER_IP),
        offer(300, ATTACKER, [10, 0, 0, 3]),
        offer(2 * HOUR, GATEWAY, ROUTER_IP),
    ];
    assert_eq!(watch(own.clone()), [], "whoever was there while it learned");
    let found = watch(own.into_iter().chain([offer(2 * HOUR, ATTACKER, [10, 0, 0, 66])]));
    assert_eq!(kinds(&found), [("rogue_dhcp", "10.0.0.66".to_owned())]);
    assert!(found[0].evidence.to_string().contains("router=10.0.0.66"), "{}", found[0].evidence);
    // The operator's list leaves nothing to learn.
    let mut config = Detect::default();
    config.rogue_dhcp.known = vec!["10.0.0.1/32".parse().expect("a network")];
    let mut strict = Watch::new(&config);
    strict.observe(&offer(0, GATEWAY, ROUTER_IP));
    strict.observe(&offer(1, ATTACKER, [10, 0, 0, 66]));
    assert_eq!(kinds(&strict.take()), [("rogue_dhcp", "10.0.0.66".to_owned())]);
}

fn advertises(seconds: i64, mac: Mac, from: &str, lifetime_s: u16) -> Observation {
    let router = Router { lifetime_s, managed: false, other: false, prefixes: vec![], name_servers: vec![] };
    let message = Ndp {
        kind: NdpKind::RouterAdvertisement,
        target: None,
        link_address: Some(mac),
        router: Some(router),
    };
    let address = |text: &str| text.parse().expect("an address");
    let flow =
        FlowKey { src: address(from), dst: address("ff02::1"), protocol: 58, src_port: 0, dst_port: 0 };
    let origin = Origin { src_mac: Some(mac), flow: Some(flow), ..Origin::default() };
    Observation { time_ns: seconds * SECOND, origin, seen: Seen::Ndp(message) }
}

#[test]
fn a_router_that_was_not_there_is_found() {
    let own = advertises(0, GATEWAY, "fe80::1", 1800);
    let leaves = advertises(HOUR, ATTACKER, "fe80::66", 0);
    assert_eq!(watch([own.clone(), leaves]), [], "it is none");
    let found = watch([own.clone(), advertises(HOUR, ATTACKER, "fe80::66", 1800), own]);
    assert_eq!(kinds(&found), [("rogue_ra", "fe80::66".to_owned())]);
}

#[test]
fn a_card_that_was_not_there_is_told_once_and_made_up_ones_are_not() {
    let made_up = Mac([0x02, 1, 1, 1, 1, 1]);
    let found = watch([
        arp(0, 1, GATEWAY, ROUTER_IP, VICTIM_IP),
        arp(10, 1, VICTIM, VICTIM_IP, ROUTER_IP),
        arp(2 * HOUR, 1, VICTIM, VICTIM_IP, ROUTER_IP),
        arp(2 * HOUR, 1, made_up, [10, 0, 0, 9], ROUTER_IP),
        arp(2 * HOUR, 1, ATTACKER, [10, 0, 0, 66], ROUTER_IP),
        arp(2 * HOUR + 1, 1, ATTACKER, [10, 0, 0, 66], ROUTER_IP),
    ]);
    assert_eq!(kinds(&found), [("new_device", ATTACKER.to_string())]);
    assert_eq!(found[0].subject, Subject::Card(ATTACKER));
}

#[test]
fn a_flood_of_claims_is_bounded_and_told_by_the_engine() {
    let mut watch = Watch::new(&Detect::default());
    for n in 0..100_000_u32 {
        let [_, b, c, d] = n.to_be_bytes();
        let mac = Mac([0xb0, 0xc5, 0x54, b, c, d]);
        watch.observe(&arp(2 * HOUR + i64::from(n) / 1_000, 2, mac, [10, b, c, d], VICTIM_IP));
    }
    for observation in poisoning() {
        watch.observe(&observation);
    }
    let found = watch.take();
    assert!(found.len() <= 100, "{}", found.len());
    assert!(watch.forgotten().map(|(_, forgotten)| forgotten).sum::<u64>() > 50_000);
    let mut engine = Engine::new(&Detect::default());
    engine.tell_of(found, 100 * SECOND);
    let told = engine.take(1);
    assert_eq!(kinds(&told), [("arp_spoof", "10.0.0.1".to_owned())], "the worst first");
    assert!(told[0].opens);
}
