//! Two instances on one database are one: what a client of one missed, the other tells; what one did not
//! acknowledge, the other takes; whatever stops.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::Value;
use weir_control_plane::server;
use weir_testbed::postgres::Postgres;
use weir_testbed::weir::{ControlPlane, Place};

use crate::follow::{Socket, resume_after};
use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

const BATCHES: u64 = 60;

/// Sends a sensor's batches in order, each to an instance after the other until one acknowledges it.
async fn ship(http: &Client, token: &str, generation: u8, instances: &[String]) {
    let deadline = Instant::now() + Duration::from_mins(2);
    let mut at = usize::from(generation);
    for epoch in 0..BATCHES {
        let body = weir_wire::encode(&batch(generation, epoch, recent_minute_ns(), mixed_flows()));
        let body = body.expect("it encodes");
        loop {
            assert!(Instant::now() < deadline, "sensor {generation} could not send epoch {epoch}");
            let request = http
                .post(format!("{}/api/v1/ingest", instances[at % instances.len()]))
                .bearer_auth(token)
                .header("content-type", weir_wire::CONTENT_TYPE)
                .header("content-encoding", weir_wire::CONTENT_ENCODING)
                .body(body.clone());
            match request.send().await {
                Ok(answer) if answer.status() == 200 => break,
                // Not acknowledged, whether it was stored or not.
                Ok(_) | Err(_) => {
                    at += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Follows flows until it has so many events, on whichever instance lets it; gives them, and how often it
/// had to connect.
async fn follow(instances: &[SocketAddr], token: &str, count: usize) -> (Vec<Value>, usize) {
    let deadline = Instant::now() + Duration::from_mins(2);
    let (mut seen, mut after, mut connections): (Vec<Value>, i64, usize) = (Vec::new(), 0, 0);
    let flows = |seen: &[Value]| seen.iter().filter(|event| event["topic"] == "flows").count();
    while flows(&seen) < count {
        assert!(Instant::now() < deadline, "{} of {count} events", flows(&seen));
        let address = instances[connections % instances.len()];
        connections += 1;
        let query = format!("after={after}");
        let Some(mut socket) = Socket::try_open(address, &query, token).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        while flows(&seen) < count {
            match socket.event().await {
                Ok(event) => {
                    after = event["cursor"].as_i64().expect("a cursor");
                    seen.push(event);
                }
                Err((0, _)) => break,
                Err((_, reason)) => {
                    assert_eq!(resume_after(&reason), after, "{reason}");
                    break;
                }
            }
        }
    }
    (seen, connections)
}

/// Nothing lost, nothing doubled, no gap: every cursor once, every batch once.
fn complete(events: &[Value], sensors: &[u8]) {
    let cursors: Vec<i64> = events.iter().map(|event| event["cursor"].as_i64().expect("a cursor")).collect();
    assert_eq!(cursors, (1..=events.len() as i64).collect::<Vec<i64>>());
    let told: Vec<(String, u64)> = events
        .iter()
        .filter(|event| event["topic"] == "flows")
        .map(|event| {
            let sensor = event["sensor"].as_str().expect("a name").to_owned();
            (sensor, event["data"]["epoch"].as_u64().expect("an epoch"))
        })
        .collect();
    let expected: BTreeSet<(String, u64)> = sensors
        .iter()
        .flat_map(|sensor| (0..BATCHES).map(move |epoch| (format!("edge-{sensor}"), epoch)))
        .collect();
    assert_eq!(told.len(), expected.len());
    assert_eq!(told.iter().cloned().collect::<BTreeSet<_>>(), expected);
    for sensor in sensors {
        let name = format!("edge-{sensor}");
        let epochs: Vec<u64> = told.iter().filter(|it| it.0 == name).map(|it| it.1).collect();
        assert_eq!(epochs, (0..BATCHES).collect::<Vec<u64>>(), "{name}: in the order in which it sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_an_instance_that_is_killed_loses_no_event_and_doubles_none() {
    let plane = Plane::start().await;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_weir-control-plane"));
    let url = plane.postgres.database_url(&plane.database);
    let doomed = tokio::task::spawn_blocking(move || ControlPlane::start(program, &url, Place::here()));
    let doomed = doomed.await.expect("it is waited for").expect("it starts");
    let (machine, _) =
        plane.machine(ADMIN_TOKEN, "admin", &["flows", "sensors", "detections", "operations", "audit"]).await;
    let sensors = [0_u8, 1, 2];
    let mut tokens = Vec::new();
    for sensor in sensors {
        tokens.push(plane.sensor(&format!("edge-{sensor}")).await);
    }
    let instances = [doomed.url(), plane.url("")];
    let shipping = join_all(
        tokens.iter().zip(sensors).map(|(token, sensor)| ship(&plane.http, token, sensor, &instances)),
    );
    // A client of the instance that dies, and one of the other.
    let count = sensors.len() * BATCHES as usize;
    let (doomed_address, here) = (doomed.address(), plane.address());
    let (both, one) = ([doomed_address, here], [here]);
    let moving = follow(&both, &machine, count);
    let staying = follow(&one, &machine, count);
    let killing = async {
        eventually("a third is stored", || async { plane.count("batch") >= count as u64 / 3 }).await;
        doomed.kill().expect("it is killed");
    };
    let (_, (moved, connections), (stayed, one), ()) = tokio::join!(shipping, moving, staying, killing);
    complete(&moved, &sensors);
    complete(&stayed, &sensors);
    assert!(connections > 1, "the first client had to move");
    assert_eq!(one, 1, "the second had not");
    assert_eq!(plane.count("batch"), count as u64);
    eventually("nobody follows any more", || async { plane.streams() == 0 }).await;
}

/// Streams stand still and go on: no client notices more than a pause.
#[tokio::test(flavor = "multi_thread")]
async fn o6_streams_outlive_a_database_that_crashes_under_load() {
    let postgres = Postgres::start().expect("a server of its own");
    let plane = Plane::start_on(&postgres, |config| {
        config.database.acquire_timeout_ms = 1_000;
        config.database.connect_timeout_ms = 1_000;
    })
    .await;
    let second = server::start(&plane.config).await.expect("a second instance");
    let sensors = [0_u8, 1, 2];
    let mut tokens = Vec::new();
    for sensor in sensors {
        tokens.push(plane.sensor(&format!("edge-{sensor}")).await);
    }
    let instances = [plane.url(""), format!("http://{}", second.address)];
    let count = sensors.len() * BATCHES as usize;
    let shipping = join_all(
        tokens.iter().zip(sensors).map(|(token, sensor)| ship(&plane.http, token, sensor, &instances)),
    );
    let (one, two) = ([plane.address()], [second.address]);
    let following = [follow(&one, ADMIN_TOKEN, count), follow(&two, ADMIN_TOKEN, count)];
    let crashing = async {
        eventually("a third is stored", || async { plane.count("batch") >= count as u64 / 3 }).await;
        tokio::task::block_in_place(|| postgres.restart_immediate()).expect("it recovers");
    };
    let (_, followed, ()) = tokio::join!(shipping, join_all(following), crashing);
    for (events, connections) in &followed {
        complete(events, &sensors);
        assert_eq!(*connections, 1, "its connection stayed");
    }
    assert_eq!(plane.count("batch"), count as u64);
    second.stop().await;
}
