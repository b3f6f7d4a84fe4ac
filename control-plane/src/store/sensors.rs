//! Sensors: their names, the hashes of their tokens, and what was last heard of them.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::{Class, Isolation, Pool, StoreError};

/// A sensor as the API shows it.
#[derive(Clone, Debug)]
pub struct Sensor {
    pub sensor_id: i32,
    pub name: String,
    pub created_at: SystemTime,
    pub revoked_at: Option<SystemTime>,
    pub status: Option<Status>,
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
}

/// One direction of one interface.
#[derive(Clone, Debug)]
pub struct Point {
    pub interface: String,
    pub direction: i16,
}

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub sensor_id: i32,
    pub name: String,
    pub revoked: bool,
}

/// A sensor named by a path or a filter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SensorRef {
    Id(i32),
    Name(String),
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
                       clock_skew_ms, clock_flagged, batches, records";

/// Whether a name may be a sensor's: 1 to 63 letters, digits, `.`, `_`, `-`; not only digits.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=63).contains(&name.len())
        && name.bytes().all(plain)
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && !name.bytes().all(|byte| byte.is_ascii_digit())
}

impl SensorRef {
    /// An id or a name; `None` for what can be neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(id) = text.parse::<i32>() {
            return (id > 0 && !text.starts_with('+')).then_some(Self::Id(id));
        }
        is_name(text).then(|| Self::Name(text.to_owned()))
    }

    fn parts(&self) -> (Option<i32>, Option<&str>) {
        match self {
            Self::Id(id) => (Some(*id), None),
            Self::Name(name) => (None, Some(name)),
        }
    }
}

/// Adds a sensor; only the hash of its token is kept.
pub async fn add(pool: &Pool, name: &str, token_sha256: &[u8]) -> Result<i32, AddError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_add").await?;
        let result = lease
            .client()
            .query_one(
                "INSERT INTO sensor (name, token_sha256) VALUES ($1, $2) RETURNING sensor_id",
                &[&name, &token_sha256],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    match pool.within(Class::Admin, work).await {
        Ok(row) => Ok(row.get(0)),
        Err(StoreError::Database(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(AddError::Taken)
        }
        Err(error) => Err(error.into()),
    }
}

/// Revokes a sensor: waits for its batches in flight, and no later one is stored. Gives the sensor, or
/// `None` if there is none. Revoking twice keeps the first time.
pub async fn revoke(pool: &Pool, sensor: &SensorRef) -> Result<Option<(i32, String)>, StoreError> {
    let (id, name) = sensor.parts();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "sensor_revoke").await?;
        let result = lease
            .client()
            .query_opt(
                "UPDATE sensor SET revoked_at = coalesce(revoked_at, clock_timestamp())
                 WHERE sensor_id = $1 OR name = $2 RETURNING sensor_id, name",
                &[&id, &name],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| (row.get(0), row.get(1))))
}

/// The sensor that a token's hash belongs to, revoked or not.
pub async fn by_token(pool: &Pool, token_sha256: &[u8]) -> Result<Option<Identity>, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_by_token").await?;
        let result = async {
            let sql = "SELECT sensor_id, name, revoked_at IS NOT NULL FROM sensor WHERE token_sha256 = $1";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query_opt(&statement, &[&token_sha256]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(row.map(|row| Identity { sensor_id: row.get(0), name: row.get(1), revoked: row.get(2) }))
}

/// Every sensor after `after` in order of id, at most `limit`.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Sensor>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_list").await?;
        let sql = format!(
            "SELECT {COLUMNS} FROM sensor LEFT JOIN sensor_status USING (sensor_id)
             WHERE sensor_id > $1 ORDER BY sensor_id LIMIT $2"
        );
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

/// One sensor with its observation points.
pub async fn get(pool: &Pool, sensor: &SensorRef) -> Result<Option<(Sensor, Vec<Point>)>, StoreError> {
    let (id, name) = sensor.parts();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_get").await?;
        let result = async {
            let sql = format!(
                "SELECT {COLUMNS} FROM sensor LEFT JOIN sensor_status USING (sensor_id)
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

/// The id of a sensor, if there is one.
pub async fn find(pool: &Pool, sensor: &SensorRef) -> Result<Option<i32>, StoreError> {
    let (id, name) = sensor.parts();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_find").await?;
        let sql = "SELECT sensor_id FROM sensor WHERE sensor_id = $1 OR name = $2";
        let result = lease.client().query_opt(sql, &[&id, &name]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.map(|row| row.get(0)))
}

fn from_row(row: &Row) -> Sensor {
    let status = row.get::<_, Option<SystemTime>>(4).map(|last_seen_at| Status {
        last_seen_at,
        last_window_end: row.get(5),
        clock_skew_ms: row.get(6),
        clock_flagged: row.get(7),
        batches: row.get(8),
        records: row.get(9),
    });
    Sensor { sensor_id: row.get(0), name: row.get(1), created_at: row.get(2), revoked_at: row.get(3), status }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_is_named_by_id_or_by_name_and_never_by_both() {
        assert_eq!(SensorRef::parse("7"), Some(SensorRef::Id(7)));
        assert_eq!(SensorRef::parse("edge-1.dc"), Some(SensorRef::Name("edge-1.dc".to_owned())));
        assert_eq!(SensorRef::parse("1a"), Some(SensorRef::Name("1a".to_owned())));
        for neither in ["", "0", "-1", "+1", "99999999999", ".a", "a b", "a/b", "é", "a\0", &"a".repeat(64)]
        {
            assert_eq!(SensorRef::parse(neither), None, "{neither:?}");
        }
    }
}
