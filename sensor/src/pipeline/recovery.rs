//! What earlier sensors left in the kernel, before this one's first epoch.
//!
//! Tables that were replaced are drained to their end, under their own generation. A half that was drained and
//! not released is read again if its epoch is not in the spool, and yields the same batches under the same
//! keys; if it is, it is released only.

use std::time::Duration;

use tokio::time::sleep;

use super::drain::{Drain, DrainError, MAX_FAILURES};
use super::source::{Past, PastError, Source, Wakes};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

impl<S: Source, W: Wakes> Drain<S, W> {
    pub(super) async fn recover(&mut self) -> Result<(), DrainError> {
        for past in self.blocking(Source::predecessors).await? {
            let generation = past.generation();
            if let Err(error) = self.follow(past).await? {
                self.metrics.drain_failures.inc();
                tracing::error!(%generation, %error,
                    "tables of an earlier sensor cannot be drained; they stay for the next start");
            }
        }
        let generation = self.generation()?;
        let spooled = self.pace.spooled.get(&generation).copied();
        let mut attempts = 0;
        let drained = loop {
            match self.blocking(move |source| source.resume(spooled)).await? {
                Ok(drained) => break drained,
                Err(error) => {
                    attempts += 1;
                    self.metrics.drain_failures.inc();
                    tracing::error!(%error, attempts, "the half that was not released cannot be read");
                    if attempts >= MAX_FAILURES {
                        return Err(DrainError::Source { attempts, reason: error.to_string() });
                    }
                    sleep(PAUSE).await;
                }
            }
        };
        let Some(drained) = drained else { return Ok(()) };
        let epoch = drained.epoch;
        tracing::info!(epoch, "an epoch that was drained and not made safe is read again");
        self.metrics.drained(&drained);
        self.hand_over(generation, drained).await?;
        self.blocking(move |source| source.release(epoch))
            .await?
            .map_err(|error| DrainError::Release { epoch, reason: error.to_string() })
    }

    /// Drains tables of the past to their end.
    async fn follow(&mut self, mut past: Box<dyn Past>) -> Result<Result<(), PastError>, DrainError> {
        let generation = past.generation();
        let spooled = self.pace.spooled.get(&generation).copied();
        loop {
            let next = blocking(past, move |past| past.next(spooled)).await?;
            past = next.0;
            let drained = match next.1 {
                Ok(Some(drained)) => drained,
                Ok(None) => {
                    tracing::info!(%generation, "the tables of an earlier sensor are drained and go");
                    return Ok(past.discard());
                }
                Err(error) => return Ok(Err(error)),
            };
            let epoch = drained.epoch;
            tracing::info!(%generation, epoch, "an epoch of an earlier sensor is drained");
            self.metrics.drained(&drained);
            self.hand_over(generation, drained).await?;
            let released = blocking(past, move |past| past.release(epoch)).await?;
            past = released.0;
            if let Err(error) = released.1 {
                return Ok(Err(error));
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    mut past: Box<dyn Past>,
    call: impl FnOnce(&mut Box<dyn Past>) -> T + Send + 'static,
) -> Result<(Box<dyn Past>, T), DrainError> {
    tokio::task::spawn_blocking(move || {
        let result = call(&mut past);
        (past, result)
    })
    .await
    .map_err(|_| DrainError::Panicked)
}
