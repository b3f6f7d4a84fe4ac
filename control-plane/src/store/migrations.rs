//! The schema, as numbered SQL files of `migrations/` that are compiled in, with a way back for each.
//!
//! Each migration is one transaction together with its row in `weir_migration`, so it is there whole or
//! not at all. An advisory lock makes instances that start together wait for each other. A file that
//! was changed after it ran is found by its checksum and refused.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::{Class, Isolation, Lease, Pool, StoreError, locks};

/// One numbered step of the schema.
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    up: &'static str,
    down: &'static str,
}

/// A number, the same with its leading zeros, and a name.
macro_rules! migration {
    ($version:literal, $digits:literal, $name:literal) => {
        Migration {
            version: $version,
            name: $name,
            up: include_str!(concat!("../../../migrations/V", $digits, "__", $name, ".sql")),
            down: include_str!(concat!("../../../migrations/V", $digits, "__", $name, ".down.sql")),
        }
    };
}

/// Every migration, oldest first. Numbers go up and may skip some.
pub const MIGRATIONS: &[Migration] = &[
    migration!(1, "0001", "sensors"),
    migration!(2, "0002", "batches"),
    migration!(3, "0003", "flows"),
    migration!(4, "0004", "rollups"),
    migration!(10, "0010", "losses"),
    migration!(30, "0030", "identity"),
    migration!(40, "0040", "sensor_trust"),
    migration!(50, "0050", "events"),
    migration!(51, "0051", "stream_tickets"),
    migration!(60, "0060", "jobs"),
    migration!(61, "0061", "alerts"),
    migration!(80, "0080", "detections"),
    migration!(90, "0090", "names"),
    migration!(91, "0091", "rollups_by_name"),
    migration!(110, "0110", "devices"),
    migration!(111, "0111", "search"),
    migration!(120, "0120", "sensor_presence"),
    migration!(121, "0121", "sensor_configuration"),
    migration!(125, "0125", "erasures"),
    migration!(140, "0140", "processes"),
    migration!(150, "0150", "certificate_authority"),
    migration!(160, "0160", "device_erasures"),
    migration!(161, "0161", "networks"),
    migration!(164, "0164", "device_addresses"),
    migration!(165, "0165", "rollups_by_process"),
    migration!(166, "0166", "device_merges"),
];

/// How long to wait for another instance's migration.
const PATIENCE: Duration = Duration::from_mins(2);

/// The version that this program works with.
#[must_use]
pub fn latest() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// Why the schema was left as it is.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("migration V{version:04} ({name}): {error}; the database is as it was before this migration")]
    Failed { version: i32, name: &'static str, error: StoreError },
    #[error("the database has schema version {0}, this program knows {latest}: install the newer program, \
             or roll back with the newer one: `weir-control-plane migrate --to {latest} --roll-back`",
             latest = latest())]
    TooNew(i32),
    #[error("migration V{0:04} was changed after it was applied: install the program that applied it")]
    Changed(i32),
    #[error("there is no version {0}: the newest is {latest}, an empty database is 0", latest = latest())]
    NoSuchVersion(i32),
    #[error(
        "the database has version {from}: going back to {to} drops what the later versions hold; \
             say `--roll-back` if that is meant"
    )]
    WouldRollBack { from: i32, to: i32 },
    #[error("another instance has been changing the schema for {} s: look at it, then try again", PATIENCE.as_secs())]
    Busy,
}

/// Brings the schema to `target`, down only where `roll_back` says so. Gives the version before and after.
pub async fn migrate(pool: &Pool, target: i32, roll_back: bool) -> Result<(i32, i32), MigrationError> {
    if target != 0 && !MIGRATIONS.iter().any(|migration| migration.version == target) {
        return Err(MigrationError::NoSuchVersion(target));
    }
    // The lock lives as long as this connection's session; the steps are transactions on the same one.
    let lease = pool.lease(Class::Maintenance, "migrate").await?;
    lock(&lease).await?;
    let result = run(&lease, target, roll_back).await;
    let unlocked = lease.client().execute("SELECT pg_advisory_unlock($1)", &[&locks::MIGRATIONS]).await;
    if unlocked.is_ok() {
        lease.finish(Ok(())).await?;
    }
    result
}

/// The version that the database has; 0 for an empty one.
pub async fn version(pool: &Pool) -> Result<i32, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "schema_version").await?;
        let result = applied(&lease).await;
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.last().map_or(0, |(version, _)| *version))
}

async fn lock(lease: &Lease<'_>) -> Result<(), MigrationError> {
    let started = std::time::Instant::now();
    loop {
        let row = lease
            .client()
            .query_one("SELECT pg_try_advisory_lock($1)", &[&locks::MIGRATIONS])
            .await
            .map_err(StoreError::from)?;
        if row.get::<_, bool>(0) {
            return Ok(());
        }
        if started.elapsed() > PATIENCE {
            return Err(MigrationError::Busy);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn run(lease: &Lease<'_>, target: i32, roll_back: bool) -> Result<(i32, i32), MigrationError> {
    let applied = applied(lease).await?;
    let current = applied.last().map_or(0, |(version, _)| *version);
    if current > latest() {
        return Err(MigrationError::TooNew(current));
    }
    for (version, checksum) in &applied {
        let known = MIGRATIONS.iter().find(|migration| migration.version == *version);
        if known.is_none_or(|migration| migration.checksum() != *checksum) {
            return Err(MigrationError::Changed(*version));
        }
    }
    if target < current && !roll_back {
        return Err(MigrationError::WouldRollBack { from: current, to: target });
    }
    for migration in MIGRATIONS.iter().filter(|step| step.version > current && step.version <= target) {
        step(lease, migration, migration.up, "INSERT INTO weir_migration VALUES ($1, $2, $3)", true).await?;
        tracing::info!(version = migration.version, name = migration.name, "schema migrated");
    }
    for migration in MIGRATIONS.iter().rev().filter(|step| step.version <= current && step.version > target) {
        step(lease, migration, migration.down, "DELETE FROM weir_migration WHERE version = $1", false)
            .await?;
        tracing::info!(version = migration.version, name = migration.name, "schema rolled back");
    }
    Ok((current, target))
}

/// One migration, up or down, in its transaction.
async fn step(
    lease: &Lease<'_>,
    migration: &Migration,
    sql: &str,
    record: &str,
    up: bool,
) -> Result<(), MigrationError> {
    let client = lease.client();
    let work = async {
        client.batch_execute("BEGIN").await?;
        client
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS weir_migration (
                     version integer PRIMARY KEY,
                     name text NOT NULL,
                     checksum bytea NOT NULL,
                     applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
        client.batch_execute(sql).await?;
        if up {
            let name = migration.name.to_owned();
            client.execute(record, &[&migration.version, &name, &migration.checksum()]).await?;
        } else {
            client.execute(record, &[&migration.version]).await?;
        }
        client.batch_execute("COMMIT").await
    };
    match work.await {
        Ok(()) => Ok(()),
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            let (version, name) = (migration.version, migration.name);
            Err(MigrationError::Failed { version, name, error: error.into() })
        }
    }
}

/// Versions and checksums that ran here, oldest first.
async fn applied(lease: &Lease<'_>) -> Result<Vec<(i32, Vec<u8>)>, StoreError> {
    let client = lease.client();
    let there = client.query_one("SELECT to_regclass('weir_migration') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query("SELECT version, checksum FROM weir_migration ORDER BY version", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

impl Migration {
    fn checksum(&self) -> Vec<u8> {
        Sha256::digest(self.up.as_bytes()).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_compiled_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .expect("the folder is part of the project")
            .map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        let mut known: Vec<String> = MIGRATIONS
            .iter()
            .flat_map(|step| {
                let stem = format!("V{:04}__{}", step.version, step.name);
                [format!("{stem}.down.sql"), format!("{stem}.sql")]
            })
            .collect();
        known.sort();
        assert_eq!(found, known);
    }

    #[test]
    fn versions_go_up() {
        assert!(MIGRATIONS.is_sorted_by(|earlier, later| earlier.version < later.version));
    }
}
