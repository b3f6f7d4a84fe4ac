//! The seam between draining and delivery: who holds a batch until it is acknowledged.
//!
//! The pipeline puts an epoch in and waits: when `put` returns, the epoch is safe and the kernel's half may
//! be zeroed. Here the queue is memory, so that safe means: it cannot be lost but with the process. A
//! durable queue implements the same two traits and returns when it has committed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::Notify;

use super::parts::Packed;
use crate::metrics::Metrics;

/// Nobody takes batches out any more.
#[derive(Debug, Error)]
#[error("the queue of batches is closed: delivery has stopped")]
pub struct OutboxClosed;

/// Where the pipeline puts its epochs.
pub trait Outbox: Send + 'static {
    /// Takes all parts of an epoch and returns once they are safe. Waits for room.
    fn put(&mut self, epoch: Vec<Packed>) -> impl Future<Output = Result<(), OutboxClosed>> + Send;
}

/// Where the courier takes them from, oldest first.
pub trait Deliveries: Send + 'static {
    /// The oldest batch, which stays in the queue until it is settled; `None` when there will be no more.
    fn next(&mut self) -> impl Future<Output = Option<Packed>> + Send;

    /// The oldest batch needs no more attempts: it leaves the queue.
    fn settle(&mut self);

    /// Batches and bytes that wait.
    fn waiting(&self) -> (usize, usize);
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

struct Shared {
    queue: Mutex<Queue>,
    /// Something was put in, or the intake was closed.
    arrived: Notify,
    /// Something was taken out, or delivery has stopped.
    left: Notify,
    capacity: usize,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Packed>,
    bytes: usize,
    /// The intake is gone: what is here is all.
    complete: bool,
    /// Delivery is gone: nothing will be taken out.
    abandoned: bool,
}

impl Shared {
    /// The lock is held for a few instructions and never across an `.await`; a panic cannot leave the
    /// counters apart from the queue, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, queue: &Queue) {
        self.metrics.queue_batches.set(queue.batches.len() as i64);
        self.metrics.queue_bytes.set(queue.bytes as i64);
    }
}

/// The intake of a queue in memory.
pub struct MemoryOutbox(Arc<Shared>);

/// The other end of a queue in memory.
pub struct MemoryDeliveries(Arc<Shared>);

/// A queue in memory that holds so many bytes of batches.
#[must_use]
pub fn memory(capacity: usize, metrics: Arc<Metrics>) -> (MemoryOutbox, MemoryDeliveries) {
    metrics.queue_capacity.set(capacity as i64);
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        arrived: Notify::new(),
        left: Notify::new(),
        capacity,
        metrics,
    });
    (MemoryOutbox(Arc::clone(&shared)), MemoryDeliveries(shared))
}

impl Outbox for MemoryOutbox {
    async fn put(&mut self, epoch: Vec<Packed>) -> Result<(), OutboxClosed> {
        let shared = &self.0;
        let bytes: usize = epoch.iter().map(|batch| batch.body.len()).sum();
        loop {
            {
                let mut queue = shared.lock();
                if queue.abandoned {
                    return Err(OutboxClosed);
                }
                // An epoch that is larger than the queue goes in alone rather than never.
                if queue.batches.is_empty() || queue.bytes + bytes <= shared.capacity {
                    queue.bytes += bytes;
                    queue.batches.extend(epoch);
                    shared.measure(&queue);
                    break;
                }
            }
            // One waiter on either side: a permit that was left before is kept.
            shared.left.notified().await;
        }
        shared.arrived.notify_one();
        Ok(())
    }
}

impl Drop for MemoryOutbox {
    fn drop(&mut self) {
        self.0.lock().complete = true;
        self.0.arrived.notify_one();
    }
}

impl Deliveries for MemoryDeliveries {
    async fn next(&mut self) -> Option<Packed> {
        loop {
            {
                let queue = self.0.lock();
                if let Some(batch) = queue.batches.front() {
                    return Some(batch.clone());
                }
                if queue.complete {
                    return None;
                }
            }
            self.0.arrived.notified().await;
        }
    }

    fn settle(&mut self) {
        let mut queue = self.0.lock();
        if let Some(batch) = queue.batches.pop_front() {
            queue.bytes -= batch.body.len();
        }
        self.0.measure(&queue);
        drop(queue);
        self.0.left.notify_one();
    }

    fn waiting(&self) -> (usize, usize) {
        let queue = self.0.lock();
        (queue.batches.len(), queue.bytes)
    }
}

impl Drop for MemoryDeliveries {
    fn drop(&mut self) {
        self.0.lock().abandoned = true;
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    fn batch(epoch: u64, bytes: usize) -> Packed {
        Packed {
            generation: Uuid::nil(),
            epoch,
            part: 0,
            records: 0,
            packets: 0,
            body: vec![0; bytes].into(),
        }
    }

    fn queue(capacity: usize) -> (MemoryOutbox, MemoryDeliveries) {
        memory(capacity, Arc::new(Metrics::new().expect("metrics")))
    }

    #[tokio::test]
    async fn a_batch_stays_until_it_is_settled() {
        let (mut outbox, mut deliveries) = queue(100);
        outbox.put(vec![batch(1, 10), batch(2, 10)]).await.expect("there is room");
        assert_eq!(deliveries.next().await.map(|batch| batch.epoch), Some(1));
        assert_eq!(deliveries.next().await.map(|batch| batch.epoch), Some(1));
        deliveries.settle();
        assert_eq!(deliveries.next().await.map(|batch| batch.epoch), Some(2));
        assert_eq!(deliveries.waiting(), (1, 10));
        drop(outbox);
        deliveries.settle();
        assert!(deliveries.next().await.is_none());
    }

    #[tokio::test]
    async fn a_full_queue_makes_the_pipeline_wait() {
        let (mut outbox, mut deliveries) = queue(100);
        outbox.put(vec![batch(1, 80)]).await.expect("there is room");
        let waiting = tokio::spawn(async move {
            outbox.put(vec![batch(2, 80)]).await.expect("delivery goes on");
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        deliveries.next().await.expect("the first");
        deliveries.settle();
        waiting.await.expect("it went in");
        assert_eq!(deliveries.next().await.map(|batch| batch.epoch), Some(2));
    }

    #[tokio::test]
    async fn an_epoch_larger_than_the_queue_goes_in_alone() {
        let (mut outbox, deliveries) = queue(10);
        outbox.put(vec![batch(1, 80)]).await.expect("the queue is empty");
        assert_eq!(deliveries.waiting(), (1, 80));
    }

    #[tokio::test]
    async fn without_delivery_nothing_is_called_safe() {
        let (mut outbox, deliveries) = queue(10);
        outbox.put(vec![batch(1, 10)]).await.expect("there is room");
        let waiting = tokio::spawn(async move { outbox.put(vec![batch(2, 10)]).await });
        drop(deliveries);
        assert!(waiting.await.expect("no panic").is_err());
    }
}
