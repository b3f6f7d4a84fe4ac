//! A1, A2: the filter language chooses what it says, and nothing in it reaches SQL but bound.

use serde_json::{Value, json};
use weir_wire::{Flow, LinkStack, TcpState, link};

use crate::support::{Plane, batch, encoded, flow, ports, recent_minute_ns};

/// Three flows of one sensor, told apart by the responder's port.
async fn plane_with_flows() -> Plane<'static> {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let base = flow([10, 0, 0, 1], [192, 0, 2, 80], 1, 1);
    let mut sent = batch(
        1,
        0,
        recent_minute_ns(),
        vec![
            Flow { protocol: 6, packets: 10, octets: 1_000, reverse_octets: 9_000, ..base.clone() },
            Flow { protocol: 17, dst_port: 2, octets: 70, reverse_octets: 0, link: 1, ..base.clone() },
            Flow {
                protocol: 6,
                dst_port: 3,
                src_low: 0x0a01_0203,
                handshake_rtt_us: Some(900),
                tcp_state: TcpState::Reset as i32,
                fragment: true,
                ..base
            },
        ],
    );
    sent.links = vec![LinkStack { headers: vec![link::VLAN | 10, link::MPLS | 16] }];
    plane.store(&token, &sent).await;
    plane
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_filter_chooses_what_it_says() {
    let plane = plane_with_flows().await;
    for (filter, expected) in [
        ("dst_port in (1, 3)", vec![1, 3]),
        ("dst_port in (2..3)", vec![2, 3]),
        ("not dst_port = 1", vec![2, 3]),
        ("protocol = tcp and src = 10.0.0.0/16", vec![1]),
        ("address in (10.1.2.3, 203.0.113.0/24) or vlan = 10", vec![2, 3]),
        ("mpls = 16 and not mpls = 17", vec![2]),
        ("total_octets >= 10k", vec![1]),
        ("handshake_rtt_us > 500", vec![3]),
        // Two flows have no handshake time: they are not above 500, and not "not above" by being unknown.
        ("not handshake_rtt_us > 500", vec![1, 2]),
        ("tcp_state = reset or protocol = udp", vec![2, 3]),
        ("fragment = true", vec![3]),
        ("fragment = false and protocol != udp", vec![1]),
        ("sensor = \"edge-1\" and sensor ~ \"edge*\" and sensor !~ \"*-2\"", vec![1, 2, 3]),
        ("sensor = edge_1 or sensor ~ edge_1", vec![]),
        ("interface = eth0 and direction = ingress", vec![1, 2, 3]),
        ("interface = eth9", vec![]),
        ("   ", vec![1, 2, 3]),
    ] {
        assert_eq!(ports(&plane, filter).await, expected, "{filter}");
    }
    // The other parameters hold beside it, and aggregates take it, too.
    let both = format!("/api/v1/flows?protocol=tcp&filter={}", encoded("dst_port > 1"));
    assert_eq!(plane.json(&both).await["items"].as_array().map(Vec::len), Some(1));
    let top = format!("/api/v1/flows/top?by=port&filter={}", encoded("protocol = udp"));
    assert_eq!(plane.json(&top).await["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_what_is_wrong_with_a_filter_is_named_with_its_place() {
    let plane = Plane::start().await;
    for (filter, message) in [
        ("dst_prt = 443", "at character 1: expected `not`, `(` or one of"),
        ("dst_port = 443; DROP TABLE flow", "at character 15: `;` has no meaning here"),
        ("sensor = 'x' or 1=1", "at character 17: expected `not`, `(` or one of"),
        ("dst_port = 70000", "at character 12: expected a number between 0 and 65535"),
    ] {
        let response = plane.get(&format!("/api/v1/flows?filter={}", encoded(filter))).await;
        assert_eq!(response.status(), 400, "{filter}");
        let problem: Value = response.json().await.expect("a problem");
        let fault = &problem["errors"][0];
        assert_eq!(fault["field"], "filter", "{problem}");
        assert!(fault["message"].as_str().expect("text").starts_with(message), "{problem}");
    }
    // Quotes end nothing but themselves.
    let hostile = "sensor = \"'; DROP TABLE flow; --\" or interface ~ \"%' OR '1'='1\"";
    assert_eq!(ports(&plane, hostile).await, Vec::<u64>::new());
    assert_eq!(plane.count("flow"), 0, "the table is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_a_filter_is_completed_while_it_is_typed() {
    let plane = plane_with_flows().await;
    let complete = async |filter: &str, more: &str| {
        plane.json(&format!("/api/v1/flows/filter?filter={}{more}", encoded(filter))).await
    };
    let texts = |answer: &Value| {
        let candidates = answer["candidates"].as_array().expect("a list");
        candidates
            .iter()
            .filter_map(|candidate| candidate["text"].as_str())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let answer = complete("dst_port = 443 and protoc", "").await;
    assert_eq!((texts(&answer), &answer["valid"]), (vec!["protocol".to_owned()], &json!(false)));
    assert_eq!((&answer["replace_from"], &answer["replace_to"]), (&json!(19), &json!(25)));
    assert!(answer["fault"]["at"].is_u64());
    assert_eq!(texts(&complete("sensor = ed", "").await), ["edge-1"]);
    assert_eq!(texts(&complete("interface ~ e", "").await), ["eth0"]);
    assert_eq!(texts(&complete("protocol = tcp", "&cursor=12").await), ["tcp"]);
    let whole = complete("protocol = tcp", "").await;
    assert_eq!((&whole["valid"], &whole["fault"]), (&json!(true), &Value::Null));
    assert_eq!(complete("", "").await["fault"], Value::Null);
}
