//! S3: names reach flows.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::observe::{Answer, ClientHello, Http, Origin, Question};

const SECOND_NS: i64 = 1_000_000_000;

fn address(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, last).into()
}

fn key(src: IpAddr, dst: IpAddr, src_port: u16, dst_port: u16) -> FlowKey {
    FlowKey { src, dst, protocol: 17, src_port, dst_port }
}

fn name(text: &str) -> Name {
    Name::from_dotted(text.as_bytes())
}

fn seen(flow: FlowKey, time_ns: i64, seen: Seen) -> Observation {
    Observation { time_ns, origin: Origin { flow: Some(flow), ..Origin::default() }, seen }
}

const CLIENT: u8 = 7;
const SERVER: u8 = 53;

fn dns(time_ns: i64, response: bool, id: u16, asked: &str, answers: Vec<(&str, u32, Rdata)>) -> Observation {
    let there = key(address(CLIENT), address(SERVER), 40_000, 53);
    let answers = answers.into_iter().map(|(owner, ttl_s, data)| Answer {
        name: name(owner),
        kind: if matches!(data, Rdata::Cname(_)) { 5 } else { 1 },
        class: 1,
        ttl_s,
        data,
    });
    let message = Dns {
        kind: DnsKind::Dns,
        id,
        response,
        opcode: 0,
        rcode: 0,
        truncated: false,
        questions: vec![Question { name: name(asked), kind: 1, class: 1 }],
        answers: answers.collect(),
        complete: true,
    };
    seen(if response { there.reversed() } else { there }, time_ns, Seen::Dns(message))
}

fn a(last: u8) -> Rdata {
    Rdata::A(Ipv4Addr::new(192, 0, 2, last))
}

fn named(names: &mut Names, last: u8, start_ns: i64) -> Option<String> {
    let flow = key(address(CLIENT), address(last), 50_000, 443);
    names.name(&flow, start_ns).map(|found| format!("{} {:?}", found.text, found.source))
}

#[test]
fn a_flow_is_named_by_what_its_client_asked_through_aliases_in_any_order() {
    let mut names = Names::new(Limits::default());
    let answers = vec![
        ("edge.example.net", 30, a(1)),
        ("cdn.example.net", 30, Rdata::Cname(name("EDGE.example.net"))),
        ("www.example.org", 30, Rdata::Cname(name("cdn.example.net"))),
        // Beside the chain: not what was asked.
        ("bank.example.com", 30, a(2)),
    ];
    names.observe(&dns(0, true, 1, "www.example.org", answers));
    assert_eq!(named(&mut names, 1, SECOND_NS).as_deref(), Some("www.example.org Dns"));
    assert_eq!(named(&mut names, 2, SECOND_NS), None);
    // Nobody else asked.
    assert_eq!(names.name(&key(address(8), address(1), 50_000, 443), SECOND_NS), None);
    // The record's key may stand the other way round.
    let back = key(address(1), address(CLIENT), 443, 50_000);
    assert_eq!(
        names.name(&back, SECOND_NS).map(|found| found.text.to_string()).as_deref(),
        Some("www.example.org")
    );
}

#[test]
fn a_name_holds_for_its_time_and_not_before_it_was_learned() {
    let mut names = Names::new(Limits::default());
    names.observe(&dns(1000 * SECOND_NS, true, 1, "old.example", vec![("old.example", 600, a(1))]));
    names.observe(&dns(1300 * SECOND_NS, true, 2, "new.example", vec![("new.example", 1, a(1))]));
    let at = |names: &mut Names, second: i64| named(names, 1, second * SECOND_NS);
    assert_eq!(at(&mut names, 900), None);
    assert_eq!(at(&mut names, 1100).as_deref(), Some("old.example Dns"));
    // A second to live is too short to be believed; then the older one is still good.
    assert_eq!(at(&mut names, 1350).as_deref(), Some("new.example Dns"));
    assert_eq!(at(&mut names, 1400).as_deref(), Some("old.example Dns"));
    assert_eq!(at(&mut names, 1700), None);
}

#[test]
fn what_a_flow_carries_wins_over_what_was_looked_up() {
    let mut names = Names::new(Limits::default());
    names.observe(&dns(0, true, 1, "front.example", vec![("front.example", 600, a(1))]));
    let flow = key(address(CLIENT), address(1), 50_000, 443);
    let request = |host: &str| Http { method: "GET".to_owned(), host: Some(name(host)), user_agent: None };
    names.observe(&seen(flow, 1, Seen::Http(request("192.0.2.1:8080"))));
    assert_eq!(named(&mut names, 1, 1).as_deref(), Some("front.example Dns"));
    names.observe(&seen(flow, 1, Seen::Http(request("plain.example:8080"))));
    assert_eq!(named(&mut names, 1, 1).as_deref(), Some("plain.example Http"));
    let hello = ClientHello {
        carrier: Carrier::Quic,
        sni: Some(name("inner.example")),
        alpn: Vec::new(),
        version: 0x0304,
        ja4: String::new(),
        encrypted_hello: false,
        quic_version: Some(1),
    };
    names.observe(&seen(flow, 2, Seen::ClientHello(hello)));
    names.observe(&seen(flow, 3, Seen::Http(request("later.example"))));
    assert_eq!(named(&mut names, 1, 1).as_deref(), Some("inner.example Quic"));
}

/// Ports come back: to a sensor that runs for days, the same five-tuple is many connections.
#[test]
fn a_name_is_not_that_of_a_later_flow_with_the_same_ports() {
    let mut names = Names::new(Limits::default());
    let flow = key(address(CLIENT), address(1), 50_000, 443);
    let request = |host: &str| Http { method: "GET".to_owned(), host: Some(name(host)), user_agent: None };
    names.observe(&seen(flow, 10 * SECOND_NS, Seen::Http(request("first.example"))));
    assert_eq!(named(&mut names, 1, 9 * SECOND_NS).as_deref(), Some("first.example Http"));
    assert_eq!(named(&mut names, 1, 100 * SECOND_NS), None);
    // Of several requests of a connection the first stays; a minute later it is another connection's.
    names.observe(&seen(flow, 40 * SECOND_NS, Seen::Http(request("second.example"))));
    assert_eq!(named(&mut names, 1, 9 * SECOND_NS).as_deref(), Some("first.example Http"));
    names.observe(&seen(flow, 101 * SECOND_NS, Seen::Http(request("third.example"))));
    assert_eq!(named(&mut names, 1, 100 * SECOND_NS).as_deref(), Some("third.example Http"));
}

#[test]
fn latency_is_from_the_first_question_and_silence_is_told() {
    let mut names = Names::new(Limits::default());
    assert_eq!(names.observe(&dns(0, false, 1, "a.example", vec![])), None);
    assert_eq!(names.observe(&dns(SECOND_NS, false, 1, "a.example", vec![])), None);
    assert_eq!(names.observe(&dns(SECOND_NS, false, 2, "b.example", vec![])), None);
    // Another identifier, and another question under the same one, are no answer.
    let stray = names.observe(&dns(2 * SECOND_NS, true, 9, "a.example", vec![])).expect("an answer");
    assert_eq!(stray.outcome, Outcome::Answered { rcode: 0, latency_ns: None });
    let end = names.observe(&dns(2 * SECOND_NS, true, 1, "A.EXAMPLE", vec![])).expect("an answer");
    assert_eq!(end.outcome, Outcome::Answered { rcode: 0, latency_ns: Some(2_000_000_000) });
    assert_eq!((end.client, end.server), (address(CLIENT), address(SERVER)));
    assert_eq!(names.timed_out(6 * SECOND_NS), []);
    let silent = names.timed_out(6 * SECOND_NS + 1);
    assert_eq!(silent.iter().map(|exchange| exchange.name.as_str()).collect::<Vec<_>>(), ["b.example"]);
    assert_eq!(silent[0].outcome, Outcome::TimedOut);
    assert_eq!(names.timed_out(60 * SECOND_NS), []);
}

#[test]
fn a_flood_of_names_is_bounded_and_costs_its_client_first() {
    let limits = Limits {
        octets: 64 << 10,
        questions: NonZeroUsize::new(100).expect("not zero"),
        ..Limits::default()
    };
    let mut names = Names::new(limits);
    let quiet = IpAddr::from([10, 0, 0, 1]);
    let mut observation = dns(0, true, 1, "quiet.example", vec![("quiet.example", 600, a(1))]);
    observation.origin.flow = Some(key(address(SERVER), quiet, 53, 40_000));
    names.observe(&observation);
    for number in 0..20_000_u32 {
        let unique = format!("{number:0>60}.example");
        names.observe(&dns(0, false, 1, &unique, vec![]));
        let answer = Rdata::A(Ipv4Addr::from(number));
        names.observe(&dns(0, true, 2, &unique, vec![(&unique, 600, answer)]));
        assert!(names.octets() <= limits.octets && names.asked.len() <= 100);
    }
    assert_eq!(names.forgotten().questions, 20_000 - 100);
    let held: u64 = names.clients.iter().map(|(_, client)| client.names()).sum();
    assert_eq!(names.forgotten().looked_up + held, 20_001, "each is there or counted");
    let of_quiet = names.name(&key(quiet, address(1), 50_000, 443), 0).map(|found| found.text.to_string());
    assert_eq!(of_quiet.as_deref(), Some("quiet.example"));
}

proptest! {
    #[test]
    fn octets_are_counted_as_they_are_held(
        answers in proptest::collection::vec((0_u8..6, 0_u8..8, "[a-c]{1,40}"), 0..200),
    ) {
        let limits = Limits {
            clients: NonZeroUsize::new(4).expect("not zero"),
            addresses: NonZeroUsize::new(3).expect("not zero"),
            octets: 2000,
            flows: NonZeroUsize::new(4).expect("not zero"),
            ..Limits::default()
        };
        let mut names = Names::new(limits);
        for (client, last, text) in answers {
            let mut observation = dns(0, true, 1, &text, vec![(&text, 600, a(last))]);
            let flow = key(address(SERVER), address(client), 53, 40_000);
            observation.origin.flow = Some(flow);
            names.observe(&observation);
            names.carried(flow, &name(&text), NameSource::Http, 0);
            let held = |client: &Client| -> usize {
                client.addresses.iter().flat_map(|(_, names)| names.iter()).map(|learned| octets(&learned.name)).sum()
            };
            prop_assert!(names.clients.iter().all(|(_, client)| client.octets == held(client)));
            let of_clients: usize = names.clients.iter().map(|(_, client)| client.octets).sum();
            let of_flows: usize = names.flows.iter().map(|(_, named)| octets(&named.name.text)).sum();
            prop_assert_eq!((names.octets, names.flow_octets), (of_clients, of_flows));
            prop_assert!(names.octets <= limits.octets);
        }
    }
}
