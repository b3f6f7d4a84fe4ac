//! What a rule finds now: the groups for which its condition holds, the worst first.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::types::Type;

use crate::alerts::{Condition, Group, Measure};
use crate::naming::Naming;
use crate::store::devices::Resolved;
use crate::store::filter::{Filter, Sql};
use crate::store::{Class, Isolation, Pool, StoreError};

/// Groups of one rule that are watched: alerts are for people.
pub const MAX_GROUPS: usize = 100;

/// A group for which the condition holds, and the figure that says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Breach {
    /// Empty where the rule has no groups.
    pub group: String,
    pub value: f64,
}

/// Which flows a condition looks at.
#[derive(Clone, Debug)]
pub struct Chosen {
    pub expression: Option<Resolved>,
    pub naming: Arc<Naming>,
}

/// The breaches of a condition at `now`, and whether there are more than are watched.
pub async fn breaches(
    pool: &Pool,
    condition: &Condition,
    chosen: Chosen,
    now: Timestamp,
    timeout: Duration,
) -> Result<(Vec<Breach>, bool), StoreError> {
    let sql = statement(condition, chosen, now);
    let limit_ms = timeout.as_millis() as u64;
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "alert_rule").await?;
        let result = async {
            let bound = format!("SET LOCAL statement_timeout = {limit_ms}");
            lease.client().batch_execute(&bound).await?;
            Ok(lease.client().query_typed(&sql.text, &sql.parameters()).await?)
        }
        .await;
        lease.finish(result).await
    };
    let rows = pool.within(Class::Query, work).await.map_err(|error| match error {
        StoreError::Timeout(_) => StoreError::Timeout(limit_ms),
        other => other,
    })?;
    let mut breaches: Vec<Breach> =
        rows.iter().map(|row| Breach { group: row.get(0), value: row.get(1) }).collect();
    let more = breaches.len() > MAX_GROUPS;
    breaches.truncate(MAX_GROUPS);
    Ok((breaches, more))
}

fn statement(condition: &Condition, chosen: Chosen, now: Timestamp) -> Sql {
    let mut sql = Sql::new("");
    let order = match condition {
        Condition::Threshold { measure, by, window_s, above, below, .. } => {
            let traffic = Traffic { measure: *measure, by: *by, window_s: *window_s, periods: 1 };
            traffic.push(&mut sql, chosen, now);
            let (operator, bound, order) = bound(*above, *below);
            let bound = sql.bind(bound, Type::FLOAT8);
            sql.push(&format!(" WHERE value {operator} {bound}"));
            order
        }
        Condition::Absence { window_s, .. } => {
            let traffic = Traffic { measure: Measure::Flows, by: None, window_s: *window_s, periods: 1 };
            traffic.push(&mut sql, chosen, now);
            sql.push(" WHERE value = 0");
            "DESC"
        }
        Condition::Change { measure, by, window_s, ratio_above, ratio_below, minimum, .. } => {
            let traffic = Traffic { measure: *measure, by: *by, window_s: *window_s, periods: 2 };
            traffic.push(&mut sql, chosen, now);
            let minimum = sql.bind(*minimum, Type::FLOAT8);
            let (operator, bound, order) = bound(*ratio_above, *ratio_below);
            let bound = sql.bind(bound, Type::FLOAT8);
            sql.push(&format!(" WHERE peak >= {minimum} AND value {operator} {bound}"));
            order
        }
        _ => {
            health(&mut sql, condition, now);
            "DESC"
        }
    };
    sql.push(&format!(" ORDER BY value {order}, label LIMIT {}", MAX_GROUPS + 1));
    sql
}

/// The test, and what is worst.
fn bound(above: Option<f64>, below: Option<f64>) -> (&'static str, f64, &'static str) {
    match (above, below) {
        (Some(above), _) => (">", above, "DESC"),
        (None, below) => ("<", below.unwrap_or(0.0), "ASC"),
    }
}

/// Traffic of the last windows by group, as a table `found` of `label`, `value` and, for two windows, `peak`.
struct Traffic {
    measure: Measure,
    by: Option<Group>,
    window_s: u32,
    /// 1, or 2 for the last one over the one before.
    periods: i64,
}

impl Traffic {
    fn push(&self, sql: &mut Sql, Chosen { expression, naming }: Chosen, now: Timestamp) {
        let window = SignedDuration::from_secs(i64::from(self.window_s));
        let middle = now.checked_sub(window).unwrap_or(Timestamp::UNIX_EPOCH);
        let from = if self.periods == 1 { middle } else { middle.checked_sub(window).unwrap_or(middle) };
        let figure = match self.measure {
            Measure::Packets => "sum(packets::numeric + reverse_packets)",
            Measure::Octets => "sum(octets::numeric + reverse_octets)",
            Measure::Flows => "count(*)",
        };
        let (key, label) = match self.by {
            None => ("''::text", "key"),
            Some(Group::Sensor) => {
                ("sensor_id", "(SELECT name FROM sensor WHERE sensor.sensor_id = sums.key)")
            }
            Some(Group::Src) => ("src", "host(key)"),
            Some(Group::Dst) => ("dst", "host(key)"),
            Some(Group::Service) => ("protocol * 65536 + dst_port", "(key / 65536) || '/' || (key % 65536)"),
            Some(Group::Protocol) => ("protocol", "key::text"),
        };
        let middle = sql.bind(SystemTime::from(middle), Type::TIMESTAMPTZ);
        let value = if self.periods == 1 { "current" } else { "current / greatest(previous, 1)" };
        sql.push(&format!(
            "SELECT label, value FROM (
                 SELECT coalesce({label}, 'gone') AS label, {value} AS value, greatest(current, previous) AS peak
                 FROM (
                     SELECT {key} AS key,
                            coalesce({figure} FILTER (WHERE window_start >= {middle}), 0)::double precision AS current,
                            coalesce({figure} FILTER (WHERE window_start < {middle}), 0)::double precision AS previous
                     FROM flow"
        ));
        sql.push_filter(&Filter {
            from,
            to: now,
            sensor_id: None,
            src: None,
            dst: None,
            address: None,
            port: None,
            src_port: None,
            dst_port: None,
            protocol: None,
            min_octets: None,
            expression,
            naming,
        });
        if self.by.is_some() {
            sql.push(" GROUP BY 1");
        }
        sql.push(") AS sums) AS found");
    }
}

/// What sensors say of themselves, and the ledger of them.
fn health(sql: &mut Sql, condition: &Condition, now: Timestamp) {
    let seconds = |sql: &mut Sql, seconds: u32| {
        let since = now.checked_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(now);
        sql.bind(SystemTime::from(since), Type::TIMESTAMPTZ)
    };
    let (value, test) = match condition {
        Condition::SensorOffline { after_s } => {
            let since = seconds(sql, *after_s);
            let at = sql.bind(SystemTime::from(now), Type::TIMESTAMPTZ);
            (
                format!("extract(epoch FROM {at} - coalesce(alive_at, last_seen_at, created_at))"),
                // As everybody is told: who was not listened for was not silent.
                format!("online IS NOT TRUE AND coalesce(alive_at, last_seen_at, created_at) < {since}"),
            )
        }
        Condition::LedgerLoss { window_s, above_packets } => {
            let since = seconds(sql, *window_s);
            let above = sql.bind(i64::try_from(*above_packets).unwrap_or(i64::MAX), Type::INT8);
            let lost = format!(
                "(SELECT coalesce(sum(dropped_packets), 0) FROM batch
                  WHERE batch.sensor_id = sensor.sensor_id AND window_start >= {since})
                 + (SELECT coalesce(sum(overflow), 0) FROM point_total
                    WHERE point_total.sensor_id = sensor.sensor_id AND window_start >= {since})"
            );
            (lost.clone(), format!("{lost} > {above}"))
        }
        Condition::Detections { detection, severity, at_least, window_s } => {
            let since = seconds(sql, *window_s);
            let severity = sql.bind(severity.number(), Type::INT2);
            let least = sql.bind(i64::try_from(*at_least).unwrap_or(i64::MAX), Type::INT8);
            let kind = match detection {
                Some(kind) => format!("AND kind = {}", sql.bind(kind.clone(), Type::TEXT)),
                None => String::new(),
            };
            let seen = format!(
                "(SELECT count(*) FROM detection
                  WHERE detection.sensor_id = sensor.sensor_id AND last_seen >= {since}
                        AND state <> 'dismissed' AND severity >= {severity} {kind})"
            );
            (seen.clone(), format!("{seen} >= {least}"))
        }
        Condition::Spool { oldest_above_s } => {
            let above = sql.bind(i64::from(*oldest_above_s) * 1_000, Type::INT8);
            (
                "spool_oldest_age_ms / 1000.0".to_owned(),
                format!("(spool_degraded OR spool_oldest_age_ms > {above})"),
            )
        }
        Condition::Clock { skew_above_ms } => {
            let above = sql.bind(i64::try_from(*skew_above_ms).unwrap_or(i64::MAX), Type::INT8);
            ("abs(clock_skew_ms::numeric)".to_owned(), format!("abs(clock_skew_ms::numeric) > {above}"))
        }
        Condition::Threshold { .. } | Condition::Absence { .. } | Condition::Change { .. } => {
            unreachable!("those look at flows")
        }
    };
    sql.push(&format!(
        "SELECT name AS label, ({value})::double precision AS value
         FROM sensor LEFT JOIN sensor_status USING (sensor_id) LEFT JOIN sensor_presence USING (sensor_id)
         WHERE revoked_at IS NULL AND deleted_at IS NULL AND {test}"
    ));
}
