//! Which sensors are there: their signs of life, and one judgement of them for all instances.
//!
//! What must stay true: a sensor is told to be offline or online once for each time that it is, whatever instances
//! judge; and one that nobody listened for was not silent. All times are Postgres' own, so that instances whose
//! clocks differ agree.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::events::{self, NewEvent, Topic};
use super::jobs::{self, Turn};
use super::{Class, Isolation, Lease, Pool, StoreError};

/// Sensors whose change is told in one transaction.
const CHUNK: i64 = 500;

/// A sensor was heard of.
#[derive(Clone, Debug)]
pub struct Sign {
    pub sensor_id: i32,
    /// How long ago.
    pub age: Duration,
    /// What its last heartbeat since the last write said, as JSON, and how long ago.
    pub beat: Option<(std::sync::Arc<str>, Duration)>,
}

/// How a sensor stands.
#[derive(Clone, Debug)]
pub struct Presence {
    pub alive_at: SystemTime,
    /// A sensor that was heard of and not looked at yet is.
    pub online: bool,
    pub changed_at: SystemTime,
    pub beat: Option<(SystemTime, String)>,
}

/// How many sensors were told to be there again, or to be gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub online: usize,
    pub offline: usize,
}

/// When sensors are taken to be gone.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After so long a silence.
    pub silence: Duration,
    /// A look that comes later than this after the one before means that nobody listened meanwhile.
    pub gap: Duration,
}

/// Sensors by how they stand, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub online: i64,
    pub offline: i64,
    pub never: i64,
}

/// Writes signs of life, in order of sensor; never back in time, and nobody who is gone comes back.
pub(super) async fn write(lease: &Lease<'_>, signs: &[Sign]) -> Result<(), StoreError> {
    if signs.is_empty() {
        return Ok(());
    }
    let ids: Vec<i32> = signs.iter().map(|sign| sign.sensor_id).collect();
    let ages: Vec<f64> = signs.iter().map(|sign| sign.age.as_secs_f64()).collect();
    let beats: Vec<Option<&str>> =
        signs.iter().map(|sign| sign.beat.as_ref().map(|(beat, _)| &**beat)).collect();
    let beat_ages: Vec<Option<f64>> =
        signs.iter().map(|sign| sign.beat.as_ref().map(|(_, age)| age.as_secs_f64())).collect();
    let sql = "INSERT INTO sensor_presence AS p (sensor_id, alive_at, beat, beat_at)
               SELECT sensor_id, clock_timestamp() - s.age * interval '1 s', s.beat::json,
                      clock_timestamp() - s.beat_age * interval '1 s'
               FROM unnest($1::integer[], $2::float8[], $3::text[], $4::float8[]) AS s(id, age, beat, beat_age)
                    JOIN sensor ON sensor_id = s.id
               WHERE deleted_at IS NULL ORDER BY sensor_id
               ON CONFLICT (sensor_id) DO UPDATE
               SET alive_at = greatest(p.alive_at, excluded.alive_at),
                   beat = CASE WHEN newer THEN excluded.beat ELSE p.beat END,
                   beat_at = CASE WHEN newer THEN excluded.beat_at ELSE p.beat_at END";
    // Of two instances the one that heard it last knows best.
    let sql = sql.replace("newer", "coalesce(excluded.beat_at > coalesce(p.beat_at, '-infinity'), false)");
    lease.client().execute(&sql, &[&ids, &ages, &beats, &beat_ages]).await?;
    Ok(())
}

/// An instance has begun: what the one before heard last may never have been written, so silence counts from now.
/// No more often than a few times the patience, else an instance that starts again and again would keep everybody
/// online.
pub async fn begin(pool: &Pool, patience: Patience) -> Result<(), StoreError> {
    let seconds = patience.silence.as_secs_f64();
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "presence_begin").await?;
        let sql =
            "UPDATE presence_watch SET since = now() WHERE since < now() - 3 * $1::float8 * interval '1 s'";
        let result = lease.client().execute(sql, &[&seconds]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await.map(drop)
}

/// Tells who has gone silent and who is there again. Nothing changes if the job was lost meanwhile.
pub async fn watch(pool: &Pool, turn: Option<&Turn>, patience: Patience) -> Result<Changes, StoreError> {
    let mut changes = Changes::default();
    loop {
        let work = async {
            let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "presence_watch").await?;
            let result = judge(&lease, turn, patience).await;
            lease.finish(result).await
        };
        let Changes { online, offline } = pool.within(Class::Admin, work).await?;
        changes.online += online;
        changes.offline += offline;
        if ((online + offline) as i64) < CHUNK {
            return Ok(changes);
        }
    }
}

async fn judge(lease: &Lease<'_>, turn: Option<&Turn>, patience: Patience) -> Result<Changes, StoreError> {
    let client = lease.client();
    if let Some(turn) = turn
        && !jobs::hold(lease, turn).await?
    {
        return Ok(Changes::default());
    }
    let (silence, gap) = (patience.silence.as_secs_f64(), patience.gap.as_secs_f64());
    let sql = "UPDATE presence_watch SET looked_at = now(),
                      since = CASE WHEN looked_at < now() - $1 * interval '1 s' THEN now() ELSE since END";
    client.execute(sql, &[&gap]).await?;
    let sql = "WITH changed AS (
                   SELECT p.sensor_id, name, now() - alive_at AS silent,
                          coalesce(NOT online, greatest(alive_at, since) >= now() - $1 * interval '1 s') AS online
                   FROM sensor_presence p JOIN sensor USING (sensor_id), presence_watch
                   WHERE deleted_at IS NULL
                         AND CASE WHEN online THEN greatest(alive_at, since) < now() - $1 * interval '1 s'
                                  WHEN NOT online THEN alive_at >= now() - $1 * interval '1 s'
                                  ELSE true END
                   ORDER BY p.sensor_id LIMIT $2 FOR UPDATE OF p
               ), told AS (
                   UPDATE sensor_presence p SET online = changed.online, changed_at = now()
                   FROM changed WHERE p.sensor_id = changed.sensor_id
               )
               SELECT sensor_id, name, online, extract(epoch FROM silent)::float8 FROM changed ORDER BY sensor_id";
    let mut changes = Changes::default();
    for row in client.query(sql, &[&silence, &CHUNK]).await? {
        let (sensor_id, name, online): (i32, String, bool) = (row.get(0), row.get(1), row.get(2));
        let silent_s: f64 = row.get(3);
        let (kind, body) = if online {
            changes.online += 1;
            ("sensor.online", json!({"name": name}))
        } else {
            changes.offline += 1;
            ("sensor.offline", json!({"name": name, "silent_s": silent_s.round()}))
        };
        events::append(lease, &NewEvent { topic: Topic::Sensors, kind, sensor_id: Some(sensor_id), body })
            .await?;
    }
    Ok(changes)
}

/// Counts sensors that are neither revoked nor deleted.
pub async fn tally(pool: &Pool) -> Result<Tally, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "presence_tally").await?;
        let sql = "SELECT count(*) FILTER (WHERE online), count(*) FILTER (WHERE NOT online),
                          count(*) FILTER (WHERE online IS NULL)
                   FROM sensor LEFT JOIN sensor_presence USING (sensor_id) WHERE revoked_at IS NULL";
        let result = lease.client().query_one(sql, &[]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(Tally { online: row.get(0), offline: row.get(1), never: row.get(2) })
}

/// How long a credential has been there and will be: seconds since it was made, and until it ends.
pub async fn term(pool: &Pool, credential_id: i32) -> Result<(f64, Option<f64>), StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "sensor_beat").await?;
        let result = async {
            let sql = "SELECT extract(epoch FROM now() - created_at)::float8,
                              extract(epoch FROM expires_at - now())::float8
                       FROM sensor_credential WHERE credential_id = $1";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query_opt(&statement, &[&credential_id]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Admin, work).await?;
    Ok(row.map_or((0.0, None), |row| (row.get(0), row.get(1))))
}
