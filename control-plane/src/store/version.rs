//! Whether what a window's flows add up to may have changed: a question that costs a fraction of adding up.
//!
//! Every batch with flows writes the rollups of its window in the transaction that stores them, so their
//! rows of the few protocols tell: a new row has a later transaction, a changed one too (Postgres writes it
//! anew), and a deleted one is missing from the count. Flows that retention drops leave the rollups as they
//! are, but take a partition with them.

use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::Type;

use super::filter::{Filter, Sql};
use super::resolution::{MINUTE, ceil, floor, pieces};
use super::{Class, Isolation, Pool, StoreError};
use crate::ingest::rollup::Dimension;

/// The same as long as the sums of this window are.
pub type Version = [u8; 32];

/// The version of a window's flows, of one sensor if the filter names one; `None` while a sensor is erased,
/// whose rows go from one table after the other.
pub async fn version(
    pool: &Pool,
    filter: &Filter,
    minutes_since: Timestamp,
) -> Result<Option<Version>, StoreError> {
    let mut sql = Sql::new(
        "SELECT (SELECT count(*) FROM sensor WHERE deleted_at IS NOT NULL),
                (SELECT count(*) FROM pg_inherits WHERE inhparent = 'flow'::regclass),
                count(*), coalesce(max(writer), 0), coalesce(sum(flows), 0)::text, coalesce(sum(octets), 0)::text
         FROM (",
    );
    let whole = pieces(floor(filter.from, MINUTE), ceil(filter.to, MINUTE), minutes_since);
    for (index, piece) in whole.iter().enumerate() {
        let union = if index > 0 { " UNION ALL " } else { "" };
        let from = sql.bind(SystemTime::from(piece.from), Type::TIMESTAMPTZ);
        let to = sql.bind(SystemTime::from(piece.to), Type::TIMESTAMPTZ);
        // `write!` to a String cannot fail.
        let _ = write!(
            sql.text,
            "{union}SELECT xmin::text::bigint AS writer, flows, octets + reverse_octets::numeric AS octets FROM {}
             WHERE dimension = {} AND bucket >= {from} AND bucket < {to}",
            piece.table,
            Dimension::Protocol as i16,
        );
        if let Some(sensor_id) = filter.sensor_id {
            let sensor_id = sql.bind(sensor_id, Type::INT4);
            let _ = write!(sql.text, " AND sensor_id = {sensor_id}");
        }
    }
    sql.push(") AS rows");
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "flows_version").await?;
        let result =
            lease.client().query_typed_one(&sql.text, &sql.parameters()).await.map_err(StoreError::from);
        lease.finish(result).await
    };
    let row = pool.within(Class::Query, work).await?;
    let erasing: i64 = row.get(0);
    let mut hash = Sha256::new();
    for at in 1..=3 {
        hash.update(row.get::<_, i64>(at).to_be_bytes());
    }
    for at in 4..=5 {
        hash.update(row.get::<_, String>(at).as_bytes());
        hash.update([0]);
    }
    Ok((erasing == 0).then(|| hash.finalize().into()))
}
