//! U4: sensors' credentials are rotated with overlap, and revoked on open connections.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

/// Whether the token opens the sensor's door (a body that is no batch is another matter).
async fn opens(plane: &Plane<'_>, token: &str) -> (u16, String) {
    let response = plane.post_bytes(token, b"none".to_vec()).await;
    let status = response.status().as_u16();
    let problem: Value = response.json().await.expect("JSON");
    (status, problem["type"].as_str().unwrap_or_default().to_owned())
}

const OPEN: u16 = 400;

async fn rotate(plane: &Plane<'_>, body: &Value) -> (String, i64) {
    let (status, made) =
        plane.call(Method::POST, "/api/v1/sensors/edge-1/credentials", ADMIN_TOKEN, body).await;
    assert_eq!(status, 200, "{made}");
    (made["token"].as_str().expect("a token").to_owned(), made["id"].as_i64().expect("an id"))
}

async fn states(plane: &Plane<'_>) -> Vec<String> {
    let listed = plane.json("/api/v1/sensors/edge-1/credentials").await;
    let items = listed["items"].as_array().expect("items").iter();
    items.map(|item| item["state"].as_str().expect("a state").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_the_old_credential_works_until_the_new_one_was_used() {
    let plane = Plane::start().await;
    let old = plane.sensor("edge-1").await;
    plane.store(&old, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    let (new, _) = rotate(&plane, &json!({})).await;
    assert_eq!(states(&plane).await, ["active", "new"]);
    plane.store(&old, &batch(1, 1, recent_minute_ns(), mixed_flows())).await;
    plane.store(&new, &batch(1, 2, recent_minute_ns(), mixed_flows())).await;
    assert_eq!(states(&plane).await, ["revoked", "active"]);
    let refused = (401, "urn:weir:problem:token-revoked".to_owned());
    assert_eq!(opens(&plane, &old).await, refused);
    assert_eq!(plane.count("batch"), 3);
    let rotated = plane.json("/api/v1/audit?action=sensor.rotated").await;
    assert_eq!(rotated["items"].as_array().map(Vec::len), Some(1), "{rotated}");
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_the_old_credential_ends_when_the_overlap_is_over_though_the_new_one_was_never_used() {
    let plane = Plane::start().await;
    let old = plane.sensor("edge-1").await;
    assert_eq!(opens(&plane, &old).await.0, OPEN);
    let (new, _) = rotate(&plane, &json!({"overlap_s": 0, "expires_in_days": 1})).await;
    assert_eq!(opens(&plane, &old).await.0, 401);
    assert_eq!(states(&plane).await, ["expired", "new"]);
    assert_eq!(opens(&plane, &new).await.0, OPEN);
    plane.sql("UPDATE sensor_credential SET expires_at = now()");
    eventually("the new one's time is over, too", || async { opens(&plane, &new).await.0 == 401 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_sensor_renews_its_own_and_does_not_pile_them_up() {
    let plane = Plane::start_with(|config| config.sensors.credential_days = 30).await;
    let old = plane.sensor("edge-1").await;
    let mut newest = String::new();
    // The answers to all but the last are lost on their way.
    for _ in 0..12 {
        let (status, made) = plane.call(Method::POST, "/api/v1/sensor/credentials", &old, &Value::Null).await;
        assert_eq!((status, made["by_sensor"].as_bool()), (200, Some(true)), "{made}");
        assert!(made["expires_at"].is_string(), "{made}");
        made["token"].as_str().expect("a token").clone_into(&mut newest);
    }
    assert_eq!(states(&plane).await.iter().filter(|state| *state == "new").count(), 1);
    assert_eq!(opens(&plane, &newest).await.0, OPEN);
    assert_eq!(opens(&plane, &old).await.0, 401);

    for _ in 0..7 {
        rotate(&plane, &json!({})).await;
    }
    let path = "/api/v1/sensors/edge-1/credentials";
    let (status, problem) = plane.call(Method::POST, path, ADMIN_TOKEN, &json!({})).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:weir:problem:too-many-credentials")));
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_revoked_credential_is_void_on_its_open_connection_at_once() {
    let plane = Plane::start().await;
    let (token, other) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    plane.store(&token, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    let path = "/api/v1/sensors/edge-1/credentials/1";
    let (status, shown) = plane.call(Method::DELETE, path, ADMIN_TOKEN, &Value::Null).await;
    assert_eq!((status, shown["state"].as_str()), (200, Some("revoked")), "{shown}");
    assert_eq!(opens(&plane, &token).await, (401, "urn:weir:problem:token-revoked".to_owned()));
    assert_eq!(opens(&plane, &other).await.0, OPEN);
    let (status, _) =
        plane.call(Method::DELETE, "/api/v1/sensors/edge-2/credentials/1", ADMIN_TOKEN, &Value::Null).await;
    assert_eq!(status, 404, "it is another sensor's");

    let (new, _) = rotate(&plane, &json!({})).await;
    assert_eq!(opens(&plane, &new).await.0, OPEN);
    let (status, shown) =
        plane.call(Method::POST, "/api/v1/sensors/edge-1/revoke", ADMIN_TOKEN, &Value::Null).await;
    assert_eq!((status, shown["state"].as_str()), (200, Some("revoked")), "{shown}");
    assert_eq!(opens(&plane, &new).await, (401, "urn:weir:problem:sensor-revoked".to_owned()));
    let (status, problem) =
        plane.call(Method::POST, "/api/v1/sensors/edge-1/credentials", ADMIN_TOKEN, &json!({})).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("urn:weir:problem:sensor-revoked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_a_revocation_on_one_instance_holds_on_the_other_within_a_moment() {
    let plane = Plane::start().await;
    let other = weir_control_plane::server::start(&plane.config).await.expect("another instance");
    let token = plane.sensor("edge-1").await;
    let there = |token: String| {
        let request = plane.http.post(format!("http://{}/api/v1/sensor/credentials", other.address));
        async move { request.bearer_auth(token).send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(there(token.clone()).await, 200);
    let path = "/api/v1/sensors/edge-1/credentials/1";
    assert_eq!(plane.call(Method::DELETE, path, ADMIN_TOKEN, &Value::Null).await.0, 200);
    eventually("it is refused there", || async { there(token.clone()).await == 401 }).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn u4_sensors_are_placed_and_found_by_where_they_belong() {
    let plane = Plane::start().await;
    for name in ["edge-1", "edge-2", "core-1"] {
        plane.sensor(name).await;
    }
    let place = |name: &str, body: Value| {
        let path = format!("/api/v1/sensors/{name}");
        let plane = &plane;
        async move { plane.call(Method::PATCH, &path, ADMIN_TOKEN, &body).await }
    };
    let labels = json!({"env": "prod", "tier": "web"});
    let (status, placed) = place("edge-1", json!({"site": "ams", "group": "edge", "labels": labels})).await;
    assert_eq!((status, &placed["labels"]), (200, &labels), "{placed}");
    place("edge-2", json!({"group": "edge", "labels": {"env": "test"}})).await;
    let names = |query: &str| {
        let path = format!("/api/v1/sensors?{query}");
        let plane = &plane;
        async move {
            let page = plane.json(&path).await;
            let items = page["items"].as_array().expect("items").iter();
            items.map(|item| item["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(names("group=edge").await, "edge-1 edge-2");
    assert_eq!(names("group=edge&site=ams").await, "edge-1");
    assert_eq!(names("labels=env%3Dprod,tier%3Dweb").await, "edge-1");
    assert_eq!(names("labels=env%3Dprod,tier%3Ddb").await, "");
    // What is left out stays, null clears.
    let (_, placed) = place("edge-1", json!({"site": null})).await;
    assert_eq!(
        (&placed["site"], &placed["group"], &placed["labels"]),
        (&Value::Null, &json!("edge"), &labels)
    );
    assert_eq!(place("edge-1", json!({"group": "a b"})).await.0, 400);
    assert_eq!(place("edge-9", json!({})).await.0, 404);
    let changes = plane.json("/api/v1/audit?action=sensor.place").await;
    assert_eq!(changes["items"].as_array().map(Vec::len), Some(3), "{changes}");
}
