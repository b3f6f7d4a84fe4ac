//! I8: partitions are made ahead and dropped at the end of their retention.

use jiff::{SignedDuration, Timestamp};

use crate::support::{Plane, SECOND, batch, mixed_flows, now_ns};

fn partitions(plane: &Plane<'_>) -> Vec<String> {
    let sql = "SELECT inhrelid::regclass FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' ORDER BY 1::text";
    plane.sql(sql).lines().map(str::to_owned).collect()
}

fn days_from_now(days: i64) -> Timestamp {
    Timestamp::now().checked_add(SignedDuration::from_hours(24 * days)).expect("in range")
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_partitions_are_made_ahead_of_time() {
    let plane = Plane::start().await;
    let name = |days: i64| format!("flow_{}", days_from_now(days).strftime("%Y%m%d"));
    let present = partitions(&plane);
    for days in 0..=2 {
        assert!(present.contains(&name(days)), "{present:?}");
    }
    assert_eq!(present.iter().filter(|name| name.starts_with("rollup_1h_")).count(), 3, "{present:?}");
    // A later round makes the next ones and nothing twice.
    assert!(plane.jobs().round(days_from_now(1)).await.expect("the round runs"));
    assert!(partitions(&plane).contains(&name(3)));
    // Postgres gave each its indexes.
    let indexes =
        plane.sql(&format!("SELECT count(*) FROM pg_index WHERE indrelid = '{}'::regclass", name(1)));
    assert_eq!(indexes, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_what_is_past_its_retention_goes_and_the_rest_stays() {
    let plane = Plane::start_with(|config| {
        config.ingest.max_past_days = 5;
        config.retention.flows_days = 6;
        config.retention.rollup_1m_days = 8;
        config.retention.rollup_1h_days = 100;
        config.retention.ledger_days = 10;
    })
    .await;
    let token = plane.sensor("edge-1").await;
    for (epoch, days) in [0, 4].into_iter().enumerate() {
        plane.store(&token, &batch(1, epoch as u64, now_ns() - days * 86_400 * SECOND, mixed_flows())).await;
    }
    let rows =
        || ["flow", "rollup_1m WHERE dimension = 5", "batch", "point_total"].map(|table| plane.count(table));
    assert_eq!(rows(), [82, 4, 2, 4]);
    let round =
        async |days: i64| assert!(plane.jobs().round(days_from_now(days)).await.expect("the round runs"));
    round(0).await;
    assert_eq!(rows(), [82, 4, 2, 4], "nothing is old enough");
    round(4).await;
    assert_eq!(rows(), [41, 4, 2, 4], "flows go after six days");
    round(5).await;
    assert_eq!(rows(), [41, 2, 2, 4], "minutes after eight");
    round(7).await;
    assert_eq!(rows(), [0, 2, 1, 2], "keys after ten");
    assert_eq!(plane.sql("SELECT sum(flows) FROM rollup_1h WHERE dimension = 5"), "82", "hours stay");
    assert!(
        partitions(&plane).iter().all(|name| !name.starts_with("flow_2") || name.as_str() > "flow_20260101")
    );
}

/// A drop that was cut short after the detach is finished by the next round.
#[tokio::test(flavor = "multi_thread")]
async fn i8_a_drop_that_was_cut_short_is_finished() {
    let plane = Plane::start().await;
    let name = format!("flow_{}", Timestamp::now().strftime("%Y%m%d"));
    plane.sql(&format!("ALTER TABLE flow DETACH PARTITION {name}"));
    assert!(plane.jobs().round(days_from_now(40)).await.expect("the round runs"));
    assert_eq!(plane.sql(&format!("SELECT to_regclass('{name}')")), "");
}

/// Another instance dropped a partition that this one remembers.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_went_away_is_made_again_when_a_batch_needs_it() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = now_ns() - 2 * 86_400 * SECOND;
    plane.store(&token, &batch(1, 0, start, mixed_flows())).await;
    for parent in ["flow", "rollup_1m"] {
        let day =
            Timestamp::from_nanosecond(i128::from(start)).expect("a time").strftime("%Y%m%d").to_string();
        plane.sql(&format!("DROP TABLE {parent}_{day}"));
        let epoch = if parent == "flow" { 1 } else { 2 };
        plane.store(&token, &batch(1, epoch, start, mixed_flows())).await;
    }
    assert_eq!(plane.count("flow"), 82);
}
