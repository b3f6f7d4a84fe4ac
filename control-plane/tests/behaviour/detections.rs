//! Detections: additions counted once, one open for each kind and subject, judged by operators (I2, I6, A1, A3).

use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::auth::Role;
use weir_control_plane::store::erasure::Kind;
use weir_wire::{Batch, Detection, DropReason, Fact, FactValue, Severity};

use crate::support::{
    ADMIN_TOKEN, Plane, SECOND, batch, detection, mixed_flows, notice, recent_minute_ns, rfc3339,
};

const NULL: &Value = &Value::Null;

/// An epoch that tells so many attempts more of a scan.
fn epoch(number: u64, at_ns: i64, detections: Vec<Detection>) -> Batch {
    Batch { detections, ..batch(1, number, at_ns, mixed_flows()) }
}

fn scan(count: u64) -> Detection {
    detection("port_scan", "10.0.0.66", Severity::Medium, count)
}

async fn items(plane: &Plane<'_>, query: &str) -> Vec<Value> {
    let page = plane.json(&format!("/api/v1/detections{query}")).await;
    page["items"].as_array().expect("items").clone()
}

async fn judge(plane: &Plane<'_>, id: &Value, action: &str, body: &Value) -> (u16, Value) {
    plane.call(Method::POST, &format!("/api/v1/detections/{id}/{action}"), ADMIN_TOKEN, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_additions_count_once_in_whatever_order_and_one_detection_is_open() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let first = epoch(1, start, vec![scan(20)]);
    let second = epoch(2, start + 5 * SECOND, vec![Detection { first_ns: -5 * SECOND, ..scan(7) }]);
    let third = epoch(
        3,
        start + 10 * SECOND,
        vec![
            detection("brute_force", "10.0.0.66", Severity::Low, 1),
            Detection {
                first_ns: -10 * SECOND,
                severity: Severity::High as i32,
                evidence: vec![],
                ..scan(3)
            },
        ],
    );
    // The newest first, as a sensor does that has piled up; and each of them twice.
    for batch in [&third, &first, &second] {
        plane.store(&token, batch).await;
        let (status, body) = plane.post(&token, batch).await;
        assert_eq!((status, body["status"].as_str()), (200, Some("duplicate")), "{body}");
    }
    let found = items(&plane, "").await;
    assert_eq!(found.len(), 2, "{found:?}");
    let scan = found.iter().find(|found| found["kind"] == "port_scan").expect("the scan");
    assert_eq!(scan["count"], 30);
    assert_eq!(scan["severity"], "high", "the worst so far");
    assert_eq!(scan["first_seen"], rfc3339(start));
    assert_eq!(scan["last_seen"], rfc3339(start + 14 * SECOND));
    assert_eq!(
        (&scan["sensor"], &scan["subject"], &scan["address"], &scan["state"]),
        (&json!("edge-1"), &json!("10.0.0.66"), &json!("10.0.0.66"), &json!("active"))
    );
    assert_eq!(scan["evidence"], json!({"port": [445], "host": ["10.0.0.1", "10.0.0.2"]}));
    let id = &scan["id"];
    assert_eq!(plane.json(&format!("/api/v1/detections/{id}")).await, *scan);
    // Two were opened, which whoever follows learns once each.
    let opened = "SELECT count(*) FROM (SELECT topic, kind FROM event UNION ALL
                  SELECT topic, kind FROM event_pending) AS all_events
                  WHERE topic = 'detections' AND kind = 'detection.open'";
    assert_eq!(plane.sql(opened), "2");
    // Another sensor sees the same for itself.
    let other = plane.sensor("edge-2").await;
    plane.store(&other, &first).await;
    assert_eq!(items(&plane, "?kind=port_scan").await.len(), 2);
    assert_eq!(items(&plane, "?kind=port_scan&sensor=edge-2").await[0]["count"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_concurrent_epochs_of_a_sensor_add_up() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let of = |number: u64| {
        let mut found: Vec<_> = (0..20)
            .map(|host| detection("port_scan", &format!("10.0.1.{host}"), Severity::Low, number + 1))
            .collect();
        if number % 2 == 1 {
            found.reverse();
        }
        Batch { detections: found, ..batch(1, number, start + number as i64 * SECOND, Vec::new()) }
    };
    let batches: Vec<_> = (0..6).map(of).collect();
    let sent = batches.iter().map(|batch| plane.store(&token, batch));
    futures_util::future::join_all(sent).await;
    assert_eq!(plane.sql("SELECT count(*), min(count), max(count) FROM detection"), "20|21|21");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_judged_stays_judged_and_is_in_the_audit_log() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.user("otto", Role::Operator).await;
    let otto = plane.log_in("otto").await;
    let start = recent_minute_ns();
    plane.store(&token, &epoch(1, start, vec![scan(20)])).await;
    let id = items(&plane, "").await[0]["id"].clone();

    let path = format!("/api/v1/detections/{id}/acknowledge");
    for _ in 0..2 {
        let (status, judged) = plane.call(Method::POST, &path, &otto.access, NULL).await;
        assert_eq!(
            (status, &judged["state"], &judged["state_by"]),
            (200, &json!("acknowledged"), &json!("otto"))
        );
    }
    assert_eq!(items(&plane, "").await.len(), 0, "active by default");
    assert_eq!(items(&plane, "?state=acknowledged").await.len(), 1);

    for (body, field) in [
        (json!({"reason": "  "}), "reason"),
        (json!({}), "reason"),
        (json!({"reason": "x".repeat(501)}), "reason"),
    ] {
        let (status, problem) = judge(&plane, &id, "dismiss", &body).await;
        assert_eq!(status, 400, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(field)), "{problem}");
    }
    let reason = json!({"reason": "our own scanner"});
    let (status, judged) = judge(&plane, &id, "dismiss", &reason).await;
    assert_eq!(
        (status, &judged["state"], &judged["reason"]),
        (200, &json!("dismissed"), &json!("our own scanner"))
    );
    // More of the same is added and raises nothing, however long after.
    plane.store(&token, &epoch(2, start + 5 * SECOND, vec![scan(5)])).await;
    plane.sql("UPDATE detection SET last_seen = last_seen - interval '3 days', first_seen = first_seen - interval '3 days'");
    plane.store(&token, &epoch(3, start + 10 * SECOND, vec![scan(5)])).await;
    assert_eq!(items(&plane, "").await.len(), 0);
    assert_eq!(items(&plane, "?state=dismissed").await[0]["count"], 30);

    let (status, judged) = judge(&plane, &id, "reopen", NULL).await;
    assert_eq!((status, &judged["state"], &judged["reason"]), (200, &json!("active"), NULL));
    assert_eq!(items(&plane, "").await.len(), 1);
    let log = plane.json("/api/v1/audit?subject_kind=detection").await;
    let actions: Vec<_> = log["items"].as_array().expect("items").iter().map(|row| &row["action"]).collect();
    assert_eq!(actions, ["detection.reopen", "detection.dismiss", "detection.acknowledge"]);
    assert_eq!(log["items"][1]["before"], json!({"state": "acknowledged", "reason": null}));
    assert_eq!(log["items"][1]["after"], json!({"state": "dismissed", "reason": "our own scanner"}));
    assert_eq!(log["items"][1]["subject"], "port_scan 10.0.0.66");
    for action in ["acknowledge", "reopen"] {
        assert_eq!(judge(&plane, &json!(77), action, NULL).await.0, 404);
    }
    assert_eq!(judge(&plane, &json!(77), "dismiss", &reason).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_after_a_day_is_another_detection() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    plane.store(&token, &epoch(1, start, vec![scan(20)])).await;
    let id = items(&plane, "").await[0]["id"].clone();
    assert_eq!(judge(&plane, &id, "acknowledge", NULL).await.0, 200);
    plane.sql("UPDATE detection SET last_seen = last_seen - interval '2 days', first_seen = first_seen - interval '2 days'");
    plane.store(&token, &epoch(2, start + 5 * SECOND, vec![scan(5)])).await;
    let news = items(&plane, "").await;
    assert_eq!((news.len(), &news[0]["count"], &news[0]["ended_at"]), (1, &json!(5), NULL));
    let old = &items(&plane, "?state=acknowledged").await[0];
    assert_eq!((&old["id"], &old["count"], &old["ended_at"]), (&id, &json!(20), &old["last_seen"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a3_filters_and_pages() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let severities = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];
    let mut found: Vec<_> = (0..25)
        .map(|n| detection("port_scan", &format!("10.0.{}.{n}", n % 2), severities[n % 5], 1))
        .collect();
    found.push(detection("beaconing", "10.0.0.5 > 203.0.113.9:443", Severity::Low, 9));
    plane.store(&token, &epoch(1, start, found)).await;
    for (query, count) in [
        ("", 26),
        ("?severity=high", 10),
        ("?severity=info", 26),
        ("?kind=beaconing", 1),
        ("?kind=nothing_of_the_kind", 0),
        ("?sensor=edge-1", 26),
        ("?sensor=edge-9", 0),
        ("?subject=10.0.0.0/24", 14),
        ("?subject=10.0.1.3", 1),
        ("?subject=10.0.0.5%20%3E%20203.0.113.9%3A443", 1),
        ("?state=all", 26),
        ("?state=dismissed", 0),
    ] {
        assert_eq!(items(&plane, query).await.len(), count, "{query}");
    }
    let (before, after) = (rfc3339(start - SECOND), rfc3339(start + 60 * SECOND));
    assert_eq!(items(&plane, &format!("?from={before}&to={after}")).await.len(), 26);
    assert_eq!(items(&plane, &format!("?from={after}")).await.len(), 0);
    assert_eq!(items(&plane, &format!("?to={before}")).await.len(), 0);
    let (mut seen, mut path) = (Vec::new(), "/api/v1/detections?limit=10".to_owned());
    loop {
        let page = plane.json(&path).await;
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["id"].as_i64()));
        if !page["has_more"].as_bool().expect("a word on more") {
            break;
        }
        // What comes meanwhile does not move the pages.
        let more = detection("port_scan", &format!("10.9.0.{}", seen.len()), Severity::Low, 1);
        plane.store(&token, &epoch(100 + seen.len() as u64, start, vec![more])).await;
        let token = page["continuation"].as_str().expect("a token");
        path = format!("/api/v1/detections?limit=10&continuation={token}");
    }
    let mut sorted = seen.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    sorted.dedup();
    assert_eq!((seen.len(), seen), (26, sorted));
    for query in [
        "?state=open",
        "?severity=bad",
        "?kind=Port%20scan",
        "?sensor=%21",
        "?limit=0",
        "?continuation=x",
        "?from=now",
        "?subject=",
    ] {
        let response = plane.get(&format!("/api/v1/detections{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
    }
    for id in ["0", "-1", "x", "99999999999999999999"] {
        assert_eq!(plane.get(&format!("/api/v1/detections/{id}")).await.status(), 400, "{id}");
    }
    assert_eq!(plane.get("/api/v1/detections/4711").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn i6_hostile_names_are_stored_clean() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let text = |text: &str| Some(FactValue::Text(text.to_owned()));
    let hostile = Detection {
        subject: "\u{1b}[2J10.0.0.1\0\u{202e}".to_owned() + &"x".repeat(10_000),
        address: Vec::new(),
        evidence: vec![
            Fact { name: "host".to_owned(), value: text("evil\0\r\n\u{1b}]0;title\u{7}") },
            Fact { name: "newer".to_owned(), value: None },
        ],
        ..scan(1)
    };
    plane.store(&token, &epoch(1, recent_minute_ns(), vec![hostile])).await;
    let found = &items(&plane, "").await[0];
    let subject = found["subject"].as_str().expect("text");
    assert!(subject.starts_with("\u{fffd}[2J10.0.0.1\u{fffd}\u{fffd}xxx"), "{subject:?}");
    assert_eq!(subject.len(), 256);
    assert_eq!(found["evidence"], json!({"host": ["evil\u{fffd}\u{fffd}\u{fffd}\u{fffd}]0;title\u{fffd}"]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_batch_keeps_its_detections_and_a_deleted_sensor_none() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let dropped = notice(
        epoch(1, recent_minute_ns(), vec![Detection { evidence: vec![], ..scan(20) }]),
        DropReason::SpoolBytes,
    );
    let (status, body) = plane.post(&token, &dropped).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(plane.count("flow"), 0);
    assert_eq!(items(&plane, "").await[0]["evidence"], json!({}));
    let id = plane.begin_erasure(Kind::Sensor, "edge-1").await;
    assert!(plane.jobs().round(Timestamp::now()).await.expect("a round"));
    assert_eq!(plane.count("detection"), 0);
    assert_eq!(plane.erased(id.into(), "detections"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_detections_that_were_seen_no_more_are_forgotten() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let found = vec![scan(20), detection("port_scan", "10.0.0.67", Severity::Low, 1)];
    plane.store(&token, &epoch(1, recent_minute_ns(), found)).await;
    plane.sql(
        "UPDATE detection SET first_seen = first_seen - interval '400 days',
                              last_seen = last_seen - CASE WHEN count = 1 THEN interval '181 days'
                                                           ELSE interval '179 days' END",
    );
    assert!(plane.jobs().round(Timestamp::now()).await.expect("a round"));
    assert_eq!(plane.sql("SELECT string_agg(subject, ',') FROM detection"), "10.0.0.66");
}
