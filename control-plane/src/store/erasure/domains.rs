//! Names of domains that only an erased sensor's or device's flows had.
//!
//! Instances remember names by number for a day, so a name may not go while a batch that has its number is under
//! way. First its day of use is set back and the dictionary gets a new edition: batches that were resolved with the
//! old one are stored or begin anew ([`crate::store::dictionary`]), and whoever uses the name from then on sets the
//! day again. Then every flow that is there is looked at. What nobody had and nobody used goes.

use super::Kind;
use super::places::Place;
use super::work::Task;
use crate::store::partitions::Parent;
use crate::store::{Lease, StoreError, dictionary};

/// Two days back, so that a clock around midnight does not matter; a retention is longer.
const MARK: &str = "UPDATE erasure_place SET marked = (now() AT TIME ZONE 'UTC')::date - 2
                    WHERE erasure_id = $1 AND place = $2 AND marked IS NULL";

/// What came to be known lately may be of a batch that was told to look again, and then had no use for it.
const UNUSED: &str = "INSERT INTO erasure_domain (erasure_id, domain_id)
                      SELECT $1::integer, domain_id FROM domain WHERE first_seen_at > now() - interval '1 hour'
                      ON CONFLICT DO NOTHING";

/// Begins the search, once.
pub(super) async fn mark(lease: &Lease<'_>, task: &Task, place: &Place) -> Result<(), StoreError> {
    let client = lease.client();
    if client.execute(MARK, &[&task.erasure_id, &place.name]).await? > 0 {
        dictionary::new_edition(lease).await?;
        if task.kind == Kind::Device {
            client.execute(UNUSED, &[&task.erasure_id]).await?;
        }
        let sql = "UPDATE domain SET last_used = least(last_used, (now() AT TIME ZONE 'UTC')::date - 2)
                   WHERE domain_id IN (SELECT domain_id FROM erasure_domain WHERE erasure_id = $1)";
        client.execute(sql, &[&task.erasure_id]).await?;
    }
    Ok(())
}

/// Takes names out of question that somebody's rows on these pages have.
pub(super) async fn found(
    lease: &Lease<'_>,
    task: &Task,
    place: &Place,
    table: &str,
    range: &str,
) -> Result<i64, StoreError> {
    let names = if table.starts_with(Parent::Flow.table()) {
        format!("SELECT domain_id FROM {table} WHERE {range} AND domain_id IS NOT NULL")
    } else {
        format!("SELECT number FROM {table} WHERE {range} AND dimension = 6")
    };
    // They are in use: their day is no earlier than it was.
    let sql = format!(
        "WITH known AS (
             DELETE FROM erasure_domain WHERE erasure_id = $1 AND domain_id IN ({names}) RETURNING domain_id
         )
         UPDATE domain SET last_used = greatest(last_used, marked + 2) FROM erasure_place
         WHERE domain_id IN (SELECT domain_id FROM known) AND erasure_id = $1 AND place = $2"
    );
    lease.client().execute(&sql, &[&task.erasure_id, &place.name]).await?;
    // Nothing is erased by looking.
    Ok(0)
}
