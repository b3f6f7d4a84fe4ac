//! K3 as the operator sees it: the ledger balances, or says what is missing.

use serde_json::{Value, json};
use weir_wire::Batch;

use crate::support::{Plane, SECOND, batch, mixed_flows, recent_minute_ns, rfc3339};

async fn ledger(plane: &Plane<'_>) -> Value {
    plane.json("/api/v1/sensors/edge-1/ledger").await
}

fn epoch(number: u64) -> Batch {
    batch(1, number, recent_minute_ns() + number as i64 * SECOND, mixed_flows())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_run_balances() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let empty = ledger(&plane).await;
    assert_eq!(
        (empty["balanced"].clone(), empty["epochs"].clone(), empty["points"].clone()),
        (json!(true), json!(0), json!([]))
    );
    for number in 0..3 {
        plane.store(&token, &epoch(number)).await;
    }
    // An epoch without traffic, and one in two parts whose crossing packets are in part 0.
    plane.store(&token, &batch(1, 3, recent_minute_ns() + 3 * SECOND, Vec::new())).await;
    let (mut first, mut second) = (epoch(4), epoch(4));
    (first.parts, second.parts, second.part) = (2, 2, 1);
    second.points.iter_mut().for_each(|point| point.totals = None);
    let totals = first.points[0].totals.as_mut().expect("part 0");
    (totals.flow_packets, totals.flow_octets) =
        (2 * totals.flow_packets + 10, 2 * totals.flow_octets + 1_000);
    totals.frames = totals.flow_packets + 5;
    (first.crossing_packets, first.crossing_octets) = (10, 1_000);
    // Parts may come in any order.
    plane.store(&token, &second).await;
    plane.store(&token, &first).await;

    let ledger = ledger(&plane).await;
    let packets: i64 =
        plane.sql("SELECT sum(packets + reverse_packets) FROM flow").parse().expect("a number");
    let octets: i64 = plane.sql("SELECT sum(octets + reverse_octets) FROM flow").parse().expect("a number");
    assert_eq!(ledger["total"]["flow_packets"], packets + 10);
    assert_eq!(ledger["total"]["flow_octets"], octets + 1_000);
    assert_eq!(ledger["total"]["frames"], packets + 10 + 5 * 5 - 5 + 5);
    assert_eq!(
        (ledger["committed_packets"].clone(), ledger["committed_octets"].clone()),
        (json!(packets), json!(octets))
    );
    assert_eq!(
        (ledger["crossing_packets"].clone(), ledger["crossing_octets"].clone()),
        (json!(10), json!(1_000))
    );
    assert_eq!((ledger["committed_records"].clone(), ledger["batches"].clone()), (json!(5 * 41), json!(6)));
    assert_eq!((ledger["epochs"].clone(), ledger["generations"].clone()), (json!(5), json!(1)));
    assert_eq!((ledger["kernel_balanced"].clone(), ledger["balanced"].clone()), (json!(true), json!(true)));
    assert_eq!((ledger["gaps"].clone(), ledger["gaps_truncated"].clone()), (json!([]), json!(false)));
    let points: Vec<_> = ledger["points"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|point| {
            (point["interface"].as_str(), point["direction"].as_str(), point["kernel_balanced"].as_bool())
        })
        .collect();
    let eth0 = Some("eth0");
    assert_eq!(points, [(eth0, Some("ingress"), Some(true)), (eth0, Some("egress"), Some(true))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn epochs_and_parts_that_did_not_come_are_gaps_until_they_do() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    for number in [2, 3, 7] {
        plane.store(&token, &epoch(number)).await;
    }
    let mut part = epoch(8);
    (part.parts, part.part) = (4, 2);
    part.points.iter_mut().for_each(|point| point.totals = None);
    part.flows.clear();
    plane.store(&token, &part).await;
    let found = ledger(&plane).await;
    let generation = "01010101-0101-0101-0101-010101010101";
    let gap = |first: i64, last: i64, parts: &[i64]| json!({"generation": generation, "first_epoch": first, "last_epoch": last, "missing_parts": parts});
    assert_eq!(found["gaps"], json!([gap(0, 1, &[]), gap(4, 6, &[]), gap(8, 8, &[0, 1, 3])]));
    assert_eq!((found["balanced"].clone(), found["kernel_balanced"].clone()), (json!(false), json!(true)));

    for number in [0, 1, 4, 5, 6] {
        plane.store(&token, &epoch(number)).await;
    }
    for missing in [0, 1, 3] {
        let mut part = part.clone();
        part.part = missing;
        plane.store(&token, &part).await;
    }
    let found = ledger(&plane).await;
    assert_eq!((found["gaps"].clone(), found["balanced"].clone()), (json!([]), json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_within_a_run_has_no_gap_at_its_ends() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    for number in 0..10 {
        plane.store(&token, &batch(1, number, start + number as i64 * SECOND, mixed_flows())).await;
    }
    let (from, to) = (rfc3339(start + 3 * SECOND), rfc3339(start + 6 * SECOND));
    let found = plane.json(&format!("/api/v1/sensors/1/ledger?from={from}&to={to}")).await;
    assert_eq!(
        (found["epochs"].clone(), found["balanced"].clone(), found["gaps"].clone()),
        (json!(3), json!(true), json!([]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_are_missing_or_too_many_do_not_balance() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let mut short = epoch(0);
    short.flows.pop();
    plane.store(&token, &short).await;
    let found = ledger(&plane).await;
    assert_eq!((found["balanced"].clone(), found["kernel_balanced"].clone()), (json!(false), json!(true)));

    let mut wrong = epoch(1);
    wrong.generation = vec![2; 16];
    wrong.epoch = 0;
    wrong.points[0].totals.as_mut().expect("part 0").frames += 1;
    plane.store(&token, &wrong).await;
    let found = ledger(&plane).await;
    assert_eq!((found["kernel_balanced"].clone(), found["generations"].clone()), (json!(false), json!(2)));
    // Absurd totals are shown, not a server error.
    let mut absurd = epoch(2);
    absurd.generation = vec![3; 16];
    absurd.epoch = 0;
    for point in &mut absurd.points {
        point.totals.as_mut().expect("part 0").frames = i64::MAX as u64;
    }
    plane.store(&token, &absurd).await;
    assert_eq!(ledger(&plane).await["total"]["frames"], i64::MAX);
}
