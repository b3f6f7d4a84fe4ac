//! Rules: what is watched for, and whom it tells.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};
use tokio_postgres::Row;

use super::{AlertError, states, taken, within};
use crate::alerts::Condition;
use crate::store::audit::{self, Author, Change};
use crate::store::{Class, Isolation, Lease, Pool, StoreError};

/// Rules that there can be: all of them are looked at in one run.
pub const MAX_RULES: i64 = 500;

/// A rule as it is kept.
#[derive(Clone, Debug)]
pub struct Rule {
    pub rule_id: i32,
    pub name: String,
    pub condition: Condition,
    pub for_s: i32,
    pub severity: String,
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub enabled: bool,
    pub receivers: Vec<i32>,
    pub created_at: SystemTime,
    pub revision: i64,
    pub evaluated_at: Option<SystemTime>,
    /// Why the last look at it found nothing, or not all.
    pub error: Option<String>,
}

/// What somebody wrote.
#[derive(Clone, Debug)]
pub struct Draft {
    pub name: String,
    pub condition: Condition,
    pub for_s: i32,
    pub severity: &'static str,
    pub labels: BTreeMap<String, String>,
    pub summary: String,
    pub enabled: bool,
    pub receivers: Vec<i32>,
}

impl Rule {
    /// The labels of this rule's alert for a group; what the rule is called cannot be overridden.
    #[must_use]
    pub fn alert_labels(&self, group: &str) -> Value {
        let mut labels = self.labels.clone();
        if let Some(by) = self.condition.group() {
            labels.insert(by.label().to_owned(), group.to_owned());
        }
        labels.insert("rule".to_owned(), self.name.clone());
        labels.insert("severity".to_owned(), self.severity.clone());
        json!(labels)
    }
}

const SELECT: &str = "SELECT rule_id, name, condition::text, for_s, severity, labels::text, summary, enabled,
        ARRAY(SELECT receiver_id FROM alert_route WHERE alert_route.rule_id = alert_rule.rule_id ORDER BY 1),
        created_at, revision, evaluated_at, error
     FROM alert_rule";

/// Adds a rule.
pub async fn add(pool: &Pool, author: &Author, draft: &Draft) -> Result<Rule, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_rule_add").await?;
        let result = async {
            let count = lease.client().query_one("SELECT count(*) FROM alert_rule", &[]).await;
            let count: i64 = count.map_err(StoreError::from)?.get(0);
            if count >= MAX_RULES {
                return Err(AlertError::TooMany(count));
            }
            let (condition, labels) = (json!(draft.condition).to_string(), json!(draft.labels).to_string());
            let sql = "INSERT INTO alert_rule (name, condition, for_s, severity, labels, summary, enabled)
                       VALUES ($1, $2::text::json, $3, $4, $5::text::json, $6, $7) RETURNING rule_id";
            let row = lease
                .client()
                .query_one(
                    sql,
                    &[
                        &draft.name,
                        &condition,
                        &draft.for_s,
                        &draft.severity,
                        &labels,
                        &draft.summary,
                        &draft.enabled,
                    ],
                )
                .await
                .map_err(taken)?;
            let rule_id = row.get(0);
            route(&lease, rule_id, &draft.receivers).await?;
            let rule = one(&lease, rule_id).await?.ok_or(AlertError::Unknown)?;
            audit::record(&lease, author, &change("alert_rule.create", &rule, None, Some(shown(&rule))))
                .await?;
            Ok(rule)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Writes a rule anew. Its open alerts end if it watches for something else, or for nothing.
pub async fn update(
    pool: &Pool,
    author: &Author,
    rule_id: i32,
    edit: impl FnOnce(Rule) -> Draft,
) -> Result<Rule, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_rule_update").await?;
        let result = async {
            lock(&lease, rule_id).await?;
            let before = one(&lease, rule_id).await?.ok_or(AlertError::Unknown)?;
            let draft = edit(before.clone());
            if !draft.enabled || draft.condition != before.condition {
                states::close(&lease, rule_id).await?;
            }
            let (condition, labels) = (json!(draft.condition).to_string(), json!(draft.labels).to_string());
            let sql = "UPDATE alert_rule SET name = $2, condition = $3::text::json, for_s = $4, severity = $5,
                              labels = $6::text::json, summary = $7, enabled = $8, revision = revision + 1, error = NULL
                       WHERE rule_id = $1";
            lease
                .client()
                .execute(
                    sql,
                    &[
                        &rule_id,
                        &draft.name,
                        &condition,
                        &draft.for_s,
                        &draft.severity,
                        &labels,
                        &draft.summary,
                        &draft.enabled,
                    ],
                )
                .await
                .map_err(taken)?;
            let sql = "DELETE FROM alert_route WHERE rule_id = $1";
            lease.client().execute(sql, &[&rule_id]).await.map_err(StoreError::from)?;
            route(&lease, rule_id, &draft.receivers).await?;
            let rule = one(&lease, rule_id).await?.ok_or(AlertError::Unknown)?;
            let told = change("alert_rule.update", &rule, Some(shown(&before)), Some(shown(&rule)));
            audit::record(&lease, author, &told).await?;
            Ok(rule)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Deletes a rule; its open alerts end, and what it found stays in the history.
pub async fn remove(pool: &Pool, author: &Author, rule_id: i32) -> Result<Rule, AlertError> {
    within(pool, async {
        let lease = pool.begin(Class::Admin, Isolation::ReadCommitted, "alert_rule_remove").await?;
        let result = async {
            lock(&lease, rule_id).await?;
            let rule = one(&lease, rule_id).await?.ok_or(AlertError::Unknown)?;
            states::close(&lease, rule_id).await?;
            let sql = "DELETE FROM alert_rule WHERE rule_id = $1";
            lease.client().execute(sql, &[&rule_id]).await.map_err(StoreError::from)?;
            let told = change("alert_rule.remove", &rule, Some(shown(&rule)), None);
            audit::record(&lease, author, &told).await?;
            Ok(rule)
        }
        .await;
        lease.settle(result).await?
    })
    .await
}

/// Rules after `after`, in order of id.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Rule>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "alert_rule_list").await?;
        let sql = format!("{SELECT} WHERE rule_id > $1 ORDER BY rule_id LIMIT $2");
        let result = lease.client().query(&sql, &[&after, &limit]).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await?.iter().map(from_row).collect()
}

/// One rule.
pub async fn get(pool: &Pool, rule_id: i32) -> Result<Option<Rule>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "alert_rule_get").await?;
        let result = one(&lease, rule_id).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn lock(lease: &Lease<'_>, rule_id: i32) -> Result<(), StoreError> {
    let sql = "SELECT FROM alert_rule WHERE rule_id = $1 FOR UPDATE";
    lease.client().query_opt(sql, &[&rule_id]).await?;
    Ok(())
}

async fn one(lease: &Lease<'_>, rule_id: i32) -> Result<Option<Rule>, StoreError> {
    let row = lease.client().query_opt(&format!("{SELECT} WHERE rule_id = $1"), &[&rule_id]).await?;
    row.as_ref().map(from_row).transpose()
}

async fn route(lease: &Lease<'_>, rule_id: i32, receivers: &[i32]) -> Result<(), AlertError> {
    for receiver in receivers {
        // Held until the commit, so that it is not deleted meanwhile.
        let sql = "INSERT INTO alert_route (rule_id, receiver_id)
                   SELECT $1::integer, receiver_id FROM alert_receiver WHERE receiver_id = $2 FOR KEY SHARE";
        let added = lease.client().execute(sql, &[&rule_id, receiver]).await.map_err(StoreError::from)?;
        if added == 0 {
            return Err(AlertError::NoReceiver(*receiver));
        }
    }
    Ok(())
}

fn shown(rule: &Rule) -> Value {
    json!({
        "condition": rule.condition, "for_s": rule.for_s, "severity": rule.severity, "labels": rule.labels,
        "summary": rule.summary, "enabled": rule.enabled, "receivers": rule.receivers,
    })
}

fn change(action: &'static str, rule: &Rule, before: Option<Value>, after: Option<Value>) -> Change {
    Change {
        action,
        subject_kind: "alert_rule",
        subject_id: Some(rule.rule_id.to_string()),
        subject_name: Some(rule.name.clone()),
        before,
        after,
    }
}

fn from_row(row: &Row) -> Result<Rule, StoreError> {
    let condition = serde_json::from_str(row.get(2)).map_err(|error| {
        StoreError::Unavailable(format!("rule {} is of a newer version: {error}", row.get::<_, i32>(0)))
    })?;
    Ok(Rule {
        rule_id: row.get(0),
        name: row.get(1),
        condition,
        for_s: row.get(3),
        severity: row.get(4),
        labels: serde_json::from_str(row.get(5)).unwrap_or_default(),
        summary: row.get(6),
        enabled: row.get(7),
        receivers: row.get(8),
        created_at: row.get(9),
        revision: row.get(10),
        evaluated_at: row.get(11),
        error: row.get(12),
    })
}
