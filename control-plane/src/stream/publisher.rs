//! Gives events their cursors as soon as they are committed.

use std::time::Duration;

use tokio::sync::watch;

use super::{LOOK_EVERY, Shared};
use crate::store::events;

/// Events of this while share a transaction, so that a busy ingest does not mean as many more.
const GATHER: Duration = Duration::from_millis(10);

/// Publishes until `stop` changes, and once more after it: what was committed until then is told.
pub(super) async fn run(shared: &Shared, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = shared.pending.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.changed() => {
                publish(shared).await;
                return;
            }
        }
        publish(shared).await;
        tokio::time::sleep(GATHER).await;
    }
}

async fn publish(shared: &Shared) {
    loop {
        match events::publish(&shared.pool).await {
            Ok(published) => {
                shared.metrics.stream.published.inc_by(published.events as u64);
                if !published.may_have_left_some() {
                    return;
                }
            }
            Err(error) => {
                // They wait where they are, and the next look finds them.
                tracing::warn!(%error, "give events their cursors; it is tried again");
                return;
            }
        }
    }
}
