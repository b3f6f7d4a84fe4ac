//! Merged epochs to the control plane: packed, queued, delivered until acknowledged.
//!
//! Called by the pipeline. A merged epoch becomes [`parts`] that fit the wire's limits; an [`Outbox`] takes
//! them and says when they are safe, so that the kernel's half may be zeroed; a [`Courier`] takes them out
//! of its other end and delivers them in order. What must stay true: a batch leaves the queue only when the
//! control plane has acknowledged it or refused it for good, a refusal is counted and logged, and a retry
//! is byte for byte the same batch.

mod answer;
mod backoff;
mod client;
mod courier;
mod outbox;
mod parts;

pub use answer::{Answer, Trouble};
pub use backoff::Backoff;
pub use client::{Client, ClientError};
pub use courier::{Courier, Status};
pub use outbox::{Acknowledged, Deliveries, MemoryDeliveries, MemoryOutbox, Outbox, OutboxClosed, memory};
pub use parts::{PackError, Packed, pack};
