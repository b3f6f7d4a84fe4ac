//! S3, S1, S11: flows of a running sensor have the names that clients looked up and said, all the way to the API; a
//! flood of names costs names and no counts, and what is not read is counted.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use weir_e2e::hosts::{Host, introduce};
use weir_e2e::{Site, dns, tls, until, wire};
use weir_testbed::netns::{Namespace, Veth};
use weir_testbed::scratch::Scratch;
use weir_testbed::weir::{Sensor, Watch};

const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// What names lead to; not the resolver's own address, whose flows would be named as well.
const NAMED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const GIVE_UP: Duration = Duration::from_mins(1);

/// Client and server with a wire between them, the server's end watched.
struct Ground {
    site: Site,
    client: Namespace,
    server: Namespace,
    sensor: Sensor,
}

impl Ground {
    fn new(events: &str) -> Self {
        let site = Site::new().expect("a control plane starts");
        let client = site.member("client", 0).expect("a member is made");
        let server = site.member("server", 1).expect("a member is made");
        wire((&client, "out"), (&server, "in"), Veth { arp: true, ..Veth::default() }).expect("a wire");
        introduce(
            Host { namespace: &client, interface: "out", address: CLIENT },
            Host { namespace: &server, interface: "in", address: SERVER },
        )
        .expect("the ends know each other");
        server.ip(&["addr", "add", &format!("{NAMED}/24"), "dev", "in"]).expect("a second address");
        let mac = server.mac("in").expect("it has one");
        let neighbour =
            ["neigh", "replace", &NAMED.to_string(), "lladdr", &mac, "dev", "out", "nud", "permanent"];
        client.ip(&neighbour).expect("the client knows the second address");
        let watch = Watch {
            epoch: Duration::from_millis(500),
            more: events.to_owned(),
            ..Watch::interface("in", "native", "auto")
        };
        let sensor = site.sensor("server", &watch, &server).expect("the sensor starts");
        Self { site, client, server, sensor }
    }

    fn metric(&self, name: &str) -> u64 {
        let name = format!("weir_sensor_{name}");
        self.sensor.metric(&name).expect("metrics are served").map_or(0, |value| value as u64)
    }

    /// Names of the server's flows with their source and port.
    fn named(&self) -> BTreeSet<(String, String, u64)> {
        let flows = self.site.control_plane.api().json("/api/v1/flows?sensor=server&limit=1000");
        let flows = flows.expect("flows are answered");
        let items = flows["items"].as_array().expect("items").iter();
        let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
        items
            .filter(|flow| !flow["name"].is_null())
            .map(|flow| {
                (text(&flow["name"]), text(&flow["name_source"]), flow["dst_port"].as_u64().unwrap_or(0))
            })
            .collect()
    }
}

/// A resolver that knows every name but those that begin with `missing`, and keeps silent of those with `silent`.
struct Resolver {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Resolver {
    fn new(server: &Namespace) -> Self {
        let socket =
            server.enter(|| UdpSocket::bind((SERVER, 53))).expect("entered").expect("the port is free");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a deadline is set");
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut octets = [0; 512];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut octets) else { continue };
                let mut answer = octets[..length].to_vec();
                if answer[13..].starts_with(b"silent") {
                    continue;
                }
                answer[2] = 0x81;
                if answer[13..].starts_with(b"missing") {
                    answer[3] = 0x83;
                } else {
                    answer[3] = 0x80;
                    answer[7] = 1;
                    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4]);
                    // Names that are numbers each have an address of their own.
                    let numbered = answer[13].is_ascii_digit();
                    let address = if numbered { [198, 18, answer[0], answer[1]] } else { NAMED.octets() };
                    answer.extend(address);
                }
                // The client may have gone.
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Asks, and waits for an answer up to `patience`; whether one came.
fn ask(client: &Namespace, id: u16, name: &str, patience: Duration) -> bool {
    dns::ask(client, (SERVER, 53).into(), id, name, patience).expect("the question is sent")
}

/// Connects from the client, says something, and reads to the end.
fn talk(client: &Namespace, port: u16, words: &str) {
    let talked = client.enter(|| -> std::io::Result<()> {
        let mut stream = TcpStream::connect((NAMED, port))?;
        stream.write_all(words.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        stream.read_to_end(&mut Vec::new()).map(|_| ())
    });
    talked.expect("the namespace is entered").expect("the server listens");
}

/// Takes connections on a port and says nothing, for as long as the test runs.
fn listen(server: &Namespace, port: u16) {
    let listener = server.enter(|| TcpListener::bind((NAMED, port))).expect("entered").expect("a free port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = { &stream }.read_to_end(&mut Vec::new());
        }
    });
}

#[test]
fn s3_flows_carry_what_was_looked_up_and_said_to_the_api() {
    let ground = Ground::new("[events.names]\ntimeout = \"1s\"\n");
    let Ground { site, client, server, .. } = &ground;
    let _resolver = Resolver::new(server);
    let folder = Scratch::new("names").expect("a folder");
    let _tls = tls::serve(server, (NAMED, 443).into(), &[], folder.path()).expect("it serves");
    listen(server, 80);
    listen(server, 7000);

    assert!(ask(client, 1, "missing.example.org", GIVE_UP));
    assert!(!ask(client, 2, "silent.example.org", Duration::from_millis(100)));
    let expected: BTreeSet<_> = [
        // Says nothing of a name itself.
        ("www.example.org".to_owned(), "dns".to_owned(), 7000),
        ("shop.example.org".to_owned(), "tls".to_owned(), 443),
        ("plain.example.org".to_owned(), "http".to_owned(), 80),
    ]
    .into();
    // On a machine that is busy beyond measure a flow may be named too late: then the next one is.
    until("the flows are named", || {
        assert!(ask(client, 3, "www.example.org", GIVE_UP));
        talk(client, 7000, "not a protocol that anybody reads");
        talk(client, 80, "GET /secret HTTP/1.1\r\nHost: Plain.example.org:80\r\n\r\n");
        tls::greet(client, (NAMED, 443).into(), "shop.example.org", &[]).expect("a handshake");
        let deadline = Instant::now() + Duration::from_secs(5);
        while ground.named() != expected && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
        }
        ground.named() == expected
    });
    let domains = site.control_plane.api().json("/api/v1/domains").expect("domains are answered");
    let items = domains["items"].as_array().expect("items").iter();
    let domains: BTreeSet<&str> = items.filter_map(|domain| domain["name"].as_str()).collect();
    assert_eq!(domains, ["plain.example.org", "shop.example.org", "www.example.org"].into());

    until("the silence is told", || ground.metric("dns_lookups_total{result=\"timed_out\"}") == 1);
    assert_eq!(ground.metric("dns_lookups_total{result=\"failed\"}"), 1);
    assert_eq!(ground.metric("observe_panics_total"), 0);
    assert_eq!(ground.metric("events_refused_total"), 0);
    let ledger = site.ledger_when("server", "a ledger that balances", |ledger| ledger.balanced);
    assert_eq!(ledger.dropped_packets, 0);
}

/// Everything is small here, so that a few thousand names are a flood.
#[test]
fn s1_a_flood_of_names_is_bounded_counted_and_costs_no_packet() {
    const NAMES: u16 = 3_000;
    const LOOKED_UP: u64 = 64 << 10;
    let ground = Ground::new(
        "[events]\nper_second = 2000\nburst = 400\nqueue = \"64KiB\"\n\
         [events.names]\nlooked_up = \"64KiB\"\nquestions = 16\n",
    );
    let Ground { site, client, server, .. } = &ground;
    let _resolver = Resolver::new(server);
    let before = site.ledger_when("server", "the first epoch", |ledger| ledger.epochs > 0);
    let received = client.enter(|| -> std::io::Result<u64> {
        let socket = UdpSocket::bind((CLIENT, 0))?;
        socket.connect((SERVER, 53))?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        for id in 0..NAMES {
            socket.send(&dns::question(id, &format!("{id:0>60}.{id:0>60}.{id:0>60}.example.org")))?;
            socket.recv(&mut [0; 512])?;
        }
        Ok(u64::from(NAMES))
    });
    let answers = received.expect("the namespace is entered").expect("each question has its answer");
    let packets = 2 * answers;
    until("every packet is told of", || ground.metric("events_chosen_total{class=\"dns\"}") >= packets);
    assert_eq!(ground.metric("events_chosen_total{class=\"dns\"}"), packets);
    until("each is read or refused", || {
        let refused: u64 = ["budget", "ring_full", "unreadable", "queue_full"]
            .map(|reason| {
                ground.metric(&format!("events_refused_total{{class=\"dns\",reason=\"{reason}\"}}"))
            })
            .iter()
            .sum();
        let read = ground.metric("events_total{class=\"dns\"}");
        read + refused == packets && ground.metric("observations_total{type=\"dns\"}") == read
    });
    let gone = "names_forgotten_total{what=\"looked_up\"}";
    until("names were forgotten", || ground.metric(gone) > 0);
    assert!(ground.metric("names_bytes") <= LOOKED_UP);
    let ledger = site.ledger_when("server", "every packet", |ledger| {
        ledger.balanced && ledger.total.flow_packets >= before.total.flow_packets + packets
    });
    assert_eq!(ledger.dropped_packets, 0);
    assert_eq!(ground.metric("observe_panics_total"), 0);
}
