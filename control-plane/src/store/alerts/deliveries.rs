//! The queue of what receivers are to be told, and the log of what they were. A receiver is told in order: what
//! waits behind a delivery that fails waits with it.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::alerts::Target;
use crate::store::{Class, Isolation, Pool, StoreError};

/// What is taken and not ended within this time is sent again: whoever took it is gone.
const TAKEN_FOR_S: f64 = 120.0;
/// Characters of an error that are kept.
const MAX_ERROR: usize = 300;

/// A delivery to make.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub delivery_id: i64,
    /// The same in each attempt.
    pub key: Uuid,
    pub receiver_id: i32,
    pub receiver: String,
    pub target: Target,
    pub repeat_s: i32,
    /// Of the receiver, in a row, before this attempt.
    pub failures: i32,
    pub rule: String,
    pub status: String,
    pub alerts: Value,
}

/// A delivery in the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub delivery_id: i64,
    pub key: Uuid,
    pub receiver_id: i32,
    pub receiver: String,
    pub rule: String,
    pub status: String,
    pub alerts: i32,
    pub state: String,
    pub attempts: i32,
    pub next_at: SystemTime,
    pub created_at: SystemTime,
    pub ended_at: Option<SystemTime>,
    pub last_error: Option<String>,
}

/// Takes the oldest delivery of each receiver that is due and not behind an open breaker.
pub async fn take(pool: &Pool) -> Result<Vec<Delivery>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_delivery_take").await?;
        let result = async {
            let sql = "WITH heads AS (
                           SELECT head.delivery_id FROM alert_receiver AS receiver CROSS JOIN LATERAL (
                               SELECT delivery_id, next_at FROM alert_delivery
                               WHERE receiver_id = receiver.receiver_id AND state = 'waiting'
                               ORDER BY delivery_id LIMIT 1
                           ) AS head
                           WHERE head.next_at <= now() AND coalesce(receiver.open_until <= now(), true)
                       )
                       UPDATE alert_delivery AS delivery
                       SET attempts = attempts + 1, next_at = now() + make_interval(secs => $1)
                       FROM heads, alert_receiver AS receiver
                       WHERE delivery.delivery_id = heads.delivery_id AND receiver.receiver_id = delivery.receiver_id
                         AND delivery.next_at <= now()
                       RETURNING delivery.delivery_id, key, receiver.receiver_id, receiver.name, target::text, repeat_s,
                                 failures, rule, status, alerts::text";
            Ok(lease.client().query(sql, &[&TAKEN_FOR_S]).await?)
        }
        .await;
        lease.finish(result).await
    };
    Ok(pool.within(Class::Admin, work).await?.iter().filter_map(delivery).collect())
}

fn delivery(row: &Row) -> Option<Delivery> {
    Some(Delivery {
        delivery_id: row.get(0),
        key: row.get(1),
        receiver_id: row.get(2),
        receiver: row.get(3),
        // A newer version's: an instance of that version sends it.
        target: serde_json::from_str(row.get(4)).ok()?,
        repeat_s: row.get(5),
        failures: row.get(6),
        rule: row.get(7),
        status: row.get(8),
        alerts: serde_json::from_str(row.get(9)).unwrap_or(Value::Null),
    })
}

/// Writes that it arrived; the receiver's breaker closes.
pub async fn delivered(pool: &Pool, delivery: &Delivery) -> Result<(), StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_delivered").await?;
        let result = async {
            let sql = "UPDATE alert_delivery SET state = 'delivered', ended_at = now(), last_error = NULL
                       WHERE delivery_id = $1 AND state = 'waiting'";
            lease.client().execute(sql, &[&delivery.delivery_id]).await?;
            let sql = "UPDATE alert_receiver SET failures = 0, open_until = NULL WHERE receiver_id = $1 AND failures > 0";
            lease.client().execute(sql, &[&delivery.receiver_id]).await?;
            Ok(())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// Writes that it did not; it is tried again after `wait`, unless it is older than `give_up`. The breaker is open
/// for so long if `open`. Says whether it was given up.
pub async fn failed(
    pool: &Pool,
    delivery: &Delivery,
    error: &str,
    wait: Duration,
    open: bool,
    give_up: Duration,
) -> Result<bool, StoreError> {
    let error: String = error.chars().take(MAX_ERROR).collect();
    let (wait, give_up) = (wait.as_secs_f64(), give_up.as_secs_f64());
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_delivery_failed").await?;
        let result = async {
            let sql = "UPDATE alert_delivery
                       SET last_error = $2, next_at = now() + make_interval(secs => $3),
                           state = CASE WHEN created_at < now() - make_interval(secs => $4) THEN 'given_up' ELSE state END,
                           ended_at = CASE WHEN created_at < now() - make_interval(secs => $4) THEN now() END
                       WHERE delivery_id = $1 AND state = 'waiting' RETURNING state = 'given_up'";
            let row = lease.client().query_opt(sql, &[&delivery.delivery_id, &error, &wait, &give_up]).await?;
            let sql = "UPDATE alert_receiver
                       SET failures = failures + 1,
                           open_until = CASE WHEN $2 THEN now() + make_interval(secs => $3) END
                       WHERE receiver_id = $1";
            lease.client().execute(sql, &[&delivery.receiver_id, &open, &wait]).await?;
            Ok(row.is_some_and(|row| row.get(0)))
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// The log before `before`, the newest first.
pub async fn list(
    pool: &Pool,
    receiver_id: Option<i32>,
    state: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Logged>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "alert_delivery_list").await?;
        let sql = "SELECT delivery_id, key, receiver_id, name, rule, status, json_array_length(alerts), state, attempts,
                          next_at, alert_delivery.created_at, ended_at, last_error
                   FROM alert_delivery JOIN alert_receiver USING (receiver_id)
                   WHERE ($1::integer IS NULL OR receiver_id = $1) AND ($2::text IS NULL OR state = $2)
                     AND ($3::bigint IS NULL OR delivery_id < $3)
                   ORDER BY delivery_id DESC LIMIT $4";
        let result = lease.client().query(sql, &[&receiver_id, &state, &before, &limit]).await;
        lease.finish(result.map_err(StoreError::from)).await
    };
    let rows = pool.within(Class::Query, work).await?;
    Ok(rows
        .iter()
        .map(|row| Logged {
            delivery_id: row.get(0),
            key: row.get(1),
            receiver_id: row.get(2),
            receiver: row.get(3),
            rule: row.get(4),
            status: row.get(5),
            alerts: row.get(6),
            state: row.get(7),
            attempts: row.get(8),
            next_at: row.get(9),
            created_at: row.get(10),
            ended_at: row.get(11),
            last_error: row.get(12),
        })
        .collect())
}
