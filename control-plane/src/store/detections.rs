//! Detections: added to by batches, judged by people, forgotten in time.
//!
//! One is open for each sensor, kind and subject, whatever people said of it. What a batch says is an
//! addition, stored in the batch's transaction: each counts once, in whatever order batches come. One that
//! was silent for [`RENEWAL_HOURS`] before its next sighting is ended, and a new one is opened, so that what
//! was acknowledged last week is news when it happens again; what was dismissed stays dismissed.

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use weir_wire::Severity;

use super::audit::{self, Author, Change};
use super::events::{self, NewEvent, Topic};
use super::{Class, Isolation, Lease, Pool, Reference, StoreError};
use crate::ingest::{Batch, Detection as Sighting};

/// Silence after which what comes again is another detection.
const RENEWAL_HOURS: i32 = 24;
/// Rows deleted in one transaction.
const CHUNK: i64 = 20_000;

/// What somebody said of a detection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    Acknowledged,
    Dismissed,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Active, Self::Acknowledged, Self::Dismissed];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Dismissed => "dismissed",
        }
    }

    /// The change that leads to it.
    fn action(self) -> &'static str {
        match self {
            Self::Active => "detection.reopen",
            Self::Acknowledged => "detection.acknowledge",
            Self::Dismissed => "detection.dismiss",
        }
    }
}

/// A detection as it stands.
#[derive(Clone, Debug)]
pub struct Detection {
    pub detection_id: i64,
    pub sensor_id: i32,
    pub sensor: String,
    pub kind: String,
    pub severity: i16,
    pub subject: String,
    pub address: Option<IpAddr>,
    pub technique: String,
    pub source: String,
    pub first_seen: SystemTime,
    pub last_seen: SystemTime,
    pub count: i64,
    pub evidence: Value,
    pub state: String,
    pub state_at: Option<SystemTime>,
    pub state_by: Option<String>,
    pub reason: Option<String>,
    pub ended_at: Option<SystemTime>,
}

/// Which detections.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub state: Option<State>,
    /// At least.
    pub severity: Option<Severity>,
    pub kind: Option<String>,
    pub sensor: Option<Reference>,
    /// Exactly.
    pub subject: Option<String>,
    /// Of which the subject's address is, as text that Postgres reads.
    pub network: Option<String>,
    /// Seen at or after this time.
    pub from: Option<SystemTime>,
    /// First seen before this time.
    pub to: Option<SystemTime>,
}

const COLUMNS: &str = "detection_id, detection.sensor_id, sensor.name, kind, severity, subject, address,
    technique, source, first_seen, last_seen, count, evidence::text, state, state_at, state_by, reason,
    ended_at";

/// Adds what a batch says, in the batch's transaction; the detections that it opened.
///
/// Rows are locked in the order of their keys, so batches of one sensor cannot wait in a circle.
pub(super) async fn add(
    lease: &mut Lease<'_>,
    sensor_id: i32,
    batch: &Batch,
) -> Result<Vec<NewEvent>, StoreError> {
    let detections = &batch.detections;
    if detections.is_empty() {
        return Ok(Vec::new());
    }
    let end = lease
        .prepared(
            "WITH told AS (
                 SELECT * FROM unnest($2::text[], $3::text[], $4::bigint[]) AS told (kind, subject, first_us)
             ), silent AS (
                 SELECT detection_id FROM detection JOIN told USING (kind, subject)
                 WHERE sensor_id = $1 AND ended_at IS NULL AND state <> 'dismissed'
                   AND timestamptz 'epoch' + first_us * interval '1 us'
                       > last_seen + $5::integer * interval '1 hour'
                 ORDER BY kind, subject FOR UPDATE OF detection
             )
             UPDATE detection SET ended_at = last_seen
             WHERE sensor_id = $1 AND detection_id IN (SELECT detection_id FROM silent)",
        )
        .await?;
    let add = lease
        .prepared(
            "INSERT INTO detection (sensor_id, kind, severity, subject, address, technique, source,
                                    first_seen, last_seen, count, evidence)
             SELECT $1, kind, severity, subject, address::inet, technique, source,
                    timestamptz 'epoch' + first_us * interval '1 us',
                    timestamptz 'epoch' + last_us * interval '1 us', count, evidence::jsonb
             FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::smallint[], $7::text[],
                         $8::text[], $9::text[], $10::bigint[], $11::text[])
                  AS told (kind, subject, first_us, last_us, severity, address, technique, source, count,
                           evidence)
             ORDER BY kind, subject
             ON CONFLICT (sensor_id, kind, subject) WHERE ended_at IS NULL DO UPDATE SET
                 severity = greatest(detection.severity, EXCLUDED.severity),
                 first_seen = least(detection.first_seen, EXCLUDED.first_seen),
                 last_seen = greatest(detection.last_seen, EXCLUDED.last_seen),
                 count = least(detection.count::numeric + EXCLUDED.count, 9223372036854775807)::bigint,
                 evidence = detection.evidence || EXCLUDED.evidence
             RETURNING detection_id, kind, severity, subject, xmax = 0",
        )
        .await?;
    let text = |of: fn(&Sighting) -> &str| -> Vec<&str> { detections.iter().map(of).collect() };
    let time = |of: fn(&Sighting) -> i64| -> Vec<i64> {
        detections.iter().map(|it| batch.base_ns().saturating_add(of(it)).div_euclid(1_000)).collect()
    };
    let (kinds, subjects) = (text(|it| &it.kind), text(|it| &it.subject));
    let (first, last) = (time(|it| it.first_ns), time(|it| it.last_ns));
    let severities: Vec<i16> = detections.iter().map(|it| it.severity as i16).collect();
    let addresses: Vec<Option<String>> =
        detections.iter().map(|it| it.address.map(|address| address.to_string())).collect();
    let (techniques, sources) = (text(|it| &it.technique), text(|it| &it.source));
    let counts: Vec<i64> = detections.iter().map(|it| it.count).collect();
    let evidence: Vec<String> =
        detections.iter().map(|it| Value::Object(it.evidence.clone()).to_string()).collect();
    let client = lease.client();
    client.execute(&end, &[&sensor_id, &kinds, &subjects, &first, &RENEWAL_HOURS]).await?;
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &sensor_id,
        &kinds,
        &subjects,
        &first,
        &last,
        &severities,
        &addresses,
        &techniques,
        &sources,
        &counts,
        &evidence,
    ];
    let rows = client.query(&add, &parameters).await?;
    Ok(rows.iter().filter(|row| row.get(4)).map(|row| opened(sensor_id, row)).collect())
}

fn opened(sensor_id: i32, row: &Row) -> NewEvent {
    let body = json!({
        "id": row.get::<_, i64>(0),
        "kind": row.get::<_, &str>(1),
        "severity": severity(row.get(2)),
        "subject": row.get::<_, &str>(3),
        "state": State::Active.name(),
    });
    NewEvent { topic: Topic::Detections, kind: "detection.open", sensor_id: Some(sensor_id), body }
}

/// The word for a stored severity.
#[must_use]
pub fn severity(stored: i16) -> &'static str {
    Severity::try_from(i32::from(stored)).map_or("unknown", Severity::word)
}

/// Detections older than `before`, newest first, at most `limit`.
pub async fn list(
    pool: &Pool,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Detection>, StoreError> {
    let (sensor_id, sensor) = filter.sensor.as_ref().map_or((None, None), Reference::parts);
    let state = filter.state.map(State::name);
    let least = filter.severity.map(|severity| severity as i16);
    let sql = format!(
        "SELECT {COLUMNS} FROM detection JOIN sensor USING (sensor_id)
         WHERE ($1::bigint IS NULL OR detection_id < $1)
           AND ($2::text IS NULL OR state = $2)
           AND ($3::smallint IS NULL OR severity >= $3)
           AND ($4::text IS NULL OR kind = $4)
           AND ($5::integer IS NULL OR sensor_id = $5)
           AND ($6::text IS NULL OR sensor.name = $6)
           AND ($7::text IS NULL OR subject = $7)
           AND ($8::text IS NULL OR address <<= $8::text::inet)
           AND ($9::timestamptz IS NULL OR last_seen >= $9)
           AND ($10::timestamptz IS NULL OR first_seen < $10)
         ORDER BY detection_id DESC LIMIT $11"
    );
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "detection_list").await?;
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &before,
            &state,
            &least,
            &filter.kind,
            &sensor_id,
            &sensor,
            &filter.subject,
            &filter.network,
            &filter.from,
            &filter.to,
            &limit,
        ];
        let result = lease.client().query(&sql, &parameters).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Query, work).await?.iter().map(detection).collect())
}

/// One detection.
pub async fn get(pool: &Pool, detection_id: i64) -> Result<Option<Detection>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "detection_get").await?;
        let result = find(&lease, detection_id).await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

async fn find(lease: &Lease<'_>, detection_id: i64) -> Result<Option<Detection>, StoreError> {
    let sql =
        format!("SELECT {COLUMNS} FROM detection JOIN sensor USING (sensor_id) WHERE detection_id = $1");
    Ok(lease.client().query_opt(&sql, &[&detection_id]).await?.as_ref().map(detection))
}

/// Judges a detection; `None` if there is none. To say again what was said changes nothing.
pub async fn judge(
    pool: &Pool,
    author: &Author,
    detection_id: i64,
    state: State,
    reason: Option<&str>,
) -> Result<Option<Detection>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "detection_judge").await?;
        let result = change(&lease, author, detection_id, state, reason).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn change(
    lease: &Lease<'_>,
    author: &Author,
    detection_id: i64,
    state: State,
    reason: Option<&str>,
) -> Result<Option<Detection>, StoreError> {
    let client = lease.client();
    client.execute("SELECT FROM detection WHERE detection_id = $1 FOR UPDATE", &[&detection_id]).await?;
    let Some(old) = find(lease, detection_id).await? else { return Ok(None) };
    if old.state == state.name() && old.reason.as_deref() == reason {
        return Ok(Some(old));
    }
    let sql = "UPDATE detection SET state = $3, reason = $4, state_by = $5, state_at = clock_timestamp()
               WHERE sensor_id = $1 AND detection_id = $2";
    client.execute(sql, &[&old.sensor_id, &detection_id, &state.name(), &reason, &author.name]).await?;
    let Some(new) = find(lease, detection_id).await? else { return Ok(None) };
    let shown = |it: &Detection| json!({"state": it.state, "reason": it.reason});
    let change = Change {
        action: state.action(),
        subject_kind: "detection",
        subject_id: Some(detection_id.to_string()),
        subject_name: Some(format!("{} {}", new.kind, new.subject)),
        before: Some(shown(&old)),
        after: Some(shown(&new)),
    };
    audit::record(lease, author, &change).await?;
    let body = json!({
        "id": detection_id,
        "kind": new.kind,
        "severity": severity(new.severity),
        "subject": new.subject,
        "state": new.state,
    });
    let sensor_id = Some(new.sensor_id);
    events::append(lease, &NewEvent { topic: Topic::Detections, kind: state.action(), sensor_id, body })
        .await?;
    Ok(Some(new))
}

/// Deletes detections that were last seen before a time; gives how many went.
pub async fn delete_before(pool: &Pool, before: Timestamp) -> Result<u64, StoreError> {
    let before = SystemTime::from(before);
    let sql = "DELETE FROM detection WHERE ctid = ANY (ARRAY(
                   SELECT ctid FROM detection WHERE last_seen < $1 LIMIT $2))";
    let mut deleted = 0;
    loop {
        let work = async {
            let lease =
                pool.begin(Class::Maintenance, Isolation::ReadCommitted, "detection_retention").await?;
            let result = lease.client().execute(sql, &[&before, &CHUNK]).await.map_err(StoreError::from);
            lease.finish(result).await
        };
        let rows = pool.within(Class::Maintenance, work).await?;
        deleted += rows;
        if rows.cast_signed() < CHUNK {
            return Ok(deleted);
        }
    }
}

fn detection(row: &Row) -> Detection {
    Detection {
        detection_id: row.get(0),
        sensor_id: row.get(1),
        sensor: row.get(2),
        kind: row.get(3),
        severity: row.get(4),
        subject: row.get(5),
        address: row.get(6),
        technique: row.get(7),
        source: row.get(8),
        first_seen: row.get(9),
        last_seen: row.get(10),
        count: row.get(11),
        evidence: serde_json::from_str(row.get(12)).unwrap_or(Value::Null),
        state: row.get(13),
        state_at: row.get(14),
        state_by: row.get(15),
        reason: row.get(16),
        ended_at: row.get(17),
    }
}
