//! Whose turn a background job is: one row a job, taken with a lease and a number that only goes up.
//!
//! Every time in here is Postgres' own: an instance says "for so long" and never "until then", so clocks
//! of instances need not agree. A run that loses its lease finds its number outdated and can write no end.

use std::time::{Duration, SystemTime};

use serde_json::json;
use tokio_postgres::Row;
use uuid::Uuid;

use super::audit::{self, Author, Change};
use super::{Class, Isolation, Lease, Pool, StoreError};

/// Runs that are remembered of each job.
pub const HISTORY: i64 = 50;
/// Characters of an error that are kept.
const MAX_ERROR: usize = 500;

/// How a job stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub name: String,
    pub next_at: SystemTime,
    /// Until it is due; zero if it is.
    pub due_in: Duration,
    /// Somebody runs it and is believed to live.
    pub running: bool,
    pub requested_at: Option<SystemTime>,
    pub failures: i32,
    pub last_done_at: Option<SystemTime>,
}

/// The right to run a job once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    pub name: &'static str,
    pub fence: i64,
    /// When the last run that came to its end began.
    pub last_done_at: Option<SystemTime>,
    /// Runs that failed just before this one.
    pub failures: i32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Failed,
    /// It was cut off at its deadline.
    Overran,
    /// Its instance was stopped.
    Stopped,
    /// Its instance was not heard of any more; another one took the job.
    Lost,
}

impl Outcome {
    pub const ALL: [Self; 5] = [Self::Done, Self::Failed, Self::Overran, Self::Stopped, Self::Lost];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Overran => "overran",
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }

    fn stored(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// One run, as remembered.
#[derive(Clone, Debug)]
pub struct Run {
    pub name: String,
    pub fence: i64,
    pub instance: Uuid,
    /// Somebody asked for it.
    pub requested: bool,
    pub started_at: SystemTime,
    pub ended_at: Option<SystemTime>,
    pub outcome: Option<Outcome>,
    pub error: Option<String>,
}

/// What became of a wish for a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    Taken,
    /// It runs, or somebody asked before.
    Busy,
    Unknown,
}

/// Makes the rows of jobs that are new, due at once, and brings those forward that a longer interval put off.
pub async fn register(pool: &Pool, jobs: &[(&'static str, Duration)]) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "jobs_register").await?;
        let result = async {
            for (name, interval) in jobs {
                let sql = "INSERT INTO job AS known (name) VALUES ($1) ON CONFLICT (name) DO UPDATE
                           SET next_at = now() + make_interval(secs => $2)
                           WHERE known.next_at > now() + make_interval(secs => $2)";
                lease.client().execute(sql, &[name, &interval.as_secs_f64()]).await?;
            }
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// All jobs by name.
pub async fn board(pool: &Pool) -> Result<Vec<Standing>, StoreError> {
    let work = async {
        let mut lease = pool.begin(Class::Admin, Isolation::Snapshot, "jobs_board").await?;
        let result = async {
            let sql = "SELECT name, next_at,
                              CASE WHEN requested_at IS NULL
                                   THEN greatest(extract(epoch FROM next_at - now()), 0)::double precision
                                   ELSE 0 END,
                              coalesce(held_until > now(), false), requested_at, failures, last_done_at
                       FROM job ORDER BY name";
            let statement = lease.prepared(sql).await?;
            Ok(lease.client().query(&statement, &[]).await?)
        }
        .await;
        lease.finish(result).await
    };
    let rows = pool.within(Class::Admin, work).await?;
    Ok(rows
        .iter()
        .map(|row| Standing {
            name: row.get(0),
            next_at: row.get(1),
            due_in: Duration::try_from_secs_f64(row.get(2)).unwrap_or(Duration::MAX),
            running: row.get(3),
            requested_at: row.get(4),
            failures: row.get(5),
            last_done_at: row.get(6),
        })
        .collect())
}

/// Takes a job that is due (or is to run `anyway`) and that nobody runs. The run of an instance that was not
/// heard of for its lease ends here as lost.
pub async fn take(
    pool: &Pool,
    name: &'static str,
    instance: Uuid,
    lasts: Duration,
    anyway: bool,
) -> Result<Option<Turn>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "job_take").await?;
        let result = taken(&lease, name, instance, lasts, anyway).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn taken(
    lease: &Lease<'_>,
    name: &'static str,
    instance: Uuid,
    lasts: Duration,
    anyway: bool,
) -> Result<Option<Turn>, StoreError> {
    let client = lease.client();
    let row = client
        .query_opt(
            "WITH free AS (
                 SELECT name, holder IS NOT NULL AS lost FROM job
                 WHERE name = $1 AND coalesce(held_until <= now(), true)
                   AND ($4 OR next_at <= now() OR requested_at IS NOT NULL)
                 FOR UPDATE SKIP LOCKED
             )
             UPDATE job SET holder = $2, held_until = now() + make_interval(secs => $3), fence = fence + 1
             FROM free WHERE job.name = free.name
             RETURNING fence, last_done_at, failures, requested_at IS NOT NULL, lost",
            &[&name, &instance, &lasts.as_secs_f64(), &anyway],
        )
        .await?;
    let Some(row) = row else { return Ok(None) };
    let turn = Turn { name, fence: row.get(0), last_done_at: row.get(1), failures: row.get(2) };
    if row.get(4) {
        let sql =
            "UPDATE job_run SET ended_at = now(), outcome = 'lost' WHERE name = $1 AND ended_at IS NULL";
        client.execute(sql, &[&name]).await?;
    }
    let sql =
        "INSERT INTO job_run (name, fence, holder, requested, started_at) VALUES ($1, $2, $3, $4, now())";
    client.execute(sql, &[&name, &turn.fence, &instance, &row.get::<_, bool>(3)]).await?;
    let sql = "DELETE FROM job_run WHERE name = $1 AND fence <= $2::bigint - $3::bigint";
    client.execute(sql, &[&name, &turn.fence, &HISTORY]).await?;
    Ok(Some(turn))
}

/// Goes on holding the job; `false` if another instance has it.
pub async fn renew(pool: &Pool, turn: &Turn, lasts: Duration) -> Result<bool, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "job_renew").await?;
        let sql = "UPDATE job SET held_until = now() + make_interval(secs => $3)
                   WHERE name = $1 AND fence = $2 AND holder IS NOT NULL";
        let result = lease.client().execute(sql, &[&turn.name, &turn.fence, &lasts.as_secs_f64()]).await;
        lease.finish(result.map_err(StoreError::from)).await
    };
    Ok(pool.within(Class::Admin, work).await? == 1)
}

/// Keeps the job from being taken by another until the caller's transaction ends; `false` if it was already.
pub async fn hold(lease: &Lease<'_>, turn: &Turn) -> Result<bool, StoreError> {
    let sql = "SELECT FROM job WHERE name = $1 AND fence = $2 AND holder IS NOT NULL FOR SHARE";
    Ok(lease.client().query_opt(sql, &[&turn.name, &turn.fence]).await?.is_some())
}

/// Writes a run's end and when the next one is due: `next` after the beginning of a run that was done, after
/// the end of any other; at once if it was asked for meanwhile. `false` if another instance has the job: its run is the one that counts.
pub async fn end(
    pool: &Pool,
    turn: &Turn,
    outcome: Outcome,
    error: Option<&str>,
    next: Duration,
) -> Result<bool, StoreError> {
    let error: Option<String> = error.map(|error| error.chars().take(MAX_ERROR).collect());
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "job_end").await?;
        let result = async {
            let sql = "UPDATE job_run SET ended_at = now(), outcome = $3, error = $4
                       WHERE name = $1 AND fence = $2 AND ended_at IS NULL RETURNING started_at";
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                [&turn.name, &turn.fence, &outcome.name(), &error];
            let Some(row) = lease.client().query_opt(sql, &values).await? else { return Ok(false) };
            let started_at: SystemTime = row.get(0);
            let sql = "UPDATE job SET holder = NULL, held_until = NULL,
                              requested_at = CASE WHEN $3 = 'stopped' OR requested_at > $4::timestamptz
                                                  THEN requested_at END,
                              next_at = CASE WHEN $3 = 'done'
                                             THEN greatest($4::timestamptz + make_interval(secs => $5), now())
                                             ELSE now() + make_interval(secs => $5) END,
                              failures = CASE $3 WHEN 'done' THEN 0 WHEN 'stopped' THEN failures
                                                 ELSE failures + 1 END,
                              last_done_at = CASE WHEN $3 = 'done' THEN $4 ELSE last_done_at END
                       WHERE name = $1 AND fence = $2";
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&turn.name, &turn.fence, &outcome.name(), &started_at, &next.as_secs_f64()];
            Ok(lease.client().execute(sql, &values).await? == 1)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Asks for a run as soon as an instance has time.
pub async fn request(pool: &Pool, author: &Author, name: &str) -> Result<Requested, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "job_request").await?;
        let result = async {
            let sql = "SELECT coalesce(held_until > now(), false) OR requested_at IS NOT NULL FROM job
                       WHERE name = $1 FOR UPDATE";
            let Some(row) = lease.client().query_opt(sql, &[&name]).await? else {
                return Ok(Requested::Unknown);
            };
            if row.get(0) {
                return Ok(Requested::Busy);
            }
            let sql = "UPDATE job SET requested_at = now() WHERE name = $1";
            lease.client().execute(sql, &[&name]).await?;
            let change = Change {
                action: "job.run",
                subject_kind: "job",
                subject_name: Some(name.to_owned()),
                after: Some(json!({"requested": true})),
                ..Change::default()
            };
            audit::record(&lease, author, &change).await?;
            Ok(Requested::Taken)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The newest runs of one job or, at most `each`, of every job; the newest first.
pub async fn runs(pool: &Pool, name: Option<&str>, each: i64) -> Result<Vec<Run>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "job_runs").await?;
        let sql = "SELECT run.* FROM job CROSS JOIN LATERAL (
                       SELECT name, fence, holder, requested, started_at, ended_at, outcome, error FROM job_run
                       WHERE job_run.name = job.name ORDER BY fence DESC LIMIT $2
                   ) AS run
                   WHERE $1::text IS NULL OR job.name = $1 ORDER BY run.name, run.fence DESC";
        let result = lease.client().query(sql, &[&name, &each]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(run).collect())
}

fn run(row: &Row) -> Run {
    Run {
        name: row.get(0),
        fence: row.get(1),
        instance: row.get(2),
        requested: row.get(3),
        started_at: row.get(4),
        ended_at: row.get(5),
        outcome: row.get::<_, Option<&str>>(6).and_then(Outcome::stored),
        error: row.get(7),
    }
}
