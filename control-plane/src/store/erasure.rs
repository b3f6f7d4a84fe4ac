//! The end of a sensor's data: everything that is stored of a deleted one, and at last its name.
//!
//! A deletion first marks the sensor under its exclusive lock, which waits for what is in flight and keeps
//! everything later out ([`super::sensors::remove`]); so what is deleted here cannot come back. Each step is
//! a transaction of its own and may be repeated: a round that is cut short goes on in the next one.

use super::partitions::{Parent, Partition, present};
use super::{Class, Isolation, Pool, StoreError, devices};

/// Rows of the ledger deleted in one transaction: short locks, little to repeat.
const CHUNK: i64 = 20_000;

/// What was deleted of one sensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    pub flows: i64,
    pub rollup_rows: i64,
    pub batches: i64,
    pub point_totals: i64,
    pub events: i64,
    pub detections: i64,
}

/// Sensors that were deleted and of which something is left.
pub async fn pending(pool: &Pool) -> Result<Vec<i32>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::Snapshot, "sensors_to_erase").await?;
        let sql = "SELECT sensor_id FROM sensor WHERE deleted_at IS NOT NULL ORDER BY sensor_id";
        let result = lease.client().query(sql, &[]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Maintenance, work).await?.iter().map(|row| row.get(0)).collect())
}

/// Deletes everything of a deleted sensor, and writes the receipt.
pub async fn erase(pool: &Pool, sensor_id: i32) -> Result<Receipt, StoreError> {
    for parent in Parent::ALL {
        for partition in present(pool, parent).await? {
            erase_partition(pool, sensor_id, parent, partition).await?;
        }
    }
    let totals = "DELETE FROM point_total WHERE ctid = ANY (ARRAY(
                      SELECT ctid FROM point_total WHERE sensor_id = $1 LIMIT $2))";
    erase_chunks(pool, sensor_id, totals, "erased_point_totals").await?;
    let batches = "DELETE FROM batch WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM batch WHERE sensor_id = $1 LIMIT $2))";
    erase_chunks(pool, sensor_id, batches, "erased_batches").await?;
    let detections = "DELETE FROM detection WHERE ctid = ANY (ARRAY(
                          SELECT ctid FROM detection WHERE sensor_id = $1 LIMIT $2))";
    erase_chunks(pool, sensor_id, detections, "erased_detections").await?;
    devices::forget_sensor(pool, sensor_id).await?;
    // Those without a cursor first: they may get one meanwhile, and are found with it.
    let pending = "DELETE FROM event_pending WHERE ctid = ANY (ARRAY(
                       SELECT ctid FROM event_pending WHERE sensor_id = $1 LIMIT $2))";
    erase_chunks(pool, sensor_id, pending, "erased_events").await?;
    // Their place stays, so that no reader takes what is gone for what got lost.
    let events = "UPDATE event SET kind = 'erased', sensor_id = NULL, body = '{}'
                  WHERE cursor = ANY (ARRAY(
                      SELECT cursor FROM event WHERE sensor_id = $1 ORDER BY cursor LIMIT $2))";
    erase_chunks(pool, sensor_id, events, "erased_events").await?;
    finish(pool, sensor_id).await
}

/// One look at the whole partition, which no index leads through by sensor.
async fn erase_partition(
    pool: &Pool,
    sensor_id: i32,
    parent: Parent,
    partition: Partition,
) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM {} WHERE sensor_id = $1", partition.name());
    let column = if parent == Parent::Flow { "erased_flows" } else { "erased_rollup_rows" };
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "sensor_erase").await?;
        let result = async {
            let rows = lease.client().execute(&sql, &[&sensor_id]).await?;
            lease.client().execute(&add(column), &[&sensor_id, &rows.cast_signed()]).await?;
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    match pool.within(Class::Maintenance, work).await {
        // Retention was faster.
        Err(StoreError::MissingPartition(_)) => Ok(()),
        result => result,
    }
}

async fn erase_chunks(pool: &Pool, sensor_id: i32, sql: &str, column: &str) -> Result<(), StoreError> {
    loop {
        let work = async {
            let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "sensor_erase").await?;
            let result = async {
                let rows = lease.client().execute(sql, &[&sensor_id, &CHUNK]).await?;
                lease.client().execute(&add(column), &[&sensor_id, &rows.cast_signed()]).await?;
                Ok(rows)
            }
            .await;
            lease.finish(result).await
        };
        if (pool.within(Class::Maintenance, work).await?.cast_signed()) < CHUNK {
            return Ok(());
        }
    }
}

/// Counts in the transaction that deletes, so that the receipt is right though a round is cut short.
fn add(column: &str) -> String {
    format!("UPDATE sensor SET {column} = {column} + $2 WHERE sensor_id = $1")
}

/// The rows that name the sensor, and the receipt in their place.
async fn finish(pool: &Pool, sensor_id: i32) -> Result<Receipt, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "sensor_erase").await?;
        let result = async {
            let client = lease.client();
            client.execute("DELETE FROM observation_point WHERE sensor_id = $1", &[&sensor_id]).await?;
            client.execute("DELETE FROM sensor_status WHERE sensor_id = $1", &[&sensor_id]).await?;
            Ok(client
                .query_one(
                    "WITH gone AS (
                         DELETE FROM sensor WHERE sensor_id = $1 AND deleted_at IS NOT NULL RETURNING *
                     )
                     INSERT INTO sensor_gone (sensor_id, name, deleted_at,
                                              flows, rollup_rows, batches, point_totals, events, detections)
                     SELECT sensor_id, name, deleted_at, erased_flows, erased_rollup_rows,
                            erased_batches, erased_point_totals, erased_events, erased_detections FROM gone
                     RETURNING flows, rollup_rows, batches, point_totals, events, detections",
                    &[&sensor_id],
                )
                .await?)
        }
        .await;
        lease.finish(result).await
    };
    let row = pool.within(Class::Maintenance, work).await?;
    Ok(Receipt {
        flows: row.get(0),
        rollup_rows: row.get(1),
        batches: row.get(2),
        point_totals: row.get(3),
        events: row.get(4),
        detections: row.get(5),
    })
}
