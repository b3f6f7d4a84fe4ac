//! Which rollups answer for a window: whole hours from the coarse table, the minutes at its ends from
//! the fine one.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use tokio_postgres::types::Type;

use super::filter::{Filter, Sql};
use crate::ingest::rollup::Dimension;

pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3_600;

/// A piece of a window and the table that answers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub table: &'static str,
    pub from: Timestamp,
    pub to: Timestamp,
}

/// Rounds down to a multiple of `seconds` since the Unix epoch.
#[must_use]
pub fn floor(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_second(time.as_second().div_euclid(seconds) * seconds).unwrap_or(time)
}

/// Rounds up.
#[must_use]
pub fn ceil(time: Timestamp, seconds: i64) -> Timestamp {
    let down = floor(time, seconds);
    if down == time { time } else { down.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time) }
}

/// The pieces of a window whose ends are whole minutes. Minutes before `minutes_since` were dropped: the
/// hour that holds them answers instead.
#[must_use]
pub fn pieces(from: Timestamp, to: Timestamp, minutes_since: Timestamp) -> Vec<Piece> {
    let fine = |from, to| Piece { table: "rollup_1m", from, to };
    let coarse = |from, to| Piece { table: "rollup_1h", from, to };
    let first_hour = if from < minutes_since { floor(from, HOUR) } else { ceil(from, HOUR) };
    let last_hour = floor(to, HOUR);
    if first_hour >= last_hour {
        return vec![fine(from, to)];
    }
    [fine(from, first_hour), coarse(first_hour, last_hour), fine(last_hour, to)]
        .into_iter()
        .filter(|piece| piece.from < piece.to)
        .collect()
}

/// `(SELECT … UNION ALL SELECT …)`: the rollup rows of one dimension in all pieces, as one relation.
pub(super) fn push_pieces(sql: &mut Sql, pieces: &[Piece], dimension: Dimension, filter: &Filter) {
    sql.push("(");
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            sql.push(" UNION ALL ");
        }
        let from = sql.bind(SystemTime::from(piece.from), Type::TIMESTAMPTZ);
        let to = sql.bind(SystemTime::from(piece.to), Type::TIMESTAMPTZ);
        let (table, dimension) = (piece.table, dimension as i16);
        let length = if table == "rollup_1h" { "1 hour" } else { "1 minute" };
        // `write!` to a String cannot fail.
        let _ = write!(
            sql.text,
            "SELECT bucket, sensor_id, src, dst, protocol, number, flows, packets, octets, reverse_packets, reverse_octets,
                    interval '{length}' AS length
             FROM {table} WHERE dimension = {dimension} AND bucket >= {from} AND bucket < {to}"
        );
        if let Some(sensor_id) = filter.sensor_id {
            let sensor_id = sql.bind(sensor_id, Type::INT4);
            let _ = write!(sql.text, " AND sensor_id = {sensor_id}");
        }
        if let Some(protocol) = filter.protocol {
            let protocol = sql.bind(i16::from(protocol), Type::INT2);
            let _ = write!(sql.text, " AND protocol = {protocol}");
        }
    }
    sql.push(")");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn whole_hours_are_coarse_and_the_ends_fine() {
        let (from, to) = (time("2026-01-01T10:20:00Z"), time("2026-01-01T14:05:00Z"));
        let cut = pieces(from, to, Timestamp::UNIX_EPOCH);
        let tables: Vec<_> = cut.iter().map(|piece| (piece.table, piece.from, piece.to)).collect();
        assert_eq!(
            tables,
            [
                ("rollup_1m", from, time("2026-01-01T11:00:00Z")),
                ("rollup_1h", time("2026-01-01T11:00:00Z"), time("2026-01-01T14:00:00Z")),
                ("rollup_1m", time("2026-01-01T14:00:00Z"), to),
            ]
        );
    }

    #[test]
    fn a_window_without_a_whole_hour_is_fine() {
        let (from, to) = (time("2026-01-01T10:20:00Z"), time("2026-01-01T11:05:00Z"));
        assert_eq!(pieces(from, to, Timestamp::UNIX_EPOCH), [Piece { table: "rollup_1m", from, to }]);
    }

    #[test]
    fn minutes_that_were_dropped_are_answered_by_their_hour() {
        let (from, to) = (time("2026-01-01T10:20:00Z"), time("2026-01-01T12:00:00Z"));
        let cut = pieces(from, to, time("2026-02-01T00:00:00Z"));
        assert_eq!(cut, [Piece { table: "rollup_1h", from: time("2026-01-01T10:00:00Z"), to }]);
    }
}
