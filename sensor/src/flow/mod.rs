//! From what the kernel's slots hold to connections: both directions, all CPUs and all interfaces joined.
//!
//! Called by the pipeline once per drained epoch and by `replay` once per file. [`Merger`] is the one owner
//! of what is remembered from epoch to epoch.
//!
//! What must stay true, whatever comes in (K7): every observation is either in exactly one record or in the
//! crossing counters, so `sum(records) + crossing == sum(observations)` for packets and octets, and the
//! order of observations changes nothing.

mod counted;
mod merge;
mod record;
mod state;
mod tcp;
#[cfg(test)]
mod tests;
mod tuple;
pub mod words;

pub use merge::{Limits, Merger, PART_OBSERVATIONS};
pub use record::{Context, Merged, Name, Part, Record, Stack};
