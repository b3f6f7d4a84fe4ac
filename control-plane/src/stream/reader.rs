//! The one reader of an instance: from the database to the hub, in order.

use std::time::Duration;

use tokio::sync::watch;

use super::{End, LOOK_EVERY, Shared};
use crate::store::events::{self, Selection, Topic};

/// Events that are delivered at once: the hub's lock is held for that long.
const PAGE: i64 = 250;
/// Longest wait after a failed read.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
const BACKOFF: Duration = Duration::from_millis(100);

/// Reads until `stop` changes.
pub(super) async fn run(shared: &Shared, mut stop: watch::Receiver<bool>) {
    let mut backoff = BACKOFF;
    loop {
        tokio::select! {
            () = shared.published.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => return,
        }
        while let Err(error) = catch_up(shared).await {
            // Streams stay open and are told that nothing is known beyond their cursor.
            shared.metrics.stream.read_failures.inc();
            tracing::warn!(%error, "read events; it is tried again");
            tokio::select! {
                () = tokio::time::sleep(backoff) => backoff = (backoff * 2).min(BACKOFF_MAX),
                _ = stop.changed() => return,
            }
        }
        backoff = BACKOFF;
    }
}

async fn catch_up(shared: &Shared) -> Result<(), crate::store::StoreError> {
    loop {
        let position = shared.hub.position();
        let found = events::read(&shared.pool, &Selection::default(), position, i64::MAX, PAGE).await?;
        let extent = found.extent;
        if extent.pruned_to > position || extent.last < position {
            tracing::error!(
                position,
                pruned_to = extent.pruned_to,
                last = extent.last,
                "events went away that were not read yet; streams begin anew"
            );
            shared.hub.end_where(|_| Some(End::Pruned));
            shared.hub.deliver(Vec::new(), extent.last);
            return Ok(());
        }
        let Some(last) = found.events.last().map(|event| event.cursor) else { return Ok(()) };
        if found.events.iter().any(|event| event.topic == Topic::Audit) {
            // It may tell of a session, a token or a role that is over.
            shared.doubt.notify_one();
        }
        let whole = found.events.len() as i64 == PAGE;
        shared.hub.deliver(found.events, last);
        if !whole {
            return Ok(());
        }
    }
}
