//! The running sensor's stages: drain, merge, hand over. Each is a task that owns its state.
//!
//! `run` builds and supervises them. The drain task owns the kernel tables and decides when an epoch ends;
//! the merge task owns the connection table and the spool's intake. They are joined by a channel of one
//! epoch: what does not move on makes the stage before it wait, and at the head the kernel table absorbs.
//! Beside them the events task and the witness thread read what packets say; no count waits for these.
//! What must stay true: a half of the kernel tables is released only after its epoch is safe in the spool.

mod drain;
mod events;
mod merge;
mod onlooker;
mod proof;
mod recovery;
mod source;
#[cfg(test)]
mod tests;
mod witness;

pub use drain::{Drain, DrainError, Pace, Pulse, Steer};
pub use events::{CatchUp, EventsError, Reader};
pub use merge::{Merge, MergeError, Steps, Tuning};
pub use onlooker::Onlooker;
pub use proof::Proof;
pub use source::{Kernel, NoWakes, Past, PastError, Source, Stop, Wakes};
pub use witness::{Sighting, Witness, observe};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::kernel::Drained;

/// An epoch on its way from drain to merge.
pub struct Handover {
    /// Whose epoch it is.
    generation: Uuid,
    drained: Drained,
    /// Told when the epoch is safe.
    safe: oneshot::Sender<()>,
}

/// The channel between the two stages. One epoch: the next is not drained before this one is safe.
#[must_use]
pub fn channel() -> (mpsc::Sender<Handover>, mpsc::Receiver<Handover>) {
    mpsc::channel(1)
}
