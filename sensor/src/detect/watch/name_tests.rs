//! Detections in DNS, TLS and HTTP: of traffic that is one, and of traffic that looks a little like one (S6).

use std::net::IpAddr;

use super::*;
use crate::kernel::FlowKey;
use crate::observe::{Carrier, ClientHello, Dns, DnsKind, Http, Name, Origin, Question, Seen, ServerHello};

const SECOND: i64 = 1_000_000_000;
/// 2026-01-01: no test may depend on the clock on the wall.
const START: i64 = 1_767_225_600 * SECOND;
const CLIENT: [u8; 4] = [10, 0, 0, 5];
const RESOLVER: [u8; 4] = [10, 0, 0, 1];
const TXT: u16 = 16;

fn flow(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16) -> Origin {
    let (src, dst) = (IpAddr::from(src), IpAddr::from(dst));
    let protocol = if src_port == 53 || dst_port == 53 { 17 } else { 6 };
    let flow = FlowKey { src, dst, protocol, src_port, dst_port };
    Origin { flow: Some(flow), ..Origin::default() }
}

fn seen(seconds: i64, origin: Origin, seen: Seen) -> Observation {
    Observation { time_ns: START + seconds * SECOND, origin, seen }
}

fn dns(name: &str, response: bool, rcode: u8) -> Seen {
    let name = Name::from_dotted(name.as_bytes());
    Seen::Dns(Dns {
        kind: DnsKind::Dns,
        id: 1,
        response,
        opcode: 0,
        rcode,
        truncated: false,
        questions: vec![Question { name, kind: TXT, class: 1 }],
        answers: Vec::new(),
        complete: true,
    })
}

fn query(seconds: i64, name: &str) -> Observation {
    seen(seconds, flow(CLIENT, 40_000, RESOLVER, 53), dns(name, false, 0))
}

fn answer(seconds: i64, name: &str, rcode: u8) -> Observation {
    seen(seconds, flow(RESOLVER, 53, CLIENT, 40_000), dns(name, true, rcode))
}

fn found(watch: &mut Watch, observations: impl IntoIterator<Item = Observation>) -> Vec<Detection> {
    for observation in observations {
        watch.observe(&observation);
    }
    watch.take()
}

fn find(observations: impl IntoIterator<Item = Observation>) -> Vec<Detection> {
    found(&mut Watch::new(&Detect::default()), observations)
}

fn told(found: &[Detection]) -> Vec<String> {
    found.iter().map(|it| format!("{} {} {}", it.kind.word(), it.subject, it.count)).collect()
}

/// Labels that look encoded, each another one.
fn encoded(n: i64) -> String {
    format!("{:032x}{:08x}", (n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834), n)
}

#[test]
fn s6_data_in_the_names_that_are_asked_for_is_found() {
    let tunnel = (0..300).map(|n| query(n / 10, &format!("{}.t.Example.org", encoded(n))));
    let found = find(tunnel);
    assert_eq!(told(&found), ["dns_tunnel 10.0.0.5 > example.org 300"]);
    let evidence = found[0].evidence.to_string();
    assert!(evidence.contains("query_type=16 resolver=10.0.0.1"), "{evidence}");
    assert_eq!((found[0].first_ns, found[0].last_ns), (START, START + 29 * SECOND));
    assert_eq!(found[0].kind.technique(), "T1071.004");
}

#[test]
fn s6_many_names_that_are_short_few_that_are_long_and_reverse_lookups_are_no_tunnel() {
    let short = (0..500).map(|n| query(n, &format!("host-{n}.cdn.example.org")));
    let few = (0..2_000).map(|n| query(n, &format!("{}.example.net", encoded(n % 60))));
    let reverse = (0..500).map(|n| query(n, &format!("{}.ip6.arpa", "1.".repeat(20) + &n.to_string())));
    // As many as a tunnel has, but over days.
    let slow = (0..300).map(|n| query(n * 600, &format!("{}.example.com", encoded(n))));
    for ordinary in [short.collect::<Vec<_>>(), few.collect(), reverse.collect(), slow.collect()] {
        assert_eq!(told(&find(ordinary)), Vec::<String>::new());
    }
}

#[test]
fn s6_a_domain_that_is_allowed_is_no_tunnel_and_parameters_change_while_it_runs() {
    let names = |from: i64| (from..from + 150).map(|n| query(n, &format!("{}.av.example.org", encoded(n))));
    let mut config = Detect::default();
    config.dns_tunnel.allow_domains = vec!["av.example.org".to_owned()];
    let mut watch = Watch::new(&config);
    assert_eq!(told(&found(&mut watch, names(0))), Vec::<String>::new());
    config.dns_tunnel.allow_domains = vec!["v.example.org".to_owned()];
    watch.retune(&config);
    assert_eq!(told(&found(&mut watch, names(200))), ["dns_tunnel 10.0.0.5 > example.org 150"]);
    config.dns_tunnel.enabled = false;
    watch.retune(&config);
    assert_eq!(told(&found(&mut watch, names(400))), Vec::<String>::new());
}

/// What a generator of names makes, from a seed: letters in any order.
fn generated(n: u64) -> String {
    let mut state = n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let letters = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    });
    letters.take(14).collect()
}

#[test]
fn s6_names_that_a_generator_made_and_nobody_registered_are_found() {
    let names = (0..40).map(|n| answer(n, &format!("{}.com", generated(n as u64)), 3));
    let found = find(names);
    assert_eq!(told(&found), ["dga 10.0.0.5 40"]);
    assert!(found[0].evidence.to_string().contains("resolver=10.0.0.1 example="), "{}", found[0].evidence);
}

#[test]
fn s6_names_that_exist_typing_errors_and_search_domains_are_not_generated() {
    // They exist: somebody's content network.
    let exist = (0..60).map(|n| answer(n, &format!("{}.com", generated(n as u64)), 0));
    // Words, mistyped or gone.
    let words = ["weather", "printing", "recipes", "football", "journal", "gardening", "holiday", "museums"];
    let gone =
        (0..60).map(|n| answer(n as i64, &format!("{}{}.org", words[n % 8], words[(n / 8 + n) % 8]), 3));
    // A browser that tries what the network makes of unknown names.
    let search = (0..60).map(|n| answer(n, &format!("{}.corp.example.org", generated(n as u64)), 3));
    for ordinary in [exist.collect::<Vec<_>>(), gone.collect(), search.collect()] {
        assert_eq!(told(&find(ordinary)), Vec::<String>::new());
    }
}

fn server_hello(seconds: i64, carrier: Carrier, version: u16) -> Observation {
    let hello = ServerHello { carrier, version, cipher: 0xc013, alpn: None, retry: false };
    seen(seconds, flow([203, 0, 113, 9], 443, CLIENT, 50_000), Seen::ServerHello(hello))
}

#[test]
fn s6_deprecated_versions_of_tls_are_found_where_the_server_chose_them() {
    for (carrier, version) in
        [(Carrier::Tcp, 0x0300), (Carrier::Tcp, 0x0301), (Carrier::Tcp, 0x0302), (Carrier::Dtls, 0xfeff)]
    {
        // A gateway sees a hello twice, a second connection later.
        let hellos = [0, 0, 60].map(|at| server_hello(at, carrier, version));
        let found = find(hellos);
        assert_eq!(told(&found), ["deprecated_tls 10.0.0.5 > 203.0.113.9:443 2"], "{version:#06x}");
    }
    let found = find([server_hello(0, Carrier::Tcp, 0x0301)]);
    assert_eq!(found[0].evidence.to_string(), "version=TLS 1.0 cipher=0xc013");
    for (carrier, version) in [(Carrier::Tcp, 0x0303), (Carrier::Tcp, 0x0304), (Carrier::Dtls, 0xfefd)] {
        assert_eq!(told(&find([server_hello(0, carrier, version)])), Vec::<String>::new());
    }
}

fn client_hello(name: &str) -> Observation {
    let hello = ClientHello {
        carrier: Carrier::Quic,
        sni: Some(Name::from_dotted(name.as_bytes())),
        alpn: Vec::new(),
        version: 0x0304,
        ja4: String::new(),
        encrypted_hello: false,
        quic_version: None,
    };
    seen(2, flow(CLIENT, 50_000, [203, 0, 113, 9], 443), Seen::ClientHello(hello))
}

fn request(host: &str) -> Observation {
    let host = Some(Name::from_dotted(host.as_bytes()));
    let head = Http { method: "GET".to_owned(), host, user_agent: None };
    seen(3, flow(CLIENT, 50_001, [203, 0, 113, 9], 8_080), Seen::Http(head))
}

#[test]
fn s6_listed_domains_are_found_in_questions_hellos_and_requests_and_follow_the_lists() {
    let domain = |text: &str| crate::threat::domain(text).expect("a domain");
    let lists = |text: &str| Arc::new(Known::of(&[("feed".to_owned(), &[domain(text)])]));
    let (sender, known) = tokio::sync::watch::channel(lists("*.bad.example"));
    let mut watch = Watch::new(&Detect::default()).with_lists(Some(known));
    let traffic = || {
        [
            query(0, "C2.bad.example"),
            // The same question on its way out of a gateway.
            query(0, "C2.bad.example"),
            client_hello("c2.bad.example"),
            request("c2.bad.example:8080"),
            query(1, "bad.example.org"),
            client_hello("fine.example"),
        ]
    };
    let first = found(&mut watch, traffic());
    let mut lines = told(&first);
    lines.sort();
    assert_eq!(
        lines,
        [
            "listed_domain 10.0.0.5 > 203.0.113.9:443 1",
            "listed_domain 10.0.0.5 > 203.0.113.9:8080 1",
            "listed_domain 10.0.0.5 > bad.example 1",
        ]
    );
    assert!(first.iter().all(|it| it.evidence.to_string().starts_with("list=feed name=")));
    // The list changes; what was true is no more.
    sender.send_replace(lists("other.example"));
    assert_eq!(told(&found(&mut watch, traffic())), Vec::<String>::new());
}

#[test]
fn s6_invented_clients_and_domains_push_out_themselves() {
    let mut watch = Watch::new(&Detect::default());
    let stranger = |n: u32, name: &str| {
        let [.., b, c, d] = n.to_be_bytes();
        seen(0, flow([10, b, c, d], 40_000, RESOLVER, 53), dns(name, false, 0))
    };
    let flood = (0..50_000).map(|n| stranger(n, &format!("{}.n{n}.example", encoded(n.into()))));
    let tunnel = (0..300).map(|n| query(n / 10, &format!("{}.example.org", encoded(n))));
    // The tunnel goes on while strangers come.
    let mut flood = flood.into_iter();
    for wanted in tunnel {
        watch.observe(&wanted);
        flood.by_ref().take(160).for_each(|observation| watch.observe(&observation));
    }
    assert_eq!(told(&watch.take()), ["dns_tunnel 10.0.0.5 > example.org 300"]);
    let forgotten: u64 =
        watch.forgotten().filter(|(kind, _)| *kind == Kind::DnsTunnel).map(|(_, forgotten)| forgotten).sum();
    assert!(forgotten > 40_000, "{forgotten}");
}
