//! A2, A7, O3: limits for each caller, shared through Redis, kept by each instance while it is away; load is
//! shed before the connections run out.

use reqwest::{Method, Response};
use secrecy::SecretString;
use serde_json::Value;
use weir_control_plane::config::{Config, Rate};
use weir_control_plane::server;
use weir_testbed::redis::Redis;

use crate::support::{ADMIN_TOKEN, Plane, batch, eventually, mixed_flows, recent_minute_ns};

/// So slow that no token comes while a test runs.
fn five(config: &mut Config) {
    config.limits.read = Rate { per_minute: 1, burst: 5 };
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).expect(name).to_str().expect("text").to_owned()
}

async fn sensors(plane: &Plane<'_>, base: &str) -> Response {
    plane.http.get(format!("{base}/api/v1/sensors")).bearer_auth(ADMIN_TOKEN).send().await.expect("an answer")
}

/// How many of so many requests pass.
async fn passed(plane: &Plane<'_>, base: &str, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        let status = sensors(plane, base).await.status();
        assert!(status == 200 || status == 429, "{status}");
        passed += usize::from(status == 200);
    }
    passed
}

async fn redis_state(plane: &Plane<'_>) -> String {
    let ready: Value = plane.get("/readyz").await.json().await.expect("JSON");
    let redis = ready["dependencies"].as_array().expect("a list").iter().find(|it| it["name"] == "redis");
    redis.expect("it is named")["state"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_caller_over_the_limit_is_told_when_to_come_back_and_others_are_not_held_up() {
    let plane = Plane::start_with(|config| {
        five(config);
        config.limits.ingest = Rate { per_minute: 1, burst: 2 };
    })
    .await;
    let base = plane.url("");
    for left in (0..5).rev() {
        let response = sensors(&plane, &base).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "ratelimit-policy"), "\"read\";q=5;w=300");
        assert!(header(&response, "ratelimit").starts_with(&format!("\"read\";r={left};t=")));
    }
    let response = sensors(&plane, &base).await;
    assert_eq!(response.status(), 429);
    let wait: u64 = header(&response, "retry-after").parse().expect("seconds");
    assert!((1..=60).contains(&wait), "{wait}");
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(
        (&problem["type"], &problem["category"]),
        (&"urn:weir:problem:rate-limited".into(), &"rate_limit".into())
    );
    // Other classes and other callers have buckets of their own.
    assert_eq!(plane.get("/api/v1/flows").await.status(), 200);
    let (one, two) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    let mut told = Vec::new();
    for token in [&one, &one, &one, &two] {
        told.push(plane.post(token, &batch).await.0);
    }
    assert_eq!(told, [200, 200, 429, 200]);
    let metrics = plane.metrics().await;
    for line in ["weir_rate_limited_total{class=\"read\"} 1", "weir_rate_limited_total{class=\"ingest\"} 1"] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_two_instances_share_a_limit_through_redis_and_keep_their_own_while_it_is_away() {
    let redis = Redis::start().expect("a private Redis server starts");
    let url = SecretString::from(redis.url());
    let plane = Plane::start_with(|config| {
        five(config);
        config.redis.url = Some(url);
    })
    .await;
    let second = server::start(&plane.config).await.expect("a second instance on the same database");
    let (one, two) = (plane.url(""), format!("http://{}", second.address));
    let both_up = || async {
        let gauges =
            [&plane.state().metrics, &second.state.metrics].map(|metrics| metrics.limits.redis_up.get());
        gauges == [1, 1]
    };
    eventually("both instances have Redis", both_up).await;
    assert_eq!(redis_state(&plane).await, "up");
    let shared = passed(&plane, &one, 4).await + passed(&plane, &two, 4).await;
    assert_eq!(shared, 5, "one bucket for both");

    // Gone: local buckets at once, of the same size, and no request waits or fails.
    redis.stop().expect("it stops");
    assert_eq!((passed(&plane, &one, 7).await, passed(&plane, &two, 7).await), (5, 5), "a bucket each");
    assert_eq!(redis_state(&plane).await, "down");
    assert_eq!(plane.get("/readyz").await.status(), 200, "it can do without");
    for state in [plane.state(), &second.state] {
        assert_eq!((state.metrics.limits.redis_up.get(), state.metrics.limits.redis_lost.get()), (0, 1));
    }

    // Back by itself, empty as it is: a new bucket, shared again.
    redis.start_again().expect("it starts again");
    eventually("both instances have Redis again", both_up).await;
    assert_eq!(passed(&plane, &one, 4).await + passed(&plane, &two, 4).await, 5);

    // It hangs: the first request that finds out waits for redis.timeout_ms, readiness answers in time.
    redis.pause().expect("it is paused");
    passed(&plane, &one, 1).await;
    assert_eq!(plane.state().metrics.limits.redis_up.get(), 0, "found out");
    assert_eq!(redis_state(&plane).await, "down");
    redis.resume().expect("it goes on");
    eventually("Redis answers again", both_up).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_questions_beyond_the_lane_are_turned_away_and_batches_are_not() {
    let plane = Plane::start_with(|config| {
        config.api.max_concurrent = 1;
        config.api.queue_timeout_ms = 50;
    })
    .await;
    let token = plane.sensor("edge-1").await;
    // A question that waits for a lock holds the only place.
    let lock = plane
        .pool()
        .begin(
            weir_control_plane::store::Class::Admin,
            weir_control_plane::store::Isolation::ReadCommitted,
            "test",
        )
        .await
        .expect("a connection");
    lock.client().batch_execute("LOCK TABLE point_total").await.expect("it is locked");
    let held = plane.get("/api/v1/sensors/edge-1/ledger");
    let others = async {
        let waiting =
            "SELECT count(*) FROM pg_locks WHERE relation = 'point_total'::regclass AND NOT granted";
        eventually("the question waits", || async { plane.sql(waiting) == "1" }).await;
        let response = plane.get("/api/v1/sensors").await;
        assert_eq!(response.status(), 503);
        assert!((2..=10).contains(&header(&response, "retry-after").parse::<u64>().expect("seconds")));
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!(problem["type"], "urn:weir:problem:busy");
        assert_eq!(plane.get("/readyz").await.status(), 200, "probes have no lane");
        let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
        batch.points.iter_mut().for_each(|point| point.totals = None);
        plane.store(&token, &batch).await;
        lock.finish(Ok(())).await.expect("it is unlocked");
    };
    let (held, ()) = tokio::join!(held, others);
    assert_eq!(held.status(), 200);
    assert_eq!(plane.get("/api/v1/sensors").await.status(), 200, "the place was given back");
    assert!(plane.metrics().await.contains("weir_http_shed_total 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_headers_that_are_too_many_or_too_long_are_refused() {
    let plane = Plane::start().await;
    for (headers, length) in [(70, 10), (10, 2_000)] {
        let mut request = plane.request(Method::GET, "/api/v1/sensors", ADMIN_TOKEN);
        for index in 0..headers {
            request = request.header(format!("x-odd-{index}"), "a".repeat(length));
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 431, "{headers} of {length}");
        let problem: Value = response.json().await.expect("a problem");
        assert_eq!(problem["category"], "validation");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_a_request_over_its_deadline_is_answered_and_lets_go_of_what_it_waited_for() {
    let plane = Plane::start_with(|config| config.api.request_timeout_ms = 500).await;
    plane.sensor("edge-1").await;
    let lock = plane
        .pool()
        .begin(
            weir_control_plane::store::Class::Admin,
            weir_control_plane::store::Isolation::ReadCommitted,
            "test",
        )
        .await
        .expect("a connection");
    lock.client().batch_execute("LOCK TABLE point_total").await.expect("it is locked");
    let response = plane.get("/api/v1/sensors/edge-1/ledger").await;
    assert_eq!(response.status(), 408);
    let problem: Value = response.json().await.expect("a problem");
    assert_eq!(problem["category"], "validation");
    let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'point_total'::regclass AND NOT granted";
    eventually("its statement is over", || async { plane.sql(waiting) == "0" }).await;
    lock.finish(Ok(())).await.expect("it is unlocked");
    assert_eq!(plane.get("/api/v1/sensors/edge-1/ledger").await.status(), 200);
}
