//! Devices that nobody sees any more, and what a deleted sensor told.
//!
//! Under the lock of the site, since a batch that found a device by its key must still find it when it adds to it.

use std::time::SystemTime;

use jiff::Timestamp;

use super::super::{Class, Isolation, Lease, Pool, StoreError};
use super::{joined, told};

/// Devices in one transaction: short locks, little to repeat.
const CHUNK: i64 = 500;

/// Deletes devices that were last seen before a time and of which no operator said anything; gives how many went.
pub async fn delete_before(pool: &Pool, before: Timestamp) -> Result<u64, StoreError> {
    let before = SystemTime::from(before);
    let mut deleted = 0;
    loop {
        let work = async {
            let mut lease =
                pool.begin(Class::Maintenance, Isolation::ReadCommitted, "device_retention").await?;
            let result = old(&mut lease, before).await;
            lease.finish(result).await
        };
        let Some(rows) = pool.within(Class::Maintenance, work).await? else { return Ok(deleted) };
        deleted += rows;
    }
}

/// Some of one site; `None` where there are none.
async fn old(lease: &mut Lease<'_>, before: SystemTime) -> Result<Option<u64>, StoreError> {
    const OLD: &str = "last_seen < $1 AND coalesce(name, type, notes, owner) IS NULL";
    let client = lease.client();
    let sql = format!("SELECT scope FROM device WHERE {OLD} LIMIT 1");
    let Some(row) = client.query_opt(&sql, &[&before]).await? else { return Ok(None) };
    let scope: String = row.get(0);
    told::lock(lease, &scope).await?;
    let sql = format!(
        "DELETE FROM device WHERE device_id = ANY (ARRAY(
             SELECT device_id FROM device WHERE {OLD} AND scope = $2 ORDER BY device_id LIMIT $3))"
    );
    Ok(Some(lease.client().execute(&sql, &[&before, &scope, &CHUNK]).await?))
}

/// Deletes what a sensor told of some devices of a site, and those of them that no other sensor sees; gives how many
/// facts went, `None` once there are none. For a sensor of which nothing is taken any more.
pub async fn forget_sensor(lease: &mut Lease<'_>, sensor_id: i32) -> Result<Option<u64>, StoreError> {
    let client = lease.client();
    let sql = "SELECT scope FROM device JOIN device_fact USING (device_id) WHERE sensor_id = $1 LIMIT 1";
    let Some(row) = client.query_opt(sql, &[&sensor_id]).await? else { return Ok(None) };
    let scope: String = row.get(0);
    told::lock(lease, &scope).await?;
    let client = lease.client();
    let sql = "SELECT DISTINCT device_id FROM device_fact JOIN device USING (device_id)
               WHERE sensor_id = $1 AND scope = $2 ORDER BY device_id LIMIT $3";
    let rows = client.query(sql, &[&sensor_id, &scope, &CHUNK]).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let facts = "DELETE FROM device_fact WHERE device_id = ANY ($1) AND sensor_id = $2";
    let told = client.execute(facts, &[&ids, &sensor_id]).await?;
    let keys = "DELETE FROM device_key AS key WHERE device_id = ANY ($1) AND NOT EXISTS (
                    SELECT FROM device_fact AS fact WHERE fact.device_id = key.device_id AND fact.kind = 'key'
                      AND fact.source = key.kind AND fact.value = key.value)";
    client.execute(keys, &[&ids]).await?;
    let devices = "DELETE FROM device WHERE device_id = ANY ($1)
                   AND NOT EXISTS (SELECT FROM device_fact AS fact WHERE fact.device_id = device.device_id)";
    client.execute(devices, &[&ids]).await?;
    joined::summarize(lease, &ids).await?;
    Ok(Some(told))
}
