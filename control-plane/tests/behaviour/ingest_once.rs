//! I2: a batch is stored once, however often and on however many connections it comes.

use weir_testbed::postgres::Postgres;

use crate::support::{Plane, batch, flow, mixed_flows, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn i2_the_same_batch_from_eight_connections_at_once_is_stored_once() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    let body = weir_wire::encode(&batch).expect("it encodes");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            // A client of its own is a connection of its own.
            let client = reqwest::Client::builder().no_proxy().build().expect("a client");
            let request = client
                .post(plane.url("/api/v1/ingest"))
                .bearer_auth(&token)
                .header("content-type", weir_wire::CONTENT_TYPE)
                .header("content-encoding", weir_wire::CONTENT_ENCODING)
                .body(body.clone());
            tokio::spawn(async move {
                let response = request.send().await.expect("an answer");
                let status = response.status().as_u16();
                let body: serde_json::Value = response.json().await.expect("JSON");
                (status, body["status"].as_str().unwrap_or_default().to_owned())
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for client in clients {
        outcomes.push(client.await.expect("the task ends"));
    }
    assert!(outcomes.iter().all(|(status, _)| *status == 200), "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|(_, status)| status == "stored").count(), 1, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|(_, status)| status == "duplicate").count(), 7, "{outcomes:?}");
    assert_eq!(plane.count("batch"), 1);
    assert_eq!(plane.count("flow"), 41);
    let flows = "SELECT sum(packets + reverse_packets), sum(octets + reverse_octets), sum(flows) FROM";
    for table in ["rollup_1m", "rollup_1h"] {
        let rolled = plane.sql(&format!("{flows} {table} WHERE dimension = 5"));
        let rows = plane.sql(&format!("{flows} (SELECT *, 1 AS flows FROM flow) AS rows"));
        assert_eq!(rolled, rows, "{table}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_a_replay_after_both_sides_crashed_changes_nothing() {
    let postgres = Postgres::start().expect("a server of its own");
    let mut plane = Plane::start_on(&postgres, |_| {}).await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    plane.store(&token, &batch).await;
    let before = plane.contents();
    postgres.restart_immediate().expect("it recovers");
    plane.restart().await;
    for _ in 0..3 {
        let (status, body) = plane.post(&token, &batch).await;
        assert_eq!(
            (status, body["status"].as_str(), body["records"].as_u64()),
            (200, Some("duplicate"), Some(41))
        );
    }
    assert_eq!(plane.contents(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_the_key_is_sensor_generation_epoch_and_part() {
    let plane = Plane::start().await;
    let (one, two) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    let start = recent_minute_ns();
    let flows = || vec![flow([10, 0, 0, 1], [10, 0, 0, 2], 80, 1)];
    plane.store(&one, &batch(1, 0, start, flows())).await;
    plane.store(&two, &batch(1, 0, start, flows())).await;
    plane.store(&one, &batch(2, 0, start, flows())).await;
    plane.store(&one, &batch(1, 1, start, flows())).await;
    let mut part = batch(1, 2, start, flows());
    part.parts = 2;
    plane.store(&one, &part).await;
    part.part = 1;
    part.points.iter_mut().for_each(|point| point.totals = None);
    plane.store(&one, &part).await;
    // What is in a batch is no part of its key: this is a repeat of the first one.
    let (_, body) = plane.post(&one, &batch(1, 0, start + 1, mixed_flows())).await;
    assert_eq!(body["status"], "duplicate");
    assert_eq!((plane.count("batch"), plane.count("flow")), (6, 6));
}
