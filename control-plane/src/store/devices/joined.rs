//! Two devices that are one, and what follows from the facts of a device.

use super::super::{Lease, StoreError};

/// Sum of weights from which a type is told; the sensors' own (`docs/enrichment.md`).
const ENOUGH: i32 = 30;

/// Takes all of `from` into `into`. What operators said of `into` stays, what they said of `from` fills its gaps.
pub async fn join(lease: &Lease<'_>, into: i64, from: i64) -> Result<(), StoreError> {
    let client = lease.client();
    client.execute("UPDATE device_key SET device_id = $1 WHERE device_id = $2", &[&into, &from]).await?;
    let facts = "INSERT INTO device_fact AS fact
                 SELECT $1, sensor_id, kind, source, value, address, weight, detail, first_seen, last_seen
                 FROM device_fact WHERE device_id = $2
                 ON CONFLICT (device_id, sensor_id, kind, source, value) DO UPDATE SET
                     first_seen = least(fact.first_seen, EXCLUDED.first_seen),
                     last_seen = greatest(fact.last_seen, EXCLUDED.last_seen)";
    client.execute(facts, &[&into, &from]).await?;
    // The log and events know it by its number: an erasure looks for all of them.
    let former = "INSERT INTO device_former (former_id, device_id)
                  SELECT former_id, $1 FROM (SELECT $2::bigint AS former_id
                                             UNION SELECT former_id FROM device_former WHERE device_id = $2) AS former
                  ON CONFLICT (former_id) DO UPDATE SET device_id = EXCLUDED.device_id";
    client.execute(former, &[&into, &from]).await?;
    // First gone, then taken over: a name is one device's at a time.
    let said = "DELETE FROM device WHERE device_id = $1 RETURNING name, type, notes, owner";
    let row = client.query_one(said, &[&from]).await?;
    let text = |at: usize| row.get::<_, Option<String>>(at);
    let fill = "UPDATE device SET name = coalesce(name, $2), type = coalesce(type, $3),
                                  notes = coalesce(notes, $4), owner = coalesce(owner, $5)
                WHERE device_id = $1";
    client.execute(fill, &[&into, &text(0), &text(1), &text(2), &text(3)]).await?;
    Ok(())
}

/// Writes what follows from the facts beside them. The same facts give the same, whatever the order they came in.
pub async fn summarize(lease: &mut Lease<'_>, ids: &[i64]) -> Result<(), StoreError> {
    let statement = lease
        .prepared(
            "UPDATE device SET first_seen = seen.first, last_seen = seen.last, vendor = made.value,
                               told_name = called.value, told_type = typed.value, told_score = typed.score::integer
             FROM unnest($1::bigint[]) AS told (device_id)
             CROSS JOIN LATERAL (
                 SELECT min(first_seen) AS first, max(last_seen) AS last FROM device_fact AS fact
                 WHERE fact.device_id = told.device_id AND kind = 'seen'
             ) AS seen
             LEFT JOIN LATERAL (
                 SELECT value FROM device_fact AS fact
                 WHERE fact.device_id = told.device_id AND kind = 'vendor'
                 ORDER BY last_seen DESC, value LIMIT 1
             ) AS made ON true
             LEFT JOIN LATERAL (
                 SELECT value FROM device_fact AS fact
                 WHERE fact.device_id = told.device_id AND kind = 'name'
                 ORDER BY array_position(ARRAY['dhcp', 'mdns', 'nbns', 'llmnr', 'neighbour'], source) NULLS LAST,
                          last_seen DESC, value LIMIT 1
             ) AS called ON true
             LEFT JOIN LATERAL (
                 SELECT value, sum(weight) AS score FROM (
                     SELECT DISTINCT ON (source) value, weight FROM device_fact AS fact
                     WHERE fact.device_id = told.device_id AND kind = 'reason'
                     ORDER BY source, last_seen DESC, value
                 ) AS rule
                 GROUP BY value HAVING sum(weight) >= $2::integer ORDER BY score DESC, value LIMIT 1
             ) AS typed ON true
             WHERE device.device_id = told.device_id AND seen.first IS NOT NULL",
        )
        .await?;
    lease.client().execute(&statement, &[&ids, &ENOUGH]).await?;
    Ok(())
}
