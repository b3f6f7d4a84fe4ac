//! A1, A3: flows come back as they were sent, filtered, in stable pages.

use serde_json::{Value, json};
use weir_wire::{EndReason, Flow, LinkStack, NameSource, Place, Process, TcpState, link};

use crate::support::{EGRESS, Plane, SECOND, batch, flow, mixed_flows, recent_minute_ns, rfc3339};

fn items(page: &Value) -> &Vec<Value> {
    page["items"].as_array().expect("a list")
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_every_field_of_a_flow_comes_back() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() + 123_456_789;
    let mut sent = batch(
        7,
        3,
        start,
        vec![Flow {
            ip_version: 6,
            src_high: 0x2001_0db8_0000_0001,
            src_low: 0x10,
            dst_high: 0xfe80 << 48,
            dst_low: u64::MAX,
            protocol: 6,
            src_port: 65_535,
            dst_port: 443,
            packets: 1 << 40,
            octets: i64::MAX as u64 / 4,
            reverse_packets: 7,
            reverse_octets: 8,
            start_ns: -3_600 * SECOND - 1,
            first_ns: -1,
            last_ns: 4_999_999_999,
            tcp_flags: 0xff,
            reverse_tcp_flags: 0x12,
            handshake_rtt_us: Some(812),
            tcp_state: TcpState::Established as i32,
            end_reason: EndReason::ActiveTimeout as i32,
            fragment: true,
            icmp_type: 255,
            icmp_code: 1,
            point: EGRESS,
            link: 2,
            path: vec![40],
            retransmits: 5,
            name: 1,
            name_source: NameSource::Quic as i32,
            src_place: 2,
            dst_place: 1,
            src_process: 0,
            dst_process: 1,
        }],
    );
    sent.sampling_interval = 100;
    sent.links = vec![
        LinkStack { headers: vec![link::SNAP] },
        LinkStack { headers: vec![link::VLAN | 10, link::PPPOE, link::MPLS | 16] },
    ];
    sent.names = vec!["www.example.org".to_owned()];
    sent.processes =
        vec![Process { name: "nginx".to_owned(), unit: "nginx.service".to_owned(), ..Process::default() }];
    sent.places = vec![
        Place { country: "NL".to_owned(), asn: u32::MAX, organisation: "Example Hosting".to_owned() },
        Place { country: "DE".to_owned(), ..Place::default() },
    ];
    plane.store(&token, &sent).await;
    let page = plane.json("/api/v1/flows").await;
    assert_eq!((page["has_more"].clone(), page["continuation"].clone()), (json!(false), Value::Null));
    let expected = json!({
        "sensor": "edge-1", "sensor_id": 1,
        // To the microsecond; the rest to the nanosecond.
        "window_start": rfc3339(start / 1_000 * 1_000),
        "start": rfc3339(start - 3_600 * SECOND - 1),
        "first": rfc3339(start - 1),
        "last": rfc3339(start + 4_999_999_999),
        "src": "2001:db8:0:1::10", "dst": "fe80::ffff:ffff:ffff:ffff", "protocol": 6,
        "src_port": 65_535, "dst_port": 443,
        "packets": 1_u64 << 40, "octets": i64::MAX / 4, "reverse_packets": 7, "reverse_octets": 8,
        "tcp_flags": 255, "reverse_tcp_flags": 18, "tcp_state": "established", "end_reason": "active_timeout",
        "handshake_rtt_us": 812, "fragment": true, "icmp_type": 255, "icmp_code": 1,
        "interface": "eth0", "direction": "egress", "link": ["vlan:10", "pppoe", "mpls:16"],
        "path": [{"interface": "eth0", "direction": "ingress"}], "sampling_interval": 100, "retransmits": 5,
        "name": "www.example.org", "name_source": "quic",
        "src_country": "DE", "src_asn": null, "src_organisation": null,
        "dst_country": "NL", "dst_asn": 4_294_967_295_u32, "dst_organisation": "Example Hosting",
        "src_process": null, "src_executable": null, "src_container": null, "src_unit": null,
        "dst_process": "nginx", "dst_executable": null, "dst_container": null, "dst_unit": "nginx.service",
        "src_device": null, "src_device_id": null, "dst_device": null, "dst_device_id": null,
        "src_network": null, "dst_network": null, "scope": "inbound", "service": "https",
    });
    assert_eq!(items(&page), &vec![expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_coarse_clock_of_last_never_shows_a_flow_that_ends_before_it_begins() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let one = Flow { start_ns: 9, first_ns: 8, last_ns: 2, ..flow([10, 0, 0, 1], [10, 0, 0, 2], 80, 1) };
    plane.store(&token, &batch(1, 0, start, vec![one])).await;
    let page = plane.json("/api/v1/flows").await;
    for time in ["start", "first", "last"] {
        assert_eq!(page["items"][0][time], rfc3339(start + 8), "{time}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_filters_choose_by_each_field() {
    let plane = Plane::start().await;
    let (one, two) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    let start = recent_minute_ns();
    plane.store(&one, &batch(1, 0, start, mixed_flows())).await;
    plane
        .store(&two, &batch(1, 0, start + 60 * SECOND, vec![flow([10, 0, 9, 9], [10, 0, 0, 1], 22, 3)]))
        .await;
    for (filter, expected) in [
        ("", 42),
        ("src=10.0.0.1", 6),
        ("src=10.0.0.0/24", 40),
        ("src=10.0.0.77/24", 40),
        ("dst=10.0.0.1", 1),
        ("address=10.0.0.1", 7),
        ("address=10.0.0.0/16", 41),
        ("address=0.0.0.0/0", 41),
        ("address=::/0", 1),
        ("src=2001:db8::1", 1),
        ("address=2001:db8::/32", 1),
        ("port=443", 14),
        ("port=50000", 42),
        ("src_port=50000", 42),
        ("src_port=443", 0),
        ("dst_port=53", 1),
        ("protocol=udp", 1),
        ("protocol=17", 1),
        ("protocol=TCP", 41),
        ("protocol=sctp", 0),
        ("sensor=edge-2", 1),
        ("sensor=1", 41),
        ("min_octets=31000", 2),
        ("sensor=edge-1&protocol=tcp&dst=192.0.2.0/24&port=443&src=10.0.0.1", 2),
    ] {
        let page = plane.json(&format!("/api/v1/flows?limit=1000&{filter}")).await;
        assert_eq!(items(&page).len(), expected, "{filter}");
    }
    let (from, to) = (rfc3339(start + 1_000), rfc3339(start + 61 * SECOND));
    assert_eq!(items(&plane.json(&format!("/api/v1/flows?from={from}&to={to}")).await).len(), 1);
    let (from, to) = (rfc3339(start), rfc3339(start + 60 * SECOND));
    assert_eq!(items(&plane.json(&format!("/api/v1/flows?from={from}&to={to}")).await).len(), 41);
    // A time outside of all data is an empty list, not an error.
    let page = plane.json("/api/v1/flows?from=1990-01-01T00:00:00Z&to=1990-01-02T00:00:00Z").await;
    assert_eq!((items(&page).len(), page["has_more"].clone()), (0, json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_pages_are_stable_while_flows_are_stored() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    // Two batches of one window and one of another: ties in time are part of the order.
    for (epoch, window) in [(0, start), (1, start), (2, start + 5 * SECOND)] {
        plane.store(&token, &batch(1, epoch, window, mixed_flows())).await;
    }
    let whole = plane.json("/api/v1/flows?limit=1000").await;
    assert_eq!(items(&whole).len(), 3 * 41);

    let mut paged: Vec<Value> = Vec::new();
    let mut path = "/api/v1/flows?limit=10".to_owned();
    for epoch in 10.. {
        let page = plane.json(&path).await;
        paged.extend(items(&page).iter().cloned());
        // Newer flows come in between the pages; a page's size may change too.
        plane.store(&token, &batch(1, epoch, start + 10 * SECOND, mixed_flows())).await;
        let Some(token) = page["continuation"].as_str() else {
            assert_eq!(page["has_more"], false);
            break;
        };
        assert_eq!((page["has_more"].clone(), items(&page).len() >= 7), (json!(true), true));
        path = format!("/api/v1/flows?limit={}&continuation={token}", 7 + epoch % 5);
    }
    assert_eq!(&paged, items(&whole), "no flow twice, none left out, none of the new ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_token_of_another_question_is_refused() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    let page = plane.json("/api/v1/flows?limit=5&protocol=6").await;
    let continuation = page["continuation"].as_str().expect("there are more").to_owned();
    assert_eq!(
        items(&plane.json(&format!("/api/v1/flows?protocol=6&continuation={continuation}")).await).len(),
        35
    );
    let mut forged = continuation.clone();
    forged.replace_range(30..31, if &forged[30..31] == "A" { "B" } else { "A" });
    for query in [
        format!("continuation={continuation}"),
        format!("protocol=17&continuation={continuation}"),
        format!("protocol=6&from=2026-01-01T00:00:00Z&continuation={continuation}"),
        format!("protocol=6&continuation={forged}"),
        "protocol=6&continuation=x".to_owned(),
        "protocol=6&continuation=".to_owned(),
    ] {
        let response = plane.get(&format!("/api/v1/flows?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!(problem["errors"][0]["field"], "continuation", "{problem}");
    }
}

/// A4: an address is found through its index also among pages that were summarised.
#[tokio::test(flavor = "multi_thread")]
async fn a4_an_address_is_found_before_and_after_its_pages_are_summarised() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let crowd =
        (0..20_000_u32).map(|i| flow((0x0b00_0000 + i).to_be_bytes(), [192, 0, 2, 1], 80, 1)).collect();
    plane.store(&token, &batch(1, 0, start, crowd)).await;
    for round in 0..2 {
        for (path, expected) in
            [("src=11.0.3.4", 1), ("address=11.0.78.31", 1), ("dst=11.0.3.4", 0), ("address=11.9.9.9", 0)]
        {
            assert_eq!(
                items(&plane.json(&format!("/api/v1/flows?{path}")).await).len(),
                expected,
                "{round} {path}"
            );
        }
        plane.sql("SELECT brin_summarize_new_values(indexrelid::regclass) FROM pg_index JOIN pg_class ON oid = indexrelid
                   WHERE relkind = 'i' AND relname LIKE 'flow%brin%' OR relname LIKE 'flow_%_src_%'");
    }
}
