//! Batches to the control plane: packed, and delivered until acknowledged.
//!
//! Called by the pipeline. A merged epoch becomes [`parts`] that fit the wire's limits; an [`Outbox`], the
//! spool, takes them and says when they are safe, so that the kernel's half may be zeroed; a [`Courier`] asks
//! the spool for them again, new ones before old ones, and delivers. What must stay true: a batch leaves the
//! spool only when the control plane has acknowledged it or refused it for good, a refusal is kept, counted
//! and logged, and a retry is byte for byte the same batch.

mod answer;
mod backoff;
mod breaker;
mod client;
mod courier;
mod dictionary;
mod lanes;
mod outbox;
mod parts;

pub use answer::{Answer, Trouble};
pub use backoff::Backoff;
pub use breaker::{Breaker, BreakerState};
pub use client::Client;
pub use courier::{Courier, Pacing, Status};
pub use outbox::{Acknowledged, Outbox, OutboxClosed};
pub use parts::{PackError, Packed, pack};
