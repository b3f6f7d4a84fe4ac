//! Sums over equal steps of time, from the coarsest table that knows them.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::types::Type;

use super::filter::{Filter, Sql, sum};
use super::resolution::{HOUR, MINUTE, Piece, ceil, floor, push_pieces};
use super::top::Sums;
use super::{Class, Isolation, Pool, StoreError};
use crate::ingest::rollup::Dimension;

/// One step.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub start: Timestamp,
    pub sums: Sums,
}

/// Where the sums came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Flows,
    Minutes,
    Hours,
}

/// Every step that touches the window, in order; a step without traffic has sums of 0.
#[derive(Clone, Debug)]
pub struct Series {
    pub points: Vec<Point>,
    pub source: Source,
}

/// The coarsest source whose buckets make up the steps and that knows the filter's columns.
fn source(filter: &Filter, step_s: i64) -> Source {
    if !filter.only_by_sensor() {
        Source::Flows
    } else if step_s % HOUR == 0 {
        Source::Hours
    } else if step_s % MINUTE == 0 {
        Source::Minutes
    } else {
        Source::Flows
    }
}

/// The filter's flows in steps of `step_s` seconds. The caller bounds the number of steps.
pub async fn timeseries(pool: &Pool, filter: &Filter, step_s: i64) -> Result<Series, StoreError> {
    let source = source(filter, step_s);
    let (from, to) = (floor(filter.from, step_s), ceil(filter.to, step_s));
    let sums = ["packets", "octets", "reverse_packets", "reverse_octets"].map(sum).join(", ");
    let mut sql = Sql::default();
    let time = if source == Source::Flows { "window_start" } else { "bucket" };
    let flows = if source == Source::Flows { "count(*)".to_owned() } else { sum("flows") };
    let step = sql.bind(step_s as f64, Type::FLOAT8);
    let _ = write!(
        sql.text,
        "SELECT date_bin({step} * interval '1 second', {time}, timestamptz 'epoch'), {flows}, {sums} FROM "
    );
    let filter = Filter { from, to, ..filter.clone() };
    match source {
        Source::Flows => {
            sql.push("flow");
            sql.push_filter(&filter);
        }
        Source::Minutes | Source::Hours => {
            let table = if source == Source::Hours { "rollup_1h" } else { "rollup_1m" };
            push_pieces(&mut sql, &[Piece { table, from, to }], Dimension::Protocol, &filter);
            sql.push(" AS rows");
        }
    }
    sql.push(" GROUP BY 1 ORDER BY 1");

    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "flows_timeseries").await?;
        let result = lease.client().query_typed(&sql.text, &sql.parameters()).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let rows = pool.within(Class::Query, work).await?;
    let mut found = rows.iter().peekable();
    let mut points = Vec::new();
    let mut start = from;
    while start < to {
        let at = SystemTime::from(start);
        let sums = found.next_if(|row| row.get::<_, SystemTime>(0) == at).map(|row| Sums {
            flows: row.get(1),
            packets: row.get(2),
            octets: row.get(3),
            reverse_packets: row.get(4),
            reverse_octets: row.get(5),
        });
        points.push(Point { start, sums: sums.unwrap_or_default() });
        let Ok(next) = start.checked_add(SignedDuration::from_secs(step_s)) else { break };
        start = next;
    }
    Ok(Series { points, source })
}
