//! What the jobs ask of Postgres, apart from partitions: old ledger rows, summaries.

use std::time::SystemTime;

use jiff::Timestamp;

use super::{Class, Isolation, Pool, StoreError};

/// Rows deleted in one transaction: short locks, little to repeat.
const CHUNK: i64 = 20_000;

/// Deletes batch keys and kernel totals of windows before `end`; gives how many rows went.
pub async fn delete_ledger_before(pool: &Pool, end: Timestamp) -> Result<u64, StoreError> {
    let end = SystemTime::from(end);
    let mut deleted = 0;
    for sql in [
        "DELETE FROM point_total WHERE ctid = ANY (ARRAY(
             SELECT point_total.ctid FROM sensor JOIN point_total USING (sensor_id)
             WHERE window_start < $1 LIMIT $2))",
        "DELETE FROM batch WHERE ctid = ANY (ARRAY(
             SELECT batch.ctid FROM sensor JOIN batch USING (sensor_id) WHERE window_start < $1 LIMIT $2))",
    ] {
        loop {
            let work = async {
                let lease =
                    pool.begin(Class::Maintenance, Isolation::ReadCommitted, "ledger_retention").await?;
                let result = lease.client().execute(sql, &[&end, &CHUNK]).await.map_err(StoreError::from);
                lease.finish(result).await
            };
            let rows = pool.within(Class::Maintenance, work).await?;
            deleted += rows;
            if (rows as i64) < CHUNK {
                break;
            }
        }
    }
    Ok(deleted)
}

/// Brings page ranges that were filled since the last time into the address index of a partition.
pub async fn summarize(pool: &Pool, partition: &str) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "summarize").await?;
        let result = lease
            .client()
            .execute(
                "SELECT brin_summarize_new_values(indexrelid)
                 FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam
                 WHERE indrelid = to_regclass($1) AND amname = 'brin'",
                &[&partition],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await.map(|_| ())
}
