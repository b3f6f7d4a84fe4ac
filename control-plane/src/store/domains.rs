//! Domains that responders were called by: their list and their search.

use std::time::SystemTime;

use tokio_postgres::types::Type;

use super::expression::like;
use super::filter::Sql;
use super::{Class, Isolation, Pool, StoreError};

/// A domain as the API shows it.
#[derive(Clone, Debug)]
pub struct Domain {
    pub domain_id: i32,
    pub name: String,
    pub first_seen_at: SystemTime,
    /// `YYYY-MM-DD`, UTC.
    pub last_seen_on: String,
}

/// At most `limit` domains with an id below `before`, the last that came to be known first. With `part`, those
/// that hold it; `*` in it stands for anything.
pub async fn list(
    pool: &Pool,
    part: Option<&str>,
    before: Option<i32>,
    limit: i64,
) -> Result<Vec<Domain>, StoreError> {
    let mut sql = Sql::new("SELECT domain_id, name, first_seen_at, last_used::text FROM domain WHERE TRUE");
    if let Some(part) = part {
        let pattern = sql.bind(like(&format!("*{}*", part.to_lowercase())), Type::TEXT);
        sql.push(&format!(" AND name LIKE {pattern}"));
    }
    if let Some(before) = before {
        let before = sql.bind(before, Type::INT4);
        sql.push(&format!(" AND domain_id < {before}"));
    }
    let limit = sql.bind(limit, Type::INT8);
    sql.push(&format!(" ORDER BY domain_id DESC LIMIT {limit}"));
    let work = async {
        let lease = pool.begin(Class::Query, Isolation::Snapshot, "domains_list").await?;
        let result = async {
            let rows = lease.client().query_typed(&sql.text, &sql.parameters()).await?;
            let domain = |row: &tokio_postgres::Row| Domain {
                domain_id: row.get(0),
                name: row.get(1),
                first_seen_at: row.get(2),
                last_seen_on: row.get(3),
            };
            Ok(rows.iter().map(domain).collect())
        }
        .await;
        lease.finish(result).await
    };
    pool.within(Class::Query, work).await
}
