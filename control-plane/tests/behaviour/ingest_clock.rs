//! I4: clocks that are off are measured and flagged; what they sent is kept.

use jiff::{SignedDuration, Timestamp};
use reqwest::Method;

use crate::support::{Plane, SECOND, batch, mixed_flows, now_ns, recent_minute_ns};

async fn send(plane: &Plane<'_>, token: &str, epoch: u64, sent_at_ms: i64) {
    let body = weir_wire::encode(&batch(1, epoch, recent_minute_ns(), mixed_flows())).expect("it encodes");
    let response = plane
        .request(Method::POST, "/api/v1/ingest", token)
        .header("content-type", weir_wire::CONTENT_TYPE)
        .header("content-encoding", weir_wire::CONTENT_ENCODING)
        .header(weir_wire::SENT_AT_HEADER, sent_at_ms)
        .body(body)
        .send()
        .await
        .expect("an answer");
    assert_eq!(response.status(), 200);
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
    let metrics =
        plane.http.get(plane.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("weir_ingest_clock_flagged_total 2"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn i4_windows_of_other_days_get_their_partitions_when_they_come() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let now = now_ns();
    let day = 86_400 * SECOND;
    for (epoch, start) in [now - 29 * day, now - 3 * day, now + 23 * 3_600 * SECOND].into_iter().enumerate() {
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
    let start = now_ns() - 20 * 86_400 * SECOND;
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
