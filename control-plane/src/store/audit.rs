//! The audit log: who changed what, from where. Rows are written in the transaction of the change, and
//! never altered: the table refuses it.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::events::{self, NewEvent, Topic};
use super::{Class, Isolation, Lease, Pool, StoreError};

/// Who makes a change, and from where. Names are kept as text: the row outlives its actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// `user`, `token`, `admin_token`, `sensor`, `command_line`, `nobody`
    pub kind: &'static str,
    pub id: Option<String>,
    pub name: String,
    pub address: Option<String>,
    pub request_id: Option<String>,
}

impl Author {
    /// Whoever runs this program's commands on its host.
    #[must_use]
    pub fn command_line() -> Self {
        Self { kind: "command_line", name: "weir-control-plane".to_owned(), ..Self::default() }
    }
}

/// One change. `before` and `after` never hold a secret.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// `user.create`, `session.end`, ...
    pub action: &'static str,
    /// `user`, `session`, `token`, ...
    pub subject_kind: &'static str,
    pub subject_id: Option<String>,
    pub subject_name: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// A row of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub audit_id: i64,
    pub at: SystemTime,
    pub actor_kind: String,
    pub actor_id: Option<String>,
    pub actor_name: String,
    pub action: String,
    pub subject_kind: String,
    pub subject_id: Option<String>,
    pub subject_name: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub address: Option<String>,
    pub request_id: Option<String>,
}

/// Which rows of the log.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub actor: Option<String>,
    pub action: Option<String>,
    pub subject_kind: Option<String>,
    pub subject: Option<String>,
    pub from: Option<SystemTime>,
    pub to: Option<SystemTime>,
}

/// Writes a row in the caller's transaction, and an event that tells of it without what changed. Fails if the
/// author or the subject is being erased, or was: the change is then not made.
pub async fn record(lease: &Lease<'_>, author: &Author, change: &Change) -> Result<(), StoreError> {
    hold(lease, author.kind, author.id.as_deref()).await?;
    hold(lease, change.subject_kind, change.subject_id.as_deref()).await?;
    write(lease, author, change).await
}

/// The row of the change that ends its subject.
pub(super) async fn record_last(
    lease: &Lease<'_>,
    author: &Author,
    change: &Change,
) -> Result<(), StoreError> {
    if (author.kind, &author.id) != (change.subject_kind, &change.subject_id) {
        hold(lease, author.kind, author.id.as_deref()).await?;
    }
    write(lease, author, change).await
}

/// Keeps whom the row names from being erased before it is there: an erasure waits for this transaction, and then
/// finds the row.
async fn hold(lease: &Lease<'_>, kind: &str, id: Option<&str>) -> Result<(), StoreError> {
    let sql = match kind {
        "user" => "SELECT FROM account WHERE user_id = $1 FOR KEY SHARE",
        "token" => "SELECT FROM api_token WHERE api_token_id = $1 FOR KEY SHARE",
        "sensor" => "SELECT FROM sensor WHERE sensor_id = $1 AND deleted_at IS NULL FOR SHARE",
        _ => return Ok(()),
    };
    let Some(id) = id.and_then(|id| id.parse::<i32>().ok()) else { return Ok(()) };
    match lease.client().query_opt(sql, &[&id]).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::Erased),
    }
}

async fn write(lease: &Lease<'_>, author: &Author, change: &Change) -> Result<(), StoreError> {
    let (before, after) = (text(change.before.as_ref()), text(change.after.as_ref()));
    let row = lease
        .client()
        .query_one(
            "INSERT INTO audit (actor_kind, actor_id, actor_name, action, subject_kind, subject_id,
                                subject_name, before, after, address, request_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8::text::jsonb, $9::text::jsonb, $10, $11)
             RETURNING audit_id",
            &[
                &author.kind,
                &author.id,
                &author.name,
                &change.action,
                &change.subject_kind,
                &change.subject_id,
                &change.subject_name,
                &before,
                &after,
                &author.address,
                &author.request_id,
            ],
        )
        .await?;
    let body = json!({
        "audit_id": row.get::<_, i64>(0),
        "actor_kind": author.kind,
        "actor_id": author.id,
        "actor": author.name,
        "subject_kind": change.subject_kind,
        "subject_id": change.subject_id,
        "subject": change.subject_name,
    });
    let event = NewEvent { topic: Topic::Audit, kind: change.action, sensor_id: None, body };
    events::append(lease, &event).await
}

/// Writes a row about what changed nothing else, such as a lock-out.
pub async fn note(pool: &Pool, author: &Author, change: &Change) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "audit_note").await?;
        let result = record(&lease, author, change).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Rows older than `before`, newest first, at most `limit`.
pub async fn list(
    pool: &Pool,
    filter: &Filter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "audit_list").await?;
        let result = lease
            .client()
            .query(
                "SELECT audit_id, at, actor_kind, actor_id, actor_name, action, subject_kind, subject_id,
                        subject_name, before::text, after::text, address, request_id
                 FROM audit
                 WHERE ($1::bigint IS NULL OR audit_id < $1)
                   AND ($2::text IS NULL OR actor_name = $2)
                   AND ($3::text IS NULL OR action = $3)
                   AND ($4::text IS NULL OR subject_kind = $4)
                   AND ($5::text IS NULL OR subject_name = $5 OR subject_id = $5)
                   AND ($6::timestamptz IS NULL OR at >= $6)
                   AND ($7::timestamptz IS NULL OR at < $7)
                 ORDER BY audit_id DESC LIMIT $8",
                &[
                    &before,
                    &filter.actor,
                    &filter.action,
                    &filter.subject_kind,
                    &filter.subject,
                    &filter.from,
                    &filter.to,
                    &limit,
                ],
            )
            .await
            .map_err(StoreError::from);
        lease.finish(result).await
    };
    Ok(pool.within(Class::Query, work).await?.iter().map(entry).collect())
}

fn entry(row: &Row) -> Entry {
    let json = |at: usize| {
        row.get::<_, Option<&str>>(at).map(|text| serde_json::from_str(text).unwrap_or(Value::Null))
    };
    Entry {
        audit_id: row.get(0),
        at: row.get(1),
        actor_kind: row.get(2),
        actor_id: row.get(3),
        actor_name: row.get(4),
        action: row.get(5),
        subject_kind: row.get(6),
        subject_id: row.get(7),
        subject_name: row.get(8),
        before: json(9),
        after: json(10),
        address: row.get(11),
        request_id: row.get(12),
    }
}

/// Postgres' jsonb has no NUL characters in strings; we write none, since names are checked.
fn text(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}
