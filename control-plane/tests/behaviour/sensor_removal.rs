//! I5: a sensor is revoked or deleted, a partition is dropped, while batches are in flight: the sender gets a
//! final answer, no reference breaks, and nothing comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::Value;
use weir_control_plane::store::Reference;
use weir_control_plane::store::audit::Author;
use weir_control_plane::store::erasure::Kind;
use weir_control_plane::store::partitions::{self, Parent, Partition};
use weir_control_plane::store::sensors;

use crate::support::{ADMIN_TOKEN, Plane, SECOND, batch, mixed_flows, now_ns, recent_minute_ns, rounds};

/// Every table that may hold something of a sensor.
const TABLES: [&str; 7] =
    ["flow", "rollup_1m", "rollup_1h", "batch", "point_total", "observation_point", "sensor_status"];

async fn delete(plane: &Plane<'_>, sensor: &str) -> (u16, Value) {
    plane.erase(&format!("/api/v1/sensors/{sensor}"), ADMIN_TOKEN).await
}

fn rows_of(plane: &Plane<'_>, sensor_id: &str) -> Vec<u64> {
    TABLES.iter().map(|table| plane.count(&format!("{table} WHERE sensor_id = {sensor_id}"))).collect()
}

async fn round(plane: &Plane<'_>) {
    assert!(plane.jobs().round(Timestamp::now()).await.expect("the round runs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_deleted_sensor_is_told_so_and_leaves_nothing_but_a_receipt() {
    let plane = Plane::start().await;
    let (gone, stays) = (plane.sensor("edge-1").await, plane.sensor("edge-2").await);
    let start = recent_minute_ns();
    for epoch in 0..3 {
        plane.store(&gone, &batch(1, epoch, start - 3 * 86_400 * SECOND, mixed_flows())).await;
        plane.store(&gone, &batch(2, epoch, start, mixed_flows())).await;
        plane.store(&stays, &batch(1, epoch, start, mixed_flows())).await;
    }
    let kept = rows_of(&plane, "2");
    let before = rows_of(&plane, "1");
    let erasure = i64::from(plane.begin_erasure(Kind::Sensor, "edge-1").await);
    let (status, problem) = plane.post(&gone, &batch(1, 9, start, mixed_flows())).await;
    assert_eq!((status, problem["type"].as_str()), (410, Some("urn:weir:problem:sensor-gone")), "{problem}");
    assert_eq!(plane.json("/api/v1/sensors/edge-1").await["state"], "deleting");
    assert_eq!(delete(&plane, "1").await.0, 409, "again changes nothing");
    assert_eq!(plane.get("/api/v1/flows?sensor=edge-1").await.status(), 400, "no filter names it any more");

    round(&plane).await;
    assert_eq!(rows_of(&plane, "1"), [0; 7]);
    assert_eq!(rows_of(&plane, "2"), kept, "the other sensor keeps what it has");
    assert_eq!(plane.get("/api/v1/sensors/edge-1").await.status(), 404);
    assert_eq!(delete(&plane, "edge-1").await.0, 404);
    let places =
        ["flows", "rollups_1m", "rollups_1h", "batches", "point_totals", "observation_points", "status"];
    let receipt = places.map(|place| plane.erased(erasure, place).cast_unsigned());
    assert_eq!(receipt.to_vec(), before);
    // Its token is remembered as that of a sensor that is gone, by a server that starts anew as well.
    let (status, problem) = plane.post(&gone, &batch(1, 9, start, mixed_flows())).await;
    assert_eq!((status, problem["type"].as_str()), (410, Some("urn:weir:problem:sensor-gone")), "{problem}");
    // The name is free, and the new sensor has nothing of the old one.
    let again = plane.sensor("edge-1").await;
    plane.store(&again, &batch(1, 0, start, mixed_flows())).await;
    assert_eq!(plane.json("/api/v1/sensors/edge-1/ledger").await["batches"], 1);
}

/// What one sensor's senders were told.
#[derive(Debug, Default)]
struct Told {
    stored: AtomicU64,
    refused: AtomicU64,
}

/// Sends batch after batch on some connections until each was refused for good.
async fn send_until_refused(plane: &Plane<'_>, token: &str, connections: u8, refusal: (u16, &str)) -> Told {
    let told = Told::default();
    let start = recent_minute_ns();
    let senders = (0..connections).map(|sender| {
        let told = &told;
        async move {
            for epoch in 0..10_000 {
                let (status, body) = plane.post(token, &batch(sender, epoch, start, mixed_flows())).await;
                if status == 200 {
                    told.stored.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let kind = body["type"].as_str().unwrap_or_default();
                assert_eq!((status, kind), (refusal.0, refusal.1), "{body}");
                told.refused.fetch_add(1, Ordering::Relaxed);
                return;
            }
            panic!("10,000 batches after its end the sensor is still served");
        }
    });
    futures_util::future::join_all(senders).await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_sensor_revoked_mid_batch_keeps_what_was_acknowledged_and_no_more() {
    let plane = Plane::start().await;
    for turn in 0..30 {
        let name = format!("edge-{turn}");
        let token = plane.sensor(&name).await;
        let revoke = async {
            tokio::time::sleep(std::time::Duration::from_millis(turn * 7 % 60)).await;
            let sensor = Reference::Name(name.clone());
            sensors::revoke(plane.pool(), &Author::command_line(), &sensor)
                .await
                .expect("it is revoked")
                .expect("it is there")
        };
        let (told, (id, _)) = tokio::join!(
            send_until_refused(&plane, &token, 6, (401, "urn:weir:problem:sensor-revoked")),
            revoke
        );
        let stored = told.stored.into_inner();
        assert_eq!(told.refused.into_inner(), 6);
        assert_eq!(plane.count(&format!("batch WHERE sensor_id = {id}")), stored, "round {turn}");
        assert_eq!(plane.count(&format!("flow WHERE sensor_id = {id}")), stored * 41, "round {turn}");
        assert_eq!(
            plane.sql(&format!("SELECT coalesce(max(batches), 0) FROM sensor_status WHERE sensor_id = {id}")),
            stored.to_string()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_a_sensor_deleted_mid_batch_leaves_nothing_and_nothing_comes_back() {
    let plane = Plane::start().await;
    let other = plane.sensor("other").await;
    let start = recent_minute_ns();
    let turns = rounds(30);
    for turn in 0..turns {
        let name = format!("edge-{turn}");
        let token = plane.sensor(&name).await;
        let end = async {
            tokio::time::sleep(std::time::Duration::from_millis(turn * 7 % 12)).await;
            let (status, body) = delete(&plane, &name).await;
            assert_eq!(status, 202, "{body}");
            // Erased while the senders still try.
            plane.all_erased().await;
            (body["id"].as_i64().expect("an id"), body["subject_id"].to_string())
        };
        let others = batch(1, turn, start, mixed_flows());
        let (told, (erasure, id), ()) = tokio::join!(
            send_until_refused(&plane, &token, 3, (410, "urn:weir:problem:sensor-gone")),
            end,
            plane.store(&other, &others),
        );
        assert_eq!(told.refused.into_inner(), 3);
        assert_eq!(rows_of(&plane, &id), [0; 7], "round {turn}");
        let stored = told.stored.into_inner().cast_signed();
        let receipt = (plane.erased(erasure, "flows"), plane.erased(erasure, "batches"));
        assert_eq!(receipt, (stored * 41, stored), "round {turn}");
    }
    assert_eq!(plane.count("flow"), turns * 41, "another sensor lost nothing");
    assert_eq!(plane.json("/api/v1/sensors/other/ledger").await["balanced"], true);
}

/// Retention drops partitions while batches for them are in flight. What was acknowledged is there or was
/// dropped with the partition; the ledger has all of it, and no answer is a server error.
#[tokio::test(flavor = "multi_thread")]
async fn i5_a_partition_dropped_mid_batch_breaks_nothing() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let day = now_ns() - 9 * 86_400 * SECOND;
    let time = Timestamp::from_nanosecond(i128::from(day)).expect("a time");
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let drops = async {
        for turn in 0..40 {
            let parent = Parent::ALL[turn % 2];
            tokio::time::sleep(std::time::Duration::from_millis(turn as u64 * 3 % 20)).await;
            partitions::drop(plane.pool(), Partition::holding(parent, time)).await.expect("it is dropped");
        }
        stop.store(true, Ordering::Relaxed);
    };
    let senders = (0..4_u8).map(|sender| {
        let (plane, token, stop, sent) = (&plane, &token, &stop, &sent);
        async move {
            let mut epoch = 0;
            while !stop.load(Ordering::Relaxed) {
                let batch = batch(sender, epoch, day, mixed_flows());
                let (status, body) = plane.post(token, &batch).await;
                // A partition that goes away twice within one request: the same batch comes again.
                if status == 503 {
                    assert_eq!(body["type"], "urn:weir:problem:database-unavailable", "{body}");
                    continue;
                }
                assert_eq!((status, body["status"].as_str()), (200, Some("stored")), "{body}");
                sent.fetch_add(1, Ordering::Relaxed);
                epoch += 1;
            }
        }
    });
    tokio::join!(drops, futures_util::future::join_all(senders));
    let sent = sent.into_inner();
    assert!(sent > 0);
    assert_eq!(plane.count("batch"), sent);
    assert!(plane.count("flow") <= sent * 41);
    // Every row that is there is in the partition that the table knows, and has its batch.
    let orphans =
        "SELECT count(*) FROM flow WHERE NOT EXISTS (SELECT FROM batch WHERE batch_id = flow_id >> 16)";
    assert_eq!(plane.sql(orphans), "0");
    let before = plane.count("flow");
    plane.store(&token, &batch(9, 0, day, mixed_flows())).await;
    assert_eq!(plane.count("flow"), before + 41, "the day takes batches again, with nothing old in it");
}
