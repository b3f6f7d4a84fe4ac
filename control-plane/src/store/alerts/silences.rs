//! Silences and maintenance windows: alerts that nobody is told of for a time.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_postgres::Row;
use utoipa::ToSchema;

use super::{AlertError, within};
use crate::expression::matches;
use crate::store::audit::{self, Author, Change};
use crate::store::{Class, Isolation, Lease, Pool, StoreError};

/// Silences that did not end, at most.
pub const MAX_SILENCES: i64 = 1_000;

/// A label and what it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"label": "sensor", "value": "edge-*"}))]
pub struct Matcher {
    /// `rule`, `severity`, a label of the rule, or what its groups are: `sensor`, `src`, …
    #[schema(max_length = 63, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub label: String,
    /// `*` stands for anything
    #[schema(max_length = 256, pattern = "^[^\\x00-\\x1f\\x7f-\\x9f]*$")]
    pub value: String,
}

/// A silence as it is kept.
#[derive(Clone, Debug)]
pub struct Silence {
    pub silence_id: i32,
    pub kind: String,
    pub matchers: Vec<Matcher>,
    pub starts_at: SystemTime,
    pub ends_at: SystemTime,
    pub author: String,
    pub comment: String,
    pub created_at: SystemTime,
    pub active: bool,
}

/// What somebody wrote.
#[derive(Clone, Debug)]
pub struct Draft {
    pub kind: &'static str,
    pub matchers: Vec<Matcher>,
    pub starts_at: Option<SystemTime>,
    pub ends_at: SystemTime,
    pub comment: String,
}

impl Silence {
    /// Whether all of its matchers hold.
    #[must_use]
    pub fn holds(&self, labels: &Value) -> bool {
        self.matchers.iter().all(|matcher| {
            labels[&matcher.label].as_str().is_some_and(|value| matches(&matcher.value, value))
        })
    }
}

const SELECT: &str =
    "SELECT silence_id, kind, matchers::text, starts_at, ends_at, author, comment, created_at,
            starts_at <= now() AND ends_at > now()
     FROM alert_silence";

/// Those that hold now.
pub(super) async fn active(lease: &Lease<'_>) -> Result<Vec<Silence>, StoreError> {
    let sql = format!("{SELECT} WHERE starts_at <= now() AND ends_at > now()");
    Ok(lease.client().query(&sql, &[]).await?.iter().map(from_row).collect())
}

/// Adds a silence.
pub async fn add(pool: &Pool, author: &Author, draft: &Draft) -> Result<Silence, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_silence_add").await?;
        let result = async {
            let sql = "SELECT count(*) FROM alert_silence WHERE ends_at > now()";
            let count: i64 = lease.client().query_one(sql, &[]).await.map_err(StoreError::from)?.get(0);
            if count >= MAX_SILENCES {
                return Err(AlertError::TooMany(count));
            }
            let sql = "INSERT INTO alert_silence (kind, matchers, starts_at, ends_at, author, comment)
                       VALUES ($1, $2::text::json, coalesce($3, now()), $4, $5, $6) RETURNING silence_id";
            let matchers = json!(draft.matchers).to_string();
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
                [&draft.kind, &matchers, &draft.starts_at, &draft.ends_at, &author.name, &draft.comment];
            let row = lease.client().query_one(sql, &values).await.map_err(StoreError::from)?;
            let silence = one(&lease, row.get(0)).await?;
            let told = changed("alert_silence.create", &silence, None, Some(shown(&silence)));
            audit::record(&lease, author, &told).await?;
            Ok(silence)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Another end, another comment. An end that is not after the beginning is none.
pub async fn change(
    pool: &Pool,
    author: &Author,
    silence_id: i32,
    ends_at: Option<SystemTime>,
    comment: Option<&str>,
) -> Result<Silence, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_silence_change").await?;
        let result = async {
            let client = lease.client();
            let sql = "SELECT FROM alert_silence WHERE silence_id = $1 AND ends_at > now()
                             AND coalesce($2 > starts_at, true) FOR UPDATE";
            let found = client.query_opt(sql, &[&silence_id, &ends_at]).await.map_err(StoreError::from)?;
            if found.is_none() {
                return Err(AlertError::Unknown);
            }
            let before = one(&lease, silence_id).await?;
            let sql =
                "UPDATE alert_silence SET ends_at = coalesce($2, ends_at), comment = coalesce($3, comment)
                       WHERE silence_id = $1";
            client.execute(sql, &[&silence_id, &ends_at, &comment]).await.map_err(StoreError::from)?;
            let after = one(&lease, silence_id).await?;
            let told = changed("alert_silence.change", &after, Some(shown(&before)), Some(shown(&after)));
            audit::record(&lease, author, &told).await?;
            Ok(after)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Ends a silence now; one that did not begin yet goes.
pub async fn end(pool: &Pool, author: &Author, silence_id: i32) -> Result<(), AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_silence_end").await?;
        let result = async {
            let sql = "SELECT FROM alert_silence WHERE silence_id = $1 AND ends_at > now() FOR UPDATE";
            let found = lease.client().query_opt(sql, &[&silence_id]).await.map_err(StoreError::from)?;
            if found.is_none() {
                return Err(AlertError::Unknown);
            }
            let silence = one(&lease, silence_id).await?;
            let sql = if silence.active {
                "UPDATE alert_silence SET ends_at = now() WHERE silence_id = $1"
            } else {
                "DELETE FROM alert_silence WHERE silence_id = $1"
            };
            lease.client().execute(sql, &[&silence_id]).await.map_err(StoreError::from)?;
            let told = changed("alert_silence.end", &silence, Some(shown(&silence)), None);
            audit::record(&lease, author, &told).await?;
            Ok(())
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Silences before `before`, the newest first; those that ended, too, if `ended`.
pub async fn list(
    pool: &Pool,
    ended: bool,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Silence>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "alert_silence_list").await?;
        let sql = format!(
            "{SELECT} WHERE ($1 OR ends_at > now()) AND ($2::integer IS NULL OR silence_id < $2)
             ORDER BY silence_id DESC LIMIT $3"
        );
        let result = lease.client().query(&sql, &[&ended, &before, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().map(from_row).collect())
}

async fn one(lease: &Lease<'_>, silence_id: i32) -> Result<Silence, StoreError> {
    let sql = format!("{SELECT} WHERE silence_id = $1");
    Ok(from_row(&lease.client().query_one(&sql, &[&silence_id]).await?))
}

fn shown(silence: &Silence) -> Value {
    let time = |at| jiff::Timestamp::try_from(at).map(|at| at.to_string()).unwrap_or_default();
    json!({
        "kind": silence.kind, "matchers": silence.matchers, "starts_at": time(silence.starts_at),
        "ends_at": time(silence.ends_at), "comment": silence.comment,
    })
}

fn changed(action: &'static str, silence: &Silence, before: Option<Value>, after: Option<Value>) -> Change {
    Change {
        action,
        subject_kind: "alert_silence",
        subject_id: Some(silence.silence_id.to_string()),
        subject_name: None,
        before,
        after,
    }
}

fn from_row(row: &Row) -> Silence {
    Silence {
        silence_id: row.get(0),
        kind: row.get(1),
        // What cannot be read silences nothing: no matcher of it holds.
        matchers: serde_json::from_str(row.get(2))
            .unwrap_or_else(|_| vec![Matcher { label: String::new(), value: String::new() }]),
        starts_at: row.get(3),
        ends_at: row.get(4),
        author: row.get(5),
        comment: row.get(6),
        created_at: row.get(7),
        active: row.get(8),
    }
}
