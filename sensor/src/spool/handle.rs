//! How others reach the spool: questions to its thread, each with its answer.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use super::error::StoreError;
use super::keeper::{Keeper, Request};
use super::{Epoch, Ledger, Listed, Offer, Range, Settings, Settlement, Standing};
use crate::metrics::Metrics;
use crate::ship::{Outbox, OutboxClosed, Packed};

/// A way to the spool's thread; a copy is another way to the same.
#[derive(Clone, Debug)]
pub struct Spool {
    requests: mpsc::Sender<Request>,
    standing: watch::Receiver<Standing>,
}

impl Spool {
    /// Opens the file and starts its thread; also the last drained epoch of every generation that the spool
    /// knows. A disk that cannot be written is no error: the spool begins degraded.
    pub fn open(settings: Settings, metrics: Arc<Metrics>) -> Result<(Self, HashMap<Uuid, u64>), StoreError> {
        let (published, standing) = watch::channel(Standing::default());
        let mut keeper = Keeper::open(settings, metrics, published)?;
        let drained = keeper.drained().into_iter().collect();
        let (requests, received) = mpsc::channel();
        std::thread::Builder::new()
            .name("weir-spool".to_owned())
            .spawn(move || keeper.run(&received))
            .map_err(StoreError::Disk)?;
        Ok((Self { requests, standing }, drained))
    }

    /// How it stands, as of the last change.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Is told of every change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// The end that the pipeline puts epochs into; when it is dropped, nothing more will come.
    #[must_use]
    pub fn intake(&self) -> Intake {
        Intake(self.clone())
    }

    /// The first batch of a number or more that waits.
    pub async fn first(&self, from: u64) -> Result<Option<Offer>, OutboxClosed> {
        self.ask(|answer| Request::First(from, answer)).await
    }

    /// What became of a batch.
    pub async fn settle(&self, number: u64, settlement: Settlement) -> Result<(), OutboxClosed> {
        self.ask(|done| Request::Settle(number, settlement, done)).await
    }

    /// At most so many batches, from a number on.
    pub async fn list(&self, from: u64, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.ask(|answer| Request::List { from, limit, answer }).await?
    }

    /// A batch's body, compressed.
    pub async fn body(&self, number: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(|answer| Request::Body(number, answer)).await?
    }

    pub async fn ledger(&self, range: Range) -> Result<Ledger, StoreError> {
        self.ask(|answer| Request::Ledger(range, answer)).await?
    }

    /// Sends batches of the quarantine again: these, or all; how many.
    pub async fn retry(&self, numbers: Option<Vec<u64>>) -> Result<u64, StoreError> {
        self.ask(|answer| Request::Retry(numbers, answer)).await?
    }

    /// Ends the thread and closes the file.
    pub async fn close(self) {
        // One that has ended has closed it.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, OutboxClosed> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(request(answer)).map_err(|_| OutboxClosed)?;
        answered.await.map_err(|_| OutboxClosed)
    }
}

impl From<OutboxClosed> for StoreError {
    fn from(closed: OutboxClosed) -> Self {
        Self::Disk(std::io::Error::other(closed))
    }
}

/// The pipeline's end.
#[derive(Debug)]
pub struct Intake(Spool);

impl Outbox for Intake {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        let Some(epoch) = Epoch::of(epoch) else { return Ok(()) };
        self.0.ask(|safe| Request::Put(Box::new(epoch), safe)).await
    }

    fn standing(&self) -> Option<weir_wire::Spool> {
        Some(self.0.standing().wire())
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        // A thread that has ended needs no word.
        let _ = self.0.requests.send(Request::Complete);
    }
}
