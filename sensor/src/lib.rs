//! The Weir sensor: counts every packet of a host in the kernel, joins the counts to connections, and ships
//! them.
//!
//! Data goes one way: `kernel` (tables, epochs) -> `flow` (connections) -> `spool` (what
//! waits, on disk) -> `ship` (delivery). The
//! `pipeline` drives it; `replay` drives the same stages from a capture file. Beside the counts, `observe` reads
//! what devices say of themselves, `device` keeps one record for each, and `enrich` gives flows their names.
#![deny(unsafe_code)]

pub mod capture;
pub mod cli;
pub mod config;
pub mod control;
pub mod detect;
pub mod device;
pub mod enrich;
pub mod flow;
pub mod health;
pub mod kernel;
pub mod live;
pub mod metrics;
pub mod observe;
pub mod pipeline;
pub mod replay;
pub mod run;
pub mod ship;
pub mod spool;
pub mod steering;
pub mod threat;
pub mod top;
