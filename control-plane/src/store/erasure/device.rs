//! A device in flows and their sums: what was counted stays, the device's address becomes the unspecified one.
//!
//! So every sum over flows is what it was, over any dimension, and no peer loses what it sent to somebody
//! (`docs/decisions/0160-erasing-a-device.md`).

use crate::store::partitions::Parent;
use crate::store::rollups::ADD_UP;
use crate::store::{Lease, StoreError, locks};

/// Whose sums they may be, and the addresses with the times at which they were the device's.
const HELD: &str = "
    held AS MATERIALIZED (
        SELECT value::inet AS address, held_from, held_until,
               (extract(epoch FROM held_from) * 1000000000)::bigint AS from_ns,
               (extract(epoch FROM held_until) * 1000000000)::bigint AS until_ns
        FROM erasure_trace WHERE erasure_id = $1 AND kind = 'address'
    ), seer AS MATERIALIZED (
        SELECT value::integer AS sensor_id FROM erasure_trace WHERE erasure_id = $1 AND kind = 'sensor'
    )";

/// Hides the device in the rows on some pages of a partition; gives how many rows that were.
pub(super) async fn hide(
    lease: &Lease<'_>,
    erasure_id: i32,
    table: &str,
    range: &str,
) -> Result<i64, StoreError> {
    let client = lease.client();
    client.execute(locks::ALONE, &[&locks::HIDING]).await?;
    if table.starts_with(Parent::Flow.table()) {
        return Ok(client.query_one(&flows(table, range), &[&erasure_id]).await?.get(0));
    }
    // Batches lock rows of sums in the order of their keys, this takes them as they lie: not both at once.
    let seers =
        "SELECT value::integer FROM erasure_trace WHERE erasure_id = $1 AND kind = 'sensor' ORDER BY 1";
    for row in client.query(seers, &[&erasure_id]).await? {
        client.execute(locks::EXCLUSIVE, &[&locks::SENSOR, &row.get::<_, i32>(0)]).await?;
    }
    Ok(client.query_one(&sums(table, range), &[&erasure_id]).await?.get(0))
}

fn flows(table: &str, range: &str) -> String {
    let end = |end: &str, of_src: bool| {
        format!(
            "SELECT place, {of_src} AS of_src, {} AS of_dst, domain_id, {end}_process_id AS process_id
             FROM (SELECT ctid AS place, * FROM {table} WHERE {range}) AS flow JOIN held ON {end} = held.address
             WHERE sensor_id IN (SELECT sensor_id FROM seer)
               AND first_ns <= until_ns AND greatest(first_ns, last_ns) >= from_ns",
            !of_src
        )
    };
    let (source, destination) = (end("src", true), end("dst", false));
    format!(
        "WITH {HELD}, found AS (
             SELECT place, bool_or(of_src) AS of_src, bool_or(of_dst) AS of_dst, max(domain_id) AS domain_id,
                    max(process_id) FILTER (WHERE of_src) AS src_ran, max(process_id) FILTER (WHERE of_dst) AS dst_ran
             FROM ({source} UNION ALL {destination}) AS found GROUP BY place
         ), hidden AS (
             UPDATE {table} AS flow SET
                 src = CASE WHEN NOT of_src THEN src WHEN family(src) = 4 THEN '0.0.0.0' ELSE '::' END::inet,
                 dst = CASE WHEN NOT of_dst THEN dst WHEN family(dst) = 4 THEN '0.0.0.0' ELSE '::' END::inet,
                 src_country = CASE WHEN NOT of_src THEN src_country END,
                 dst_country = CASE WHEN NOT of_dst THEN dst_country END,
                 src_asn = CASE WHEN NOT of_src THEN src_asn END,
                 dst_asn = CASE WHEN NOT of_dst THEN dst_asn END,
                 src_process_id = CASE WHEN NOT of_src THEN src_process_id END,
                 dst_process_id = CASE WHEN NOT of_dst THEN dst_process_id END,
                 domain_id = NULL, name_source = NULL
             FROM found WHERE flow.ctid = found.place RETURNING found.domain_id, src_ran, dst_ran
         ), ran AS (
             INSERT INTO erasure_process (erasure_id, process_id)
             SELECT DISTINCT $1::integer, process_id FROM hidden, LATERAL (VALUES (src_ran), (dst_ran)) AS of (process_id)
             WHERE process_id IS NOT NULL ON CONFLICT DO NOTHING
         ), named AS (
             INSERT INTO erasure_domain (erasure_id, domain_id)
             SELECT DISTINCT $1::integer, domain_id FROM hidden WHERE domain_id IS NOT NULL ON CONFLICT DO NOTHING
         )
         SELECT count(*) FROM hidden"
    )
}

/// A bucket that the device had its address in for a part is hidden whole. Sums by a name that only its flows had
/// become those of names that are not told, and so do those by a process that its flows had.
fn sums(table: &str, range: &str) -> String {
    let unit = if table.starts_with(Parent::Rollup1h.table()) { "hour" } else { "minute" };
    let is = |end: &str| {
        format!(
            "EXISTS (SELECT FROM held WHERE held.address = {end} AND bucket <= held_until
                                        AND bucket + interval '1 {unit}' > held_from)"
        )
    };
    let [is_src, is_dst] = ["src", "dst"].map(is);
    format!(
        "WITH {HELD}, nameless AS MATERIALIZED (
             SELECT domain_id FROM erasure_place JOIN erasure_domain USING (erasure_id) JOIN domain USING (domain_id)
             WHERE erasure_id = $1 AND place = 'domain_search' AND last_used <= marked
         ), gone AS (
             DELETE FROM {table}
             WHERE {range}
               AND (dimension IN (1, 2, 3) AND sensor_id IN (SELECT sensor_id FROM seer) AND ({is_src} OR {is_dst})
                    OR dimension = 6 AND number IN (SELECT domain_id FROM nameless)
                    OR dimension = 9 AND sensor_id IN (SELECT sensor_id FROM seer)
                       AND number IN (SELECT process_id FROM erasure_process WHERE erasure_id = $1)
                       AND EXISTS (SELECT FROM held WHERE bucket <= held_until
                                                      AND bucket + interval '1 {unit}' > held_from))
             RETURNING *
         ), hidden AS (
             INSERT INTO {table} AS other (bucket, sensor_id, dimension, src, dst, protocol, number,
                                           flows, packets, octets, reverse_packets, reverse_octets)
             SELECT bucket, sensor_id, dimension, source, destination, protocol, named, sum(flows), sum(packets),
                    sum(octets), sum(reverse_packets), sum(reverse_octets)
             FROM gone CROSS JOIN LATERAL (SELECT
                 CASE WHEN NOT {is_src} THEN src WHEN family(src) = 4 THEN '0.0.0.0' ELSE '::' END::inet AS source,
                 CASE WHEN NOT {is_dst} THEN dst WHEN family(dst) = 4 THEN '0.0.0.0' ELSE '::' END::inet AS destination,
                 CASE WHEN dimension IN (6, 9) THEN -1 ELSE number END AS named
             ) AS hiding
             GROUP BY dimension, bucket, sensor_id, source, destination, protocol, named
             ORDER BY dimension, bucket, sensor_id, source, destination, protocol, named
             {ADD_UP}
         )
         SELECT count(*) FROM gone"
    )
}
