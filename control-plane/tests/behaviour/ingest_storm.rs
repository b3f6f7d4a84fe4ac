//! S7, I2: many sensors come back at once. Those that are turned away are told when to try again, each at
//! another time; in the end everything is stored once, and nobody starves.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{Plane, SECOND, batch, mixed_flows, recent_minute_ns};

const SENSORS: usize = 40;
const BATCHES: u64 = 5;
/// What a second of `Retry-After` lasts here.
const SECOND_HERE: Duration = Duration::from_millis(40);
/// Far beyond what it takes; a sender that starves runs into it.
const DEADLINE: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn s7_many_sensors_at_once_are_all_stored_once_and_none_starves() {
    let plane = Plane::start_with(|config| {
        config.ingest.max_concurrent = 2;
        config.ingest.queue_timeout_ms = 20;
    })
    .await;
    let mut tokens = Vec::new();
    for index in 0..SENSORS {
        tokens.push(plane.sensor(&format!("edge-{index}")).await);
    }
    let (start, begun) = (recent_minute_ns(), Instant::now());
    let plane = &plane;
    let senders = tokens.iter().map(|token| async move {
        let mut waits: Vec<u64> = Vec::new();
        for epoch in 0..BATCHES {
            let body = weir_wire::encode(&batch(1, epoch, start + epoch as i64 * SECOND, mixed_flows()));
            let body = body.expect("it encodes");
            loop {
                let response = plane.post_bytes(token, body.clone()).await;
                match response.status().as_u16() {
                    200 => break,
                    429 | 503 => {}
                    other => panic!("{other}: {}", response.text().await.expect("text")),
                }
                let wait = response.headers()["retry-after"].to_str().expect("text");
                let wait: u64 = wait.parse().expect("seconds");
                waits.push(wait);
                assert!(begun.elapsed() < DEADLINE, "this sender starves");
                tokio::time::sleep(SECOND_HERE * wait as u32).await;
            }
        }
        waits
    });
    let waits: Vec<Vec<u64>> = futures_util::future::join_all(senders).await;
    assert_eq!(plane.count("batch"), SENSORS as u64 * BATCHES);
    assert_eq!(plane.count("flow"), SENSORS as u64 * BATCHES * 41);
    let complete = "SELECT count(*) FROM sensor_status WHERE batches = 5 AND records = 5 * 41";
    assert_eq!(plane.sql(complete), SENSORS.to_string());
    // Spread: those that were turned away were not sent back at one time.
    let mut told: BTreeMap<u64, usize> = BTreeMap::new();
    waits.iter().flatten().for_each(|wait| *told.entry(*wait).or_default() += 1);
    let turned_away: usize = told.values().sum();
    assert!(turned_away >= SENSORS / 2, "the server was not busy: {told:?}");
    assert!(told.keys().all(|seconds| (1..=10).contains(seconds)), "{told:?}");
    assert!(told.len() >= 4 && told.values().all(|count| count * 2 < turned_away), "{told:?}");
}
