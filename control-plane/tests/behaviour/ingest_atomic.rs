//! I1: a batch is stored whole or not at all, whichever step fails and however.

use weir_wire::Severity;

use crate::support::{Plane, batch, detection, mixed_flows, recent_minute_ns};

/// Every table that the transaction writes, in order. The failure strikes as its step writes.
const STEPS: &[&str] = &[
    "batch",
    "observation_point",
    "FLOW",
    "point_total",
    "rollup_1m",
    "rollup_1h",
    "detection",
    "sensor_status",
    "event_pending",
];

/// Makes the next writes of a table fail by running `body`.
fn arm(plane: &Plane<'_>, table: &str, body: &str) {
    // Statement triggers of a partition do not fire for its parent: rows go to the partition directly.
    let table = table_of(plane, table);
    plane.sql(&format!(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$;
         CREATE TRIGGER fail AFTER INSERT ON {table} FOR EACH STATEMENT EXECUTE FUNCTION fail()"
    ));
}

fn disarm(plane: &Plane<'_>) {
    plane.sql("DROP FUNCTION IF EXISTS fail() CASCADE");
}

fn table_of(plane: &Plane<'_>, table: &str) -> String {
    if table == "FLOW" {
        plane.sql("SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'flow'::regclass
                   AND inhrelid::regclass::text <= to_char(now() - interval '3 minutes', '\"flow_\"YYYYMMDD')")
    } else {
        table.to_owned()
    }
}

async fn walks_every_step(body: &str, statuses: &[u16]) {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let empty = plane.contents();
    let mut batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    batch.detections = vec![detection("port_scan", "10.0.0.66", Severity::High, 20)];
    for step in STEPS {
        arm(&plane, step, body);
        let (status, problem) = plane.post(&token, &batch).await;
        assert!(statuses.contains(&status), "{step}: {status} {problem}");
        assert_eq!(problem["category"], "database", "{step}: {problem}");
        assert_eq!(plane.contents(), empty, "{step} left something behind");
        assert_eq!(plane.count("sensor_status"), 0, "{step}");
        disarm(&plane);
    }
    plane.store(&token, &batch).await;
    assert_eq!(plane.count("flow"), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_an_error_at_any_step_leaves_nothing_behind() {
    walks_every_step("RAISE EXCEPTION 'injected';", &[500]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_connection_lost_at_any_step_leaves_nothing_behind() {
    walks_every_step("PERFORM pg_terminate_backend(pg_backend_pid());", &[503]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_full_disk_at_any_step_leaves_nothing_behind() {
    walks_every_step("RAISE EXCEPTION 'injected' USING ERRCODE = 'disk_full';", &[503]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_a_commit_that_fails_leaves_nothing_behind() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let empty = plane.contents();
    // A deferred constraint trigger runs inside COMMIT.
    plane.sql(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'injected'; END $$;
         CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON sensor_status DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION fail()",
    );
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    let (status, problem) = plane.post(&token, &batch).await;
    assert_eq!(status, 500, "{problem}");
    assert_eq!(plane.contents(), empty);
    disarm(&plane);
    plane.store(&token, &batch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i1_sums_that_would_overflow_are_refused_whole_and_say_so() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let mut huge = mixed_flows();
    huge.truncate(1);
    huge[0].octets = i64::MAX as u64 - huge[0].reverse_octets;
    let without_totals = |epoch| {
        let mut batch = batch(1, epoch, start, huge.clone());
        batch.points.iter_mut().for_each(|point| point.totals = None);
        batch
    };
    plane.store(&token, &without_totals(0)).await;
    let before = plane.contents();
    let (status, problem) = plane.post(&token, &without_totals(1)).await;
    assert_eq!((status, problem["type"].as_str()), (422, Some("urn:weir:problem:counts-out-of-range")));
    assert_eq!(plane.contents(), before);
}
