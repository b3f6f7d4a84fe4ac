//! O3, O6: a database that is down, restarts or hangs: clear answers meanwhile, and recovery by itself.

use std::time::{Duration, Instant};

use serde_json::Value;
use weir_testbed::postgres::Postgres;

use crate::support::{Plane, batch, eventually, mixed_flows, recent_minute_ns};

fn quick(config: &mut weir_control_plane::config::Config) {
    config.database.acquire_timeout_ms = 500;
    config.database.connect_timeout_ms = 500;
    config.database.statement_timeouts_ms.ingest = 1_000;
    config.database.statement_timeouts_ms.query = 1_000;
    config.database.statement_timeouts_ms.admin = 1_000;
}

/// The server's own deadline is below a second; this is what a busy machine may add. A server that waits
/// for its database waits for ever here.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

async fn ready(plane: &Plane<'_>) -> (u16, Value, Duration) {
    let started = Instant::now();
    let response = plane.http.get(plane.url("/readyz")).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.expect("JSON"), started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_restarted_database_is_used_again_and_acknowledged_batches_are_there() {
    let postgres = Postgres::start().expect("a server of its own");
    let plane = Plane::start_on(&postgres, quick).await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    for epoch in 0..5 {
        plane.store(&token, &batch(1, epoch, start, mixed_flows())).await;
    }
    postgres.restart_immediate().expect("it recovers");
    // Connections of the pool are dead now; the test at check-out finds out.
    for epoch in 0..8 {
        let (status, body) = plane.post(&token, &batch(1, epoch, start, mixed_flows())).await;
        let expected = if epoch < 5 { "duplicate" } else { "stored" };
        assert_eq!((status, body["status"].as_str()), (200, Some(expected)), "{body}");
    }
    assert_eq!(plane.count("flow"), 8 * 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_while_the_database_is_down_answers_are_503_and_afterwards_all_is_well() {
    let postgres = Postgres::start().expect("a server of its own");
    let plane = Plane::start_on(&postgres, quick).await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    let (status, readiness, _) = ready(&plane).await;
    assert_eq!((status, readiness["status"].as_str()), (200, Some("ready")), "{readiness}");

    postgres.stop().expect("it stops");
    let (status, readiness, took) = ready(&plane).await;
    assert_eq!((status, readiness["status"].as_str()), (503, Some("unready")), "{readiness}");
    assert!(took < ANSWERS_WITHIN, "{took:?}");
    assert_eq!(plane.http.get(plane.url("/healthz")).send().await.expect("an answer").status(), 200);
    let response = plane.post_bytes(&token, weir_wire::encode(&batch).expect("it encodes")).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["category"], "database");
    assert_eq!(plane.get("/api/v1/flows").await.status(), 503);

    postgres.start_again().expect("it starts");
    eventually("the server is ready", || async { ready(&plane).await.0 == 200 }).await;
    plane.store(&token, &batch).await;
    assert_eq!(plane.count("flow"), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_a_database_that_hangs_is_reported_within_a_second_and_used_when_it_wakes() {
    let postgres = Postgres::start().expect("a server of its own");
    let plane = Plane::start_on(&postgres, quick).await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    plane.store(&token, &batch).await;

    let frozen = Frozen::all(&plane);
    let (status, readiness, took) = ready(&plane).await;
    assert_eq!(
        (status, readiness["dependencies"][0]["state"].as_str() == Some("up")),
        (503, false),
        "{readiness}"
    );
    assert!(took < ANSWERS_WITHIN, "{took:?}");
    let started = Instant::now();
    let (status, problem) = plane.post(&token, &batch).await;
    assert!(status == 503 || status == 504, "{status} {problem}");
    assert!(started.elapsed() < ANSWERS_WITHIN, "{:?}", started.elapsed());
    drop(frozen);

    eventually("the server is ready", || async { ready(&plane).await.0 == 200 }).await;
    let (status, body) = plane.post(&token, &batch).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("duplicate")), "{body}");
}

/// Every process of a Postgres server, stopped; they go on when this is dropped.
struct Frozen(Vec<nix::unistd::Pid>);

impl Frozen {
    fn all(plane: &Plane<'_>) -> Self {
        let postmaster: u32 = plane
            .sql("SELECT (regexp_match(pg_read_file('postmaster.pid'), '^[0-9]+'))[1]")
            .parse()
            .expect("a process id");
        let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"));
        let children = children.expect("the kernel lists children");
        let pids = std::iter::once(postmaster)
            .chain(children.split_whitespace().map(|pid| pid.parse().expect("a number")));
        let frozen = Self(pids.map(|pid| nix::unistd::Pid::from_raw(pid as i32)).collect());
        frozen.signal(nix::sys::signal::Signal::SIGSTOP);
        frozen
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        for pid in &self.0 {
            // A child may have ended since it was listed.
            let _ = nix::sys::signal::kill(*pid, signal);
        }
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }
}
