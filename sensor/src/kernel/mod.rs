//! The kernel side: loads and attaches the programs, owns the tables, flips epochs.
//!
//! Called by the pipeline in `run` and by `pcap`. Nothing above this module knows a map or a slot: a
//! [`Drained`] is all that leaves.
mod drained;

pub use drained::{DrainFigures, Drained, FlowKey, FlowObservation, PointTotals, fragment};
