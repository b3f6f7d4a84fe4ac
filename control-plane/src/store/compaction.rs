//! Trims rollup buckets that are over to their largest keys.
//!
//! Each batch names a few hundred keys; the batches of a minute, or of an hour, together name many more,
//! mostly small ones. Of a bucket that is over, the largest keys stay (by octets, packets and records, as
//! `ingest::rollup` chooses them) and the rest is added to the row of all others, so that the sum over
//! each dimension stays exact. A late batch adds to the bucket as before, and it is trimmed again.

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;

use super::partitions::{Parent, Partition};
use super::rollups::ADD_UP;
use super::{Class, Isolation, Pool, StoreError, locks};

/// Late parts of an epoch come within this long after its bucket.
const GRACE_S: f64 = 120.0;
/// Buckets trimmed in one transaction.
const CHUNK: usize = 50;

/// A rollup's table and the unit of its buckets.
#[derive(Clone, Copy, Debug)]
pub struct Rollup {
    parent: Parent,
    unit: &'static str,
}

pub const ROLLUPS: [Rollup; 2] =
    [Rollup { parent: Parent::Rollup1m, unit: "minute" }, Rollup { parent: Parent::Rollup1h, unit: "hour" }];

/// A bucket of one sensor.
type Bucket = (SystemTime, i32);

/// Trims the buckets that are over and that batches have written since `since`; gives how many rows went.
pub async fn compact(pool: &Pool, rollup: Rollup, since: Timestamp, keys: usize) -> Result<u64, StoreError> {
    let mut gone = 0;
    for (partition, buckets) in written_buckets(pool, rollup, since).await? {
        for chunk in buckets.chunks(CHUNK) {
            match trim(pool, &partition, chunk, keys).await {
                Ok(rows) => gone += rows,
                // Dropped at the end of its retention.
                Err(StoreError::MissingPartition(_)) => break,
                // Absurd counts of one sensor, which would not fit in one row: they stay as they are.
                Err(error @ StoreError::OutOfRange(_)) => {
                    tracing::warn!(%error, partition, "buckets not trimmed");
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(gone)
}

/// The buckets, by the partition that holds them.
async fn written_buckets(
    pool: &Pool,
    Rollup { parent, unit }: Rollup,
    since: Timestamp,
) -> Result<BTreeMap<String, Vec<Bucket>>, StoreError> {
    // A bucket is looked at once more when it is over: the batches that wrote it came before that.
    let sql = format!(
        "SELECT DISTINCT date_trunc('{unit}', window_start) AS bucket, sensor_id
         FROM batch JOIN sensor USING (sensor_id)
         WHERE deleted_at IS NULL AND received_at >= $1::timestamptz - interval '1 {unit}' - make_interval(secs => $2)
           AND date_trunc('{unit}', window_start) + interval '1 {unit}' + make_interval(secs => $2) <= now()
         ORDER BY 1, 2"
    );
    let since = SystemTime::from(since);
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::Snapshot, "written_buckets").await?;
        let result = lease.client().query(&sql, &[&since, &GRACE_S]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let mut by_partition: BTreeMap<String, Vec<Bucket>> = BTreeMap::new();
    for row in pool.within(Class::Maintenance, work).await? {
        let bucket: Bucket = (row.get(0), row.get(1));
        if let Ok(time) = Timestamp::try_from(bucket.0) {
            by_partition.entry(Partition::holding(parent, time).name()).or_default().push(bucket);
        }
    }
    Ok(by_partition)
}

async fn trim(pool: &Pool, partition: &str, buckets: &[Bucket], keys: usize) -> Result<u64, StoreError> {
    let times: Vec<SystemTime> = buckets.iter().map(|(time, _)| *time).collect();
    let sensors: Vec<i32> = buckets.iter().map(|(_, sensor)| *sensor).collect();
    let quarter = (keys / 4) as i64;
    let half = keys as i64 - 2 * quarter;
    // DELETE gives the rows as they are when it has locked them, so nothing that a late batch adds in
    // between is lost.
    let sql = format!(
        "WITH ranked AS (
             SELECT rollup.ctid AS place,
                    row_number() OVER (bucket_of ORDER BY octets::float8 + reverse_octets DESC) AS by_octets,
                    row_number() OVER (bucket_of ORDER BY packets::float8 + reverse_packets DESC) AS by_packets,
                    row_number() OVER (bucket_of ORDER BY flows DESC) AS by_flows
             FROM unnest($1::timestamptz[], $2::integer[]) AS closed (bucket, sensor_id)
             JOIN {partition} AS rollup USING (bucket, sensor_id)
             WHERE dimension IN (1, 2, 3, 4, 6, 7, 8, 9)
               AND EXISTS (SELECT FROM sensor WHERE sensor.sensor_id = closed.sensor_id AND deleted_at IS NULL)
               AND NOT (src = '::/0' AND dst = '::/0' AND protocol = -1 AND number = -1)
             WINDOW bucket_of AS (PARTITION BY dimension, bucket, sensor_id)
         ), gone AS (
             DELETE FROM {partition} AS small USING ranked
             WHERE by_octets > $3 AND by_packets > $4 AND by_flows > $4 AND small.ctid = ranked.place
             RETURNING small.*
         ), pooled AS (
             INSERT INTO {partition} AS other (bucket, sensor_id, dimension, src, dst, protocol, number,
                                               flows, packets, octets, reverse_packets, reverse_octets)
             SELECT bucket, sensor_id, dimension, '::/0', '::/0', -1, -1, sum(flows), sum(packets),
                    sum(octets), sum(reverse_packets), sum(reverse_octets)
             FROM gone GROUP BY dimension, bucket, sensor_id ORDER BY dimension, bucket, sensor_id
             {ADD_UP}
         )
         SELECT count(*) FROM gone"
    );
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "compact").await?;
        let result = async {
            // An erasure begins before this or after: no bucket of a deleted sensor gets a new row.
            let lock = "SELECT pg_advisory_xact_lock_shared($1, sensor_id)
                        FROM (SELECT DISTINCT unnest($2::integer[]) AS sensor_id ORDER BY 1) AS closed";
            lease.client().execute(lock, &[&locks::SENSOR, &sensors]).await?;
            Ok(lease.client().query_one(&sql, &[&times, &sensors, &half, &quarter]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let count: i64 = pool.within(Class::Maintenance, work).await?.get(0);
    Ok(count.unsigned_abs())
}
