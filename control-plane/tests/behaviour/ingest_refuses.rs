//! A2, I4, I6: what is not a batch, or cannot be true, is refused with the field's name; nothing is stored.

use reqwest::Method;
use serde_json::Value;
use weir_wire::{Batch, Detection, DropReason, Dropped, Fact, LinkStack, Severity, Spool, limits};

use crate::support::{Plane, SECOND, batch, detection, flow, mixed_flows, recent_minute_ns};

fn dropped() -> Dropped {
    Dropped { reason: DropReason::SpoolBytes as i32, records: 1, packets: 2, octets: 3 }
}

fn found() -> Detection {
    detection("port_scan", "10.0.0.66", Severity::High, 20)
}

type Change = fn(&mut Batch);

/// What is changed in a valid batch, and the field that the answer must name.
const INVALID: &[(&str, Change)] = &[
    ("version", |b| b.version = 2),
    ("generation", |b| b.generation.truncate(15)),
    ("epoch", |b| b.epoch = u64::MAX),
    ("parts", |b| b.parts = 0),
    ("parts", |b| b.parts = u32::MAX),
    ("part", |b| b.part = 1),
    ("window_start_ns", |b| b.window_start_ns = i64::MIN),
    ("window_end_ns", |b| b.window_end_ns = b.window_start_ns - 1),
    ("window_end_ns", |b| (b.window_start_ns, b.window_end_ns) = (-1, i64::MAX)),
    ("dropped", |b| b.dropped = Some(dropped())),
    ("dropped.reason", |b| (b.flows, b.dropped) = (vec![], Some(Dropped { reason: 0, ..dropped() }))),
    ("dropped.reason", |b| (b.flows, b.dropped) = (vec![], Some(Dropped { reason: 100, ..dropped() }))),
    ("dropped.records", |b| {
        (b.flows, b.dropped) =
            (vec![], Some(Dropped { records: limits::MAX_RECORDS as u64 + 1, ..dropped() }));
    }),
    ("dropped.packets", |b| (b.flows, b.dropped) = (vec![], Some(Dropped { packets: 1 << 63, ..dropped() }))),
    ("dropped.octets", |b| (b.flows, b.dropped) = (vec![], Some(Dropped { octets: u64::MAX, ..dropped() }))),
    ("dropped.packets", |b| {
        b.crossing_packets = 1;
        (b.flows, b.dropped) = (vec![], Some(Dropped { packets: i64::MAX as u64, ..dropped() }));
    }),
    ("spool.bytes", |b| b.spool = Some(Spool { bytes: u64::MAX, ..Spool::default() })),
    ("sampling_interval", |b| b.sampling_interval = 0),
    ("sampling_interval", |b| b.sampling_interval = u32::MAX),
    ("crossing_packets", |b| b.crossing_packets = u64::MAX),
    ("crossing_octets", |b| b.crossing_octets = 1 << 63),
    ("points[0].interface", |b| b.points[0].interface.clear()),
    ("points[0].interface", |b| b.points[0].interface = String::from("sixteen-bytes-xy")),
    ("points[0].interface", |b| b.points[0].interface = String::from("eth\u{1b}0")),
    ("points[0].interface", |b| b.points[0].interface = String::from("eth\0")),
    ("points[0].interface", |b| b.points[0].interface = String::from("../x")),
    ("points[1].interface", |b| b.points[1].direction = 0),
    ("points[0].direction", |b| b.points[0].direction = 2),
    ("points[1].id", |b| b.points[1].id = b.points[0].id),
    ("points[0].totals.frames", |b| b.points[0].totals.as_mut().expect("part 0").frames = u64::MAX),
    ("points[0].totals", |b| (b.part, b.parts) = (1, 2)),
    ("detections", |b| b.detections = vec![found(); limits::MAX_DETECTIONS + 1]),
    ("detections", |b| {
        (b.part, b.parts, b.detections, b.points, b.flows) = (1, 2, vec![found()], vec![], vec![]);
    }),
    ("detections[1].subject", |b| b.detections = vec![found(); 2]),
    ("detections[0].kind", |b| b.detections = vec![Detection { kind: "Port scan".to_owned(), ..found() }]),
    ("detections[0].kind", |b| b.detections = vec![Detection { kind: "k".repeat(33), ..found() }]),
    ("detections[0].source", |b| b.detections = vec![Detection { source: String::new(), ..found() }]),
    ("detections[0].technique", |b| {
        b.detections = vec![Detection { technique: "<b>".to_owned(), ..found() }];
    }),
    ("detections[0].severity", |b| b.detections = vec![Detection { severity: 5, ..found() }]),
    ("detections[0].subject", |b| b.detections = vec![Detection { subject: " ".to_owned(), ..found() }]),
    ("detections[0].address", |b| b.detections = vec![Detection { address: vec![1; 5], ..found() }]),
    ("detections[0].count", |b| b.detections = vec![Detection { count: u64::MAX, ..found() }]),
    ("detections[0].first_ns", |b| b.detections = vec![Detection { first_ns: 9 * SECOND, ..found() }]),
    ("detections[0].last_ns", |b| b.detections = vec![Detection { last_ns: 4_000 * SECOND, ..found() }]),
    ("detections[0].evidence", |b| {
        b.detections = vec![Detection { evidence: vec![Fact::default(); limits::MAX_FACTS + 1], ..found() }];
    }),
    ("detections[0].evidence[0].name", |b| {
        b.detections = vec![Detection { evidence: vec![Fact::default()], ..found() }];
    }),
    ("links[0].headers", |b| b.links = vec![LinkStack { headers: vec![] }]),
    ("links[0].headers", |b| b.links = vec![LinkStack { headers: vec![9 << 24] }]),
    ("links[0].headers", |b| {
        b.links = vec![LinkStack { headers: vec![1 << 24; limits::MAX_LINK_DEPTH + 1] }];
    }),
    ("flows[1].ip_version", |b| b.flows[1].ip_version = 5),
    ("flows[1].src_high", |b| b.flows[1].src_high = 1),
    ("flows[1].dst_low", |b| b.flows[1].dst_low = 1 << 32),
    ("flows[1].protocol", |b| b.flows[1].protocol = 256),
    ("flows[1].src_port", |b| b.flows[1].src_port = 65_536),
    ("flows[1].dst_port", |b| b.flows[1].dst_port = u32::MAX),
    ("flows[1].tcp_flags", |b| b.flows[1].tcp_flags = 256),
    ("flows[1].reverse_tcp_flags", |b| b.flows[1].reverse_tcp_flags = 256),
    ("flows[1].icmp_type", |b| b.flows[1].icmp_type = 256),
    ("flows[1].icmp_code", |b| b.flows[1].icmp_code = 256),
    ("flows[1].packets", |b| b.flows[1].packets = 1 << 63),
    ("flows[1].reverse_octets", |b| b.flows[1].reverse_octets = u64::MAX),
    ("the sum of flows[].octets", |b| (b.flows[0].octets, b.flows[1].octets) = (1 << 62, 1 << 62)),
    ("flows[1].handshake_rtt_us", |b| b.flows[1].handshake_rtt_us = Some(u32::MAX)),
    ("flows[1].retransmits", |b| b.flows[1].retransmits = u32::MAX),
    ("flows[1].tcp_state", |b| b.flows[1].tcp_state = 7),
    ("flows[1].end_reason", |b| b.flows[1].end_reason = -1),
    ("flows[1].first_ns", |b| b.flows[1].first_ns = -2 * 3_600 * SECOND),
    ("flows[1].last_ns", |b| b.flows[1].last_ns = i64::MAX),
    ("flows[1].last_ns", |b| b.flows[1].last_ns = -3 * SECOND),
    ("flows[1].start_ns", |b| b.flows[1].start_ns = 60 * SECOND),
    ("flows[1].start_ns", |b| b.flows[1].start_ns = i64::MIN),
    ("flows[1].link", |b| b.flows[1].link = 1),
    ("flows[1].point", |b| b.flows[1].point = 99),
    ("flows[1].path", |b| b.flows[1].path = vec![99]),
    ("flows[1].path", |b| b.flows[1].path = vec![40; limits::MAX_PATH + 1]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_field_that_breaks_a_rule_is_named_and_nothing_is_stored() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let empty = plane.contents();
    for (field, change) in INVALID {
        let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
        change(&mut batch);
        let (status, problem) = plane.post(&token, &batch).await;
        assert_eq!(status, 422, "{field}: {problem}");
        assert_eq!(problem["errors"][0]["field"], **field, "{problem}");
        assert_eq!(problem["category"], "validation", "{problem}");
    }
    assert_eq!(plane.contents(), empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_limits_of_the_wire_format_are_kept() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let many = vec![flow([10, 0, 0, 1], [10, 0, 0, 2], 80, 1); limits::MAX_RECORDS + 1];
    let mut points = batch(1, 0, start, Vec::new());
    points.points = (0..=limits::MAX_POINTS as u32)
        .map(|id| weir_wire::Point { id, interface: format!("if{id}"), ..weir_wire::Point::default() })
        .collect();
    for (field, batch) in [("flows", batch(1, 0, start, many)), ("points", points)] {
        let (status, problem) = plane.post(&token, &batch).await;
        assert_eq!((status, problem["errors"][0]["field"].as_str()), (422, Some(field)), "{problem}");
    }
}

async fn refused(plane: &Plane<'_>, token: &str, body: Vec<u8>) -> (u16, Value) {
    let response = plane.post_bytes(token, body).await;
    (response.status().as_u16(), response.json().await.expect("a problem"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_bytes_that_are_no_batch_are_refused() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let empty = plane.contents();
    let good = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let not_protobuf = zstd::bulk::compress(&[0xff; 100], 3).expect("compresses");
    for (what, body) in [
        ("nothing", Vec::new()),
        ("text", b"hello".to_vec()),
        ("half a batch", good[..good.len() / 2].to_vec()),
        ("all but the last byte", good[..good.len() - 1].to_vec()),
        ("no protobuf", not_protobuf),
        ("a flipped byte", flipped),
    ] {
        let (status, problem) = refused(&plane, &token, body).await;
        assert_eq!(
            (status, problem["type"].as_str()),
            (400, Some("urn:weir:problem:not-a-batch")),
            "{what}: {problem}"
        );
    }
    assert_eq!(plane.contents(), empty);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_too_many_bytes_are_refused_before_and_after_decompression() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let bomb = zstd::bulk::compress(&vec![0; limits::MAX_DECOMPRESSED + 1], 3).expect("zeros compress");
    assert!(bomb.len() < 100_000, "it is small on the wire");
    let (status, problem) = refused(&plane, &token, bomb).await;
    assert_eq!((status, problem["category"].as_str()), (413, Some("validation")), "{problem}");
    let (status, problem) = refused(&plane, &token, vec![0; limits::MAX_COMPRESSED + 1]).await;
    assert_eq!(
        (status, problem["type"].as_str()),
        (413, Some("urn:weir:problem:body-too-large")),
        "{problem}"
    );

    // Without a length up front the limit holds while the body streams in.
    let chunks = (0..10).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1 << 20]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    let request = plane
        .request(Method::POST, "/api/v1/ingest", &token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(body);
    assert_eq!(request.send().await.expect("an answer, not a reset").status(), 413);
    // Whoever has no token may not store anything, but is told so, not cut off in the middle of the body.
    for _ in 0..20 {
        let (status, problem) = refused(&plane, "wrong", vec![0; limits::MAX_COMPRESSED]).await;
        assert_eq!((status, problem["category"].as_str()), (401, Some("authentication")), "{problem}");
    }
    assert_eq!(plane.count("batch"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_other_types_and_headers_are_refused() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let body = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    for (kind, encoding, sent_at, expected) in [
        ("application/json", "zstd", "1", 415),
        ("application/x-protobuf", "gzip", "1", 415),
        ("application/x-protobuf", "zstd", "yesterday", 400),
    ] {
        let response = plane
            .request(Method::POST, "/api/v1/ingest", &token)
            .header("content-type", kind)
            .header("content-encoding", encoding)
            .header(weir_wire::SENT_AT_HEADER, sent_at)
            .body(body.clone())
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), expected, "{kind} {encoding} {sent_at}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(plane.count("batch"), 0);
}
