//! The seam between draining and delivery: who makes an epoch safe.
//!
//! The pipeline puts an epoch in and waits: when `put` returns, the epoch is safe and the kernel's half may be
//! zeroed. The spool's [`crate::spool::Intake`] is one; a sensor that works alone has [`Acknowledged`].

use std::future::Future;
use std::sync::Arc;

use thiserror::Error;

use super::parts::Packed;
use crate::metrics::Metrics;

/// Nobody takes epochs any more.
#[derive(Debug, Error)]
#[error("the spool has ended: epochs cannot be made safe")]
pub struct OutboxClosed;

/// Where the pipeline puts its epochs.
pub trait Outbox: Send + 'static {
    /// Takes all parts of an epoch and returns once they are safe.
    fn put(&mut self, epoch: Vec<Packed>) -> impl Future<Output = Result<(), OutboxClosed>> + Send;

    /// How the spool stands, for the batches to tell.
    fn standing(&self) -> Option<weir_wire::Spool> {
        None
    }
}

/// A sensor without a control plane: every batch is acknowledged at once.
pub struct Acknowledged(pub Arc<Metrics>);

impl Outbox for Acknowledged {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        for batch in epoch {
            self.0.shipped_batches.inc();
            self.0.shipped_records.inc_by(batch.records);
            self.0.shipped_packets.inc_by(batch.packets);
            self.0.shipped_bytes.inc_by(batch.body.len() as u64);
        }
        Ok(())
    }
}
