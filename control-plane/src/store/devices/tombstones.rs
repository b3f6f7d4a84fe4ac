//! What keeps an erased device from coming back with batches that were under way (I5): hashes of its keys, and of its
//! addresses with the time for which they were its.
//!
//! They are written in the transaction that ends the device, which waits for every batch of its site that is in
//! flight and keeps later ones out. Whoever stores for a sensor of the site after that sees them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;

use super::super::{Class, Isolation, Lease, Pool, StoreError, locks};
use super::told;
use crate::ingest::{Batch, Device, Erased, Held};

/// The hash of `told.value`.
macro_rules! hash {
    () => {
        "sha256(convert_to((SELECT salt FROM device_tombstone_salt) || told.value, 'UTF8'))"
    };
}

/// Tombstones of the sensor's site that may concern a window from `$2` on. A detection, or a flow, may be told a
/// little later than it was.
macro_rules! of_window {
    () => {
        "device_tombstone WHERE scope = (SELECT coalesce(site, '#' || sensor_id) FROM sensor WHERE sensor_id = $1)
            AND held_until >= timestamptz 'epoch' + ($2::bigint - 300000000) * interval '1 us'"
    };
}

/// The last tombstone of the sensor `$1` that concerns a window from `$2`, in microseconds, on; 0 if none does.
const LAST: &str = concat!("SELECT coalesce(max(tombstone_id), 0) FROM ", of_window!());

/// Whether no device was erased since the batch was looked through. It stays so until the caller's transaction ends:
/// whoever erases one waits for that.
pub async fn may_say(lease: &Lease<'_>, sensor_id: i32, batch: &Batch) -> Result<bool, StoreError> {
    let client = lease.client();
    client.execute(locks::SHARED, &[&locks::SENSOR, &sensor_id]).await?;
    let last: i64 = client.query_one(LAST, &[&sensor_id, &batch.window_start_us()]).await?.get(0);
    Ok(last <= batch.clipped.edition)
}

/// What of `words`, keys and addresses, was an erased device's, for a window of the sensor.
pub async fn held(
    pool: &Pool,
    sensor_id: i32,
    window_start_us: i64,
    words: &[String],
) -> Result<Erased, StoreError> {
    const HELD: &str = concat!(
        "SELECT told.value, (extract(epoch FROM held_from) * 1000000)::bigint,
                (extract(epoch FROM held_until) * 1000000)::bigint
         FROM unnest($3::text[]) AS told (value) JOIN (SELECT * FROM ",
        of_window!(),
        ") AS tombstone ON tombstone.sha256 = ",
        hash!()
    );
    let work = async {
        let lease = pool.begin(Class::Ingest, Isolation::Snapshot, "tombstones").await?;
        let result = async {
            let client = lease.client();
            let edition: i64 = client.query_one(LAST, &[&sensor_id, &window_start_us]).await?.get(0);
            if edition == 0 {
                return Ok(Erased::default());
            }
            let rows = client.query(HELD, &[&sensor_id, &window_start_us, &words]).await?;
            let held = |row: &tokio_postgres::Row| Held {
                word: row.get(0),
                from_us: row.get(1),
                until_us: row.get(2),
            };
            Ok(Erased { edition, held: rows.iter().map(held).collect() })
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Ingest, work).await
}

/// Which keys of these devices were an erased one's, and when it was erased, in microseconds. Under the site's lock.
pub(super) async fn erased_keys(
    lease: &mut Lease<'_>,
    scope: &str,
    devices: &[Device],
) -> Result<BTreeMap<String, i64>, StoreError> {
    let values: Vec<&str> = devices.iter().flat_map(Device::keys).map(|(_, value)| value).collect();
    let statement = lease
        .prepared(concat!(
            "SELECT told.value, max((extract(epoch FROM held_until) * 1000000)::bigint)
             FROM unnest($2::text[]) AS told (value)
             JOIN device_tombstone AS tombstone ON scope = $1 AND kind = 'key' AND sha256 = ",
            hash!(),
            " WHERE EXISTS (SELECT FROM device_tombstone WHERE scope = $1) GROUP BY told.value"
        ))
        .await?;
    let rows = lease.client().query(&statement, &[&scope, &values]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Waits for what is in flight for the device's site, and keeps everything later out until the commit. The device's
/// name, or what else it may be called.
pub async fn lock(lease: &Lease<'_>, device_id: i64) -> Result<Option<String>, StoreError> {
    let client = lease.client();
    let sql = "SELECT scope FROM device WHERE device_id = $1";
    let Some(row) = client.query_opt(sql, &[&device_id]).await? else { return Ok(None) };
    let scope: String = row.get(0);
    let sensors = "SELECT sensor_id FROM sensor WHERE coalesce(site, '#' || sensor_id) = $1
                   UNION SELECT sensor_id FROM device_fact WHERE device_id = $2 ORDER BY 1";
    for row in client.query(sensors, &[&scope, &device_id]).await? {
        client.execute(locks::EXCLUSIVE, &[&locks::SENSOR, &row.get::<_, i32>(0)]).await?;
    }
    told::lock(lease, &scope).await?;
    let sql = "SELECT FROM device WHERE device_id = $1 FOR UPDATE";
    if client.query_opt(sql, &[&device_id]).await?.is_none() {
        // Somebody else was faster.
        return Ok(None);
    }
    title(lease, device_id).await
}

/// What a device is called for whoever is to confirm its end.
pub async fn title(lease: &Lease<'_>, device_id: i64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT coalesce(name, told_name, (SELECT value FROM device_key AS key
                   WHERE key.device_id = device.device_id ORDER BY kind, value LIMIT 1), '')
               FROM device WHERE device_id = $1";
    Ok(lease.client().query_opt(sql, &[&device_id]).await?.map(|row| row.get(0)))
}

/// Writes down what to look for, and what may not come back. The device is locked ([`lock`]).
///
/// An address counts as the device's from an hour before it was seen with it, or from when somebody else was seen
/// with it last, until somebody else was, or until now.
pub async fn bury(lease: &Lease<'_>, erasure_id: i32, device_id: i64) -> Result<(), StoreError> {
    const TRACES: &str = "
        INSERT INTO erasure_trace (erasure_id, kind, value, held_from, held_until)
        WITH it AS (SELECT device_id, scope, clock_timestamp() AS now FROM device WHERE device_id = $2),
        seen AS (
            SELECT value, address, min(first_seen) AS first, max(last_seen) AS last
            FROM device_fact JOIN it USING (device_id) WHERE kind = 'address' GROUP BY value, address
        ), others AS (
            SELECT fact.address, fact.first_seen, fact.last_seen
            FROM device_fact AS fact JOIN device USING (device_id), it
            WHERE device.scope = it.scope AND fact.device_id <> it.device_id
              AND fact.address IN (SELECT address FROM seen)
        ), held AS (
            SELECT value, now,
                   greatest(first - interval '1 hour', (
                       SELECT max(last_seen) FROM others WHERE others.address = seen.address AND last_seen < first
                   )) AS since,
                   least(now, (
                       SELECT min(first_seen) FROM others WHERE others.address = seen.address AND first_seen > last
                   )) AS until
            FROM seen, it
        )
        SELECT $1::integer, 'address', value, least(since, until), until FROM held
        UNION ALL SELECT $1, 'key', value, NULL, NULL
            FROM (SELECT value FROM device_key JOIN it USING (device_id)
                  UNION SELECT value FROM device_fact JOIN it USING (device_id) WHERE kind = 'key') AS key
        UNION ALL SELECT $1, 'id', id::text, NULL, NULL
            FROM (SELECT $2 AS id UNION SELECT former_id FROM device_former WHERE device_id = $2) AS former
        UNION ALL SELECT $1, 'sensor', sensor_id::text, NULL, NULL
            FROM (SELECT sensor_id FROM sensor JOIN it ON coalesce(site, '#' || sensor_id) = it.scope
                  UNION SELECT sensor_id FROM device_fact WHERE device_id = $2) AS seer";
    const TOMBSTONES: &str = concat!(
        "INSERT INTO device_tombstone (erasure_id, scope, kind, sha256, held_from, held_until)
         SELECT $1, scope, told.kind, ",
        hash!(),
        ", coalesce(held_from, 'epoch'), coalesce(held_until, clock_timestamp())
         FROM erasure_trace AS told, device
         WHERE device_id = $2 AND told.erasure_id = $1 AND told.kind IN ('key', 'address')"
    );
    lease.client().execute(TRACES, &[&erasure_id, &device_id]).await?;
    lease.client().execute(TOMBSTONES, &[&erasure_id, &device_id]).await?;
    Ok(())
}

/// Deletes the tombstones that nothing can meet any more: of addresses, when windows of their time are not taken
/// any more; of keys, when nobody remembers what was before.
pub async fn forget(pool: &Pool, addresses: Timestamp, keys: Timestamp) -> Result<(), StoreError> {
    let (addresses, keys) = (SystemTime::from(addresses), SystemTime::from(keys));
    let sql = "DELETE FROM device_tombstone
               WHERE held_until < CASE kind WHEN 'address' THEN $1::timestamptz ELSE least($1, $2) END";
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "tombstone_retention").await?;
        let result = lease.client().execute(sql, &[&addresses, &keys]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await.map(|_| ())
}
