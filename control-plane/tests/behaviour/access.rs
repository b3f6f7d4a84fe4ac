//! I5: a revoked sensor is told so and stores nothing more; browsers read the documentation.

use weir_control_plane::store::Reference;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::sensors;

use crate::support::{ADMIN_TOKEN, Plane, batch, mixed_flows, recent_minute_ns};

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
    sensors::revoke(plane.pool(), &Author::command_line(), &Reference::Name("edge-1".to_owned()))
        .await
        .expect("it is revoked");
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
