//! Receivers: where alerts are told, and whether that works.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{AlertError, taken, within};
use crate::alerts::Target;
use crate::store::audit::{self, Author};
use crate::store::{Class, Isolation, Pool, StoreError};

/// Receivers that there can be.
pub const MAX_RECEIVERS: i64 = 100;

/// A receiver as it is kept.
#[derive(Clone, Debug)]
pub struct Receiver {
    pub receiver_id: i32,
    pub name: String,
    pub target: Target,
    pub repeat_s: i32,
    pub created_at: SystemTime,
    /// Deliveries in a row that failed.
    pub failures: i32,
    /// Nothing is sent before.
    pub open_until: Option<SystemTime>,
    pub waiting: i64,
}

/// What changes of one; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub name: Option<String>,
    pub target: Option<Target>,
    pub repeat_s: Option<i32>,
}

const SELECT: &str = "SELECT receiver_id, name, target::text, repeat_s, created_at, failures, open_until,
        (SELECT count(*) FROM alert_delivery
         WHERE alert_delivery.receiver_id = alert_receiver.receiver_id AND state = 'waiting')
     FROM alert_receiver";

/// Adds a receiver.
pub async fn add(
    pool: &Pool,
    author: &Author,
    name: &str,
    target: &Target,
    repeat_s: i32,
) -> Result<Receiver, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_receiver_add").await?;
        let result = async {
            let count = lease.client().query_one("SELECT count(*) FROM alert_receiver", &[]).await;
            let count: i64 = count.map_err(StoreError::from)?.get(0);
            if count >= MAX_RECEIVERS {
                return Err(AlertError::TooMany(count));
            }
            let sql = "INSERT INTO alert_receiver (name, target, repeat_s) VALUES ($1, $2::text::json, $3)
                       RETURNING receiver_id";
            let target = json!(target).to_string();
            let row = lease.client().query_one(sql, &[&name, &target, &repeat_s]).await.map_err(taken)?;
            let id: i32 = row.get(0);
            let row = lease.client().query_one(&format!("{SELECT} WHERE receiver_id = $1"), &[&id]).await;
            let receiver = from_row(&row.map_err(StoreError::from)?)?;
            let told = change("alert_receiver.create", &receiver, None, Some(shown(&receiver)));
            audit::record(&lease, author, &told).await?;
            Ok(receiver)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Changes a receiver. Another target has not failed yet: its breaker is closed, and what waits is due.
pub async fn update(
    pool: &Pool,
    author: &Author,
    receiver_id: i32,
    new: &Change,
) -> Result<Receiver, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_receiver_change").await?;
        let result = async {
            let client = lease.client();
            let sql = format!("{SELECT} WHERE receiver_id = $1 FOR UPDATE");
            let row = client.query_opt(&sql, &[&receiver_id]).await.map_err(StoreError::from)?;
            let before = from_row(&row.ok_or(AlertError::Unknown)?)?;
            let elsewhere = new.target.as_ref().is_some_and(|target| *target != before.target);
            let target = new.target.as_ref().map(|target| json!(target).to_string());
            let sql = "UPDATE alert_receiver
                       SET name = coalesce($2, name), target = coalesce($3::text::json, target),
                           repeat_s = coalesce($4, repeat_s),
                           failures = CASE WHEN $5 THEN 0 ELSE failures END,
                           open_until = CASE WHEN $5 THEN NULL ELSE open_until END
                       WHERE receiver_id = $1";
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
                [&receiver_id, &new.name, &target, &new.repeat_s, &elsewhere];
            client.execute(sql, &values).await.map_err(taken)?;
            if elsewhere {
                let sql =
                    "UPDATE alert_delivery SET next_at = now() WHERE receiver_id = $1 AND state = 'waiting'";
                client.execute(sql, &[&receiver_id]).await.map_err(StoreError::from)?;
            }
            let row = client.query_one(&format!("{SELECT} WHERE receiver_id = $1"), &[&receiver_id]).await;
            let after = from_row(&row.map_err(StoreError::from)?)?;
            let told = change("alert_receiver.change", &after, Some(shown(&before)), Some(shown(&after)));
            audit::record(&lease, author, &told).await?;
            Ok(after)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Deletes a receiver with what it was not told yet.
pub async fn remove(pool: &Pool, author: &Author, receiver_id: i32) -> Result<Receiver, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_receiver_remove").await?;
        let result = async {
            let sql = format!("{SELECT} WHERE receiver_id = $1 FOR UPDATE");
            let row = lease.client().query_opt(&sql, &[&receiver_id]).await.map_err(StoreError::from)?;
            let receiver = from_row(&row.ok_or(AlertError::Unknown)?)?;
            let sql = "DELETE FROM alert_receiver WHERE receiver_id = $1";
            lease.client().execute(sql, &[&receiver_id]).await.map_err(StoreError::from)?;
            let told = change("alert_receiver.remove", &receiver, Some(shown(&receiver)), None);
            audit::record(&lease, author, &told).await?;
            Ok(receiver)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// All receivers after `after`, in order of id.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Receiver>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "alert_receiver_list").await?;
        let sql = format!("{SELECT} WHERE receiver_id > $1 ORDER BY receiver_id LIMIT $2");
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await?.iter().map(from_row).collect()
}

fn shown(receiver: &Receiver) -> Value {
    json!({"name": receiver.name, "target": receiver.target, "repeat_s": receiver.repeat_s})
}

fn change(
    action: &'static str,
    receiver: &Receiver,
    before: Option<Value>,
    after: Option<Value>,
) -> audit::Change {
    audit::Change {
        action,
        subject_kind: "alert_receiver",
        subject_id: Some(receiver.receiver_id.to_string()),
        subject_name: Some(receiver.name.clone()),
        before,
        after,
    }
}

fn from_row(row: &Row) -> Result<Receiver, StoreError> {
    let target = serde_json::from_str(row.get(2)).map_err(|error| {
        StoreError::Unavailable(format!("receiver {} is of a newer version: {error}", row.get::<_, i32>(0)))
    })?;
    Ok(Receiver {
        receiver_id: row.get(0),
        name: row.get(1),
        target,
        repeat_s: row.get(3),
        created_at: row.get(4),
        failures: row.get(5),
        open_until: row.get(6),
        waiting: row.get(7),
    })
}
