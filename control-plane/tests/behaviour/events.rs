//! A9, I9: what happened is told once, in the transaction in which it happened, and numbered without a gap.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_control_plane::server;
use weir_control_plane::store::erasure::Kind;
use weir_control_plane::store::events::{self, Event, NewEvent, Selection, Topic};
use weir_control_plane::store::{Class, Isolation, Pool};
use weir_wire::DropReason;

use crate::support::{Plane, batch, eventually, mixed_flows, notice, recent_minute_ns};

/// All events after a cursor, in pages of a few.
pub async fn all(pool: &Pool, selection: &Selection, mut after: i64) -> Vec<Event> {
    let mut found = Vec::new();
    loop {
        let page = events::read(pool, selection, after, i64::MAX, 7).await.expect("events").events;
        let Some(last) = page.last() else { return found };
        after = last.cursor;
        found.extend(page);
    }
}

pub fn of(topic: Topic) -> Selection {
    Selection { topics: vec![topic], sensors: Vec::new() }
}

fn event(sensor_id: Option<i32>, body: Value) -> NewEvent {
    NewEvent { topic: Topic::Jobs, kind: "test", sensor_id, body }
}

/// Appends an event, and commits or rolls back after a while.
async fn transaction(pool: &Pool, event: &NewEvent, appended: impl FnOnce(), wait: Duration, commits: bool) {
    let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a transaction");
    events::append(&lease, event).await.expect("appended");
    appended();
    tokio::time::sleep(wait).await;
    if commits {
        lease.finish(Ok(())).await.expect("committed");
    } else {
        lease.undo().await.expect("rolled back");
    }
}

/// Milliseconds that differ from writer to writer.
fn some_wait(seed: u64) -> Duration {
    Duration::from_millis(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60)
}

/// The publishers of two instances take turns while transactions commit in another order than they began.
#[tokio::test(flavor = "multi_thread")]
async fn a9_a_reader_that_goes_forward_by_cursor_skips_nothing_that_commits_late() {
    let mut plane = Plane::start().await;
    let second = server::start(&plane.config).await.expect("a second instance");
    let start = events::extent(plane.pool()).await.expect("asked").last;
    let (writers, each) = (8_u64, 25_u64);
    let writing = join_all((0..writers).map(|writer| {
        let pool = plane.pool();
        async move {
            for step in 0..each {
                let number = writer * each + step;
                let event = event(None, json!({ "number": number }));
                transaction(pool, &event, || {}, some_wait(number + 1), number % 5 != 0).await;
            }
        }
    }));
    let committed = (writers * each - writers * each / 5) as usize;
    let reading = async {
        let mut seen: Vec<Event> = Vec::new();
        let deadline = Instant::now() + Duration::from_mins(1);
        while seen.len() < committed {
            assert!(Instant::now() < deadline, "{} of {committed} events after a minute", seen.len());
            let after = seen.last().map_or(start, |event| event.cursor);
            let found = events::read(plane.pool(), &Selection::default(), after, i64::MAX, 1_000).await;
            seen.extend(found.expect("events").events);
        }
        seen
    };
    let (_, seen) = tokio::join!(writing, reading);
    let cursors: Vec<i64> = seen.iter().map(|event| event.cursor).collect();
    let dense: Vec<i64> = (start + 1..=start + committed as i64).collect();
    assert_eq!(cursors, dense, "no gap, no repeat, nothing late");
    let mut numbers: Vec<u64> =
        seen.iter().map(|event| event.body["number"].as_u64().expect("ours")).collect();
    numbers.sort_unstable();
    let expected: Vec<u64> = (0..writers * each).filter(|number| number % 5 != 0).collect();
    assert_eq!(numbers, expected, "what was committed, and nothing that was not");
    second.stop().await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i9_events_of_a_sensor_are_in_the_order_of_their_commits_whoever_writes_them() {
    let plane = Plane::start().await;
    let orders: Vec<Mutex<Vec<u64>>> = (0..3).map(|_| Mutex::default()).collect();
    let (orders, plane) = (&orders, &plane);
    join_all((0..9_u64).map(|writer| async move {
        for step in 0..12 {
            let (sensor, number) = ((writer + step) % 3, writer * 12 + step);
            let event = event(Some(1_000 + sensor as i32), json!({ "number": number }));
            // The sensor's turn is held from here to the commit, so this is the order of the commits.
            let note = || {
                if number % 7 != 0 {
                    orders[sensor as usize].lock().expect("whole").push(number);
                }
            };
            transaction(plane.pool(), &event, note, some_wait(number + 1), number % 7 != 0).await;
        }
    }))
    .await;
    for (sensor, order) in (1_000..).zip(orders) {
        let order = order.lock().expect("whole").clone();
        let selection = Selection { topics: vec![Topic::Jobs], sensors: vec![sensor] };
        eventually("the sensor's events are published", || async {
            all(plane.pool(), &selection, 0).await.len() == order.len()
        })
        .await;
        let found: Vec<u64> = all(plane.pool(), &selection, 0)
            .await
            .iter()
            .map(|event| event.body["number"].as_u64().expect("ours"))
            .collect();
        assert_eq!(found, order, "sensor {sensor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_a_batch_is_told_once_with_its_counts_and_a_loss_with_its_reason() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let stored = batch(1, 0, recent_minute_ns(), mixed_flows());
    plane.store(&token, &stored).await;
    assert_eq!(plane.post(&token, &stored).await.1["status"], "duplicate");
    let lost = notice(batch(1, 1, recent_minute_ns(), mixed_flows()), DropReason::SpoolAge);
    assert_eq!(plane.post(&token, &lost).await.0, 200);
    let both = Selection { topics: vec![Topic::Flows, Topic::Ledger], sensors: Vec::new() };
    eventually("both are told", || async { all(plane.pool(), &both, 0).await.len() == 2 }).await;
    let told = all(plane.pool(), &both, 0).await;
    let packets: u64 = stored.flows.iter().map(|flow| flow.packets + flow.reverse_packets).sum();
    for (event, (topic, kind, epoch)) in
        told.iter().zip([(Topic::Flows, "flows.stored", 0), (Topic::Ledger, "ledger.dropped", 1)])
    {
        assert_eq!(
            (event.topic, event.kind.as_str(), event.sensor.as_deref()),
            (topic, kind, Some("edge-1"))
        );
        assert_eq!(event.body["epoch"], epoch, "{}", event.body);
        assert_eq!((&event.body["flows"], &event.body["packets"]), (&json!(41), &json!(packets)));
    }
    assert_eq!(told[1].body["reason"], "spool_age");
    assert_eq!(plane.count("event_pending"), 0);
    // An operator's changes are told as well, to whoever may read the audit log.
    let audit = all(plane.pool(), &of(Topic::Audit), 0).await;
    assert_eq!(audit.iter().map(|event| event.kind.as_str()).collect::<Vec<_>>(), ["sensor.create"]);
}

/// A lost notice costs time: nothing was said here, and the connection that listens is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a9_an_event_that_nobody_was_told_of_is_found_and_the_listener_comes_back() {
    let plane = Plane::start().await;
    let up = || async { plane.state().metrics.stream.listening.get() == 1 };
    eventually("it listens", up).await;
    plane.sql("INSERT INTO event_pending (topic, kind, body) VALUES ('jobs', 'test', '{}')");
    eventually("it is found", || async { all(plane.pool(), &of(Topic::Jobs), 0).await.len() == 1 }).await;
    let listener =
        "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE '%listener'";
    let first = plane.sql(&format!("SELECT pid {listener}"));
    plane.sql(&format!("SELECT pg_terminate_backend({first})"));
    eventually("another connection listens", || async {
        let pid = plane.sql(&format!("SELECT coalesce(min(pid), 0) {listener}"));
        pid != "0" && pid != first && up().await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_retention_takes_the_oldest_by_age_and_by_number() {
    let plane = Plane::start().await;
    let insert = |count: u32, age: &str| {
        plane.sql(&format!(
            "INSERT INTO event_pending (topic, kind, body, at)
             SELECT 'jobs', 'test', '{{}}', now() - interval '{age}' FROM generate_series(1, {count})"
        ));
    };
    insert(30, "3 days");
    eventually("they have cursors", || async { plane.count("event") == 30 }).await;
    insert(20, "1 minute");
    eventually("they have cursors", || async { plane.count("event") == 50 }).await;
    let two_days_ago: Timestamp =
        Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(48)).expect("a time");
    let prune = async |keep| events::prune(plane.pool(), two_days_ago, keep).await.expect("pruned");
    let extent = async || {
        let extent = events::extent(plane.pool()).await.expect("asked");
        (extent.pruned_to, extent.last)
    };
    assert_eq!((prune(1_000).await, extent().await), (30, (30, 50)), "those that are too old");
    assert_eq!((prune(5).await, extent().await), (15, (45, 50)), "those that are too many");
    assert_eq!((prune(5).await, extent().await), (0, (45, 50)), "nothing twice");
    assert_eq!(all(plane.pool(), &Selection::default(), 0).await.len(), 5);
    plane.sql("UPDATE event SET at = at - interval '9 days'");
    assert!(plane.jobs().round(Timestamp::now()).await.expect("a round"));
    assert_eq!(extent().await, (50, 50), "the job does it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn i5_the_events_of_an_erased_sensor_keep_their_place_and_nothing_else() {
    let plane = Plane::start().await;
    let token = plane.sensor("edge-1").await;
    let other = plane.sensor("edge-2").await;
    for epoch in 0..3 {
        plane.store(&token, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
        plane.store(&other, &batch(1, epoch, recent_minute_ns(), mixed_flows())).await;
    }
    eventually("all are told", || async { all(plane.pool(), &of(Topic::Flows), 0).await.len() == 6 }).await;
    let id = plane.begin_erasure(Kind::Sensor, "edge-1").await;
    assert!(plane.jobs().round(Timestamp::now()).await.expect("a round"));
    assert_eq!(plane.sql("SELECT count(*) FROM event WHERE sensor_id = 1"), "0");
    let left = all(plane.pool(), &of(Topic::Flows), 0).await;
    let erased = left.iter().filter(|event| event.kind == "erased" && event.body == json!({})).count();
    assert_eq!((left.len(), erased), (6, 3));
    // Its creation and its removal were told as well, each also as a change in the log.
    let told = plane.erased(id.into(), "events") + plane.erased(id.into(), "events_pending");
    assert_eq!(told, 7);
    assert_eq!(plane.sql("SELECT max(cursor) - min(cursor) + 1 = count(*) FROM event"), "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_an_event_that_is_too_long_does_not_stop_its_change() {
    let plane = Plane::start().await;
    let long = event(None, json!({ "text": "x".repeat(20_000) }));
    transaction(plane.pool(), &long, || {}, Duration::ZERO, true).await;
    eventually("it is told", || async { plane.count("event") == 1 }).await;
    assert_eq!(
        all(plane.pool(), &Selection::default(), 0).await[0].body,
        json!({ "left_out_bytes": 20_011 })
    );
}
