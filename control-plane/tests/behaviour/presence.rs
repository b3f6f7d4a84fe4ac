//! U6: who has gone silent is noticed within a minute and told once, whatever instances there are; who was not
//! listened for was not silent.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use weir_control_plane::config::Config;
use weir_control_plane::server::{self, Server};
use weir_control_plane::store::presence::{self, Changes, Patience};

use crate::support::{Plane, batch, eventually, mixed_flows, recent_minute_ns};

/// Sensors are watched as in earnest, only sooner.
fn watched(config: &mut Config) {
    config.jobs.poll_ms = 100;
    config.sensors.watch_interval_s = 1;
    config.sensors.offline_after_s = 3;
}

async fn beat(plane: &Plane<'_>, token: &str, address: Option<std::net::SocketAddr>) -> (u16, Value) {
    let body = json!({
        "version": "9.9.9", "uptime_s": 60, "clock_ms": 1_769_860_805_000_u64, "from_the_future": true,
        "spool": {"batches": 3, "bytes": 10, "capacity_bytes": 100, "oldest_age_ms": 5,
                  "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false},
        "ledger": {"gaps": 1, "dropped_packets": 2, "unaccounted_frames": 0},
    });
    let url = address.map_or_else(|| plane.url(""), |address| format!("http://{address}"));
    let request = plane.http.post(format!("{url}/api/v1/sensor/heartbeat")).bearer_auth(token).json(&body);
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

async fn liveness(plane: &Plane<'_>, name: &str) -> Value {
    plane.json(&format!("/api/v1/sensors/{name}")).await["liveness"].clone()
}

async fn is(plane: &Plane<'_>, name: &str, state: &str) {
    eventually(&format!("{name} is {state}"), || async { liveness(plane, name).await["state"] == state })
        .await;
}

/// What was told of a sensor, in order.
fn told(plane: &Plane<'_>, name: &str) -> String {
    plane.sql(&format!(
        "SELECT string_agg(kind, ' ' ORDER BY at, n)
         FROM (SELECT kind, topic, body, 1 AS at, cursor AS n FROM event
               UNION ALL SELECT kind, topic, body, 2, pending_id FROM event_pending) AS told
         WHERE kind IN ('sensor.online', 'sensor.offline') AND body->>'name' = '{name}'"
    ))
}

/// Both instances look every second; each change is told once.
#[tokio::test(flavor = "multi_thread")]
async fn u6_a_silent_sensor_is_told_to_be_offline_once_by_two_instances_and_online_when_it_is_back() {
    let plane = Plane::start_with(watched).await;
    let other = server::start(&plane.config).await.expect("another instance");
    let (lost, kept) = (plane.sensor("lost").await, plane.sensor("kept").await);
    plane.sensor("never").await;
    assert_eq!(liveness(&plane, "lost").await["state"], "never");
    let (status, answer) = beat(&plane, &lost, None).await;
    assert_eq!((status, &answer["credential"]["ends_in_s"]), (200, &Value::Null), "{answer}");
    is_while_beating(&plane, &other, &kept, "lost", "online").await;
    is_while_beating(&plane, &other, &kept, "lost", "offline").await;
    assert_eq!(told(&plane, "kept"), "sensor.online", "it was never silent, whichever instance heard it");
    let seen = liveness(&plane, "lost").await;
    assert_eq!(
        (&seen["heartbeat"]["version"], &seen["heartbeat"]["ledger"]["gaps"]),
        (&json!("9.9.9"), &json!(1)),
        "{seen}"
    );
    assert_eq!(told(&plane, "lost"), "sensor.online sensor.offline");
    eventually("the gauges follow", || async {
        plane.metrics().await.contains("weir_sensors_offline 1")
            && plane.metrics().await.contains("weir_sensors_never_seen 1")
    })
    .await;
    // A batch is a sign of life as well.
    plane.store(&lost, &batch(1, 0, recent_minute_ns(), mixed_flows())).await;
    is(&plane, "lost", "online").await;
    assert_eq!(told(&plane, "lost"), "sensor.online sensor.offline sensor.online");
    assert_eq!(liveness(&plane, "never").await["state"], "never");
    other.stop().await;
}

/// Waits for a state, while another sensor's heartbeats come to one instance and the other in turn.
async fn is_while_beating(plane: &Plane<'_>, other: &Server, token: &str, name: &str, state: &str) {
    let turn = std::sync::atomic::AtomicUsize::new(0);
    eventually(&format!("{name} is {state}"), || async {
        let odd = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2 == 1;
        assert_eq!(beat(plane, token, odd.then_some(other.address)).await.0, 200);
        liveness(plane, name).await["state"] == state
    })
    .await;
}

/// Nobody listened, so nobody was silent: not for as long as the control plane was away, and not for what an
/// instance that was killed had heard and not written.
#[tokio::test(flavor = "multi_thread")]
async fn u6_a_control_plane_that_was_away_calls_nobody_offline() {
    let mut plane = Plane::start().await;
    let patience = Patience { silence: Duration::from_hours(1), gap: Duration::from_mins(10) };
    let token = plane.sensor("edge-1").await;
    beat(&plane, &token, None).await;
    plane.state().auth.activity.write(plane.pool()).await.expect("it is written");
    let nothing = Changes::default();
    let watch = async |plane: &Plane<'_>| {
        presence::watch(plane.pool(), None, patience).await.expect("the watch looks")
    };
    let told_online = Changes { online: 1, ..nothing };
    assert_eq!((watch(&plane).await, watch(&plane).await), (told_online, nothing));
    // A day without a look: the next one begins anew.
    let away = "UPDATE sensor_presence SET alive_at = now() - interval '1 day';
                UPDATE presence_watch SET since = now() - interval '2 days', looked_at = now() - interval '1 day'";
    plane.sql(away);
    assert_eq!((watch(&plane).await, watch(&plane).await), (nothing, nothing));
    // Looked all day, until a moment ago; then an instance begins.
    plane.sql("UPDATE presence_watch SET since = now() - interval '2 days', looked_at = now()");
    plane.restart().await;
    assert_eq!(watch(&plane).await, nothing);
    assert_eq!(told(&plane, "edge-1"), "sensor.online");
    // Instances that begin again and again do not put it off for ever.
    plane.sql("UPDATE presence_watch SET since = now() - interval '70 minutes', looked_at = now()");
    presence::begin(plane.pool(), patience).await.expect("an instance begins");
    assert_eq!((watch(&plane).await, watch(&plane).await), (Changes { offline: 1, ..nothing }, nothing));
    assert_eq!(told(&plane, "edge-1"), "sensor.online sensor.offline");
}

#[tokio::test(flavor = "multi_thread")]
async fn u6_what_was_heard_while_the_database_failed_is_written_afterwards() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.arm("sensor_presence", "INSERT");
    beat(&plane, &token, None).await;
    plane.state().auth.activity.write(plane.pool()).await.expect_err("the write fails");
    plane.disarm();
    eventually("it is written", || async { plane.count("sensor_presence") == 1 }).await;
    assert_eq!(plane.sql("SELECT beat->>'version' FROM sensor_presence"), "9.9.9");
}

#[tokio::test(flavor = "multi_thread")]
async fn u6_a_heartbeat_that_says_nonsense_is_refused_by_its_field() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let path = "/api/v1/sensor/heartbeat";
    let (status, problem) = plane.call(Method::POST, path, &token, &json!({"version": "1"})).await;
    assert_eq!(status, 400, "{problem}");
    let spool = json!({"batches": 1_u64 << 60, "bytes": 0, "capacity_bytes": 0, "oldest_age_ms": 0,
                       "quarantined_batches": 0, "quarantined_packets": 0, "degraded": false});
    let ledger = json!({"gaps": 0, "dropped_packets": 0, "unaccounted_frames": 0});
    let body = json!({"version": "1", "uptime_s": 1, "clock_ms": 1, "spool": spool, "ledger": ledger});
    let (status, problem) = plane.call(Method::POST, path, &token, &body).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (400, &json!("spool.batches")), "{problem}");
}
