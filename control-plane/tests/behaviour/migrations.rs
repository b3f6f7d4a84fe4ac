//! I8: the schema goes up and down by numbered steps, whole steps only, one instance at a time.

use secrecy::SecretString;
use weir_control_plane::config::Database;
use weir_control_plane::store::Pool;
use weir_control_plane::store::migrations::{self, MIGRATIONS, MigrationError, latest, migrate, version};
use weir_control_plane::telemetry::Registered;

use crate::support::{database, shared};

fn pool() -> (String, Pool) {
    let name = database(shared());
    let url = SecretString::from(shared().database_url(&name));
    let pool = Pool::new(&Database::default(), &url, Registered::new()).expect("a pool");
    (name, pool)
}

/// Tables, columns and indexes, as text.
fn schema(database: &str) -> String {
    let sql = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'
               UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
               UNION ALL SELECT sequencename, '', '' FROM pg_sequences WHERE schemaname = 'public' ORDER BY 1, 2, 3";
    shared().sql(database, sql).expect("the catalogue is readable")
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_every_step_down_undoes_its_step_up() {
    let (name, pool) = pool();
    let versions: Vec<i32> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let mut schemas = Vec::new();
    let mut before = 0;
    for &target in &versions {
        assert_eq!(migrate(&pool, target, false).await.expect("up"), (before, target));
        assert_eq!(version(&pool).await.expect("a version"), target);
        schemas.push(schema(&name));
        before = target;
    }
    for (&target, schema_then) in versions.iter().zip(&schemas).rev().skip(1) {
        assert_eq!(migrate(&pool, target, true).await.expect("down"), (before, target));
        assert_eq!(schema(&name), *schema_then, "down to {target}");
        before = target;
    }
    migrate(&pool, 0, true).await.expect("down to nothing");
    assert!(schema(&name).lines().all(|line| line.starts_with("weir_migration|")), "{}", schema(&name));
    assert_eq!(migrate(&pool, latest(), false).await.expect("up again"), (0, latest()));
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_instances_that_start_together_migrate_once() {
    let (name, first) = pool();
    let url = SecretString::from(shared().database_url(&name));
    let pools: Vec<Pool> = std::iter::once(first)
        .chain((0..4).map(|_| Pool::new(&Database::default(), &url, Registered::new()).expect("a pool")))
        .collect();
    let results =
        futures_util::future::join_all(pools.iter().map(|pool| migrate(pool, latest(), false))).await;
    let mut before: Vec<i32> = results.into_iter().map(|result| result.expect("each succeeds").0).collect();
    before.sort_unstable();
    assert_eq!(before, [0, latest(), latest(), latest(), latest()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_going_back_must_be_meant_and_unknown_versions_are_refused() {
    let (name, pool) = pool();
    migrate(&pool, latest(), false).await.expect("up");
    let refused = |target, roll_back| migrate(&pool, target, roll_back);
    assert!(matches!(refused(1, false).await, Err(MigrationError::WouldRollBack { to: 1, .. })));
    assert!(matches!(refused(latest() + 1, false).await, Err(MigrationError::NoSuchVersion(_))));
    assert!(matches!(refused(-1, true).await, Err(MigrationError::NoSuchVersion(-1))));
    shared().sql(&name, "INSERT INTO weir_migration VALUES (9999, 'later', '')").expect("written");
    assert!(matches!(refused(latest(), false).await, Err(MigrationError::TooNew(9999))));
    shared().sql(&name, "DELETE FROM weir_migration WHERE version = 9999; UPDATE weir_migration SET checksum = 'x' WHERE version = 2").expect("written");
    assert!(matches!(refused(latest(), false).await, Err(MigrationError::Changed(2))));
    assert_eq!(version(&pool).await.expect("a version"), latest(), "nothing was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn i8_a_step_that_fails_leaves_the_schema_of_the_step_before() {
    let (name, pool) = pool();
    migrate(&pool, 2, false).await.expect("up");
    let before = schema(&name);
    // Step 3 makes this table; step 4 then does not run.
    shared().sql(&name, "CREATE TABLE flow_by_window (n integer)").expect("made");
    let error = migrate(&pool, latest(), false).await.expect_err("an index has that name");
    assert!(matches!(error, MigrationError::Failed { version: 3, .. }), "{error}");
    shared().sql(&name, "DROP TABLE flow_by_window").expect("dropped");
    assert_eq!(schema(&name), before);
    migrate(&pool, latest(), false).await.expect("up");
    assert_eq!(migrations::version(&pool).await.expect("a version"), latest());
}
