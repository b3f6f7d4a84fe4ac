//! Erasures as they stand: progress while they go on, the receipt afterwards.

use std::time::SystemTime;

use tokio_postgres::Row;

use super::Kind;
use crate::store::{Class, Isolation, Lease, Pool, StoreError};

/// One erasure.
#[derive(Clone, Debug)]
pub struct Erasure {
    pub erasure_id: i32,
    pub kind: Kind,
    pub subject_id: i64,
    pub requested_by: String,
    pub requested_at: SystemTime,
    /// Nothing is left.
    pub done_at: Option<SystemTime>,
    /// In the order in which they are erased.
    pub places: Vec<Place>,
}

/// What went from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub name: String,
    /// What the confirmation said, where it was counted ahead.
    pub announced: Option<i64>,
    pub erased: i64,
    pub done: bool,
}

const COLUMNS: &str = "erasure_id, kind, subject_id, requested_by, requested_at, done_at";

/// One erasure; `None` if there is none of this number.
pub async fn get(pool: &Pool, erasure_id: i32) -> Result<Option<Erasure>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "erasure_get").await?;
        let result = read(&lease, erasure_id).await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

pub(super) async fn read(lease: &Lease<'_>, erasure_id: i32) -> Result<Option<Erasure>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM erasure WHERE erasure_id = $1");
    let row = lease.client().query_opt(&sql, &[&erasure_id]).await?;
    let Some(mut erasure) = row.as_ref().and_then(from_row) else { return Ok(None) };
    erasure.places = places(lease, &[erasure_id]).await?.into_iter().map(|(_, place)| place).collect();
    Ok(Some(erasure))
}

/// Erasures after `after` in order of their numbers, at most `limit`.
pub async fn list(pool: &Pool, after: i32, limit: i64) -> Result<Vec<Erasure>, StoreError> {
    let work = async {
        let lease = pool.begin(Class::Admin, Isolation::Snapshot, "erasure_list").await?;
        let result = async {
            let sql =
                format!("SELECT {COLUMNS} FROM erasure WHERE erasure_id > $1 ORDER BY erasure_id LIMIT $2");
            let rows = lease.client().query(&sql, &[&after, &limit]).await?;
            let mut found: Vec<Erasure> = rows.iter().filter_map(from_row).collect();
            let ids: Vec<i32> = found.iter().map(|erasure| erasure.erasure_id).collect();
            for (id, place) in places(&lease, &ids).await? {
                if let Some(erasure) = found.iter_mut().find(|erasure| erasure.erasure_id == id) {
                    erasure.places.push(place);
                }
            }
            Ok(found)
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Admin, work).await
}

async fn places(lease: &Lease<'_>, erasures: &[i32]) -> Result<Vec<(i32, Place)>, StoreError> {
    let sql = "SELECT erasure_id, place, announced, erased, done_at IS NOT NULL FROM erasure_place
               WHERE erasure_id = ANY ($1) ORDER BY erasure_id, position, place";
    let rows = lease.client().query(sql, &[&erasures]).await?;
    let place =
        |row: &Row| Place { name: row.get(1), announced: row.get(2), erased: row.get(3), done: row.get(4) };
    Ok(rows.iter().map(|row| (row.get(0), place(row))).collect())
}

/// `None` for a kind that only a newer version knows.
fn from_row(row: &Row) -> Option<Erasure> {
    Some(Erasure {
        erasure_id: row.get(0),
        kind: Kind::stored(row.get(1))?,
        subject_id: row.get(2),
        requested_by: row.get(3),
        requested_at: row.get(4),
        done_at: row.get(5),
        places: Vec::new(),
    })
}
