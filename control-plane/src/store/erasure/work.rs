//! The work of an erasure: step after step, each a transaction that also writes down what went and how far it is.
//!
//! A step begins with its place's row locked and reads from it where to go on. So it makes no difference who does
//! the next one, whether the last one was cut off, or whether two are at it.

use tokio_postgres::types::ToSql;

use super::Kind;
use super::begin::GIVEN;
use super::places::{self, CHUNK, Place, Step};
use super::receipt::{self, Erasure};
use super::{device, domains};
use crate::store::events::{self, NewEvent, Topic};
use crate::store::partitions::{Parent, Partition, present};
use crate::store::{Class, Isolation, Lease, Pool, StoreError, devices};

/// Pages of a partition that one step looks through: 64 MB.
const PAGES: i64 = 8_192;

/// An erasure to work on.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub erasure_id: i32,
    pub kind: Kind,
    subject_id: i64,
    name: String,
}

/// Where a place stands; its row is locked.
struct Standing {
    reached: i64,
    partition: Option<String>,
}

/// What a step did.
#[derive(Clone, Debug, Default)]
struct Stepped {
    rows: i64,
    reached: i64,
    partition: Option<String>,
    done: bool,
}

/// Erasures that are not done, in the order in which they were begun.
pub async fn open(pool: &Pool) -> Result<Vec<i32>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::Snapshot, "erasures_open").await?;
        let sql = "SELECT erasure_id FROM erasure WHERE done_at IS NULL ORDER BY erasure_id";
        let result = lease.client().query(sql, &[]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Maintenance, work).await?.iter().map(|row| row.get(0)).collect())
}

/// Erases what is left; gives the receipt. `None` if it was done before, or is of a kind that only a newer version
/// knows.
pub async fn work(pool: &Pool, erasure_id: i32) -> Result<Option<Erasure>, StoreError> {
    let Some(task) = task(pool, erasure_id).await? else { return Ok(None) };
    for place in places::of(task.kind) {
        match place.step {
            Step::Pages(parent) => through(pool, &task, place, &[parent]).await?,
            Step::Search => {
                step(pool, &task, place, Act::Mark).await?;
                // Of a device, the sums by name fall to its rollups' places.
                let parents = if task.kind == Kind::Device { &[Parent::Flow][..] } else { &Parent::ALL };
                through(pool, &task, place, parents).await?;
            }
            Step::AtOnce(_) | Step::Repeat(_) | Step::Walk { .. } | Step::Devices => {
                while !step(pool, &task, place, Act::Rows).await? {}
            }
        }
    }
    finish(pool, &task).await
}

/// The task, with a row for each place: one that was begun by an older version has fewer.
async fn task(pool: &Pool, erasure_id: i32) -> Result<Option<Task>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "erasure_task").await?;
        let result = async {
            let sql = "SELECT kind, subject_id, name FROM erasure WHERE erasure_id = $1 AND done_at IS NULL";
            let Some(row) = lease.client().query_opt(sql, &[&erasure_id]).await? else { return Ok(None) };
            let Some(kind) = Kind::stored(row.get(0)) else { return Ok(None) };
            let (names, positions): (Vec<&str>, Vec<i32>) =
                places::of(kind).iter().zip(0..).map(|(place, position)| (place.name, position)).unzip();
            let sql = "INSERT INTO erasure_place (erasure_id, place, position)
                       SELECT $1::integer, place, position FROM unnest($2::text[], $3::integer[]) AS new (place, position)
                       ON CONFLICT (erasure_id, place) DO NOTHING";
            lease.client().execute(sql, &[&erasure_id, &names, &positions]).await?;
            let name: Option<String> = row.get(2);
            Ok(Some(Task { erasure_id, kind, subject_id: row.get(1), name: name.unwrap_or_default() }))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}

/// What a step is about.
#[derive(Clone, Copy)]
enum Act<'a> {
    /// The place's statement.
    Rows,
    /// The beginning of a search for names.
    Mark,
    /// The next pages of these tables, in order of their names.
    Pages(&'a [String]),
}

/// One step of a place; `true` once the place is done.
async fn step(pool: &Pool, task: &Task, place: &Place, act: Act<'_>) -> Result<bool, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "erasure_step").await?;
        let result = stepped(&mut lease, task, place, act).await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}

async fn stepped(
    lease: &mut Lease<'_>,
    task: &Task,
    place: &Place,
    act: Act<'_>,
) -> Result<bool, StoreError> {
    let sql = "SELECT reached, partition FROM erasure_place
               WHERE erasure_id = $1 AND place = $2 AND done_at IS NULL FOR UPDATE";
    let Some(row) = lease.client().query_opt(sql, &[&task.erasure_id, &place.name]).await? else {
        return Ok(true);
    };
    if let Some(first) = place.first {
        lease.client().batch_execute(first).await?;
    }
    let standing = Standing { reached: row.get(0), partition: row.get(1) };
    let Stepped { rows, reached, partition, done } = match act {
        Act::Rows => rows(lease, task, place, &standing).await?,
        Act::Mark => {
            domains::mark(lease, task, place).await?;
            let Standing { reached, partition } = standing;
            Stepped { rows: 0, reached, partition, done: false }
        }
        Act::Pages(tables) => pages(lease, task, place, tables, standing).await?,
    };
    let sql = "UPDATE erasure_place SET erased = erased + $3, reached = $4, partition = $5,
                                        done_at = CASE WHEN $6 THEN clock_timestamp() END
               WHERE erasure_id = $1 AND place = $2";
    let values: [&(dyn ToSql + Sync); 6] =
        [&task.erasure_id, &place.name, &rows, &reached, &partition, &done];
    lease.client().execute(sql, &values).await?;
    Ok(done)
}

async fn run(lease: &Lease<'_>, task: &Task, sql: &str, from: i64, to: i64) -> Result<i64, StoreError> {
    let (sql, alias) = (format!("{GIVEN}{sql}"), task.kind.alias(task.subject_id));
    let values: [&(dyn ToSql + Sync); 5] = [&task.subject_id, &task.name, &alias, &from, &to];
    Ok(lease.client().execute(&sql, &values).await?.cast_signed())
}

/// A step of a place that is erased by a statement.
async fn rows(
    lease: &mut Lease<'_>,
    task: &Task,
    place: &Place,
    standing: &Standing,
) -> Result<Stepped, StoreError> {
    match place.step {
        Step::AtOnce(sql) => {
            let rows = run(lease, task, sql, 0, 0).await?;
            Ok(Stepped { rows, done: true, ..Stepped::default() })
        }
        Step::Repeat(sql) => {
            let rows = run(lease, task, sql, 0, 0).await?;
            Ok(Stepped { rows, done: rows < CHUNK, ..Stepped::default() })
        }
        Step::Walk { bounds, range } => {
            let row = lease.client().query_one(bounds, &[]).await?;
            let (first, last): (i64, i64) = (row.get(0), row.get(1));
            let from = standing.reached.max(first);
            let to = last.min(from.saturating_add(CHUNK));
            let rows = if from < to { run(lease, task, range, from, to).await? } else { 0 };
            Ok(Stepped { rows, reached: to.max(from), done: to >= last, ..Stepped::default() })
        }
        Step::Devices => {
            let sensor_id = i32::try_from(task.subject_id).unwrap_or(-1);
            let facts = devices::forget_sensor(lease, sensor_id).await?;
            Ok(Stepped {
                rows: facts.unwrap_or_default().cast_signed(),
                done: facts.is_none(),
                ..Stepped::default()
            })
        }
        Step::Pages(_) | Step::Search => Ok(Stepped { done: true, ..Stepped::default() }),
    }
}

/// Goes through all partitions of some tables, in order of their names, some pages at a time. Nothing of the
/// subject comes to a page that was passed: what is in flight ended when the erasure began.
async fn through(pool: &Pool, task: &Task, place: &Place, parents: &[Parent]) -> Result<(), StoreError> {
    loop {
        let mut tables = Vec::new();
        for &parent in parents {
            tables.extend(present(pool, parent).await?.iter().map(Partition::name));
        }
        tables.sort_unstable();
        match step(pool, task, place, Act::Pages(&tables)).await {
            Ok(true) => return Ok(()),
            // Retention dropped it after the look: it is not there the next time.
            Ok(false) | Err(StoreError::MissingPartition(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

async fn pages(
    lease: &Lease<'_>,
    task: &Task,
    place: &Place,
    tables: &[String],
    Standing { reached, partition }: Standing,
) -> Result<Stepped, StoreError> {
    let ahead = tables.iter().map(String::as_str).filter(|name| match partition.as_deref() {
        // Below zero: to its end.
        Some(at) if reached < 0 => *name > at,
        Some(at) => *name >= at,
        None => true,
    });
    // Most of a new database's partitions are empty, and nothing of the subject comes to them any more.
    let sql = "SELECT name, pg_relation_size(to_regclass(name)) / current_setting('block_size')::bigint
               FROM unnest($1::text[]) WITH ORDINALITY AS ahead (name, position)
               WHERE pg_relation_size(to_regclass(name)) > 0 ORDER BY position LIMIT 1";
    let Some(row) = lease.client().query_opt(sql, &[&ahead.collect::<Vec<_>>()]).await? else {
        return Ok(Stepped { reached, partition, done: true, rows: 0 });
    };
    let (table, size): (&str, i64) = (row.get(0), row.get(1));
    let from = if partition.as_deref() == Some(table) { reached.max(0) } else { 0 };
    let to = from.saturating_add(PAGES);
    let range = format!("ctid >= '({from},0)'::tid AND ctid < '({to},0)'::tid");
    let rows = match place.step {
        _ if from >= size => 0,
        Step::Search => domains::found(lease, task, place, table, &range).await?,
        _ if task.kind == Kind::Device => device::hide(lease, task.erasure_id, table, &range).await?,
        _ => delete(lease, task, table, &range).await?,
    };
    let reached = if to < size { to } else { -1 };
    Ok(Stepped { rows, reached, partition: Some(table.to_owned()), done: false })
}

/// The sensor's rows on some pages, which no index leads to; what names they had is looked for afterwards.
async fn delete(lease: &Lease<'_>, task: &Task, table: &str, range: &str) -> Result<i64, StoreError> {
    let (returned, named) = if table.starts_with(Parent::Flow.table()) {
        ("domain_id", "domain_id IS NOT NULL")
    } else {
        ("dimension, number AS domain_id", "dimension = 6 AND domain_id >= 0")
    };
    let sql = format!(
        "WITH gone AS (DELETE FROM {table} WHERE sensor_id = $1 AND {range} RETURNING {returned}),
              named AS (INSERT INTO erasure_domain (erasure_id, domain_id)
                        SELECT DISTINCT $2::integer, domain_id FROM gone WHERE {named} ON CONFLICT DO NOTHING)
         SELECT count(*) FROM gone"
    );
    let sensor_id = i32::try_from(task.subject_id).unwrap_or(-1);
    Ok(lease.client().query_one(&sql, &[&sensor_id, &task.erasure_id]).await?.get(0))
}

/// The receipt: from here on the row has no name.
async fn finish(pool: &Pool, task: &Task) -> Result<Option<Erasure>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "erasure_finish").await?;
        let result = async {
            let client = lease.client();
            client.execute("DELETE FROM erasure_domain WHERE erasure_id = $1", &[&task.erasure_id]).await?;
            client.execute("DELETE FROM erasure_process WHERE erasure_id = $1", &[&task.erasure_id]).await?;
            client.execute("DELETE FROM erasure_trace WHERE erasure_id = $1", &[&task.erasure_id]).await?;
            let sql = "UPDATE erasure SET done_at = clock_timestamp(), name = NULL, token_ids = '{}'
                       WHERE erasure_id = $1 AND done_at IS NULL";
            if client.execute(sql, &[&task.erasure_id]).await? == 0 {
                return Ok(None);
            }
            let body = serde_json::json!({
                "erasure": task.erasure_id, "subject_kind": task.kind.name(), "subject_id": task.subject_id,
            });
            let event = NewEvent { topic: Topic::Jobs, kind: "erasure.done", sensor_id: None, body };
            events::append(&lease, &event).await?;
            receipt::read(&lease, task.erasure_id).await
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}
