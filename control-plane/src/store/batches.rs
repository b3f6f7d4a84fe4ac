//! The transaction that stores a batch: all of it, once, or nothing.
//!
//! In this order: the batch's key (a repeat ends here), its observation points, its rows, the kernel's
//! totals, the rollups, the sensor's status. Rows that several batches write are locked last and in key
//! order, so locks are short and cannot form a circle.

use std::future::Future;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use tokio_postgres::types::ToSql;

use super::partitions::{Parent, Partition};
use super::{Class, Isolation, Lease, Pool, StoreError, copy, rollups};
use crate::ingest::Batch;
use crate::ingest::rollup::Row;
use jiff::Timestamp;

/// Bytes of rows that are sent at once: large enough to cost no calls, small enough that encoding the
/// next piece runs beside Postgres taking this one.
const CHUNK: usize = 128 << 10;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    New,
    /// Its key was there already; nothing changed.
    Duplicate,
    /// The sensor was revoked; nothing changed.
    Revoked,
}

/// Our clock less the sensor's, as of a request.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub skew_ms: Option<i64>,
    pub flagged: bool,
}

/// The partitions that a batch is written to.
pub fn partitions(batch: &Batch) -> Result<[Partition; 3], StoreError> {
    let start = Timestamp::from_microsecond(batch.window_start_us())
        .map_err(|error| StoreError::Unavailable(format!("window_start: {error}")))?;
    Ok(Parent::ALL.map(|parent| Partition::holding(parent, start)))
}

/// Stores the batch. `rollup` may still be in the making when the rows begin to flow.
pub async fn store(
    pool: &Pool,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
    rollup: impl Future<Output = Result<Vec<Row>, StoreError>>,
) -> Result<Stored, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Ingest, Isolation::ReadCommitted, "ingest").await?;
        let result = steps(&mut lease, sensor_id, batch, clock, rollup).await;
        lease.finish(result).await
    };
    pool.within(Class::Ingest, work).await
}

async fn steps(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
    rollup: impl Future<Output = Result<Vec<Row>, StoreError>>,
) -> Result<Stored, StoreError> {
    let batch_id = match insert_key(lease, sensor_id, batch, clock).await? {
        Ok(batch_id) => batch_id,
        Err(stored) => return Ok(stored),
    };
    let point_ids = resolve_points(lease, sensor_id, batch).await?;
    copy_flows(lease, sensor_id, batch_id, &point_ids, batch).await?;
    insert_totals(lease, sensor_id, &point_ids, batch).await?;
    rollups::add(lease, sensor_id, batch.window_start_us(), &rollup.await?).await?;
    update_status(lease, sensor_id, batch, clock).await?;
    Ok(Stored::New)
}

/// Claims the key. A concurrent transaction with the same key makes this one wait for its end.
async fn insert_key(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
) -> Result<Result<i64, Stored>, StoreError> {
    let statement = lease
        .prepared(
            "WITH sender AS (
                 SELECT sensor_id FROM sensor WHERE sensor_id = $1 AND revoked_at IS NULL FOR SHARE
             ), claimed AS (
                 INSERT INTO batch (sensor_id, generation, epoch, part, parts, window_start, window_start_ns,
                                    window_end_ns, clock_skew_ms, records, packets, octets,
                                    crossing_packets, crossing_octets)
                 SELECT sensor_id, $2, $3, $4, $5,
                        timestamptz 'epoch' + $6::bigint / 1000000 * interval '1 s'
                                            + $6::bigint % 1000000 * interval '1 us',
                        $7, $8, $9, $10, $11, $12, $13, $14
                 FROM sender
                 ON CONFLICT (sensor_id, generation, epoch, part) DO NOTHING
                 RETURNING batch_id
             )
             SELECT EXISTS (SELECT FROM sender), (SELECT batch_id FROM claimed)",
        )
        .await?;
    let records = batch.flows.len() as i32;
    let window_start_us = batch.window_start_us();
    let parameters: [&(dyn ToSql + Sync); 14] = [
        &sensor_id,
        &batch.generation,
        &batch.epoch,
        &batch.part,
        &batch.parts,
        &window_start_us,
        &batch.window_start_ns,
        &batch.window_end_ns,
        &clock.skew_ms,
        &records,
        &batch.packets,
        &batch.octets,
        &batch.crossing_packets,
        &batch.crossing_octets,
    ];
    let row = lease.client().query_one(&statement, &parameters).await?;
    let (known, batch_id): (bool, Option<i64>) = (row.get(0), row.get(1));
    Ok(match (known, batch_id) {
        (false, _) => Err(Stored::Revoked),
        (true, None) => Err(Stored::Duplicate),
        (true, Some(batch_id)) => Ok(batch_id),
    })
}

/// The dictionary's ids of the batch's points, in the batch's order; unknown ones are added.
async fn resolve_points(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
) -> Result<Vec<i32>, StoreError> {
    if batch.points.is_empty() {
        return Ok(Vec::new());
    }
    let interfaces: Vec<&str> = batch.points.iter().map(|point| point.interface.as_str()).collect();
    let directions: Vec<i16> = batch.points.iter().map(|point| point.direction).collect();
    let parameters: [&(dyn ToSql + Sync); 3] = [&sensor_id, &interfaces, &directions];
    let select = lease
        .prepared(
            "SELECT point_id FROM unnest($2::text[], $3::smallint[]) WITH ORDINALITY
                                  AS wanted (interface, direction, position)
             JOIN observation_point USING (interface, direction)
             WHERE sensor_id = $1 ORDER BY position",
        )
        .await?;
    let found = lease.client().query(&select, &parameters).await?;
    if found.len() == batch.points.len() {
        return Ok(found.iter().map(|row| row.get(0)).collect());
    }
    // Only the missing ones, so that known points do not use up numbers of the sequence.
    let insert = lease
        .prepared(
            "INSERT INTO observation_point (sensor_id, interface, direction)
             SELECT $1, interface, direction
             FROM unnest($2::text[], $3::smallint[]) AS wanted (interface, direction)
             WHERE NOT EXISTS (SELECT FROM observation_point AS known
                               WHERE known.sensor_id = $1 AND known.interface = wanted.interface
                                 AND known.direction = wanted.direction)
             ORDER BY interface, direction
             ON CONFLICT (sensor_id, interface, direction) DO NOTHING",
        )
        .await?;
    lease.client().execute(&insert, &parameters).await?;
    let found = lease.client().query(&select, &parameters).await?;
    if found.len() != batch.points.len() {
        return Err(StoreError::Unavailable("observation points vanished while they were in use".to_owned()));
    }
    Ok(found.iter().map(|row| row.get(0)).collect())
}

/// Rows go straight into the day's partition, which saves Postgres routing each of them.
async fn copy_flows(
    lease: &Lease<'_>,
    sensor_id: i32,
    batch_id: i64,
    point_ids: &[i32],
    batch: &Batch,
) -> Result<(), StoreError> {
    if batch.flows.is_empty() {
        return Ok(());
    }
    let [partition, ..] = partitions(batch)?;
    let sql = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", partition.name(), copy::COLUMNS);
    let mut sink = pin!(lease.client().copy_in::<_, Bytes>(&sql).await?);
    let common = copy::Common { sensor_id, batch_id, point_ids };
    let mut chunk = BytesMut::with_capacity(CHUNK + 1_024);
    copy::put_header(&mut chunk);
    for (ordinal, flow) in batch.flows.iter().enumerate() {
        copy::put_flow(&mut chunk, &common, batch, ordinal, flow);
        if chunk.len() >= CHUNK {
            sink.send(std::mem::replace(&mut chunk, BytesMut::with_capacity(CHUNK + 1_024)).freeze()).await?;
        }
    }
    copy::put_trailer(&mut chunk);
    sink.send(chunk.freeze()).await?;
    sink.finish().await?;
    Ok(())
}

async fn insert_totals(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    point_ids: &[i32],
    batch: &Batch,
) -> Result<(), StoreError> {
    let of: Vec<_> = batch
        .points
        .iter()
        .zip(point_ids)
        .filter_map(|(point, id)| point.totals.as_ref().map(|totals| (*id, totals)))
        .collect();
    if of.is_empty() {
        return Ok(());
    }
    let statement = lease
        .prepared(
            "INSERT INTO point_total (sensor_id, generation, epoch, window_start, point_id, frames, octets_l2,
                                      flow_packets, flow_octets, overflow, overflow_octets, non_ip,
                                      malformed, filtered, unsampled)
             SELECT $1, $2, $3,
                    timestamptz 'epoch' + $4::bigint / 1000000 * interval '1 s'
                                        + $4::bigint % 1000000 * interval '1 us', *
             FROM unnest($5::integer[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
                         $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])",
        )
        .await?;
    let ids: Vec<i32> = of.iter().map(|(id, _)| *id).collect();
    let column = |value: fn(&weir_wire::Totals) -> u64| -> Vec<i64> {
        of.iter().map(|(_, totals)| value(totals) as i64).collect()
    };
    let window_start_us = batch.window_start_us();
    let columns: [Vec<i64>; 10] = [
        column(|totals| totals.frames),
        column(|totals| totals.octets_l2),
        column(|totals| totals.flow_packets),
        column(|totals| totals.flow_octets),
        column(|totals| totals.overflow),
        column(|totals| totals.overflow_octets),
        column(|totals| totals.non_ip),
        column(|totals| totals.malformed),
        column(|totals| totals.filtered),
        column(|totals| totals.unsampled),
    ];
    let mut parameters: Vec<&(dyn ToSql + Sync)> =
        vec![&sensor_id, &batch.generation, &batch.epoch, &window_start_us, &ids];
    parameters.extend(columns.iter().map(|column| column as &(dyn ToSql + Sync)));
    lease.client().execute(&statement, &parameters).await?;
    Ok(())
}

async fn update_status(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
) -> Result<(), StoreError> {
    let statement = lease
        .prepared(
            "INSERT INTO sensor_status AS status
                    (sensor_id, last_seen_at, last_window_end, clock_skew_ms, clock_flagged, batches, records)
             VALUES ($1, clock_timestamp(), to_timestamp($2::bigint / 1000000000.0), $3, $4, 1, $5)
             ON CONFLICT (sensor_id) DO UPDATE SET
                 last_seen_at = greatest(status.last_seen_at, EXCLUDED.last_seen_at),
                 last_window_end = greatest(status.last_window_end, EXCLUDED.last_window_end),
                 clock_skew_ms = coalesce(EXCLUDED.clock_skew_ms, status.clock_skew_ms),
                 clock_flagged = CASE WHEN EXCLUDED.clock_skew_ms IS NULL THEN status.clock_flagged
                                      ELSE EXCLUDED.clock_flagged END,
                 batches = status.batches + 1,
                 records = status.records + EXCLUDED.records",
        )
        .await?;
    let records = batch.flows.len() as i64;
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&sensor_id, &batch.window_end_ns, &clock.skew_ms, &clock.flagged, &records];
    lease.client().execute(&statement, &parameters).await?;
    Ok(())
}
