//! Capture files through the real kernel program: the unit test of the datapath, and a tool for users.
//!
//! Called by the `pcap` subcommand. Each file is a run of its own: fresh tables, no memory of the one
//! before. What must stay true: every frame of a file is either counted by exactly one verdict of the
//! ledger or is in `refused`, and a file that cannot be read to its end still yields what came before.

mod feed;
mod lists;
mod ndjson;
mod observed;
mod run;
mod table;
#[cfg(test)]
mod tests;
mod unidirectional;

pub use feed::{Feed, FeedError, KernelProgram, Link, Program};
pub use lists::ReplayLists;
pub use run::{Also, Options, Output, run};

/// The most bytes that `BPF_PROG_TEST_RUN` takes as one frame: 64 KiB of packet and an Ethernet header,
/// less one.
pub const MAX_FRAME: u32 = 65_549;
/// The least: an Ethernet header.
pub const MIN_FRAME: u32 = 14;
