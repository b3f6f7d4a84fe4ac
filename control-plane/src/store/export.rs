//! Flows as a stream: all that a filter chooses, in one snapshot, never more than a few pages in memory.

use tokio::sync::mpsc;

use super::filter::{Filter, Sql};
use super::flows::{COLUMNS, Flow, Names, find_devices};
use super::{Class, Isolation, Pool, StoreError};

/// Flows that are handed over at once.
const PAGE: usize = 1_000;
/// Pages that wait for whoever takes them; then Postgres waits, too.
const AHEAD: usize = 2;

/// At most `limit` flows of the filter, newest first, page by page; after an error nothing comes.
/// Whoever drops the receiver ends the question.
#[must_use]
pub fn export(pool: Pool, filter: Filter, limit: i64) -> mpsc::Receiver<Result<Vec<Flow>, StoreError>> {
    let (pages, taken) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        // The receiver may be gone while a page is awaited: then the transaction is dropped here, which
        // cancels its statement and closes its connection.
        let work = pool.within(Class::Export, stream(&pool, &filter, limit, &pages));
        tokio::select! {
            result = work => {
                if let Err(error) = result {
                    // Nobody takes it where nobody is left.
                    let _ = pages.send(Err(error)).await;
                }
            }
            () = pages.closed() => {}
        }
    });
    taken
}

async fn stream(
    pool: &Pool,
    filter: &Filter,
    limit: i64,
    pages: &mpsc::Sender<Result<Vec<Flow>, StoreError>>,
) -> Result<(), StoreError> {
    // A cursor, so that what a page refers to can be asked for in the same snapshot.
    let mut sql = Sql::new(&format!("DECLARE flows NO SCROLL CURSOR FOR SELECT {COLUMNS} FROM flow"));
    sql.push_filter(filter);
    let limit = sql.bind(limit, tokio_postgres::types::Type::INT8);
    sql.push(&format!(" ORDER BY window_start DESC, sensor_id DESC, flow_id DESC LIMIT {limit}"));
    let lease = pool.begin(Class::Export, Isolation::Snapshot, "flows_export").await?;
    let result = async {
        let names = Names::all(&lease, &filter.naming).await?;
        lease.client().query_typed(&sql.text, &sql.parameters()).await?;
        let fetch = format!("FETCH {PAGE} FROM flows");
        loop {
            let rows = lease.client().query_typed(&fetch, &[]).await?;
            let mut page: Vec<Flow> = rows.iter().map(|row| names.flow(row)).collect();
            find_devices(&lease, &mut page).await?;
            // The last page, and a first one where there are no flows, too: whoever waits learns that it worked.
            if pages.send(Ok(page)).await.is_err() || rows.len() < PAGE {
                break;
            }
        }
        Ok(())
    }
    .await;
    lease.finish(result).await
}
