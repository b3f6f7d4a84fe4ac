//! What never came: epochs between two that did, and parts of one.

use std::time::SystemTime;

use super::{EPOCHS, Gap, MAX_GAPS};
use crate::store::{Lease, StoreError};

/// The gaps of the window in order, and whether there are more. An epoch that came is none, wherever its
/// clock placed it; a gap belongs to the window of the epoch after it.
pub(super) async fn gaps(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
    keys_since: SystemTime,
) -> Result<(Vec<Gap>, bool), StoreError> {
    let mut gaps = epoch_gaps(lease, sensor_id, from, to, keys_since).await?;
    gaps.extend(part_gaps(lease, sensor_id, from, to).await?);
    gaps.sort_by_key(|gap| (gap.generation, gap.first_epoch));
    let truncated = gaps.len() as i64 > MAX_GAPS;
    gaps.truncate(MAX_GAPS as usize);
    Ok((gaps, truncated))
}

/// Runs of epochs that are missing between two that came, or before the first of a generation.
async fn epoch_gaps(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
    keys_since: SystemTime,
) -> Result<Vec<Gap>, StoreError> {
    let sql = format!(
        "{EPOCHS}, neighbours AS (
             SELECT generation, epoch, window_start,
                    lag(epoch) OVER (PARTITION BY generation ORDER BY epoch) AS previous
             FROM epochs
         )
         SELECT generation, coalesce(before.epoch, -1) + 1, neighbours.epoch - 1
         FROM neighbours
         -- The last one that came before it, in this window or in another.
         CROSS JOIN LATERAL (
             SELECT max(batch.epoch) AS epoch FROM batch
             WHERE sensor_id = $1 AND batch.generation = neighbours.generation
               AND batch.epoch < neighbours.epoch
         ) AS before
         WHERE neighbours.epoch > coalesce(previous, -1) + 1
           AND neighbours.epoch > coalesce(before.epoch, -1) + 1
           -- Keys from before that time were dropped: nothing is known of what came earlier.
           AND (before.epoch IS NOT NULL OR window_start >= $4)
         ORDER BY generation, neighbours.epoch LIMIT $5"
    );
    let rows = lease.client().query(&sql, &[&sensor_id, &from, &to, &keys_since, &(MAX_GAPS + 1)]).await?;
    Ok(rows
        .iter()
        .map(|row| Gap {
            generation: row.get(0),
            first_epoch: row.get(1),
            last_epoch: row.get(2),
            missing_parts: Vec::new(),
        })
        .collect())
}

/// Epochs of which some parts came and others did not.
async fn part_gaps(
    lease: &Lease<'_>,
    sensor_id: i32,
    from: SystemTime,
    to: SystemTime,
) -> Result<Vec<Gap>, StoreError> {
    let sql = format!(
        "{EPOCHS}, incomplete AS (
             SELECT generation, epoch, max(parts) AS parts, array_agg(part) AS came
             FROM epochs JOIN batch USING (generation, epoch) WHERE sensor_id = $1
             GROUP BY generation, epoch HAVING count(*) < max(parts)
             ORDER BY generation, epoch LIMIT $4
         )
         SELECT generation, epoch,
                ARRAY(SELECT part FROM generate_series(0, parts - 1) AS part
                      WHERE part <> ALL (came) ORDER BY part LIMIT $4)
         FROM incomplete"
    );
    let rows = lease.client().query(&sql, &[&sensor_id, &from, &to, &(MAX_GAPS + 1)]).await?;
    Ok(rows
        .iter()
        .map(|row| Gap {
            generation: row.get(0),
            first_epoch: row.get(1),
            last_epoch: row.get(1),
            missing_parts: row.get(2),
        })
        .collect())
}
