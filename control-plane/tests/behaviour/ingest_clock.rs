//! I4: clocks that are off are measured and flagged; what they sent is kept.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::{Plane, SECOND, batch, mixed_flows, now_ns, recent_minute_ns};

const DAY: i64 = 86_400 * SECOND;

async fn send(plane: &Plane<'_>, token: &str, epoch: u64, sent_at_ms: i64) {
    let batch = batch(1, epoch, recent_minute_ns(), mixed_flows());
    let (status, body) = plane.post_at(token, &batch, sent_at_ms).await;
    assert_eq!((status, body["status"].as_str()), (200, Some("stored")), "{body}");
}

/// The rows' windows lie between two times of our clock, and their packets within an hour of that.
fn assert_placed(plane: &Plane<'_>, epoch: u64, from_ns: i64, to_ns: i64) {
    let placed = plane.sql(&format!(
        "SELECT count(*), min(extract(epoch FROM flow.window_start) * 1000000000)::bigint, min(first_ns), max(last_ns)
         FROM flow JOIN batch ON flow_id >> 16 = batch_id WHERE epoch = {epoch}"
    ));
    let numbers: Vec<i64> = placed.split('|').map(|number| number.parse().expect("a number")).collect();
    assert_eq!(numbers[0], 41, "{placed}");
    assert!((from_ns - 1_000..=to_ns).contains(&numbers[1]), "{placed}: not in {from_ns}..={to_ns}");
    let hour = 3_600 * SECOND;
    assert!(numbers[2] >= from_ns - hour && numbers[3] <= to_ns + hour, "{placed}: {from_ns}..={to_ns}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_skew_is_measured_flagged_beyond_five_minutes_and_never_dropped() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let now_ms = now_ns() / 1_000_000;
    for (epoch, ahead_ms, flagged) in
        [(0, -200_000, false), (1, 400_000, true), (2, i64::MAX / 2, true), (3, 0, false)]
    {
        send(&plane, &token, epoch, now_ms.saturating_add(ahead_ms)).await;
        let sensor = plane.json("/api/v1/sensors/edge-1").await;
        assert_eq!(sensor["clock_flagged"], flagged, "{ahead_ms}: {sensor}");
        let skew = sensor["clock_skew_ms"].as_i64().expect("it was measured");
        assert!(
            (skew + ahead_ms).unsigned_abs() < 30_000 + (1 << 40) * u64::from(epoch == 2),
            "{ahead_ms}: {skew}"
        );
    }
    assert_eq!(plane.count("batch"), 4);
    assert!(plane.metrics().await.contains("weir_ingest_clock_flagged_total 2"));
}

/// A dead battery's 1970, and 2099: nothing is refused, nothing is lost, what is moved keeps both times.
#[tokio::test(flavor = "multi_thread")]
async fn i4_a_clock_that_is_years_off_loses_nothing() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let started = now_ns();
    let (mut epoch, mut flagged) = (0, 0);
    for clock in [90 * SECOND, 4_070_908_800 * SECOND] {
        let minute_ago = clock - 60 * SECOND;
        let (status, body) =
            plane.post_at(&token, &batch(1, epoch, minute_ago, mixed_flows()), clock / 1_000_000).await;
        assert_eq!(
            (status, body["status"].as_str(), body["kept"].as_str()),
            (200, Some("stored"), Some("flows"))
        );
        // A minute before it was sent, by our clock.
        assert_placed(&plane, epoch, started - 61 * SECOND, now_ns() - 60 * SECOND);
        let sensor = plane.json("/api/v1/sensors/edge-1").await;
        assert_eq!(sensor["clock_flagged"], true, "{sensor}");
        epoch += 1;

        // Counted under the wrong clock, sent under the right one: nobody knows when that was.
        let (status, body) =
            plane.post_at(&token, &batch(1, epoch, minute_ago, mixed_flows()), now_ns() / 1_000_000).await;
        assert_eq!(
            (status, body["status"].as_str(), body["kept"].as_str()),
            (200, Some("stored"), Some("flows"))
        );
        assert_placed(&plane, epoch, started - 6 * SECOND, now_ns());
        let sensor = plane.json("/api/v1/sensors/edge-1").await;
        assert_eq!(sensor["clock_flagged"], false, "its clock is right again: {sensor}");
        epoch += 1;
        flagged += 2;

        // Counted under the right clock, sent under the wrong one: stays where it is.
        let right = recent_minute_ns();
        plane.post_at(&token, &batch(1, epoch, right, mixed_flows()), clock / 1_000_000).await;
        assert_placed(&plane, epoch, right, right);
        epoch += 1;
        flagged += 1;
    }
    // The clock was set by decades within the epoch, either way of saying so.
    for (start, end) in [(10 * SECOND, now_ns()), (now_ns(), i64::MAX)] {
        let mut stepped = batch(1, epoch, start, mixed_flows());
        stepped.window_end_ns = end;
        stepped.clock_step_ns = -77 * DAY;
        let (status, body) = plane.post_at(&token, &stepped, now_ns() / 1_000_000).await;
        assert_eq!((status, body["status"].as_str()), (200, Some("stored")), "{body}");
        epoch += 1;
        flagged += 1;
    }
    let stated = plane.sql("SELECT count(*) FROM batch WHERE clock_shift_ns <> 0 AND clock_flagged");
    assert_eq!(stated, "6");
    assert_eq!(
        plane.sql("SELECT count(DISTINCT window_start_ns) > 4 FROM batch"),
        "t",
        "the sensor's own times"
    );

    let ledger = plane.json("/api/v1/sensors/edge-1/ledger").await;
    assert_eq!((&ledger["balanced"], &ledger["why"]), (&json!(true), &json!([])), "{ledger}");
    assert_eq!(ledger["epochs"], epoch);
    assert_eq!(
        (&ledger["clock_flagged_batches"], &ledger["clock_moved_batches"], &ledger["clock_steps"]),
        (&json!(flagged), &json!(6), &json!(2))
    );
    let rows = "SELECT sum(packets + reverse_packets) FROM";
    assert_eq!(plane.sql(&format!("{rows} flow")), ledger["committed_packets"].to_string());
    assert_eq!(
        plane.sql(&format!("{rows} rollup_1m WHERE dimension = 5")),
        ledger["committed_packets"].to_string()
    );

    let sensor = plane.json("/api/v1/sensors/edge-1").await;
    assert_eq!((&sensor["clock_steps"], &sensor["clock_step_ms"]), (&json!(2), &json!(-77.0 * 86_400_000.0)));
    let metrics = plane.metrics().await;
    for line in [
        format!("weir_ingest_clock_flagged_total {flagged}"),
        "weir_ingest_clock_moved_total 6".to_owned(),
        "weir_ingest_clock_steps_total 2".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
}

/// O1: how many sensors are off is a gauge that an alert can watch.
#[tokio::test(flavor = "multi_thread")]
async fn i4_flagged_sensors_are_counted() {
    let plane = Plane::start().await;
    let now_ms = now_ns() / 1_000_000;
    for (name, ahead_ms) in [("edge-1", 0), ("edge-2", 400_000), ("edge-3", -400_000)] {
        let token = plane.sensor(name).await;
        send(&plane, &token, 0, now_ms + ahead_ms).await;
    }
    plane.sensor("edge-4").await;
    assert!(plane.jobs().round(Timestamp::now()).await.expect("the round runs"));
    let metrics = plane.metrics().await;
    for line in ["weir_sensors 4", "weir_sensors_clock_flagged 2", "weir_sensors_spool_degraded 0"] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

/// Truly old: the sensor was there and its clock is right. It is told so once and for all, and the counts
/// have a name.
#[tokio::test(flavor = "multi_thread")]
async fn i5_a_batch_that_is_older_than_is_kept_is_acknowledged_and_counted_as_expired() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.sql("UPDATE sensor SET created_at = now() - interval '900 days'");
    let start = now_ns() - 31 * DAY;
    let old = batch(1, 0, start, mixed_flows());
    let packets = old.points[0].totals.as_ref().expect("part 0").flow_packets;
    for status in ["expired", "duplicate", "duplicate"] {
        let (code, body) = plane.post_at(&token, &old, now_ns() / 1_000_000).await;
        assert_eq!(
            (code, body["status"].as_str(), body["kept"].as_str()),
            (200, Some(status), Some("expired"))
        );
    }
    assert_eq!((plane.count("flow"), plane.count("rollup_1m"), plane.count("batch")), (0, 0, 1));
    let (from, to) = (crate::support::rfc3339(start - SECOND), crate::support::rfc3339(start + SECOND));
    let ledger = plane.json(&format!("/api/v1/sensors/edge-1/ledger?from={from}&to={to}")).await;
    assert_eq!((&ledger["balanced"], &ledger["committed_packets"]), (&json!(true), &json!(0)), "{ledger}");
    assert_eq!(
        (&ledger["dropped"][0]["reason"], &ledger["dropped"][0]["packets"], &ledger["dropped_records"]),
        (&json!("expired"), &json!(packets), &json!(41))
    );
    // Older than the ledger itself: the answer is as final, and the metrics have the count.
    let ancient = batch(1, 1, now_ns() - 500 * DAY, mixed_flows());
    let (code, body) = plane.post_at(&token, &ancient, now_ns() / 1_000_000).await;
    assert_eq!(
        (code, body["status"].as_str(), body["kept"].as_str()),
        (200, Some("expired"), Some("expired"))
    );
    assert_eq!(plane.count("batch"), 1);
    let line = format!("weir_ingest_dropped_packets_total{{reason=\"expired\"}} {}", 2 * packets);
    assert!(plane.metrics().await.contains(&line), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_windows_of_other_days_get_their_partitions_when_they_come() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let now = now_ns();
    for (epoch, start) in [now - 29 * DAY, now - 3 * DAY, now + 23 * 3_600 * SECOND].into_iter().enumerate() {
        plane.store(&token, &batch(1, epoch as u64, start, mixed_flows())).await;
        let at = Timestamp::from_nanosecond(i128::from(start)).expect("a time");
        let (from, to) = (at.saturating_sub(SignedDuration::from_secs(1)), at + SignedDuration::from_secs(1));
        let from = from.expect("in range");
        let page = plane.json(&format!("/api/v1/flows?from={from}&to={to}")).await;
        assert_eq!(page["items"].as_array().map(Vec::len), Some(41));
    }
}

/// I3: the day's partition is made by whoever needs it first, while others need it too.
#[tokio::test(flavor = "multi_thread")]
async fn i3_sensors_that_need_the_same_new_partition_at_once_all_get_it() {
    let plane = Plane::start().await;
    let start = now_ns() - 20 * DAY;
    let mut tokens = Vec::new();
    for index in 0..6 {
        tokens.push(plane.sensor(&format!("edge-{index}")).await);
    }
    let plane = &plane;
    let posts = tokens
        .iter()
        .map(|token| async move { plane.store(token, &batch(1, 0, start, mixed_flows())).await });
    futures_util::future::join_all(posts).await;
    assert_eq!(plane.count("flow"), 6 * 41);
}
