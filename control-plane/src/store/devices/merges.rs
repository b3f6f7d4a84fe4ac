//! What operators joined, as it was before, and how it becomes two again.
//!
//! A merge writes down the device that goes, and what both had ([`keep`]). Its undoing ([`split`]) gives back what was
//! only the other's, with what came since, by its keys: an address, a name, a key that only one of them had is that
//! one's. What both had is what each had before. What neither had stays, unless a key of the other's says that it is
//! the other's. The last merge is undone first, so that each finds what it left.

use std::time::SystemTime;

use jiff::Timestamp;

use super::super::audit::Author;
use super::super::{Class, Isolation, Lease, Pool, StoreError};
use super::change::{self, ChangeError};
use super::{Device, find, joined, told};

/// Merges of a device that can be undone; older ones are forgotten.
const KEPT: i64 = 32;

/// A merge that can be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    pub merge_id: i64,
    pub other_id: i64,
    pub merged_at: SystemTime,
}

/// Those of a device, the last one first.
pub(super) async fn of(lease: &Lease<'_>, device_id: i64) -> Result<Vec<Merge>, StoreError> {
    let sql =
        "SELECT merge_id, other_id, merged_at FROM device_merge WHERE device_id = $1 ORDER BY merge_id DESC";
    let rows = lease.client().query(sql, &[&device_id]).await?;
    Ok(rows
        .iter()
        .map(|row| Merge { merge_id: row.get(0), other_id: row.get(1), merged_at: row.get(2) })
        .collect())
}

/// Writes down what `from` is, before `into` takes it. Under the lock of the site.
pub(super) async fn keep(lease: &Lease<'_>, into: i64, from: i64) -> Result<(), StoreError> {
    const MERGE: &str = "
        INSERT INTO device_merge (device_id, other_id, name, type, notes, owner, formers, filled)
        SELECT it.device_id, other.device_id, other.name, other.type, other.notes, other.owner,
               ARRAY(SELECT former_id FROM device_former AS former WHERE former.device_id = other.device_id),
               array_remove(ARRAY[
                   CASE WHEN it.name IS NULL AND other.name IS NOT NULL THEN 'name' END,
                   CASE WHEN it.type IS NULL AND other.type IS NOT NULL THEN 'type' END,
                   CASE WHEN it.notes IS NULL AND other.notes IS NOT NULL THEN 'notes' END,
                   CASE WHEN it.owner IS NULL AND other.owner IS NOT NULL THEN 'owner' END
               ], NULL)
        FROM device AS it, device AS other WHERE it.device_id = $1 AND other.device_id = $2
        RETURNING merge_id";
    const FACTS: &str = "
        INSERT INTO device_merge_fact
        SELECT $1::bigint, true, EXISTS (SELECT FROM device_key AS key WHERE key.device_id = theirs.device_id
                   AND theirs.kind = 'key' AND key.kind = theirs.source AND key.value = theirs.value),
               sensor_id, kind, source, value, address, weight, detail, first_seen, last_seen
        FROM device_fact AS theirs WHERE device_id = $3
        UNION ALL
        SELECT $1, false, false, own.sensor_id, own.kind, own.source, own.value, own.address, own.weight, own.detail,
               own.first_seen, own.last_seen
        FROM device_fact AS own JOIN device_fact AS theirs USING (sensor_id, kind, source, value)
        WHERE own.device_id = $2 AND theirs.device_id = $3";
    const BOUND: &str = "
        DELETE FROM device_merge WHERE device_id = $1 AND merge_id NOT IN (
            SELECT merge_id FROM device_merge WHERE device_id = $1 ORDER BY merge_id DESC LIMIT $2)";
    let client = lease.client();
    let merge_id: i64 = client.query_one(MERGE, &[&into, &from]).await?.get(0);
    client.execute(FACTS, &[&merge_id, &into, &from]).await?;
    client.execute(BOUND, &[&into, &KEPT]).await?;
    Ok(())
}

/// Undoes the last merge of a device; both as they are then, the one that stayed first.
pub async fn split(
    pool: &Pool,
    author: &Author,
    id: i64,
    merge_id: i64,
) -> Result<(Device, Device), ChangeError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "device_split").await?;
        let result = undone(&mut lease, author, id, merge_id).await;
        lease.settle(result).await
    };
    pool.within(Class::Admin, work).await?
}

async fn undone(
    lease: &mut Lease<'_>,
    author: &Author,
    id: i64,
    merge_id: i64,
) -> Result<(Device, Device), ChangeError> {
    let sql = "SELECT scope FROM device WHERE device_id = $1";
    let row = lease.client().query_opt(sql, &[&id]).await?.ok_or(ChangeError::Unknown)?;
    told::lock(lease, row.get(0)).await?;
    // Somebody else may have been faster.
    let before = find(lease, id).await?.ok_or(ChangeError::Unknown)?;
    let merges = of(lease, id).await?;
    let merge = merges.iter().find(|merge| merge.merge_id == merge_id).ok_or(ChangeError::NoMerge)?;
    if let Some(last) = merges.first().filter(|last| last.merge_id != merge_id) {
        return Err(ChangeError::Later(last.merge_id));
    }
    let other = merge.other_id;
    apart(lease, id, other, merge_id).await?;
    joined::summarize(lease, &[id, other]).await?;
    let (Some(device), Some(restored)) = (find(lease, id).await?, find(lease, other).await?) else {
        return Err(ChangeError::Unknown);
    };
    change::tell_split(lease, author, &before, &device, &restored).await?;
    Ok((device, restored))
}

/// Moves what is the other's, and gives both what they had.
async fn apart(lease: &Lease<'_>, id: i64, other: i64, merge_id: i64) -> Result<(), ChangeError> {
    // A name is one device's at a time: first it is given up.
    const WORDS: &str = "
        UPDATE device SET
            name = CASE WHEN 'name' = ANY (filled) AND device.name = kept.name THEN NULL ELSE device.name END,
            type = CASE WHEN 'type' = ANY (filled) AND device.type = kept.type THEN NULL ELSE device.type END,
            notes = CASE WHEN 'notes' = ANY (filled) AND device.notes = kept.notes THEN NULL ELSE device.notes END,
            owner = CASE WHEN 'owner' = ANY (filled) AND device.owner = kept.owner THEN NULL ELSE device.owner END
        FROM device_merge AS kept WHERE device.device_id = $1 AND merge_id = $2";
    const OTHER: &str = "
        INSERT INTO device (device_id, scope, first_seen, last_seen, name, type, notes, owner)
        OVERRIDING SYSTEM VALUE
        SELECT other_id, scope, device.first_seen, device.last_seen, kept.name, kept.type, kept.notes, kept.owner
        FROM device_merge AS kept JOIN device USING (device_id) WHERE merge_id = $1";
    const KEYS: &str = "
        UPDATE device_key SET device_id = $2 WHERE device_id = $1 AND (kind, value) IN (
            SELECT source, value FROM device_merge_fact WHERE merge_id = $3 AND leads)";
    // As it is now where only the other had it; as it was where both had it, but keys know whose they are.
    const THEIRS: &str = "
        INSERT INTO device_fact (device_id, sensor_id, kind, source, value, address, weight, detail, first_seen, last_seen)
        SELECT $2, sensor_id, kind, source, value, theirs.address,
               CASE WHEN as_it_is THEN now.weight ELSE theirs.weight END,
               CASE WHEN as_it_is THEN now.detail ELSE theirs.detail END,
               CASE WHEN as_it_is THEN now.first_seen ELSE theirs.first_seen END,
               CASE WHEN as_it_is THEN now.last_seen ELSE theirs.last_seen END
        FROM device_merge_fact AS theirs
             JOIN (SELECT * FROM device_fact WHERE device_id = $1) AS now USING (sensor_id, kind, source, value)
             LEFT JOIN (SELECT true AS shared, * FROM device_merge_fact WHERE merge_id = $3 AND NOT of_other) AS own
                  USING (sensor_id, kind, source, value)
             CROSS JOIN LATERAL (SELECT theirs.leads OR shared IS NULL AS as_it_is) AS which
        WHERE theirs.merge_id = $3 AND theirs.of_other";
    const TAKEN: &str = "
        DELETE FROM device_fact AS now USING device_merge_fact AS theirs
        WHERE now.device_id = $1 AND merge_id = $2 AND of_other
          AND (now.sensor_id, now.kind, now.source, now.value)
            = (theirs.sensor_id, theirs.kind, theirs.source, theirs.value)
          AND NOT EXISTS (SELECT FROM device_merge_fact AS own WHERE own.merge_id = $2 AND NOT own.of_other
                          AND (own.sensor_id, own.kind, own.source, own.value)
                            = (now.sensor_id, now.kind, now.source, now.value))";
    const OWN: &str = "
        UPDATE device_fact AS now SET
            first_seen = CASE WHEN now.first_seen < theirs.first_seen THEN now.first_seen ELSE own.first_seen END,
            last_seen = CASE WHEN now.last_seen > theirs.last_seen THEN now.last_seen ELSE own.last_seen END
        FROM device_merge_fact AS own JOIN device_merge_fact AS theirs USING (merge_id, sensor_id, kind, source, value)
        WHERE now.device_id = $1 AND merge_id = $2 AND NOT own.of_other AND theirs.of_other
          AND (now.sensor_id, now.kind, now.source, now.value) = (own.sensor_id, own.kind, own.source, own.value)";
    // What other sensors told since with a key of the other's.
    const SINCE: &str = "
        UPDATE device_fact AS now SET device_id = $2
        WHERE device_id = $1 AND kind = 'key'
          AND (source, value) IN (SELECT source, value FROM device_merge_fact WHERE merge_id = $3 AND leads)
          AND NOT EXISTS (SELECT FROM device_merge_fact AS kept WHERE merge_id = $3
                          AND (kept.sensor_id, kept.kind, kept.source, kept.value)
                            = (now.sensor_id, now.kind, now.source, now.value))";
    const SEEN: &str = "
        INSERT INTO device_fact AS fact (device_id, sensor_id, kind, source, value, first_seen, last_seen)
        SELECT device_id, sensor_id, 'seen', '', '', min(first_seen), max(last_seen)
        FROM device_fact WHERE device_id = $1 AND kind = 'key' GROUP BY device_id, sensor_id
        ON CONFLICT (device_id, sensor_id, kind, source, value) DO UPDATE SET
            first_seen = least(fact.first_seen, EXCLUDED.first_seen),
            last_seen = greatest(fact.last_seen, EXCLUDED.last_seen)";
    const FORMERS: &str = "
        UPDATE device_former SET device_id = $1
        FROM device_merge WHERE merge_id = $2 AND former_id = ANY (formers)";
    let client = lease.client();
    client.execute(WORDS, &[&id, &merge_id]).await?;
    client.execute(OTHER, &[&merge_id]).await?;
    client.execute(KEYS, &[&id, &other, &merge_id]).await?;
    client.execute(THEIRS, &[&id, &other, &merge_id]).await?;
    client.execute(TAKEN, &[&id, &merge_id]).await?;
    client.execute(OWN, &[&id, &merge_id]).await?;
    client.execute(SINCE, &[&id, &other, &merge_id]).await?;
    client.execute(SEEN, &[&other]).await?;
    client.execute("DELETE FROM device_former WHERE former_id = $1", &[&other]).await?;
    client.execute(FORMERS, &[&other, &merge_id]).await?;
    client.execute("DELETE FROM device_merge WHERE merge_id = $1", &[&merge_id]).await?;
    Ok(())
}

/// Forgets merges from before a time, and those of devices that are no more.
pub async fn forget(pool: &Pool, before: Timestamp) -> Result<u64, StoreError> {
    let sql = "DELETE FROM device_merge AS merge WHERE merged_at < $1
                   OR NOT EXISTS (SELECT FROM device WHERE device.device_id = merge.device_id)
                      AND NOT EXISTS (SELECT FROM device_former WHERE former_id = merge.device_id)";
    let before = SystemTime::from(before);
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "merge_retention").await?;
        let result = lease.client().execute(sql, &[&before]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}
