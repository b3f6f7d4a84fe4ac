//! U5, I5: a device that is erased is found in no column of the database, what was counted stays counted, and nothing
//! that was under way brings it back.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::server;
use weir_wire::{Batch, Device, Fact, FactValue, Flow, NameSource, Severity};

use crate::devices::{ANOTHER, CARD, MADE_UP, at_site, device, items, named, say, with_address};
use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, detection, flow, now_ns, recent_minute_ns, rounds};

const HOUR: i64 = 3_600 * SECOND;
const PHONE: [u8; 4] = [10, 77, 0, 5];
const PEER: [u8; 4] = [10, 77, 0, 6];
const WEB: [u8; 4] = [192, 0, 2, 80];
/// An address that nothing else has.
const OTHER_CARD: (&str, &str) = ("mac", "b0:c5:54:77:77:77");

fn called(flow: Flow, name: u32) -> Flow {
    Flow { name, name_source: NameSource::Dns as i32, ..flow }
}

/// Each dimension's sums, which an erasure leaves as they are.
fn sums(plane: &Plane<'_>) -> Vec<String> {
    let of = |table: &str| {
        plane.sql(&format!(
            "SELECT string_agg(concat_ws(' ', dimension, flows, packets, octets), ',' ORDER BY dimension) FROM (
                 SELECT dimension, sum(flows) AS flows, sum(packets + reverse_packets) AS packets,
                        sum(octets + reverse_octets) AS octets FROM {table} GROUP BY dimension) AS sums"
        ))
    };
    let flows = "SELECT concat_ws(' ', count(*), sum(packets + reverse_packets), sum(octets + reverse_octets)) FROM flow";
    vec![plane.sql(flows), of("rollup_1m"), of("rollup_1h")]
}

async fn erase(plane: &Plane<'_>, id: &Value) -> i64 {
    let (status, begun) = plane.erase(&format!("/api/v1/devices/{id}?erase=true"), ADMIN_TOKEN).await;
    assert_eq!(status, 202, "{begun}");
    plane.all_erased().await;
    begun["id"].as_i64().expect("an id")
}

/// A day's worth of what names a device: flows in both directions, detections, what operators said, a merge.
async fn leave_traces(plane: &Plane<'_>, token: &str) -> Value {
    let flows = vec![
        called(flow(PHONE, WEB, 443, 3), 1),
        called(flow(PHONE, WEB, 80, 4), 2),
        called(flow(PEER, WEB, 443, 5), 2),
        called(flow(PEER, PHONE, 22, 6), 3),
        flow(PEER, WEB, 53, 7),
    ];
    let fact = Fact { name: "host".to_owned(), value: Some(FactValue::Address(PHONE.to_vec())) };
    let mut of_peer = detection("port_scan", "10.77.0.6", Severity::Low, 1);
    of_peer.evidence.push(fact);
    let first = Batch {
        names: ["only.unmistakable.example", "both.example", "unmistakable-phone.lan"]
            .map(str::to_owned)
            .to_vec(),
        devices: vec![
            Device {
                names: named(&[CARD], "dhcp", "unmistakable-phone").names,
                ..with_address(&[CARD], PHONE)
            },
            named(&[MADE_UP], "mdns", "unmistakable-too"),
        ],
        detections: vec![
            detection("beaconing", "10.77.0.5 > 192.0.2.80:443", Severity::High, 1),
            detection("cleartext", "10.77.0.6 > 10.77.0.5:23", Severity::High, 1),
            detection("rogue_dhcp", CARD.1, Severity::High, 1),
            of_peer,
        ],
        ..batch(1, 0, recent_minute_ns(), flows)
    };
    plane.store(token, &first).await;
    // Joined by a machine: a key of each.
    let joined = Batch { devices: vec![device(&[ANOTHER, CARD])], ..batch(1, 1, recent_minute_ns(), vec![]) };
    plane.store(token, &joined).await;
    let found = items(plane, "").await;
    let id = |key: (&str, &str)| {
        let of = |it: &&Value| it["keys"].as_array().expect("keys").iter().any(|it| it["value"] == key.1);
        found.iter().find(of).expect("a device")["id"].clone()
    };
    let (phone, other) = (id(CARD), id(MADE_UP));
    let said = json!({"name": "unmistakable", "owner": "unmistakable zoe", "notes": "always online"});
    assert_eq!(say(plane, &other, &said).await.0, 200);
    let (status, merged) = plane
        .call(Method::POST, &format!("/api/v1/devices/{phone}/merge"), ADMIN_TOKEN, &json!({"other": other}))
        .await;
    assert_eq!((status, &merged["name"]), (200, &json!("unmistakable")), "{merged}");
    let (status, _) = plane
        .call(Method::POST, "/api/v1/detections/1/dismiss", ADMIN_TOKEN, &json!({"reason": "unmistakable"}))
        .await;
    assert_eq!(status, 200);
    phone
}

#[tokio::test(flavor = "multi_thread")]
async fn u5_no_column_of_the_database_names_an_erased_device_and_every_sum_stays() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    at_site(&plane, "edge-1", "attic").await;
    let phone = leave_traces(&plane, &token).await;
    let traces = [CARD.1, MADE_UP.1, ANOTHER.1, "unmistakable", "10.77.0.5", "always online"];
    for (text, table) in [
        (CARD.1, "device_fact"),
        (CARD.1, "detection"),
        ("unmistakable", "audit"),
        ("unmistakable", "domain"),
        (MADE_UP.1, "event"),
        ("10.77.0.5", "detection"),
    ] {
        let before = plane.traces(text);
        assert!(before.contains(&table.to_owned()), "{table} has no {text} that could go: {before:?}");
    }
    let before = sums(&plane);
    let rows = plane.count("audit");
    let (status, problem) = plane.erase(&format!("/api/v1/devices/{phone}"), ADMIN_TOKEN).await;
    assert_eq!(
        (status, &problem["errors"][0]["field"]),
        (400, &json!("erase")),
        "it is not said what is meant"
    );
    let erasure = erase(&plane, &phone).await;

    for text in traces {
        assert_eq!(plane.traces(text), Vec::<String>::new(), "{text}");
    }
    assert_eq!(sums(&plane), before);
    assert_eq!(plane.count("audit"), rows + 1);
    assert_eq!(
        plane.sql("SELECT string_agg(name, ',') FROM domain"),
        "both.example",
        "names that only its flows had are gone"
    );
    let places = ["facts", "keys", "device", "flows", "domains", "audit", "detections", "evidence"];
    assert_eq!(places.map(|place| plane.erased(erasure, place)), [8, 3, 1, 3, 2, 3, 3, 1]);
    let receipt = plane.json(&format!("/api/v1/erasures/{erasure}")).await;
    assert_eq!((&receipt["kind"], &receipt["subject_id"]), (&json!("device"), &phone));
    assert_eq!(receipt["places"][0], json!({"name": "facts", "announced": 8, "erased": 8, "done": true}));
    // Counted as somebody's; of the peer nothing is lost.
    let peer = plane.json("/api/v1/flows?src=10.77.0.6").await;
    let mut ends: Vec<(&Value, &Value)> =
        peer["items"].as_array().expect("items").iter().map(|it| (&it["dst"], &it["dst_port"])).collect();
    ends.sort_by_key(|(_, port)| port.as_u64());
    assert_eq!(
        ends,
        [
            (&json!("0.0.0.0"), &json!(22)),
            (&json!("192.0.2.80"), &json!(53)),
            (&json!("192.0.2.80"), &json!(443))
        ]
    );
    let found = plane.json("/api/v1/detections").await;
    let subjects: Vec<&Value> =
        found["items"].as_array().expect("items").iter().map(|it| &it["subject"]).collect();
    assert_eq!(subjects, ["10.77.0.6"]);
    assert_eq!(found["items"][0]["evidence"]["host"][2], json!(format!("erased device {phone}")));
    assert_eq!(plane.json("/api/v1/sensors/edge-1/ledger").await["balanced"], true);
    assert_eq!(plane.erase(&format!("/api/v1/devices/{phone}?erase=true"), ADMIN_TOKEN).await.0, 404);
    for (query, found) in [("unmistakable", 0), ("10.77.0.5", 0), ("10.77.0.6", 1)] {
        let hits = plane.json(&format!("/api/v1/search?q={query}")).await;
        assert_eq!(hits["items"].as_array().map(Vec::len), Some(found), "{query}: {hits}");
    }
}

/// I5: an address is the device's for the time in which it had it, at its site; the same holds for what comes late.
#[tokio::test(flavor = "multi_thread")]
async fn i5_an_address_is_hidden_for_the_time_in_which_the_erased_device_had_it() {
    let plane = Plane::start().await;
    let (here, elsewhere) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    at_site(&plane, "edge-1", "attic").await;
    let now = recent_minute_ns();
    let (early, late) = (now - 6 * HOUR, now - 2 * HOUR);
    let told = |generation, start, devices, flows| Batch { devices, ..batch(generation, 0, start, flows) };
    let mine = |port| vec![flow(PHONE, WEB, port, 1)];
    plane.store(&here, &told(1, early, vec![with_address(&[CARD], PHONE)], mine(1))).await;
    plane.store(&here, &told(2, late, vec![with_address(&[OTHER_CARD], PHONE)], mine(2))).await;
    plane.store(&elsewhere, &told(1, early, vec![], mine(3))).await;
    let found = items(&plane, "?address=10.77.0.5").await;
    let id = found.iter().find(|it| it["keys"][0]["value"] == CARD.1).expect("the first")["id"].clone();
    let erasure = erase(&plane, &id).await;
    assert_eq!(plane.erased(erasure, "flows"), 1);
    let shown =
        || plane.sql("SELECT string_agg(dst_port || ' ' || host(src), ',' ORDER BY dst_port) FROM flow");
    assert_eq!(shown(), "1 0.0.0.0,2 10.77.0.5,3 10.77.0.5");

    // What was in the spool: of its time, and of the other's.
    let spooled = Batch {
        detections: vec![detection("port_scan", "10.77.0.5", Severity::Low, 1)],
        names: vec!["late.unmistakable.example".to_owned()],
        ..told(
            3,
            early + 60 * SECOND,
            vec![with_address(&[CARD], PHONE)],
            vec![called(flow(PHONE, WEB, 4, 1), 1)],
        )
    };
    plane.store(&here, &spooled).await;
    plane.store(&here, &told(4, late + 60 * SECOND, vec![], mine(5))).await;
    assert_eq!(shown(), "1 0.0.0.0,2 10.77.0.5,3 10.77.0.5,4 0.0.0.0,5 10.77.0.5");
    assert_eq!((plane.count("detection"), plane.traces(CARD.1)), (0, vec![]));
    assert_eq!(plane.traces("unmistakable"), Vec::<String>::new());
    let metrics = plane.metrics().await;
    for line in ["{what=\"flow\"} 1", "{what=\"detection\"} 1", "{what=\"device_fact\"} 4"] {
        let line = format!("weir_ingest_clipped_total{line}");
        assert!(metrics.lines().any(|it| it == line), "{line}");
    }

    // Seen after that, it is a new device, and what the sensor still remembers of it from before is not told again.
    let mut again = named(&[CARD], "dhcp", "new-name");
    let start = now_ns();
    let ago = early - start;
    again.names.push(named(&[CARD], "mdns", "unmistakable").names[0].clone());
    again.names[1].first_ns = ago;
    again.names[1].last_ns = ago + SECOND;
    (again.first_ns, again.keys[0].first_ns) = (ago, ago);
    plane.store(&here, &told(5, start, vec![again], vec![])).await;
    let found = items(&plane, "?name=new-name").await;
    assert_eq!(found.len(), 1);
    assert_ne!(found[0]["id"], id);
    assert!(found[0]["first_seen"].as_str() > Some(&crate::support::rfc3339(now)), "{}", found[0]);
    assert_eq!(plane.traces("unmistakable"), Vec::<String>::new());
}

/// Devices of a turn of the race, each erased at its own moment.
const AT_ONCE: u64 = 4;

/// What a sensor tells of the devices of a turn: flows from and to each, a detection, a name that only it asked for.
fn of_turn(turn: u64, epoch: u64, start: i64) -> Batch {
    let (mut devices, mut detections, mut names, mut flows) = (vec![], vec![], vec![], vec![]);
    for number in 0..AT_ONCE {
        let round = turn * AT_ONCE + number;
        let address = [10, 77, (round / 200) as u8, 10 + (round % 200) as u8];
        let mac = format!("b0:c5:54:77:{:02x}:{:02x}", round / 256, round % 256);
        let name = format!("unmistakable-{round}");
        let key = [("mac", mac.as_str())];
        devices.push(Device { names: named(&key, "dhcp", &name).names, ..with_address(&key, address) });
        detections.push(detection(
            "port_scan",
            &address.map(|byte| byte.to_string()).join("."),
            Severity::Low,
            1,
        ));
        names.push(format!("{name}-{epoch}.example"));
        flows.push(called(flow(address, WEB, 443, 1), number as u32 + 1));
        flows.push(flow(PEER, address, 22, 1));
    }
    Batch { devices, detections, names, ..batch(1, turn * 4 + epoch, start, flows) }
}

/// Sends a batch as a sensor does: again, where names or devices were erased meanwhile.
async fn deliver(plane: &Plane<'_>, base: &str, token: &str, batch: &Batch) {
    let body = weir_wire::encode(batch).expect("it fits");
    loop {
        let request = plane.http.post(format!("{base}/api/v1/ingest")).bearer_auth(token);
        let request = request
            .header("content-type", weir_wire::CONTENT_TYPE)
            .header("content-encoding", weir_wire::CONTENT_ENCODING);
        let answer = request.body(body.clone()).send().await.expect("an answer");
        match answer.status().as_u16() {
            200 => return,
            503 => {}
            _ => panic!("{}", answer.text().await.expect("a text")),
        }
    }
}

/// I5: erased while two instances store what two sensors tell of it; no device leaves a trace, and no count is lost.
#[tokio::test(flavor = "multi_thread")]
async fn i5_a_device_erased_mid_batch_leaves_no_trace_and_no_count_is_lost() {
    let mut plane = Plane::start().await;
    let other = server::start(&plane.config).await.expect("a second instance starts");
    let base = [plane.url(""), format!("http://{}", other.address)];
    let tokens = [plane.sensor("edge-1").await, plane.sensor("edge-2").await];
    for sensor in ["edge-1", "edge-2"] {
        at_site(&plane, sensor, "attic").await;
    }
    let (start, turns) = (recent_minute_ns(), rounds(12));
    for turn in 0..turns {
        deliver(&plane, &base[0], &tokens[0], &of_turn(turn, 0, start)).await;
        let there = items(&plane, "").await;
        assert_eq!(there.len() as u64, AT_ONCE, "{there:?}");
        let send = async |sensor: usize| {
            for epoch in 1..3 {
                deliver(&plane, &base[sensor], &tokens[sensor], &of_turn(turn, epoch, start)).await;
            }
        };
        let ends = there.iter().zip(0..).map(|(device, number)| {
            let (plane, path) = (&plane, format!("/api/v1/devices/{}?erase=true", device["id"]));
            async move {
                tokio::time::sleep(Duration::from_micros((turn * 1_310 + number * 4_700) % 19_000)).await;
                loop {
                    match plane.erase(&path, ADMIN_TOKEN).await {
                        (202, _) => return,
                        // Each waits for what is in flight: too many at once for a small pool.
                        (503, _) => {}
                        (status, answer) => panic!("{status} {answer}"),
                    }
                }
            }
        });
        tokio::join!(send(0), send(1), futures_util::future::join_all(ends));
        plane.all_erased().await;
        assert_eq!(items(&plane, "").await, Vec::<Value>::new(), "turn {turn}");
    }
    for text in ["b0:c5:54:77", "unmistakable", "10.77.0.1", "10.77.1."] {
        assert_eq!(plane.traces(text), Vec::<String>::new(), "{text}");
    }
    assert_eq!((plane.count("device"), plane.count("detection")), (0, 0));
    assert_eq!(plane.count("erasure WHERE kind = 'device'"), turns * AT_ONCE);
    let stored = turns * 5;
    assert_eq!((plane.count("batch"), plane.count("flow")), (stored, stored * AT_ONCE * 2));
    let counted =
        "SELECT (SELECT sum(packets + reverse_packets) FROM flow) = (SELECT sum(packets) FROM batch)
                      AND (SELECT sum(octets + reverse_octets) FROM flow) = (SELECT sum(octets) FROM batch)";
    assert_eq!(plane.sql(counted), "t");
    let of_rollups = "SELECT count(*) FROM (SELECT dimension, sum(packets + reverse_packets) AS packets FROM rollup_1m
                      WHERE dimension < 6 GROUP BY 1) AS sums WHERE packets <> (SELECT sum(packets) FROM batch)";
    assert_eq!(plane.sql(of_rollups), "0");
    other.stop().await;
    plane.stop().await;
}
