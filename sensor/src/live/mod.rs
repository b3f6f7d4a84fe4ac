//! A running sensor shows what it counts to whoever watches, epoch by epoch, as it goes into the outbox.
//!
//! [`Shown`] stands before an [`Outbox`] and hands on what passes; [`socket`] carries it to `weir-sensor top`. What must
//! stay true: nobody who watches can hold an epoch back. A watcher that is slow misses epochs; counts are not its
//! business.

pub mod socket;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::broadcast;

use crate::ship::{Outbox, OutboxClosed, Packed};

/// Epochs that a watcher may be behind.
const BEHIND: usize = 16;

/// The parts of an epoch: protobuf, compressed, as they are shipped.
pub type Parts = Arc<[Bytes]>;

/// Where epochs are shown. Clones show in the same place.
#[derive(Clone, Debug)]
pub struct Live(broadcast::Sender<Parts>);

impl Default for Live {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

impl Live {
    /// Every epoch from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Parts> {
        self.0.subscribe()
    }

    fn show(&self, epoch: &[Packed]) {
        if self.0.receiver_count() > 0 {
            // Nobody may be left by now.
            let _ = self.0.send(epoch.iter().map(|part| part.body.clone()).collect());
        }
    }
}

/// An outbox, and who looks on.
pub struct Shown<O> {
    pub outbox: O,
    pub live: Live,
}

impl<O: Outbox> Outbox for Shown<O> {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        self.live.show(&epoch);
        self.outbox.put(epoch).await
    }

    fn standing(&self) -> Option<weir_wire::Spool> {
        self.outbox.standing()
    }
}
