//! I3: writers at the same time do not disturb each other.

use reqwest::Method;
use serde_json::Value;

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn i3_sensors_in_parallel_lose_nothing_and_do_not_deadlock() {
    let plane = Plane::start().await;
    let start = recent_minute_ns();
    let mut tokens = Vec::new();
    for index in 0..4 {
        tokens.push(plane.sensor(&format!("edge-{index}")).await);
    }
    let plane = &plane;
    // Two writers for each sensor: they meet on the rollup rows of the same minute.
    let writers =
        tokens.iter().flat_map(|token| [(token, 0_u64), (token, 1)]).map(|(token, odd)| async move {
            for step in 0..10 {
                plane.store(token, &batch(1, 2 * step + odd, start, mixed_flows())).await;
            }
        });
    futures_util::future::join_all(writers).await;
    assert_eq!(plane.count("batch"), 80);
    assert_eq!(plane.count("flow"), 80 * 41);
    for table in ["rollup_1m", "rollup_1h"] {
        for dimension in 1..=5 {
            let sum = plane.sql(&format!(
                "SELECT sum(flows), sum(octets + reverse_octets) = (SELECT sum(octets + reverse_octets) FROM flow)
                 FROM {table} WHERE dimension = {dimension}"
            ));
            assert_eq!(sum, format!("{}|t", 80 * 41), "{table}, dimension {dimension}");
        }
    }
    assert_eq!(plane.sql("SELECT DISTINCT batches, records FROM sensor_status"), format!("20|{}", 20 * 41));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_with_too_many_batches_in_work_waits_and_is_then_told_429() {
    let plane = Plane::start_with(|config| {
        config.ingest.max_concurrent_per_sensor = 1;
        config.ingest.queue_timeout_ms = 50;
    })
    .await;
    let (busy, other) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    // A sender that never ends its body holds its sensor's only place.
    let (sender, body) = tokio::sync::mpsc::unbounded_channel::<Result<Vec<u8>, std::io::Error>>();
    let body = futures_util::stream::unfold(body, |mut body| async move { Some((body.recv().await?, body)) });
    let request = plane
        .request(Method::POST, "/api/v1/ingest", &busy)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .body(reqwest::Body::wrap_stream(body));
    let slow = tokio::spawn(request.send());
    // Asked for in here, the place is given back at once: the slow sender finds it free.
    eventually("it has its sensor's place", || async { plane.state().admission.place(1).await.is_err() })
        .await;

    let body = weir_wire::encode(&batch(1, 0, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let response = plane.post_bytes(&busy, body.clone()).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["category"], "rate_limit");
    assert_eq!(plane.post_bytes(&other, body.clone()).await.status(), 200, "another sensor is not held up");

    drop(sender);
    let _ = slow.await.expect("the task ends");
    assert_eq!(plane.post_bytes(&busy, body).await.status(), 200, "the place was given back");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_beyond_the_total_are_told_503_and_questions_are_still_answered() {
    let plane = Plane::start_with(|config| {
        config.ingest.max_concurrent = 1;
        config.ingest.queue_timeout_ms = 50;
    })
    .await;
    let (one, two) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    // A lock that its transaction waits for keeps the first batch in work.
    let postgres = plane.postgres;
    let database = plane.database.clone();
    let lock = std::thread::spawn(move || {
        postgres.sql(&database, "BEGIN; LOCK TABLE batch IN SHARE MODE; SELECT pg_sleep(600); COMMIT")
    });
    plane.sleeper().await;
    let held = batch(1, 0, recent_minute_ns(), mixed_flows());
    let waiting = plane.post(&one, &held);
    let turned_away = async {
        eventually("the first batch is in work", || async {
            plane.state().metrics.ingest_in_flight.get() > 0
        })
        .await;
        let body = weir_wire::encode(&held).expect("it encodes");
        let response = plane.post_bytes(&two, body).await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let answer =
            plane.request(Method::GET, "/api/v1/sensors", ADMIN_TOKEN).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
        plane.end_sleepers();
    };
    let ((status, body), ()) = tokio::join!(waiting, turned_away);
    assert_eq!((status, body["status"].as_str()), (200, Some("stored")), "{body}");
    lock.join().expect("the thread ends").expect_err("its session was ended");
}
