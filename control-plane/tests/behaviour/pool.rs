//! O6: no connection leaks, and none comes back dirty, whatever ended the request that held it.

use std::time::Duration;

use weir_control_plane::store::{Class, Isolation, StoreError};

use crate::support::{Plane, batch, eventually, mixed_flows, recent_minute_ns};

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_transaction_that_is_dropped_half_way_closes_its_connection() {
    let plane = Plane::start_with(|config| config.database.pool_size = 2).await;
    plane.sql("CREATE TABLE trace (n integer)");
    for n in 0..20 {
        let lease =
            plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a connection");
        lease.client().execute("INSERT INTO trace VALUES ($1)", &[&n]).await.expect("it is inserted");
        let half_way = async move {
            lease.client().batch_execute("SET LOCAL lock_timeout = 1; SELECT pg_sleep(600)").await
        };
        assert!(tokio::time::timeout(Duration::from_millis(30), half_way).await.is_err());
    }
    let lease =
        plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a connection");
    let row = lease
        .client()
        .query_one("SELECT current_setting('lock_timeout'), (SELECT count(*) FROM trace)", &[])
        .await
        .expect("a clean transaction");
    assert_eq!((row.get::<_, String>(0).as_str(), row.get::<_, i64>(1)), ("15s", 0));
    lease.finish(Ok(())).await.expect("it commits");
    // Postgres was asked to stop the statements, too: nobody sleeps for ten minutes.
    eventually("no abandoned statement runs", || async {
        plane.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()
                   AND state = 'active'") == "0"
    })
    .await;
    assert!(plane.pool().state().closed_broken >= 20);
    assert_eq!(
        plane.state().metrics.rollbacks.with_label_values(&["test"]).get(),
        20,
        "each of them is counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_errors_leave_the_pool_as_it_was() {
    let plane = Plane::start_with(|config| config.database.pool_size = 2).await;
    for _ in 0..20 {
        let lease =
            plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a connection");
        let failed = lease.client().batch_execute("SELECT 1 / 0").await.map_err(StoreError::from);
        assert!(matches!(lease.finish(failed).await, Err(StoreError::Database(_))));
    }
    let state = plane.pool().state();
    assert_eq!((state.closed_broken, state.total - state.idle), (0, 0), "{state:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_sender_that_goes_away_while_its_batch_is_stored_leaves_nothing_behind() {
    let plane = Plane::start_with(|config| config.database.pool_size = 3).await;
    let token = plane.sensor("edge-1").await;
    let batch = batch(1, 0, recent_minute_ns(), mixed_flows());
    let body = weir_wire::encode(&batch).expect("it encodes");
    plane.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(600); RETURN NULL; END $$;
         CREATE TRIGGER slow AFTER INSERT ON rollup_1h FOR EACH STATEMENT EXECUTE FUNCTION slow()",
    );
    for _ in 0..6 {
        let post = plane.post_bytes(&token, body.clone());
        assert!(
            tokio::time::timeout(Duration::from_millis(300), post).await.is_err(),
            "it hangs in the trigger"
        );
    }
    plane.sql("DROP FUNCTION slow() CASCADE");
    plane.store(&token, &batch).await;
    assert_eq!((plane.count("batch"), plane.count("flow")), (1, 41));
    eventually("all connections are back", || async {
        let state = plane.pool().state();
        state.total == state.idle
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_pool_without_a_free_connection_says_so_in_time() {
    let plane = Plane::start_with(|config| {
        config.database.pool_size = 2;
        config.database.acquire_timeout_ms = 200;
    })
    .await;
    let one = plane.pool().begin(Class::Admin, Isolation::Snapshot, "test").await.expect("a connection");
    let two = plane.pool().begin(Class::Admin, Isolation::Snapshot, "test").await.expect("a connection");
    let response = plane.get("/api/v1/sensors").await;
    assert_eq!(response.status(), 503);
    let metrics =
        plane.http.get(plane.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    assert!(metrics.contains("weir_db_pool_acquire_timeouts 1"), "{metrics}");
    assert!(metrics.contains("weir_db_pool_active_connections 2"), "{metrics}");
    one.finish(Ok(())).await.expect("it commits");
    two.finish(Ok(())).await.expect("it commits");
    assert_eq!(plane.get("/api/v1/sensors").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_question_that_takes_too_long_is_ended_and_says_so() {
    let plane = Plane::start_with(|config| config.database.statement_timeouts_ms.query = 200).await;
    let postgres = plane.postgres;
    let database = plane.database.clone();
    let lock = std::thread::spawn(move || {
        postgres
            .sql(&database, "BEGIN; LOCK TABLE flow IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600); COMMIT")
    });
    plane.sleeper().await;
    let response = plane.get("/api/v1/flows").await;
    assert_eq!(response.status(), 504);
    let problem: serde_json::Value = response.json().await.expect("a problem");
    assert_eq!(problem["type"], "urn:weir:problem:database-timeout");
    plane.end_sleepers();
    lock.join().expect("the thread ends").expect_err("its session was ended");
}

/// Each class of statements has a deadline of its own, which Postgres itself keeps.
#[tokio::test(flavor = "multi_thread")]
async fn a8_every_class_of_statements_has_its_deadline() {
    let plane = Plane::start().await;
    let timeouts = plane.config.database.statement_timeouts_ms;
    for class in Class::ALL {
        let expected = match class {
            Class::Ingest => timeouts.ingest,
            Class::Query => timeouts.query,
            Class::Export => timeouts.export,
            Class::Admin => timeouts.admin,
            Class::Maintenance => timeouts.maintenance,
        };
        let lease = plane.pool().begin(class, Isolation::ReadCommitted, "test").await.expect("a connection");
        let sql = "SELECT setting::bigint FROM pg_settings WHERE name = 'statement_timeout'";
        let row = lease.client().query_one(sql, &[]).await.expect("a setting");
        assert_eq!(row.get::<_, i64>(0).cast_unsigned(), expected, "{}", class.name());
        lease.finish(Ok(())).await.expect("it commits");
    }
}

/// O5: a statement that takes long is counted by what it was for, whoever was at fault.
#[tokio::test(flavor = "multi_thread")]
async fn o5_slow_statements_are_counted() {
    let plane = Plane::start_with(|config| config.database.slow_statement_ms = 200).await;
    let token = plane.sensor("edge-1").await;
    let slow = |class: &str| plane.state().metrics.slow_statements.with_label_values(&[class]).get();
    let lock =
        plane.pool().begin(Class::Admin, Isolation::ReadCommitted, "test").await.expect("a connection");
    lock.client().batch_execute("LOCK TABLE batch IN SHARE MODE").await.expect("the table is locked");
    assert_eq!(slow("ingest"), 0);
    let held_up = batch(1, 0, recent_minute_ns(), mixed_flows());
    let release = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'batch'::regclass AND NOT granted";
        eventually("the batch waits", || async { plane.sql(waiting) == "1" }).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
        lock.finish(Ok(())).await.expect("it is unlocked");
    };
    tokio::join!(plane.store(&token, &held_up), release);
    assert!(slow("ingest") >= 1, "the statement that waited");
}
