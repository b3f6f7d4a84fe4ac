//! S7, I2: a notice of dropped flows has the batch's key: the one that comes first is stored, and the ledger
//! adds up with it.

use serde_json::{Value, json};
use weir_wire::{Batch, DropReason, Spool};

use crate::support::{Plane, SECOND, batch, mixed_flows, notice, recent_minute_ns};

fn epoch(number: u64) -> Batch {
    batch(1, number, recent_minute_ns() + number as i64 * SECOND, mixed_flows())
}

fn answer(body: &Value) -> (&str, &str) {
    (body["status"].as_str().unwrap_or_default(), body["kept"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn s7_losses_have_a_name_and_the_ledger_balances_with_them() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    plane.store(&token, &epoch(0)).await;
    let reasons = [DropReason::SpoolBytes, DropReason::SpoolAge, DropReason::Quarantine, DropReason::Corrupt];
    for (number, reason) in (1..).zip(reasons) {
        let (status, body) = plane.post(&token, &notice(epoch(number), reason)).await;
        assert_eq!((status, answer(&body)), (200, ("stored", "dropped")), "{body}");
    }
    // A part of an epoch may be dropped while another is stored.
    let (mut first, mut second) = (epoch(5), epoch(5));
    (first.parts, second.parts, second.part) = (2, 2, 1);
    second.points.iter_mut().for_each(|point| point.totals = None);
    let totals = first.points[0].totals.as_mut().expect("part 0");
    (totals.flow_packets, totals.flow_octets) = (2 * totals.flow_packets, 2 * totals.flow_octets);
    totals.frames = totals.flow_packets + 5;
    plane.store(&token, &first).await;
    plane.store(&token, &notice(second, DropReason::SpoolBytes)).await;

    let one = epoch(0).points[0].totals.expect("part 0");
    let ledger = plane.json("/api/v1/sensors/edge-1/ledger").await;
    assert_eq!((&ledger["balanced"], &ledger["why"]), (&json!(true), &json!([])), "{ledger}");
    assert_eq!(ledger["total"]["flow_packets"], 7 * one.flow_packets);
    assert_eq!(ledger["committed_packets"], 2 * one.flow_packets);
    assert_eq!(
        (&ledger["dropped_packets"], &ledger["dropped_octets"]),
        (&json!(5 * one.flow_packets), &json!(5 * one.flow_octets))
    );
    assert_eq!((&ledger["dropped_records"], &ledger["dropped_batches"]), (&json!(5 * 41), &json!(5)));
    let loss = |reason: &str, batches: u64| {
        json!({"reason": reason, "batches": batches, "records": batches * 41,
        "packets": batches * one.flow_packets, "octets": batches * one.flow_octets})
    };
    assert_eq!(
        ledger["dropped"],
        json!([loss("spool_bytes", 2), loss("spool_age", 1), loss("quarantine", 1), loss("corrupt", 1)])
    );
    assert_eq!(plane.count("flow"), 2 * 41);
    let rolled = plane.sql("SELECT sum(packets + reverse_packets) FROM rollup_1h WHERE dimension = 5");
    assert_eq!(rolled, (2 * one.flow_packets).to_string());
    let metrics = plane.metrics().await;
    for (reason, batches) in
        [("spool_bytes", 2), ("spool_age", 1), ("quarantine", 1), ("corrupt", 1), ("expired", 0)]
    {
        let line = format!(
            "weir_ingest_dropped_packets_total{{reason=\"{reason}\"}} {}",
            batches * one.flow_packets
        );
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_the_first_of_flows_and_notice_is_kept_and_every_answer_says_which() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let (flows, dropped) = (epoch(0), notice(epoch(0), DropReason::SpoolAge));
    plane.store(&token, &flows).await;
    let before = plane.contents();
    for batch in [&dropped, &flows, &dropped] {
        let (status, body) = plane.post(&token, batch).await;
        assert_eq!((status, answer(&body)), (200, ("duplicate", "flows")), "{body}");
    }
    assert_eq!(plane.contents(), before);

    let (flows, dropped) = (epoch(1), notice(epoch(1), DropReason::SpoolAge));
    let (_, body) = plane.post(&token, &dropped).await;
    assert_eq!(answer(&body), ("stored", "dropped"));
    let before = plane.contents();
    for batch in [&flows, &dropped] {
        let (status, body) = plane.post(&token, batch).await;
        assert_eq!((status, answer(&body)), (200, ("duplicate", "dropped")), "{body}");
    }
    assert_eq!(plane.contents(), before);
    assert_eq!(plane.json("/api/v1/sensors/edge-1/ledger").await["balanced"], true);
}

/// Many rounds, eight senders at once: half send the flows, half the notice. Exactly one wins, and all eight
/// are told the same.
#[tokio::test(flavor = "multi_thread")]
async fn i2_flows_and_notice_at_the_same_time_exactly_one_wins() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let (mut kept_flows, rounds) = (0, 60);
    for number in 0..rounds {
        let (flows, dropped) = (epoch(number), notice(epoch(number), DropReason::SpoolBytes));
        let sends = (0..8).map(|sender| {
            let batch = if (sender + number) % 2 == 0 { &flows } else { &dropped };
            plane.post(&token, batch)
        });
        let answers = futures_util::future::join_all(sends).await;
        assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
        let stored = answers.iter().filter(|(_, body)| body["status"] == "stored").count();
        assert_eq!(stored, 1, "{answers:?}");
        let kept = &answers[0].1["kept"];
        assert!(answers.iter().all(|(_, body)| body["kept"] == *kept), "{answers:?}");
        kept_flows += u64::from(kept == "flows");
    }
    assert_eq!(plane.count("batch"), rounds);
    assert_eq!(plane.count("flow"), kept_flows * 41);
    let ledger = plane.json("/api/v1/sensors/edge-1/ledger").await;
    assert_eq!(
        (&ledger["balanced"], &ledger["dropped_batches"]),
        (&json!(true), &json!(rounds - kept_flows)),
        "{ledger}"
    );
}

/// I9: what a batch tells of the spool is taken in order of time, in whatever order batches come.
#[tokio::test(flavor = "multi_thread")]
async fn i9_the_spool_is_shown_as_it_was_told_last_not_as_it_came_last() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    assert_eq!(plane.json("/api/v1/sensors/edge-1").await["spool"], Value::Null);
    assert_eq!(plane.json("/api/v1/sensors/edge-1/ledger").await["waiting"], Value::Null);
    let start = recent_minute_ns();
    let with = |number: u64| {
        let spool = Spool {
            batches: number,
            bytes: 1_000 * number,
            capacity_bytes: 1 << 30,
            oldest_age_ms: 7,
            quarantined_batches: 2,
            quarantined_packets: 90,
            degraded: number == 3,
        };
        let window_start = start + number as i64 * SECOND;
        Batch { spool: Some(spool), ..batch(1, number, window_start, mixed_flows()) }
    };
    for (number, shown) in [(2, 2), (1, 2), (0, 2), (3, 3), (2, 3)] {
        plane.post(&token, &with(number)).await;
        let sensor = plane.json("/api/v1/sensors/edge-1").await;
        assert_eq!(sensor["spool"]["batches"], shown, "after {number}: {sensor}");
    }
    let ledger = plane.json("/api/v1/sensors/edge-1/ledger").await;
    let ended = start + 8 * SECOND;
    assert_eq!(
        ledger["waiting"],
        json!({"as_of": crate::support::rfc3339(ended), "batches": 3, "bytes": 3_000, "capacity_bytes": 1 << 30,
               "oldest_age_ms": 7, "quarantined_batches": 2, "quarantined_packets": 90, "degraded": true})
    );
    assert_eq!(ledger["balanced"], true, "what waits elsewhere is no fault of this window: {ledger}");
    assert!(plane.jobs().round(jiff::Timestamp::now()).await.expect("the round runs"));
    let metrics = plane.metrics().await;
    for line in
        ["weir_sensors_spool_degraded 1", "weir_sensors_quarantining 1", "weir_sensors_waiting_batches 3"]
    {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}
