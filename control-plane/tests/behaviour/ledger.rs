//! K3 as the operator sees it: the ledger balances, or says what is missing.

use serde_json::{Value, json};
use weir_wire::{Batch, Spool};

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

/// What does not add up is said in words, and said no more once it does.
#[tokio::test(flavor = "multi_thread")]
async fn the_ledger_says_why_it_does_not_balance() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns();
    let epoch = |number: u64| batch(1, number, start + number as i64 * SECOND, mixed_flows());
    let why = async || {
        let ledger = ledger(&plane).await;
        assert_eq!(ledger["balanced"], ledger["why"] == json!([]), "{ledger}");
        ledger["why"].as_array().expect("a list").iter().map(Value::to_string).collect::<Vec<_>>()
    };
    let mut broken = epoch(0);
    let lost = broken.flows.pop().expect("a flow");
    broken.points[0].totals.as_mut().expect("part 0").frames += 1;
    plane.store(&token, &broken).await;
    let spool = Spool { batches: 4, quarantined_batches: 1, ..Spool::default() };
    plane.store(&token, &Batch { spool: Some(spool), ..epoch(3) }).await;
    let lines = why().await;
    let totals = broken.points[0].totals.expect("part 0");
    let counted = totals.flow_packets + epoch(3).points[0].totals.expect("part 0").flow_packets;
    let missing = lost.packets + lost.reverse_packets;
    for (line, words) in [
        (0, format!("on eth0 ingress the kernel's verdicts do not add up to its {} frames", counted + 5 + 6)),
        (1, format!("{missing} of {counted} packets that the kernel counted into flows are missing")),
        (2, "octets that the kernel counted into flows are missing".to_owned()),
        (3, "2 epochs (1 to 2) of generation 01010101-0101-0101-0101-010101010101".to_owned()),
        (4, "the sensor last told that 4 batches wait there, and keeps 1 aside".to_owned()),
    ] {
        assert!(lines[line].contains(&words), "{words}: {lines:?}");
    }
    assert_eq!(lines.len(), 5, "{lines:?}");
    for number in [1, 2] {
        plane.store(&token, &epoch(number)).await;
    }
    assert_eq!(why().await.len(), 3, "the gap is closed, and what waits is no reason any more");
    let more = plane.sensor("edge-2").await;
    let mut doubled = epoch(0);
    doubled.flows.extend(mixed_flows());
    plane.store(&more, &doubled).await;
    let ledger = plane.json("/api/v1/sensors/edge-2/ledger").await;
    assert!(ledger["why"][0].to_string().contains("packets more are stored than"), "{ledger}");
}

/// Wherever a window cuts, an epoch is in it whole or not at all: also one whose parts a wrong clock put
/// apart, and one between whose neighbours the clock went back by hours.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_takes_whole_epochs_wherever_it_cuts() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let start = recent_minute_ns() - 7_200 * SECOND;
    let hour = 3_600 * SECOND;
    // Epochs 2 and 3 were counted an hour earlier by the clock; epoch 4 in three parts, seconds apart.
    for (number, at) in [(0, start), (1, start + SECOND), (2, start - hour), (3, start - hour + SECOND)] {
        plane.store(&token, &batch(1, number, at, mixed_flows())).await;
    }
    let one = batch(1, 4, start, mixed_flows()).points[0].totals.expect("part 0");
    for part in [1, 0, 2] {
        let mut batch = batch(1, 4, start + (2 + i64::from(part)) * SECOND, mixed_flows());
        (batch.part, batch.parts) = (part, 3);
        for point in &mut batch.points {
            point.totals = point.totals.filter(|_| part == 0).map(|totals| match totals.frames {
                0 => totals,
                _ => weir_wire::Totals {
                    frames: 3 * one.flow_packets + 5,
                    flow_packets: 3 * one.flow_packets,
                    flow_octets: 3 * one.flow_octets,
                    ..totals
                },
            });
        }
        plane.store(&token, &batch).await;
    }
    plane.store(&token, &batch(1, 5, start + 9 * SECOND, mixed_flows())).await;
    let mut epochs = Vec::new();
    for cut in -1..11 {
        let cut = rfc3339(start + cut * SECOND);
        let (from, to) = (rfc3339(start - 2 * hour), rfc3339(start + hour));
        let mut sum = 0;
        for window in [format!("from={from}&to={cut}"), format!("from={cut}&to={to}")] {
            let ledger = plane.json(&format!("/api/v1/sensors/edge-1/ledger?{window}")).await;
            assert_eq!(
                (&ledger["balanced"], &ledger["why"]),
                (&json!(true), &json!([])),
                "{window}: {ledger}"
            );
            sum += ledger["committed_packets"].as_u64().expect("a number");
            epochs.push(ledger["epochs"].as_u64().expect("a number"));
        }
        assert_eq!(sum, 8 * one.flow_packets, "{cut}");
    }
    assert!(epochs.chunks(2).all(|halves| halves.iter().sum::<u64>() == 6), "{epochs:?}");
}
