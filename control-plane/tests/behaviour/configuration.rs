//! S12: settings are pushed to sensors and groups in versions, reported, refused, and taken back.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Plane};

const SENSOR: &str = "/api/v1/sensors/edge-1/configuration";
const GROUP: &str = "/api/v1/sensor-groups/edge/configuration";

async fn put(plane: &Plane<'_>, path: &str, settings: Value) -> (u16, Value) {
    plane.call(Method::PUT, path, ADMIN_TOKEN, &json!({"settings": settings})).await
}

/// What a heartbeat is offered, if anything.
async fn offer(plane: &Plane<'_>, token: &str, says: Value) -> Value {
    let body = json!({
        "version": "1", "uptime_s": 1, "clock_ms": 1,
        "spool": {"batches": 0, "bytes": 0, "capacity_bytes": 0, "oldest_age_ms": 0,
                  "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false},
        "ledger": {"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0},
        "configuration": says,
    });
    let (status, answer) = plane.call(Method::POST, "/api/v1/sensor/heartbeat", token, &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["configuration"].clone()
}

fn told(plane: &Plane<'_>) -> String {
    plane.sql(
        "SELECT string_agg(kind, ' ' ORDER BY at, n)
         FROM (SELECT kind, topic, 1 AS at, cursor AS n FROM event
               UNION ALL SELECT kind, topic, 2, pending_id FROM event_pending) AS told
         WHERE topic = 'sensors' AND kind LIKE 'sensor%configur%'",
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_a_sensor_has_its_own_settings_over_those_of_its_group_and_says_what_it_made_of_them() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.call(Method::PATCH, "/api/v1/sensors/edge-1", ADMIN_TOKEN, &json!({"group": "edge"})).await;
    assert_eq!(plane.json(SENSOR).await["reported"]["state"], "none");
    assert_eq!(offer(&plane, &token, json!({})).await, Value::Null, "nothing was pushed");

    put(&plane, GROUP, json!({"epoch": "1s", "sampling.interval": 10})).await;
    let (status, made) = put(&plane, SENSOR, json!({"epoch": "2s"})).await;
    assert_eq!((status, &made["version"], &made["author"]), (200, &json!(1), &json!("admin")), "{made}");
    let wanted = plane.json(SENSOR).await["wanted"].clone();
    assert_eq!(wanted["settings"], json!({"epoch": "2s", "sampling.interval": 10}));
    assert_eq!((&wanted["sensor_version"], &wanted["group_version"]), (&json!(1), &json!(1)));
    let id = wanted["id"].as_str().expect("an id").to_owned();

    let offered = offer(&plane, &token, json!({})).await;
    assert_eq!((&offered["id"], &offered["settings"]), (&wanted["id"], &wanted["settings"]));
    assert_eq!(plane.json(SENSOR).await["reported"]["state"], "pending");
    assert_eq!(offer(&plane, &token, json!({"trial": id})).await, Value::Null);
    assert_eq!(plane.json(SENSOR).await["reported"]["state"], "trial");
    for _ in 0..2 {
        assert_eq!(offer(&plane, &token, json!({"in_force": id})).await, Value::Null);
    }
    assert_eq!(plane.json(SENSOR).await["reported"]["state"], "applied");
    assert_eq!(
        told(&plane),
        "sensor_group.configure sensor.configure sensor.configuration_applied",
        "what is said twice is told once"
    );

    // Another group: other settings.
    plane.call(Method::PATCH, "/api/v1/sensors/edge-1", ADMIN_TOKEN, &json!({"group": null})).await;
    let offered = offer(&plane, &token, json!({"in_force": id})).await;
    assert_eq!(offered["settings"], json!({"epoch": "2s"}));
    let refusal = json!({"in_force": id, "refused": offered["id"], "reason": "epoch: it cannot be"});
    for _ in 0..2 {
        assert_eq!(offer(&plane, &token, refusal.clone()).await, Value::Null, "it is not asked again");
    }
    let shown = plane.json(SENSOR).await["reported"].clone();
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("refused"), &json!("epoch: it cannot be")));
    assert_eq!(shown["in_force"], json!(id));
    assert!(told(&plane).ends_with("sensor.configuration_applied sensor.configuration_refused"));
    // What is on trial and not wanted any more is replaced by what is.
    let back = plane.json(SENSOR).await["wanted"]["id"].clone();
    put(&plane, SENSOR, json!({"epoch": "3s"})).await;
    let third = offer(&plane, &token, json!({"in_force": back})).await["id"].clone();
    plane.call(Method::POST, &format!("{SENSOR}/rollback"), ADMIN_TOKEN, &json!({})).await;
    let offered = offer(&plane, &token, json!({"in_force": back, "trial": third})).await;
    assert_eq!(offered["id"], back);
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_one_call_goes_back_to_any_version_and_the_history_stays() {
    let plane = Plane::start().await;
    plane.sensor("edge-1").await;
    for epoch in ["1s", "2s", "3s"] {
        assert_eq!(put(&plane, SENSOR, json!({ "epoch": epoch })).await.0, 200);
    }
    let rollback =
        async |body: Value| plane.call(Method::POST, &format!("{SENSOR}/rollback"), ADMIN_TOKEN, &body).await;
    let (status, made) = rollback(json!({"comment": "it was better"})).await;
    assert_eq!((status, &made["version"], &made["restores"]), (200, &json!(4), &json!(2)), "{made}");
    assert_eq!((&made["settings"], &made["comment"]), (&json!({"epoch": "2s"}), &json!("it was better")));
    assert_eq!(rollback(json!({"version": 1})).await.1["settings"], json!({"epoch": "1s"}));
    assert_eq!(rollback(json!({"version": 99})).await.0, 404);
    let page = plane.json(&format!("{SENSOR}/versions?limit=3")).await;
    let numbers = |page: &Value| -> Vec<i64> {
        page["items"].as_array().expect("items").iter().filter_map(|item| item["version"].as_i64()).collect()
    };
    assert_eq!(numbers(&page), [5, 4, 3]);
    let token = page["continuation"].as_str().expect("there are more");
    let rest = plane.json(&format!("{SENSOR}/versions?limit=3&continuation={token}")).await;
    assert_eq!((numbers(&rest), &rest["has_more"]), (vec![2, 1], &json!(false)));
    let audited = plane.json("/api/v1/audit?action=sensor.configure").await;
    assert_eq!(audited["items"].as_array().map(Vec::len), Some(5));
    assert_eq!(audited["items"][0]["before"]["version"], 4, "{}", audited["items"][0]);
    // A group's first version is taken back to nothing.
    put(&plane, GROUP, json!({"epoch": "1s"})).await;
    let (_, made) = plane.call(Method::POST, &format!("{GROUP}/rollback"), ADMIN_TOKEN, &json!({})).await;
    assert_eq!((&made["settings"], &made["restores"]), (&json!({}), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn s12_what_may_not_be_pushed_is_refused_by_its_key_and_nothing_is_written() {
    let plane = Plane::start().await;
    plane.sensor("edge-1").await;
    let (status, problem) = put(
        &plane,
        SENSOR,
        json!({"control_plane.url": "http://198.51.100.1", "epoch": "1h", "sampling.interval": 2}),
    )
    .await;
    let fields: Vec<&str> = problem["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["field"].as_str())
        .collect();
    assert_eq!((status, fields), (400, vec!["settings.control_plane.url", "settings.epoch"]), "{problem}");
    assert_eq!(plane.count("sensor_configuration"), 0);
    assert_eq!(put(&plane, "/api/v1/sensors/edge-9/configuration", json!({})).await.0, 404);
    // Two operators who have looked at the same version: the second is told.
    let body = json!({"settings": {"epoch": "1s"}, "expected_version": 0});
    assert_eq!(plane.call(Method::PUT, SENSOR, ADMIN_TOKEN, &body).await.0, 200);
    let (status, problem) = plane.call(Method::PUT, SENSOR, ADMIN_TOKEN, &body).await;
    assert_eq!((status, &problem["type"]), (409, &json!("urn:weir:problem:configuration-changed")));
    // I1: neither the version nor its trace is there if either fails.
    plane.arm("audit", "INSERT");
    assert_eq!(put(&plane, SENSOR, json!({"epoch": "2s"})).await.0, 500);
    plane.disarm();
    assert_eq!(plane.count("sensor_configuration"), 1);
    // A sensor that is deleted takes its settings along.
    plane.begin_erasure(weir_control_plane::store::erasure::Kind::Sensor, "edge-1").await;
    plane.jobs().round(jiff::Timestamp::now()).await.expect("the jobs run");
    assert_eq!(plane.count("sensor_configuration"), 0);
}
