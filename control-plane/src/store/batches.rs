//! The transaction that stores a batch: all of it, once, or nothing.
//!
//! In this order: the dictionary's edition, the sensor's lock, the batch's key (a repeat ends here), its observation
//! points, its rows, the kernel's totals, the rollups, the detections, the devices, the sensor's status, the events.
//! Rows that several batches write are locked last and in key order, so locks are short and cannot form a circle.

use std::future::Future;
use std::pin::pin;

use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use serde_json::json;
use tokio_postgres::types::ToSql;

use super::dictionary::{self, Numbers};
use super::events::{self, NewEvent, Topic};
use super::partitions::{Parent, Partition};
use super::{Class, Isolation, Lease, Pool, StoreError, copy, detections, devices, locks, rollups};
use crate::ingest::rollup::Row;
use crate::ingest::{Batch, Reason};
use jiff::Timestamp;

/// Bytes of rows that are sent at once: large enough to cost no calls, small enough that encoding the
/// next piece runs beside Postgres taking this one.
const CHUNK: usize = 128 << 10;

/// Two days: a window may be a day ahead.
const MAX_CORRECTION_MS: f64 = 172_800_000.0;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    New {
        /// Of devices that were erased before they were told.
        clipped_facts: u64,
    },
    /// Its key was there already; nothing changed. Why its flows are not stored, where they are not.
    Duplicate(Option<Reason>),
    /// The sensor was revoked; nothing changed.
    Revoked,
    /// The sensor was deleted; nothing changed.
    Gone,
    /// Devices were erased that the batch may be about; nothing changed.
    Erased,
    /// The names' numbers are of an older edition of the dictionary; nothing changed.
    Outdated,
}

/// What a request says of its sensor's clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Our clock less the sensor's, where the sensor told its own.
    pub skew_ms: Option<i64>,
    /// Whether that is beyond what is tolerated.
    pub off: Option<bool>,
    /// Whether the batch's times are in doubt.
    pub flagged: bool,
}

/// The partitions that a batch is written to.
pub fn partitions(batch: &Batch) -> Result<[Partition; 3], StoreError> {
    let start = Timestamp::from_microsecond(batch.window_start_us())
        .map_err(|error| StoreError::Unavailable(format!("window_start: {error}")))?;
    Ok(Parent::ALL.map(|parent| Partition::holding(parent, start)))
}

/// Stores the batch. `numbers` are of its names and processes; `rollup` may still be in the making when the rows
/// begin to flow.
pub async fn store(
    pool: &Pool,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
    numbers: &Numbers,
    rollup: impl Future<Output = Result<Vec<Row>, StoreError>>,
) -> Result<Stored, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Ingest, Isolation::ReadCommitted, "ingest").await?;
        let result = steps(&mut lease, sensor_id, batch, clock, numbers, rollup).await;
        lease.finish(result).await
    };
    pool.within(Class::Ingest, work).await
}

async fn steps(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
    numbers: &Numbers,
    rollup: impl Future<Output = Result<Vec<Row>, StoreError>>,
) -> Result<Stored, StoreError> {
    if !dictionary::is_current(lease, numbers).await? {
        return Ok(Stored::Outdated);
    }
    let batch_id = match insert_key(lease, sensor_id, batch, clock).await? {
        Ok(batch_id) => batch_id,
        Err(stored) => return Ok(stored),
    };
    let point_ids = resolve_points(lease, sensor_id, batch).await?;
    let common = copy::Common { sensor_id, batch_id, point_ids: &point_ids, numbers };
    copy_flows(lease, &common, batch).await?;
    insert_totals(lease, sensor_id, &point_ids, batch).await?;
    rollups::add(lease, sensor_id, batch.window_start_us(), &rollup.await?).await?;
    let opened = detections::add(lease, sensor_id, batch).await?;
    let (devices, clipped_facts) = devices::add(lease, sensor_id, batch).await?;
    update_status(lease, sensor_id, batch, clock).await?;
    for event in opened.iter().chain(&devices) {
        events::append_quietly(lease, event).await?;
    }
    events::append_quietly(lease, &event(sensor_id, batch)).await?;
    Ok(Stored::New { clipped_facts })
}

/// What followers learn of a batch: that it is there, or what was lost of it.
fn event(sensor_id: i32, batch: &Batch) -> NewEvent {
    let time = |ns: i64| {
        let at = Timestamp::from_nanosecond(i128::from(ns));
        at.map_or_else(|_| ns.to_string(), |at| format!("{at:.9}"))
    };
    let mut body = json!({
        "generation": batch.generation,
        "epoch": batch.epoch,
        "part": batch.part,
        "parts": batch.parts,
        "window_start": time(batch.base_ns()),
        "window_end": time(batch.ended_ns()),
    });
    let (topic, kind, counts) = match &batch.dropped {
        None => (Topic::Flows, "flows.stored", [batch.flows.len() as i64, batch.packets, batch.octets]),
        Some(dropped) => {
            body["reason"] = dropped.reason.name().into();
            (Topic::Ledger, "ledger.dropped", [dropped.records, dropped.packets, dropped.octets])
        }
    };
    for (name, count) in ["flows", "packets", "octets"].into_iter().zip(counts) {
        body[name] = count.into();
    }
    NewEvent { topic, kind, sensor_id: Some(sensor_id), body }
}

/// Claims the key. A concurrent transaction with the same key makes this one wait for its end.
async fn insert_key(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
) -> Result<Result<i64, Stored>, StoreError> {
    let lock = lease.prepared(locks::SHARED).await?;
    let statement = lease
        .prepared(
            "WITH sender AS (
                 SELECT sensor_id FROM sensor
                 WHERE sensor_id = $1 AND revoked_at IS NULL AND deleted_at IS NULL
                   AND NOT EXISTS (SELECT FROM device_tombstone
                                   WHERE scope = coalesce(site, '#' || sensor_id) AND tombstone_id > $22
                                     AND held_until >= timestamptz 'epoch'
                                                       + ($6::bigint - 300000000) * interval '1 us')
                 FOR SHARE
             ), claimed AS (
                 INSERT INTO batch (sensor_id, generation, epoch, part, parts, window_start, window_start_ns,
                                    window_end_ns, clock_skew_ms, records, packets, octets,
                                    crossing_packets, crossing_octets, dropped_reason, dropped_records,
                                    dropped_packets, dropped_octets, clock_shift_ns, clock_flagged,
                                    clock_step_ns)
                 SELECT sensor_id, $2, $3, $4, $5,
                        timestamptz 'epoch' + $6::bigint / 1000000 * interval '1 s'
                                            + $6::bigint % 1000000 * interval '1 us',
                        $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21
                 FROM sender
                 ON CONFLICT (sensor_id, generation, epoch, part) DO NOTHING
                 RETURNING batch_id
             )
             SELECT EXISTS (SELECT FROM sender), (SELECT batch_id FROM claimed)",
        )
        .await?;
    let records = batch.flows.len() as i32;
    let window_start_us = batch.window_start_us();
    let dropped_reason = batch.dropped.map(|dropped| dropped.reason.code());
    let dropped = batch.dropped.map_or([0; 3], |it| [it.records, it.packets, it.octets]);
    let parameters: [&(dyn ToSql + Sync); 22] = [
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
        &dropped_reason,
        &dropped[0],
        &dropped[1],
        &dropped[2],
        &batch.placement.shift_ns,
        &clock.flagged,
        &batch.clock_step_ns,
        &batch.clipped.edition,
    ];
    let client = lease.client();
    let key: [&(dyn ToSql + Sync); 2] = [&locks::SENSOR, &sensor_id];
    // Sent together, run one after the other: the second sees what was committed while the first waited.
    let (_, row) = tokio::try_join!(client.execute(&lock, &key), client.query_one(&statement, &parameters),)?;
    match (row.get(0), row.get(1)) {
        (true, Some(batch_id)) => Ok(Ok(batch_id)),
        (true, None) => Ok(Err(Stored::Duplicate(stored_reason(lease, sensor_id, batch).await?))),
        (false, _) => Ok(Err(refusal(lease, sensor_id).await?)),
    }
}

/// Why the flows of a batch that is there are not stored. A statement of its own, since the one that found
/// the key taken may have begun before the key's transaction ended.
async fn stored_reason(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
) -> Result<Option<Reason>, StoreError> {
    let statement = lease
        .prepared(
            "SELECT dropped_reason FROM batch
             WHERE sensor_id = $1 AND generation = $2 AND epoch = $3 AND part = $4",
        )
        .await?;
    let parameters: [&(dyn ToSql + Sync); 4] = [&sensor_id, &batch.generation, &batch.epoch, &batch.part];
    let row = lease.client().query_opt(&statement, &parameters).await?;
    // No row: retention took it just now, flows and all.
    let code: Option<i16> = row.map_or(Some(Reason::Expired.code()), |row| row.get(0));
    Ok(code.and_then(Reason::from_code))
}

/// Why nothing of the sensor is taken.
async fn refusal(lease: &mut Lease<'_>, sensor_id: i32) -> Result<Stored, StoreError> {
    let sql = "SELECT revoked_at IS NOT NULL FROM sensor WHERE sensor_id = $1 AND deleted_at IS NULL";
    let statement = lease.prepared(sql).await?;
    let there = lease.client().query_opt(&statement, &[&sensor_id]).await?;
    Ok(match there.map(|row| row.get(0)) {
        None => Stored::Gone,
        Some(true) => Stored::Revoked,
        Some(false) => Stored::Erased,
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
async fn copy_flows(lease: &Lease<'_>, common: &copy::Common<'_>, batch: &Batch) -> Result<(), StoreError> {
    if batch.flows.is_empty() {
        return Ok(());
    }
    let [partition, ..] = partitions(batch)?;
    let sql = format!("COPY {} ({}) FROM STDIN (FORMAT binary)", partition.name(), copy::COLUMNS);
    let mut sink = pin!(lease.client().copy_in::<Bytes>(&sql).await?);
    let mut chunk = BytesMut::with_capacity(CHUNK + 1_024);
    copy::put_header(&mut chunk);
    for (ordinal, flow) in batch.flows.iter().enumerate() {
        copy::put_flow(&mut chunk, common, batch, ordinal, flow);
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

/// What is older than what was told before changes nothing: batches come out of order.
async fn update_status(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
    clock: Clock,
) -> Result<(), StoreError> {
    let statement = lease
        .prepared(
            "INSERT INTO sensor_status AS status
                    (sensor_id, last_seen_at, last_window_end, clock_skew_ms, clock_flagged, batches, records,
                     clock_steps, clock_step_ns, clock_stepped_at)
             VALUES ($1, clock_timestamp(), to_timestamp($2::bigint / 1000000000.0), $3, coalesce($4, false), 1,
                     $5, ($6::bigint IS NOT NULL)::integer, $6,
                     CASE WHEN $6 IS NOT NULL THEN clock_timestamp() END)
             ON CONFLICT (sensor_id) DO UPDATE SET
                 last_seen_at = greatest(status.last_seen_at, EXCLUDED.last_seen_at),
                 last_window_end = greatest(status.last_window_end, EXCLUDED.last_window_end),
                 clock_skew_ms = coalesce(EXCLUDED.clock_skew_ms, status.clock_skew_ms),
                 clock_flagged = coalesce($4, status.clock_flagged),
                 batches = status.batches + 1,
                 records = status.records + EXCLUDED.records,
                 clock_steps = status.clock_steps + EXCLUDED.clock_steps,
                 clock_step_ns = coalesce(EXCLUDED.clock_step_ns, status.clock_step_ns),
                 clock_stepped_at = coalesce(EXCLUDED.clock_stepped_at, status.clock_stepped_at)",
        )
        .await?;
    let records = batch.flows.len() as i64;
    // Without the sensor's own clock, a window that cannot be true is what is known of it.
    let off = clock.off.or((batch.placement.shift_ns != 0).then_some(true));
    let step_ns = (batch.clock_step_ns != 0).then_some(batch.clock_step_ns);
    let ended_ns = batch.ended_ns();
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&sensor_id, &ended_ns, &clock.skew_ms, &off, &records, &step_ns];
    lease.client().execute(&statement, &parameters).await?;
    let Some(spool) = &batch.spool else { return Ok(()) };
    let statement = lease
        .prepared(
            // The epoch's end by our clock, and no later than now: a clock that was ahead must not keep what
            // comes after it from being taken.
            "WITH told AS (
                 SELECT least(to_timestamp($2::bigint / 1000000000.0)
                                  + CASE WHEN $10 THEN $3::float8 ELSE 0 END * interval '1 ms',
                              clock_timestamp()) AS at
             )
             UPDATE sensor_status SET
                 spool_at = told.at, spool_batches = $4, spool_bytes = $5, spool_capacity_bytes = $6,
                 spool_oldest_age_ms = $7, spool_quarantined_batches = $8, spool_quarantined_packets = $9,
                 spool_degraded = $11
             FROM told WHERE sensor_id = $1 AND (spool_at IS NULL OR spool_at <= told.at)",
        )
        .await?;
    // A skew that is not believable as a time does not correct one.
    let skew_ms = clock.skew_ms.unwrap_or_default() as f64;
    let correct = batch.placement.shift_ns == 0 && skew_ms.abs() < MAX_CORRECTION_MS;
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &sensor_id,
        &ended_ns,
        &skew_ms,
        &spool.batches,
        &spool.bytes,
        &spool.capacity_bytes,
        &spool.oldest_age_ms,
        &spool.quarantined_batches,
        &spool.quarantined_packets,
        &correct,
        &spool.degraded,
    ];
    lease.client().execute(&statement, &parameters).await?;
    Ok(())
}
