//! U2, I5: nothing is open but health and metrics; a revoked sensor is told so and stores nothing more.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use serde_json::Value;
use weir_control_plane::store::sensors::{self, SensorRef};

use crate::support::{ADMIN_TOKEN, Plane, batch, mixed_flows, recent_minute_ns};

const OPEN: &[&str] = &["/healthz", "/readyz", "/metrics"];

/// Every route of the document, so that a new one cannot be forgotten here.
fn routes() -> Vec<(Method, String)> {
    let document = serde_json::to_value(weir_control_plane::api::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths").clone();
    let mut routes = Vec::new();
    for (path, operations) in paths {
        for method in operations.as_object().expect("operations").keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            routes.push((method, path.replace("{id}", "edge-1")));
        }
    }
    routes
}

#[tokio::test(flavor = "multi_thread")]
async fn u2_no_route_is_open_but_health_and_metrics() {
    let plane = Plane::start().await;
    let sensor = plane.sensor("edge-1").await;
    let routes = routes();
    assert!(routes.len() >= 12, "{routes:?}");
    for (method, path) in routes {
        let open = OPEN.contains(&path.as_str());
        let for_sensors = path == "/api/v1/ingest";
        for (who, authorization) in [
            ("nobody", None),
            ("an empty token", Some("Bearer ".to_owned())),
            ("a wrong token", Some("Bearer weir_s_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned())),
            ("a longer token", Some(format!("Bearer {ADMIN_TOKEN}x"))),
            ("another scheme", Some(format!("Token {ADMIN_TOKEN}"))),
            ("the other kind", Some(format!("Bearer {}", if for_sensors { ADMIN_TOKEN } else { &sensor }))),
        ] {
            let mut request = plane.http.request(method.clone(), plane.url(&path));
            if let Some(value) = &authorization {
                request = request.header(AUTHORIZATION, value);
            }
            let response = request.send().await.expect("an answer");
            let status = response.status();
            if open {
                assert_eq!(status, 200, "{path} for {who}");
                continue;
            }
            assert_eq!(status, 401, "{path} for {who}");
            assert!(response.headers().contains_key("www-authenticate"), "{path} for {who}");
            let problem: Value = response.json().await.expect("a problem");
            assert_eq!(problem["category"], "authentication", "{path} for {who}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_the_documentation_with_the_token_as_password() {
    let plane = Plane::start().await;
    for (path, kind) in [("/api/docs", "text/html"), ("/api/openapi.json", "application/json")] {
        let request = plane.http.get(plane.url(path));
        let response =
            request.try_clone().expect("no body").basic_auth("any", Some(ADMIN_TOKEN)).send().await;
        let response = response.expect("an answer");
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().expect("text").starts_with(kind));
        let wrong = request.basic_auth("any", Some("wrong")).send().await.expect("an answer");
        assert_eq!(wrong.status(), 401);
    }
    // Nowhere else: a browser must not be made to send it along.
    let flows = plane.http.get(plane.url("/api/v1/flows")).basic_auth("any", Some(ADMIN_TOKEN)).send().await;
    assert_eq!(flows.expect("an answer").status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_revoked_sensor_is_told_so_finally_and_what_it_sent_stays() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    plane.store(&token, &batch(1, 0, start, mixed_flows())).await;
    // The server remembers the token for a few seconds; the transaction does not.
    sensors::revoke(plane.pool(), &SensorRef::Name("edge-1".to_owned())).await.expect("it is revoked");
    for _ in 0..2 {
        let (status, problem) = plane.post(&token, &batch(1, 1, start, mixed_flows())).await;
        assert_eq!(
            (status, problem["type"].as_str()),
            (401, Some("urn:weir:problem:sensor-revoked")),
            "{problem}"
        );
    }
    // A repeat of a stored batch is not acknowledged either.
    assert_eq!(plane.post(&token, &batch(1, 0, start, mixed_flows())).await.0, 401);
    assert_eq!(plane.count("flow"), 41);
    let sensor = plane.json("/api/v1/sensors/1").await;
    assert_eq!((sensor["state"].as_str(), sensor["revoked_at"].is_string()), (Some("revoked"), true));
    assert_eq!(plane.json("/api/v1/flows").await["items"].as_array().map(Vec::len), Some(41));
}
