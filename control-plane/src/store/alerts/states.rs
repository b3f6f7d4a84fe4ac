//! Alerts and their states: pending, firing, resolved; one open alert for each rule and group.

use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::rules::Rule;
use super::samples::Breach;
use crate::store::events::{self, NewEvent, Topic};
use crate::store::jobs::{self, Turn};
use crate::store::{Class, Isolation, Lease, Pool, StoreError};

/// An alert as the API shows it.
#[derive(Clone, Debug)]
pub struct Alert {
    pub alert_id: i64,
    /// `None` when the rule is gone.
    pub rule_id: Option<i32>,
    pub rule: String,
    pub severity: String,
    pub summary: String,
    pub labels: Value,
    pub group: String,
    pub state: String,
    pub value: f64,
    pub pending_at: SystemTime,
    pub firing_at: Option<SystemTime>,
    pub resolved_at: Option<SystemTime>,
    pub last_at: SystemTime,
    pub silenced: bool,
}

/// Which alerts.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Those that are not resolved, where none is named.
    pub state: Option<&'static str>,
    pub rule_id: Option<i32>,
    pub severity: Option<&'static str>,
}

/// What changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub fired: usize,
    pub resolved: usize,
}

pub(super) const COLUMNS: &str =
    "alert_id, rule_id, rule, severity, summary, labels::text, group_key, state, value, pending_at, firing_at,
     resolved_at, last_at";

/// Makes the states follow what was found. Nothing changes if the job was lost, or the rule changed, meanwhile.
pub async fn apply(
    pool: &Pool,
    turn: Option<&Turn>,
    rule: &Rule,
    found: Result<(&[Breach], Option<&str>), &str>,
) -> Result<Changes, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_apply").await?;
        let result = applied(&lease, turn, rule, found).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn applied(
    lease: &Lease<'_>,
    turn: Option<&Turn>,
    rule: &Rule,
    found: Result<(&[Breach], Option<&str>), &str>,
) -> Result<Changes, StoreError> {
    let client = lease.client();
    if let Some(turn) = turn
        && !jobs::hold(lease, turn).await?
    {
        return Ok(Changes::default());
    }
    let error = found.map_or_else(Some, |(_, note)| note);
    let sql = "UPDATE alert_rule SET evaluated_at = now(), error = $3 WHERE rule_id = $1 AND revision = $2 AND enabled";
    if client.execute(sql, &[&rule.rule_id, &rule.revision, &error]).await? == 0 {
        return Ok(Changes::default());
    }
    // Without an answer nothing is known: alerts stay as they are.
    let Ok((breaches, _)) = found else { return Ok(Changes::default()) };
    let groups: Vec<&str> = breaches.iter().map(|breach| breach.group.as_str()).collect();
    let values: Vec<f64> = breaches.iter().map(|breach| breach.value).collect();
    let labels: Vec<String> = groups.iter().map(|group| rule.alert_labels(group).to_string()).collect();

    let sql = "DELETE FROM alert WHERE rule_id = $1 AND state = 'pending' AND NOT group_key = ANY ($2)";
    client.execute(sql, &[&rule.rule_id, &groups]).await?;
    let sql = format!(
        "UPDATE alert SET state = 'resolved', resolved_at = now()
         WHERE rule_id = $1 AND state = 'firing' AND NOT group_key = ANY ($2) RETURNING {COLUMNS}"
    );
    let resolved = client.query(&sql, &[&rule.rule_id, &groups]).await?;
    let sql = "INSERT INTO alert (rule_id, rule, severity, summary, labels, group_key, state, value)
               SELECT $1::integer, $2::text, $3::text, $4::text, labels::json, group_key, 'pending', value
               FROM unnest($5::text[], $6::text[], $7::double precision[]) AS found (group_key, labels, value)
               ON CONFLICT (rule_id, group_key) WHERE state <> 'resolved'
               DO UPDATE SET value = excluded.value, last_at = now()";
    client
        .execute(sql, &[&rule.rule_id, &rule.name, &rule.severity, &rule.summary, &groups, &labels, &values])
        .await?;
    let sql = format!(
        "UPDATE alert SET state = 'firing', firing_at = now()
         WHERE rule_id = $1 AND state = 'pending' AND pending_at <= now() - make_interval(secs => $2)
         RETURNING {COLUMNS}"
    );
    let fired = client.query(&sql, &[&rule.rule_id, &f64::from(rule.for_s)]).await?;
    for (kind, rows) in [("alert.resolved", &resolved), ("alert.firing", &fired)] {
        for row in rows {
            tell(lease, kind, &from_row(row, false)).await?;
        }
    }
    Ok(Changes { fired: fired.len(), resolved: resolved.len() })
}

/// Ends the open alerts of a rule that is going, or that is not watched any more.
pub(super) async fn close(lease: &Lease<'_>, rule_id: i32) -> Result<(), StoreError> {
    let client = lease.client();
    let sql = "DELETE FROM alert WHERE rule_id = $1 AND state = 'pending'";
    client.execute(sql, &[&rule_id]).await?;
    let sql = format!(
        "UPDATE alert SET state = 'resolved', resolved_at = now() WHERE rule_id = $1 AND state = 'firing'
         RETURNING {COLUMNS}"
    );
    for row in client.query(&sql, &[&rule_id]).await? {
        tell(lease, "alert.resolved", &from_row(&row, false)).await?;
    }
    Ok(())
}

async fn tell(lease: &Lease<'_>, kind: &'static str, alert: &Alert) -> Result<(), StoreError> {
    let body = json!({
        "alert_id": alert.alert_id, "rule_id": alert.rule_id, "rule": alert.rule, "severity": alert.severity,
        "summary": alert.summary, "labels": alert.labels, "group": alert.group, "state": alert.state,
        "value": alert.value,
    });
    events::append(lease, &NewEvent { topic: Topic::Alerts, kind, sensor_id: None, body }).await
}

/// Alerts before `before`, the newest first.
pub async fn list(
    pool: &Pool,
    selection: &Selection,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Alert>, StoreError> {
    let states: Vec<&str> = selection.state.map_or_else(|| vec!["pending", "firing"], |state| vec![state]);
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "alert_list").await?;
        let result = async {
            let sql = format!(
                "SELECT {COLUMNS} FROM alert
                 WHERE state = ANY ($1) AND ($2::integer IS NULL OR rule_id = $2)
                   AND ($3::text IS NULL OR severity = $3) AND ($4::bigint IS NULL OR alert_id < $4)
                 ORDER BY alert_id DESC LIMIT $5"
            );
            let rows = lease
                .client()
                .query(&sql, &[&states, &selection.rule_id, &selection.severity, &before, &limit])
                .await?;
            let silences = super::silences::active(&lease).await?;
            let alert = |row| {
                let mut alert = from_row(row, false);
                alert.silenced = silences.iter().any(|silence| silence.holds(&alert.labels));
                alert
            };
            Ok(rows.iter().map(alert).collect())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}

/// Deletes alerts that were resolved so many days ago; gives how many.
pub async fn forget(pool: &Pool, days: u32) -> Result<u64, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Maintenance, Isolation::ReadCommitted, "alert_retention").await?;
        let result = async {
            let days = days.cast_signed();
            let sql = "DELETE FROM alert WHERE state = 'resolved' AND resolved_at < now() - make_interval(days => $1)";
            let alerts = lease.client().execute(sql, &[&days]).await?;
            let sql = "DELETE FROM alert_delivery WHERE ended_at < now() - make_interval(days => $1)";
            Ok(alerts + lease.client().execute(sql, &[&days]).await?)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Maintenance, work).await
}

pub(super) fn from_row(row: &Row, silenced: bool) -> Alert {
    Alert {
        alert_id: row.get(0),
        rule_id: row.get(1),
        rule: row.get(2),
        severity: row.get(3),
        summary: row.get(4),
        labels: serde_json::from_str(row.get(5)).unwrap_or(Value::Null),
        group: row.get(6),
        state: row.get(7),
        value: row.get(8),
        pending_at: row.get(9),
        firing_at: row.get(10),
        resolved_at: row.get(11),
        last_at: row.get(12),
        silenced,
    }
}
