//! Sensors: their names, the hashes of their tokens, and what was last heard of them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::audit::{self, Author, Change};
use super::events::{self, NewEvent, Topic};
use super::presence::Presence;
use super::reference::{self, Reference};
use super::{Class, Isolation, Lease, Pool, StoreError, credentials, locks};
use crate::ingest::Spool;

/// A sensor as the API shows it.
#[derive(Clone, Debug)]
pub struct Sensor {
    pub sensor_id: i32,
    pub name: String,
    pub created_at: SystemTime,
    pub revoked_at: Option<SystemTime>,
    /// Its data is being deleted.
    pub deleted_at: Option<SystemTime>,
    pub belonging: Belonging,
    pub status: Option<Status>,
    /// `None`: never heard of.
    pub presence: Option<Presence>,
}

/// What its batches told.
#[derive(Clone, Debug)]
pub struct Status {
    pub last_seen_at: SystemTime,
    pub last_window_end: SystemTime,
    pub clock_skew_ms: Option<i64>,
    pub clock_flagged: bool,
    pub batches: i64,
    pub records: i64,
    /// Epochs within which the clock was set.
    pub clock_steps: i64,
    /// The last one: by how much, and when it was stored.
    pub clock_step: Option<(i64, SystemTime)>,
    /// When the sensor told, and what.
    pub spool: Option<(SystemTime, Spool)>,
}

/// One direction of one interface.
#[derive(Clone, Debug)]
pub struct Point {
    pub interface: String,
    pub direction: i16,
}

/// Where a sensor belongs, as operators say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Belonging {
    pub site: Option<String>,
    pub group: Option<String>,
    pub labels: BTreeMap<String, String>,
}

/// What changes of it; what is `None` stays, and an inner `None` clears.
#[derive(Clone, Debug, Default)]
pub struct BelongingChange {
    pub site: Option<Option<String>>,
    pub group: Option<Option<String>>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// Which sensors.
#[derive(Clone, Debug, Default)]
pub struct Which {
    pub site: Option<String>,
    pub group: Option<String>,
    /// All of them.
    pub labels: BTreeMap<String, String>,
}

/// Why a sensor was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("there is a sensor of that name already (a revoked one keeps its name)")]
    Taken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

const COLUMNS: &str = "sensor_id, name, created_at, revoked_at, last_seen_at, last_window_end,
    clock_skew_ms, clock_flagged, batches, records, deleted_at, clock_steps, clock_step_ns, clock_stepped_at,
    spool_at, spool_batches, spool_bytes, spool_capacity_bytes, spool_oldest_age_ms,
    spool_quarantined_batches, spool_quarantined_packets, spool_degraded, site, group_name, labels::text,
    alive_at, online, changed_at, beat::text, beat_at";

const TABLES: &str =
    "sensor LEFT JOIN sensor_status USING (sensor_id) LEFT JOIN sensor_presence USING (sensor_id)";

/// Whether a name may be a sensor's: 1 to 63 letters, digits, `.`, `_`, `-`; not only digits.
#[must_use]
pub fn is_name(name: &str) -> bool {
    reference::is_name(name, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

/// The sensor that a text names; `None` for what can be neither id nor name.
#[must_use]
pub fn named(text: &str) -> Option<Reference> {
    Reference::parse(text, is_name)
}

impl Sensor {
    /// One word for how it stands.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (&self.deleted_at, &self.revoked_at, &self.status) {
            (Some(_), _, _) => "deleting",
            (None, Some(_), _) => "revoked",
            (None, None, None) => "new",
            (None, None, Some(_)) => "active",
        }
    }
}

/// Adds a sensor; only the hash of its token is kept.
pub async fn add(pool: &Pool, author: &Author, name: &str, token_sha256: &[u8]) -> Result<i32, AddError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_add").await?;
        let result = async {
            let sensor_id = insert(&lease, name, &Belonging::default()).await?;
            credentials::first(&lease, sensor_id, token_sha256, None).await?;
            tell(&lease, author, "sensor.create", sensor_id, name, (None, None)).await?;
            Ok(sensor_id)
        }
        .await;
        lease.finish(result).await
    };
    match pool.within(Class::Admin, work).await {
        Ok(sensor_id) => Ok(sensor_id),
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(AddError::Taken)
        }
        Err(error) => Err(error.into()),
    }
}

/// A sensor's row, in the transaction that adds it.
pub(super) async fn insert(
    lease: &Lease<'_>,
    name: &str,
    Belonging { site, group, labels }: &Belonging,
) -> Result<i32, StoreError> {
    let labels = json!(labels).to_string();
    let sql = "INSERT INTO sensor (name, site, group_name, labels) VALUES ($1, $2, $3, $4::text::jsonb)
               RETURNING sensor_id";
    Ok(lease.client().query_one(sql, &[&name, site, group, &labels]).await?.get(0))
}

/// Takes the exclusive lock of a sensor that was not deleted; gives its id, its name, and whether it is revoked.
pub(super) async fn lock(
    lease: &Lease<'_>,
    sensor: &Reference,
) -> Result<Option<(i32, String, bool)>, StoreError> {
    let (id, name) = sensor.parts();
    let client = lease.client();
    let find = "SELECT sensor_id FROM sensor WHERE sensor_id = $1 OR name = $2";
    let Some(row) = client.query_opt(find, &[&id, &name]).await? else { return Ok(None) };
    let sensor_id: i32 = row.get(0);
    client.execute(locks::EXCLUSIVE, &[&locks::SENSOR, &sensor_id]).await?;
    let sql = "SELECT name, revoked_at IS NOT NULL FROM sensor WHERE sensor_id = $1 AND deleted_at IS NULL";
    let row = client.query_opt(sql, &[&sensor_id]).await?;
    Ok(row.map(|row| (sensor_id, row.get(0), row.get(1))))
}

/// Says where a sensor belongs. `None` if there is none that was not deleted.
pub async fn place(
    pool: &Pool,
    author: &Author,
    sensor: &Reference,
    new: &BelongingChange,
) -> Result<Option<i32>, StoreError> {
    let (id, name) = sensor.parts();
    let labels = new.labels.as_ref().map(|labels| json!(labels).to_string());
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_place").await?;
        let result = async {
            let client = lease.client();
            let sql = "SELECT sensor_id, name, site, group_name, labels::text FROM sensor
                       WHERE (sensor_id = $1 OR name = $2) AND deleted_at IS NULL FOR UPDATE";
            let Some(row) = client.query_opt(sql, &[&id, &name]).await? else { return Ok(None) };
            let (sensor_id, name): (i32, String) = (row.get(0), row.get(1));
            let before = belonging(&row);
            let sql = "UPDATE sensor SET site = CASE WHEN $2 THEN $3 ELSE site END,
                                         group_name = CASE WHEN $4 THEN $5 ELSE group_name END,
                                         labels = coalesce($6::text::jsonb, labels)
                       WHERE sensor_id = $1 RETURNING site, group_name, labels::text";
            let (site, group) = (new.site.clone().flatten(), new.group.clone().flatten());
            let row = client
                .query_one(
                    sql,
                    &[&sensor_id, &new.site.is_some(), &site, &new.group.is_some(), &group, &labels],
                )
                .await?;
            let change = (Some(shown(&before)), Some(shown(&belonging(&row))));
            tell(&lease, author, "sensor.place", sensor_id, &name, change).await?;
            Ok(Some(sensor_id))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

fn shown(Belonging { site, group, labels }: &Belonging) -> Value {
    json!({"site": site, "group": group, "labels": labels})
}

fn belonging(row: &Row) -> Belonging {
    Belonging {
        site: row.get("site"),
        group: row.get("group_name"),
        labels: serde_json::from_str(row.get("labels")).unwrap_or_default(),
    }
}

/// Revokes a sensor: waits for its batches in flight, and no later one is stored. Gives the sensor, or
/// `None` if there is none. Revoking twice keeps the first time.
pub async fn revoke(
    pool: &Pool,
    author: &Author,
    sensor: &Reference,
) -> Result<Option<(i32, String)>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_revoke").await?;
        let result = async {
            let Some((sensor_id, name, _)) = lock(&lease, sensor).await? else { return Ok(None) };
            let sql =
                "UPDATE sensor SET revoked_at = coalesce(revoked_at, clock_timestamp()) WHERE sensor_id = $1";
            lease.client().execute(sql, &[&sensor_id]).await?;
            tell(&lease, author, "sensor.revoke", sensor_id, &name, (None, None)).await?;
            Ok(Some((sensor_id, name)))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The audit log, with what was before and after, and whoever follows sensors.
pub(super) async fn tell(
    lease: &Lease<'_>,
    author: &Author,
    action: &'static str,
    sensor_id: i32,
    name: &str,
    (before, after): (Option<Value>, Option<Value>),
) -> Result<(), StoreError> {
    let change = Change {
        action,
        subject_kind: "sensor",
        subject_id: Some(sensor_id.to_string()),
        subject_name: Some(name.to_owned()),
        before,
        after,
    };
    audit::record(lease, author, &change).await?;
    let body = json!({ "name": name });
    let event = NewEvent { topic: Topic::Sensors, kind: action, sensor_id: Some(sensor_id), body };
    events::append(lease, &event).await
}

/// When the sensor was added; `None` for one that is gone.
pub async fn added_at(pool: &Pool, sensor_id: i32) -> Result<Option<Timestamp>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Ingest, Isolation::Snapshot, "sensor_added_at").await?;
        let sql = "SELECT created_at FROM sensor WHERE sensor_id = $1";
        let result = lease.client().query_opt(sql, &[&sensor_id]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let row = pool.within(Class::Ingest, work).await?;
    Ok(row.and_then(|row| Timestamp::try_from(row.get::<_, SystemTime>(0)).ok()))
}

/// How all sensors stand, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub active: i64,
    pub clock_flagged: i64,
    pub spool_degraded: i64,
    pub quarantining: i64,
    pub waiting_batches: i64,
}

/// Counts sensors that are neither revoked nor deleted, by how they stand.
pub async fn tally(pool: &Pool) -> Result<Tally, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_tally").await?;
        let sql = format!(
            "SELECT count(*), count(*) FILTER (WHERE clock_flagged), count(*) FILTER (WHERE spool_degraded),
                    count(*) FILTER (WHERE spool_quarantined_batches > 0), {}
             FROM sensor LEFT JOIN sensor_status USING (sensor_id) WHERE revoked_at IS NULL",
            super::filter::sum("spool_batches")
        );
        let result = lease.client().query_one(&sql, &[]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(Tally {
        active: row.get(0),
        clock_flagged: row.get(1),
        spool_degraded: row.get(2),
        quarantining: row.get(3),
        waiting_batches: row.get(4),
    })
}

/// Sensors after `after` in order of id, at most `limit`.
pub async fn list(pool: &Pool, which: &Which, after: i32, limit: i64) -> Result<Vec<Sensor>, StoreError> {
    let labels = json!(which.labels).to_string();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_list").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM {TABLES}
             WHERE sensor_id > $1 AND ($3::text IS NULL OR site = $3)
                   AND ($4::text IS NULL OR group_name = $4) AND labels @> $5::text::jsonb
             ORDER BY sensor_id LIMIT $2"
        );
        let result = lease.client().query(&sql, &[&after, &limit, &which.site, &which.group, &labels]).await;
        lease.finish(result.map_err(StoreError::from)).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

/// One sensor with its observation points.
pub async fn get(pool: &Pool, sensor: &Reference) -> Result<Option<(Sensor, Vec<Point>)>, StoreError> {
    let (id, name) = sensor.parts();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_get").await?;
        let result = async {
            let sql = format!(
                "SELECT {COLUMNS} FROM {TABLES}
                 WHERE sensor_id = $1 OR name = $2"
            );
            let Some(row) = lease.client().query_opt(&sql, &[&id, &name]).await? else {
                return Ok(None);
            };
            let sensor = from_row(&row);
            let points = lease
                .client()
                .query(
                    "SELECT interface, direction FROM observation_point WHERE sensor_id = $1
                     ORDER BY interface, direction",
                    &[&sensor.sensor_id],
                )
                .await?;
            let points =
                points.iter().map(|row| Point { interface: row.get(0), direction: row.get(1) }).collect();
            Ok(Some((sensor, points)))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The id of a sensor, if there is one that was not deleted.
pub async fn find(pool: &Pool, sensor: &Reference) -> Result<Option<i32>, StoreError> {
    let (id, name) = sensor.parts();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_find").await?;
        let sql = "SELECT sensor_id FROM sensor
                   WHERE (sensor_id = $1 OR name = $2) AND deleted_at IS NULL";
        let result = lease.client().query_opt(sql, &[&id, &name]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| row.get(0)))
}

/// A sensor's name; `None` for one that is gone.
pub async fn name_of(pool: &Pool, sensor_id: i32) -> Result<Option<String>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_name").await?;
        let sql = "SELECT name FROM sensor WHERE sensor_id = $1";
        let result = lease.client().query_opt(sql, &[&sensor_id]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| row.get(0)))
}

/// The spool as the sensor last told, and when that was.
pub(super) async fn spool_of(
    lease: &Lease<'_>,
    sensor_id: i32,
) -> Result<Option<(SystemTime, Spool)>, StoreError> {
    let sql = "SELECT spool_at, spool_batches, spool_bytes, spool_capacity_bytes, spool_oldest_age_ms,
                      spool_quarantined_batches, spool_quarantined_packets, spool_degraded
               FROM sensor_status WHERE sensor_id = $1 AND spool_at IS NOT NULL";
    let row = lease.client().query_opt(sql, &[&sensor_id]).await?;
    Ok(row.map(|row| (row.get("spool_at"), spool(&row))))
}

fn from_row(row: &Row) -> Sensor {
    let status = row.get::<_, Option<SystemTime>>("last_seen_at").map(|last_seen_at| Status {
        last_seen_at,
        last_window_end: row.get("last_window_end"),
        clock_skew_ms: row.get("clock_skew_ms"),
        clock_flagged: row.get("clock_flagged"),
        batches: row.get("batches"),
        records: row.get("records"),
        clock_steps: row.get("clock_steps"),
        clock_step: row.get::<_, Option<i64>>("clock_step_ns").zip(row.get("clock_stepped_at")),
        spool: row.get::<_, Option<SystemTime>>("spool_at").map(|at| (at, spool(row))),
    });
    Sensor {
        sensor_id: row.get("sensor_id"),
        name: row.get("name"),
        created_at: row.get("created_at"),
        revoked_at: row.get("revoked_at"),
        deleted_at: row.get("deleted_at"),
        belonging: belonging(row),
        status,
        presence: row.get::<_, Option<SystemTime>>("alive_at").map(|alive_at| Presence {
            alive_at,
            online: row.get::<_, Option<bool>>("online").unwrap_or(true),
            changed_at: row.get("changed_at"),
            beat: row.get::<_, Option<SystemTime>>("beat_at").zip(row.get("beat")),
        }),
    }
}

fn spool(row: &Row) -> Spool {
    Spool {
        batches: row.get("spool_batches"),
        bytes: row.get("spool_bytes"),
        capacity_bytes: row.get("spool_capacity_bytes"),
        oldest_age_ms: row.get("spool_oldest_age_ms"),
        quarantined_batches: row.get("spool_quarantined_batches"),
        quarantined_packets: row.get("spool_quarantined_packets"),
        degraded: row.get("spool_degraded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_named_by_id_or_by_name_and_never_by_both() {
        assert_eq!(named("7"), Some(Reference::Id(7)));
        assert_eq!(named("edge-1.dc"), Some(Reference::Name("edge-1.dc".to_owned())));
        assert_eq!(named("1a"), Some(Reference::Name("1a".to_owned())));
        for neither in ["", "0", "-1", "+1", "99999999999", ".a", "a b", "a/b", "é", "a\0", &"a".repeat(64)]
        {
            assert_eq!(named(neither), None, "{neither:?}");
        }
    }
}
