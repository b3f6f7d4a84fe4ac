//! Search: one question over devices, addresses, domains and detections, ranked, and by role (A1, A2, A4, U2).

use serde_json::Value;
use weir_wire::{Batch, Device, DeviceAddress, DeviceFact, Severity};

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, detection, encoded, flow, recent_minute_ns};

fn device(mac: &str, name: &str, address: [u8; 4]) -> Device {
    let fact = |source: &str, value: &str| DeviceFact {
        source: source.to_owned(),
        value: value.to_owned(),
        first_ns: 0,
        last_ns: SECOND,
    };
    Device {
        keys: vec![fact("mac", mac)],
        names: vec![fact("dhcp", name)],
        addresses: vec![DeviceAddress { address: address.to_vec(), first_ns: 0, last_ns: SECOND }],
        vendor: "Seiko Epson Corporation".to_owned(),
        last_ns: SECOND,
        ..Device::default()
    }
}

/// Kind and title of each hit.
async fn hits(plane: &Plane<'_>, query: &str) -> Vec<(String, String)> {
    let found = plane.json(&format!("/api/v1/search?{query}")).await;
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let items = found["items"].as_array().expect("items");
    items.iter().map(|item| (text(&item["kind"]), text(&item["title"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_one_question_finds_devices_addresses_domains_and_detections_by_role() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut told = flow([10, 0, 0, 5], [192, 0, 2, 1], 443, 1);
    told.name = 1;
    let told = Batch {
        names: vec!["office.example.org".to_owned(), "unrelated.test".to_owned()],
        devices: vec![
            device("b0:c5:54:25:5b:0e", "office-printer", [10, 0, 0, 17]),
            device("b0:c5:54:25:5b:0f", "backoffice", [10, 0, 1, 18]),
        ],
        detections: vec![
            detection("port_scan", "10.0.0.17", Severity::High, 3),
            detection("office_hours", "10.9.9.9", Severity::Low, 3),
        ],
        ..batch(1, 1, recent_minute_ns(), vec![told])
    };
    plane.store(&token, &told).await;
    let pair = |kind: &str, title: &str| (kind.to_owned(), title.to_owned());
    let mut found = hits(&plane, "q=OFFICE").await;
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(
        found.last(),
        Some(&pair("device", "backoffice")),
        "a word of its own comes before a part of one"
    );
    found.sort();
    assert_eq!(found[0], pair("detection", "office_hours 10.9.9.9"));
    assert_eq!(found[2..], [pair("device", "office-printer"), pair("domain", "office.example.org")]);
    assert_eq!(hits(&plane, "q=epson&kinds=device").await.len(), 2);
    assert_eq!(hits(&plane, "q=25%3A5b%3A0f").await, [pair("device", "backoffice")]);
    let mut found = hits(&plane, "q=10.0.0.0/24").await;
    found.sort();
    let expected = [
        pair("address", "10.0.0.17"),
        pair("detection", "port_scan 10.0.0.17"),
        pair("device", "office-printer"),
    ];
    assert_eq!(found, expected);
    assert_eq!(hits(&plane, "q=10.0.1.18&kinds=address,domain").await, [pair("address", "10.0.1.18")]);
    assert_eq!(hits(&plane, "q=office&limit=2").await.len(), 2);
    assert_eq!(hits(&plane, "q=100%25%25").await, [], "a pattern's own characters are characters");
    assert_eq!(hits(&plane, &format!("q={}", encoded("'; DROP TABLE device; --"))).await, []);
    assert_eq!(hits(&plane, "").await, [], "nothing was asked");
    for query in ["q=of", "q=office&kinds=flow", "q=office&limit=0", "q=office&x=1", "q=a%00bc"] {
        assert_eq!(plane.get(&format!("/api/v1/search?{query}")).await.status(), 400, "{query}");
    }

    let (narrow, _) = plane.machine(ADMIN_TOKEN, "viewer", &["detections"]).await;
    let null = Value::Null;
    let (status, body) = plane.call(reqwest::Method::GET, "/api/v1/search?q=office", &narrow, &null).await;
    assert_eq!((status, body["items"].as_array().map(Vec::len)), (200, Some(1)), "{body}");
    assert_eq!(body["items"][0]["kind"], "detection");
}
