//! O7: the server lets requests in flight finish, within its deadline.

use std::time::{Duration, Instant};

use crate::support::{Plane, batch, mixed_flows, recent_minute_ns};

fn slow(plane: &Plane<'_>, seconds: u32) {
    plane.sql(&format!(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER INSERT ON rollup_1h FOR EACH STATEMENT EXECUTE FUNCTION slow()"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_batch_in_flight_is_stored_before_the_server_ends() {
    let mut plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    slow(&plane, 3);
    let body = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let request = plane
        .request(reqwest::Method::POST, "/api/v1/ingest", &token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(body);
    let in_flight = tokio::spawn(request.send());
    plane.sleeper().await;
    plane.stop().await;
    assert_eq!(in_flight.await.expect("the task ends").expect("an answer").status(), 200);
    assert_eq!(plane.count("flow"), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn o7_a_request_that_does_not_end_is_cut_off_at_the_deadline() {
    let mut plane = Plane::start_with(|config| config.shutdown_deadline_ms = 500).await;
    let token = plane.sensor("edge-1").await;
    slow(&plane, 600);
    let body = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let request = plane
        .request(reqwest::Method::POST, "/api/v1/ingest", &token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(body);
    let in_flight = tokio::spawn(request.send());
    plane.sleeper().await;
    let started = Instant::now();
    plane.stop().await;
    // Its statement would go on for ten minutes.
    assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
    in_flight.abort();
    assert_eq!(plane.count("flow"), 0);
}
