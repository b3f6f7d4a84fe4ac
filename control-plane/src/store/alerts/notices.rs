//! What is to be said of alerts: a delivery for each receiver and rule that there is news of.

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{silences, states};
use crate::store::jobs::{self, Turn};
use crate::store::{Class, Isolation, Lease, Pool, StoreError};

/// Alerts that one delivery tells of.
const MAX_ALERTS: usize = 100;
/// Words that one look queues; the rest is found by the next one.
const MAX_WORDS: i64 = 2_000;

/// Queues what is new: alerts that fire and were not told, or not for `repeat_s`, and those that were told and are
/// resolved. Of what is silenced nothing is told but its end. Gives how many deliveries that makes.
pub async fn enqueue(pool: &Pool, turn: Option<&Turn>) -> Result<u64, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_enqueue").await?;
        let result = enqueued(&lease, turn).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

/// One alert for one receiver.
struct Word {
    receiver_id: i32,
    alert: states::Alert,
}

impl Word {
    /// What is told together: of one receiver and rule, firing or resolved.
    fn group(&self) -> (i32, &str, &str) {
        (self.receiver_id, &self.alert.rule, &self.alert.state)
    }
}

async fn enqueued(lease: &Lease<'_>, turn: Option<&Turn>) -> Result<u64, StoreError> {
    if let Some(turn) = turn
        && !jobs::hold(lease, turn).await?
    {
        return Ok(0);
    }
    let sql = format!(
        "SELECT {columns}, receiver_id FROM (
             SELECT alert.*, receiver_id FROM alert JOIN alert_route USING (rule_id) JOIN alert_receiver USING (receiver_id)
             LEFT JOIN alert_notice USING (alert_id, receiver_id)
             WHERE alert.state = 'firing'
               AND (told_at IS NULL OR told_at <= now() - make_interval(secs => repeat_s))
             UNION ALL
             SELECT alert.*, receiver_id FROM alert_notice JOIN alert USING (alert_id) WHERE alert.state = 'resolved'
         ) AS news ORDER BY receiver_id, rule, state, alert_id LIMIT $1",
        columns = states::COLUMNS
    );
    let rows = lease.client().query(&sql, &[&MAX_WORDS]).await?;
    let silences = silences::active(lease).await?;
    let words: Vec<Word> = rows
        .iter()
        .map(|row: &Row| Word { receiver_id: row.get(13), alert: states::from_row(row, false) })
        .filter(|word| {
            word.alert.state == "resolved"
                || !silences.iter().any(|silence| silence.holds(&word.alert.labels))
        })
        .collect();
    let mut deliveries = 0;
    for group in words.chunk_by(|a, b| a.group() == b.group()).flat_map(|group| group.chunks(MAX_ALERTS)) {
        queue(lease, group).await?;
        deliveries += 1;
    }
    Ok(deliveries)
}

async fn queue(lease: &Lease<'_>, group: &[Word]) -> Result<(), StoreError> {
    let Some(first) = group.first() else { return Ok(()) };
    let (receiver_id, rule, status) = first.group();
    let ids: Vec<i64> = group.iter().map(|word| word.alert.alert_id).collect();
    let alerts = Value::Array(group.iter().map(|word| told(&word.alert)).collect()).to_string();
    let sql =
        "INSERT INTO alert_delivery (receiver_id, rule, status, alerts) VALUES ($1, $2, $3, $4::text::json)";
    lease.client().execute(sql, &[&receiver_id, &rule, &status, &alerts]).await?;
    let sql = if status == "resolved" {
        "DELETE FROM alert_notice WHERE receiver_id = $1 AND alert_id = ANY ($2)"
    } else {
        "INSERT INTO alert_notice (receiver_id, alert_id) SELECT $1::integer, unnest($2::bigint[])
         ON CONFLICT (alert_id, receiver_id) DO UPDATE SET told_at = now()"
    };
    lease.client().execute(sql, &[&receiver_id, &ids]).await?;
    Ok(())
}

/// An alert as receivers see it.
fn told(alert: &states::Alert) -> Value {
    let time = |at| jiff::Timestamp::try_from(at).ok().map(|at| format!("{at:.3}"));
    json!({
        "id": alert.alert_id, "rule": alert.rule, "severity": alert.severity, "summary": alert.summary,
        "labels": alert.labels, "group": alert.group, "state": alert.state, "value": alert.value,
        "pending_at": time(alert.pending_at), "firing_at": alert.firing_at.and_then(time),
        "resolved_at": alert.resolved_at.and_then(time),
    })
}
